"""A WSGI and an ASGI application whose import takes as long as the test wants, and ways to serve it
on a descriptor.

The import says that it has come so far (a file beside the gate) and then opens the gate, a FIFO:
that waits until the test opens its other end. Run as a program, `ready_app.py
granian|waitress|accept FD` serves where a server's own command line cannot.
"""

import os
import socket
import sys


def boot():
    gate = os.environ["READY_GATE"]
    os.close(os.open(f"{gate}.reached", os.O_WRONLY | os.O_CREAT, 0o666))
    os.close(os.open(gate, os.O_RDONLY))


def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


def granian(fd):
    """Granian has no way to be given a descriptor: this overrides what would bind (private; as of
    2.8).
    """
    from granian.net import SocketHolder
    from granian.server import Server

    class OnDescriptor(Server):
        def _init_shared_socket(self):
            self._ssp, self._sso, self._sfd, self._shd = (
                None,
                None,
                fd,
                SocketHolder(fd, False, 1024),
            )

    OnDescriptor("ready_app:asgi", interface="asgi").serve()


def waitress(fd):
    from ready_app import wsgi  # as a server imports it: at the gate
    from waitress.server import create_server

    create_server(wsgi, sockets=[socket.socket(fileno=fd)]).run()


def accept(fd):
    boot()
    listener = socket.socket(fileno=fd)
    while True:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        connection.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]))
else:
    boot()
