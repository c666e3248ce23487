"""The admin: a helper process that answers HTTP for sidecar, read-only (docs/admin.md).

    python -I -m sidecar.admin [-|UID:GID:GROUP,… [NAME …]]   __main__.py has what it finds where

PID 1 imports nothing of this package and parses nothing that comes from a network. It binds the
socket and keeps it, so that a connection that comes while this process is being started again waits
and is answered. It keeps every count too: nothing is lost here.

**It can do no harm.** Its connections to PID 1 answer `status`, `health` and `events` and do
nothing else; it becomes the workers' user where there is one, and its environment holds nothing of
theirs. What it is told holds no secret (core/history.py).

**One thread, bounded clients.** asyncio, so that a hundred slow, silent or curious clients cost a
few kilobytes each and no thread. A request is read within a deadline and a size, by hand: of HTTP
only "GET or HEAD of a path" is understood, one request a connection. The road not taken,
http.server: it bounds each line and each wait but not the whole, so a client that says a byte now
and then holds a thread.

    link.py      the connections to PID 1: questions (asked once for all who ask at that moment), and events
    web.py       HTTP: one bounded request, one bounded answer, or a stream of events
    answers.py   what each path answers
    hosts.py     which names a request may be for
    metrics.py   `status` as Prometheus has it
    page.html    the page, whole: no other file, no other host
"""
