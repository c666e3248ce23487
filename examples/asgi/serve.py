"""Serves examples/asgi/app.py by uvicorn, without losing a connection to a swap.

    sidecar run --port 8080,defer -- python -m examples.asgi.serve

When it is asked to leave, uvicorn closes every connection that has no request yet, also those that
it accepted a moment ago and whose request is waiting to be read: their clients get a reset. Here it
first stops accepting, and reads what has come, before it does that. With `defer` a connection comes
only once its request is there, so a short moment is enough.
"""

import asyncio
import socket

import uvicorn


class Server(uvicorn.Server):
    """uvicorn's own, leaving in two steps."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await asyncio.sleep(0.1)
        await super().shutdown(sockets)


if __name__ == "__main__":
    Server(
        uvicorn.Config("examples.asgi.app:app", fd=3, log_level="warning", access_log=False)
    ).run()
