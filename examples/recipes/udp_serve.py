"""Answers every datagram; several of these share one UDP port, and each datagram goes to one of
them.

Asked to leave, it first finishes what it has read. What it has not read stays in the socket, for
the others and for the next generation.
"""

import os
import select
import signal
import socket

from sidecar.worker import listeners, ready

(sock,) = listeners(kind=socket.SOCK_DGRAM)
sock.setblocking(False)  # another worker may have been faster
generation = os.environ.get("SERVER_STARTER_GENERATION", "none")

wake, woken = socket.socketpair()
woken.setblocking(False)
signal.set_wakeup_fd(woken.fileno())
signal.signal(signal.SIGTERM, lambda *_: None)

poll = select.poll()
poll.register(sock, select.POLLIN)
poll.register(wake, select.POLLIN)
ready()
while wake.fileno() not in (events := dict(poll.poll())):
    if sock.fileno() in events:
        try:
            message, sender = sock.recvfrom(65536)
        except BlockingIOError:
            continue
        sock.sendto(b"generation %s: %s" % (generation.encode(), message), sender)
