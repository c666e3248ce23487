"""The server program of the bench, made to boot fast and to leave at once, so that what is measured
is its supervisor.

Run as `python -I -S server.py [dies]`: with nothing imported but built-in modules it takes
connections some 10 ms after its exec. It listens on the socket that SERVER_STARTER_PORT names or,
run alone, binds 127.0.0.1:BENCH_PORT. On TERM it answers what it has accepted and exits. With
`dies`, every generation but the first dies 1.5 s into its boot.

On stdout it tells what happened to it: `EVENT PID MOMENT`, the moment on CLOCK_MONOTONIC, which all
processes share.
"""

import _signal
import _socket
import posix
import select
import sys
import time

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
LAST_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"
BOOT_OF_ONE_THAT_DIES = 1.5
PATIENCE = 1.0


def tell(event, moment):
    posix.write(1, b"%s %d %.6f\n" % (event, posix.getpid(), moment))


def listen():
    given = posix.environ.get(b"SERVER_STARTER_PORT")
    if given:
        listener = _socket.socket(fileno=int(given.rpartition(b"=")[2]))
    else:
        listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(posix.environ[b"BENCH_PORT"])))
        listener.listen(_socket.SOMAXCONN)
    # Both generations wait for the same connection and one of them gets it. (Each of them sets
    # this, so it never changes under one.)
    listener.setblocking(False)
    # Inherited by the connections; sidecar sets it and start_server does not, and what is measured
    # here is another thing.
    listener.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    return listener


def serve(listener):
    woken, wake = posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)
    _signal.set_wakeup_fd(wake)
    _signal.signal(_signal.SIGTERM, lambda *_: None)
    door = listener.fileno()
    poll = select.epoll()
    poll.register(woken, select.EPOLLIN)
    # From here on it takes connections: whoever looks from outside may see it before this process
    # is given the time to tell.
    moment = time.monotonic()
    poll.register(door, select.EPOLLIN)
    # Connections that have been answered and may ask again, and those that have said nothing yet:
    # they are owed an answer.
    idle, owed = set(), set()
    leaving = False
    tell(b"listening", moment)
    while not leaving or owed:
        ready = poll.poll(PATIENCE if leaving else None)
        if leaving and not ready:
            break
        for fd, _ in ready:
            if fd == door:
                try:
                    connection, _ = listener._accept()
                except OSError:  # the other generation was faster
                    continue
                poll.register(connection, select.EPOLLIN)
                owed.add(connection)
            elif fd == woken:
                tell(b"term", time.monotonic())
                poll.unregister(woken)
                poll.unregister(door)
                leaving = True
                idle.clear()
            else:
                last = answer(fd)
                owed.discard(fd)
                if last or leaving:
                    idle.discard(fd)
                    posix.close(fd)
                else:
                    idle.add(fd)


def answer(fd):
    """Answer a request; whether it was the connection's last."""
    try:
        asked = posix.read(fd, 65536)
        if not asked:
            return True
        last = b"Connection: close" in asked
        posix.write(fd, LAST_ANSWER if last else ANSWER)
    except OSError:
        return True
    return last


def main(words):
    tell(b"main", time.monotonic())
    if "dies" in words and int(posix.environ.get(b"SERVER_STARTER_GENERATION", b"1")) > 1:
        time.sleep(BOOT_OF_ONE_THAT_DIES)
        tell(b"died", time.monotonic())
        posix._exit(1)
    serve(listen())
    posix._exit(0)


main(sys.argv[1:])
