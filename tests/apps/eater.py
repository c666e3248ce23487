"""Takes connections, and eats so many bytes of memory for each request `/eat?N`; `/` says who it
is. On TERM it finishes the request that it has begun. EATEN: so many bytes at the start.
"""

import os
import select
import signal
import socket
import sys

KEPT = [bytes(1), bytearray(os.urandom(1) * int(os.environ.get("EATEN", "0")))]
fd = int(os.environ["SERVER_STARTER_PORT"].partition(";")[0].rpartition("=")[2])
sock = socket.socket(fileno=fd)
if os.environ.get("FORKED") and (child := os.fork()):
    # What is kept is the children's too, and counted once.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    os.waitpid(child, 0)
    sys.exit(0)

# A signal ends the wait for connections, and nothing else.
asked, wakeup = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(wakeup)
signal.signal(signal.SIGTERM, lambda *_: None)
sock.setblocking(False)
wait = select.poll()
wait.register(sock, select.POLLIN)
wait.register(asked, select.POLLIN)
while not any(ready == asked for ready, _ in wait.poll()):
    try:
        connection, _ = sock.accept()
    except BlockingIOError:
        continue  # another worker has taken it
    with connection:
        connection.setblocking(True)
        path = connection.recv(4096).split()[1].decode()
        if path.startswith("/eat"):
            KEPT.append(bytearray(os.urandom(1) * int(path.partition("?")[2])))
        body = f"{os.getpid()}\n"
        connection.sendall(
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
