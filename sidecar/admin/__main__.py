"""The entry of the helper process: `python -I -m sidecar.admin [-|UID:GID:GROUP,… [NAME …]]`, started by
PID 1, which gives it

    0        a pipe that nobody writes to: its end is the end of sidecar, and ours
    1        a pipe to PID 1, for a line such as {"event": "notice", "text": "a sentence for the log"}
    3        the listening socket
    4, 5     connections to PID 1 as on the control socket (docs/control.md): one for requests, one for events

The first word is the user to become once everything is imported, or "-": that user may not be able
to read this file. The others are names that requests may be for (allowed_hosts.py). If sidecar is killed,
so are we.

TERM: another version of this process is to take our place. Clients that have connected still get
their answers; new ones wait in the listener's queue.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import json
import os
import signal
import socket
import sys

from sidecar.admin.allowed_hosts import AllowedHosts
from sidecar.admin.control_client import ControlClient
from sidecar.admin.http_server import HttpServer
from sidecar.admin.paths import Paths, event, page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LISTENER_FD, REQUESTS_FD, EVENTS_FD = 3, 4, 5

_PR_SET_PDEATHSIG = 1
# The last answers may take so long after TERM; then the alarm ends the process.
LEAVE_TIMEOUT_S = 3


def become(user: str) -> None:
    """Become the user, for good. What that user may not be able to read is read before."""
    import concurrent.futures.thread  # noqa: F401, PLC0415

    page()
    try:
        import prometheus_client.openmetrics.exposition  # noqa: F401, PLC0415

        from sidecar.admin import metrics  # noqa: F401, PLC0415
    except ImportError:
        pass
    uid, gid, groups = user.split(":")
    os.setgroups([int(group) for group in groups.split(",") if group])
    os.setgid(int(gid))
    os.setuid(int(uid))


def notice(sentence: str) -> None:
    """Put a sentence into sidecar's log."""
    os.write(1, json.dumps({"event": "notice", "text": sentence}).encode() + b"\n")


async def serve(names: Sequence[str]) -> int:
    """Response until sidecar has gone; the exit status. `names` is what --admin-host says."""
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[int] = loop.create_future()

    def end(status: int) -> None:
        if not gone.done():
            gone.set_result(status)

    loop.add_reader(0, lambda: end(0) if not os.read(0, 4096) else None)
    # Without a connection nothing can be answered. The next process gets a new one.
    client = ControlClient(lambda: end(1), event)
    await client.open(socket.socket(fileno=REQUESTS_FD), socket.socket(fileno=EVENTS_FD))
    listener = socket.socket(fileno=LISTENER_FD)
    # No browser can reach a unix socket.
    hosts = (
        None if listener.family == socket.AF_UNIX else AllowedHosts([socket.gethostname()], names)
    )
    server = HttpServer(Paths(client, notice, hosts).answer)
    await server.open(listener)

    async def make_room() -> None:
        signal.alarm(LEAVE_TIMEOUT_S)
        await server.stop()
        end(0)

    leaving: list[asyncio.Task[None]] = []
    loop.add_signal_handler(
        signal.SIGTERM, lambda: leaving.append(asyncio.create_task(make_room()))
    )
    return await gone


def main() -> int:
    """Response until standard input ends; the exit status."""
    for number in (
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGHUP,
    ):  # a terminal sends them to everybody: sidecar says when it ends
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    faulthandler.register(signal.SIGALRM, chain=True)
    user, *names = sys.argv[1:] or ["-"]
    if user != "-":
        become(user)
    # A change of user forgets it.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    status = asyncio.run(serve(names))
    # Answers that are still being written are of no use any more.
    os._exit(status)


if __name__ == "__main__":
    main()
