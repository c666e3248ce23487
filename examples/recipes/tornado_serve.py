"""Serves Tornado, leaving in two steps: by itself it dies of TERM at once.

First it stops accepting and tells every client that it answers to open another connection. Then it
leaves, once no request is in flight.
"""

import asyncio
import os
import signal

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from sidecar.worker import listeners

in_flight = 0
leaving = asyncio.Event()


class Handler(RequestHandler):
    """What all handlers of the application inherit."""

    def prepare(self) -> None:
        global in_flight  # noqa: PLW0603
        in_flight += 1
        if leaving.is_set():
            self.set_header("Connection", "close")

    def on_finish(self) -> None:
        global in_flight  # noqa: PLW0603
        in_flight -= 1


class Hello(Handler):
    def get(self) -> None:
        self.write(f"hello from generation {os.environ.get('SERVER_STARTER_GENERATION', 'none')}\n")


class Slow(Hello):
    async def get(self) -> None:
        await asyncio.sleep(float(self.request.query or 1))
        super().get()


async def main() -> None:
    server = HTTPServer(
        Application([("/", Hello), ("/slow", Slow)], log_function=lambda handler: None)
    )
    socks = listeners()
    for sock in socks:
        sock.setblocking(False)
    server.add_sockets(socks)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)
    await leaving.wait()
    server.stop()
    await asyncio.sleep(0.5)
    while in_flight:
        await asyncio.sleep(0.05)


asyncio.run(main())
