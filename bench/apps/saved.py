"""What is saved in the bench of the dev loop, as ASGI and as WSGI; VERSION stands where each save
puts another number.

Run as a program it serves itself on the socket that SERVER_STARTER_PORT names, with nothing
imported that is not needed for that.
"""

VERSION = b"0"


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    headers = [(b"content-length", b"%d" % len(VERSION)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": VERSION})


def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", str(len(VERSION)))])
    return [VERSION]


def serve():
    import os  # noqa: PLC0415  (the servers that import this file need none of it)
    import select  # noqa: PLC0415
    import signal  # noqa: PLC0415
    import socket  # noqa: PLC0415

    listener = socket.socket(fileno=int(os.environ["SERVER_STARTER_PORT"].rpartition("=")[2]))
    listener.setblocking(False)
    woken, wake = socket.socketpair()
    signal.signal(signal.SIGTERM, lambda *_: wake.send(b"x"))
    poll = select.epoll()
    poll.register(woken, select.EPOLLIN)
    poll.register(listener, select.EPOLLIN)
    while woken.fileno() not in (ready := dict(poll.poll())):
        if listener.fileno() not in ready:
            continue
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue
        with connection:
            connection.settimeout(2)
            try:
                connection.recv(4096)
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
                    % len(VERSION)
                    + VERSION
                )
            except OSError:
                pass


if __name__ == "__main__":
    serve()
