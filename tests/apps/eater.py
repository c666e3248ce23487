"""Takes connections, and eats so many bytes of memory for each request `/eat?N`; `/` says who it
is. EATEN: so many at the start.
"""

import os
import socket
import sys

KEPT = [bytes(1), bytearray(os.urandom(1) * int(os.environ.get("EATEN", "0")))]
fd = int(os.environ["SERVER_STARTER_PORT"].partition(";")[0].rpartition("=")[2])
sock = socket.socket(fileno=fd)
if os.environ.get("FORKED") and (child := os.fork()):
    # What is kept is the children's too, and counted once.
    import signal

    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    os.waitpid(child, 0)
    sys.exit(0)
while True:
    connection, _ = sock.accept()
    with connection:
        path = connection.recv(4096).split()[1].decode()
        if path.startswith("/eat"):
            KEPT.append(bytearray(os.urandom(1) * int(path.partition("?")[2])))
        body = f"{os.getpid()}\n"
        connection.sendall(
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
