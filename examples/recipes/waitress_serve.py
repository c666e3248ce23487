"""Serves a WSGI application by waitress, leaving in two steps: waitress by itself dies of TERM at
once.

First it stops accepting, and goes on for a moment with what it has. Then it leaves, once no request
is in flight.
"""

import signal
import time

from waitress import wasyncore
from waitress.server import create_server

from examples.hello.app import app
from sidecar.worker import listeners

MOMENT = 0.2

leaving = False


def leave(*_: object) -> None:
    global leaving  # noqa: PLW0603
    leaving = True
    server.pull_trigger()


server = create_server(app, sockets=listeners(), threads=4)
signal.signal(signal.SIGTERM, leave)
while not leaving:
    wasyncore.loop(timeout=30, map=server._map, count=1, use_poll=True)

server.del_channel()  # it no longer accepts; the listener itself stays open for the others
end = time.monotonic() + MOMENT
while time.monotonic() < end or any(
    each.requests or each.total_outbufs_len for each in server.active_channels.values()
):
    wasyncore.loop(timeout=0.05, map=server._map, count=1, use_poll=True)
server.task_dispatcher.shutdown()
