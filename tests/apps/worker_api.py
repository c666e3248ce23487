"""A program that takes its sockets by sidecar.worker, and says what it was given: one JSON line a
connection.
"""

import json
import socket
import sys

from sidecar.worker import generation, listeners, ready, server_ports

sockets = listeners()
stream = next(sock for sock in sockets if sock.type == socket.SOCK_STREAM)
port = stream.getsockname()[1]
said = {
    "fds": [sock.fileno() for sock in sockets],
    "ports": server_ports(),
    "generation": generation(),
    "by_port": [sock.fileno() for sock in listeners(port=port)],
    "datagram": [sock.fileno() for sock in listeners(kind=socket.SOCK_DGRAM)],
    "nobody": listeners(path="/no/such/path"),
    "loaded": sorted(name for name in sys.modules if name.startswith("sidecar")),
    "told": ready("warm"),
}
while True:
    connection, _ = stream.accept()
    with connection:
        connection.recv(65536)
        body = json.dumps(said).encode()
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
