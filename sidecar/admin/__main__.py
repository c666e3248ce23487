"""The entry of the helper process: `python -I -m sidecar.admin [-|UID:GID:GROUP,… [NAME …]]`, started by
PID 1, which gives it

    0        a pipe that nobody writes to: its end is the end of sidecar, and ours
    1        a pipe to PID 1, for a line such as {"event": "notice", "text": "a sentence for the log"}
    3        the listening socket
    4, 5     connections to PID 1 as on the control socket (docs/control.md): one to ask, one to be told of events

The first word is the user to become once everything is imported, or "-": that user may not be able
to read this file. The others are names that requests may be for (hosts.py). If sidecar is killed,
so are we.

TERM: another version of this is to take our place. Who has come is answered still; who comes now
waits in the listener's queue.
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

from sidecar.admin.answers import Answers, event, page
from sidecar.admin.hosts import Hosts
from sidecar.admin.link import Link
from sidecar.admin.web import Web

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LISTENER, ASKING, TOLD = 3, 4, 5

_PR_SET_PDEATHSIG = 1
# So long (seconds) the last answers may take when we are to make room; then the alarm ends us.
FAREWELL = 3


def become(user: str) -> None:
    """Turn into the user, for good. What is read later otherwise is read before that."""
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


def remark(sentence: str) -> None:
    """Have a sentence put into sidecar's log."""
    os.write(1, json.dumps({"event": "notice", "text": sentence}).encode() + b"\n")


async def serve(names: Sequence[str]) -> int:
    """Answer until sidecar has gone; the exit status. `names` is what --admin-host says."""
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[int] = loop.create_future()

    def end(status: int) -> None:
        if not gone.done():
            gone.set_result(status)

    loop.add_reader(0, lambda: end(0) if not os.read(0, 4096) else None)
    # Without a connection nothing can be answered; with the next process there is a new one.
    link = Link(lambda: end(1), event)
    await link.open(socket.socket(fileno=ASKING), socket.socket(fileno=TOLD))
    listener = socket.socket(fileno=LISTENER)
    # No browser gets to a unix socket.
    hosts = None if listener.family == socket.AF_UNIX else Hosts([socket.gethostname()], names)
    web = Web(Answers(link, remark, hosts).answer)
    await web.open(listener)

    async def make_room() -> None:
        signal.alarm(FAREWELL)
        await web.leave()
        end(0)

    leaving: list[asyncio.Task[None]] = []
    loop.add_signal_handler(
        signal.SIGTERM, lambda: leaving.append(asyncio.create_task(make_room()))
    )
    return await gone


def main() -> int:
    """Answer until standard input ends; the exit status."""
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
    # What is still being written to somebody is of no use any more.
    os._exit(status)


if __name__ == "__main__":
    main()
