"""The admin: a helper process that answers HTTP for sidecar, read-only (docs/admin.md).

    python -I -m sidecar.admin [-|UID:GID:GROUP,… [NAME …]]   __main__.py has what it finds where

PID 1 imports nothing of this package and parses nothing that comes from a network. It binds the
socket and keeps it, so that a connection that comes while this process is being started again waits
and is answered. It keeps every count too: nothing is lost here.

**It can do no harm.** Its connections to PID 1 answer `status`, `health` and `events` and do
nothing else; it becomes the workers' user where there is one, and its environment holds nothing of
theirs. What PID 1 tells it holds no secret (core/history.py).

**One thread, bounded clients.** asyncio, so that a hundred slow, silent or curious clients cost a
few kilobytes each and no thread. A request is read within a deadline and a size, by hand: of HTTP
only "GET or HEAD of a path" is understood, one request a connection. http.server is
not used, since it bounds each line and each wait but not the whole: a client that sends a byte now
and then would hold a thread.

    http_server.py      HTTP: one bounded request, one bounded answer, or a stream of events
    paths.py            what each path answers
    allowed_hosts.py    which names a request may be for
    control_client.py   the connections to PID 1: requests, sent once for all who wait, and events
    metrics.py          `status` in the format of Prometheus
    page.html           the whole page, which needs no other file and no other host
"""
