"""A program under start_server: notes what it was given in the file SEEN, one JSON line a life,
then waits for a signal.

A file BREAK makes it exit with 3 at once: as often as it says, once if it is empty, for ever if it
says so. A file DEAF makes it deaf to TERM.
"""

from __future__ import annotations

import json
import os
import signal
import socket

# struct tcp_info of a listening socket: how many connections may wait (linux/tcp.h, tcpi_sacked).
BACKLOG = slice(28, 32)


def listeners() -> tuple[list[tuple[str, str, str]], list[int]]:
    """(key, type, address) of each socket, and how many connections may wait at those of TCP."""
    found, backlogs = [], []
    for pair in filter(None, os.environ["SERVER_STARTER_PORT"].split(";")):
        key, _, fd = pair.partition("=")
        sock = socket.socket(fileno=os.dup(int(fd)))
        found.append((key, sock.type.name, str(sock.getsockname())))
        if sock.type == socket.SOCK_STREAM and sock.family != socket.AF_UNIX:
            backlogs.append(
                int.from_bytes(
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[BACKLOG], "little"
                )
            )
    return found, backlogs


def broken() -> bool:
    try:
        with open("BREAK") as file:
            times = file.read().strip()
    except FileNotFoundError:
        return False
    if times in ("", "1"):
        os.unlink("BREAK")
    elif times != "for ever":
        with open("BREAK", "w") as file:
            file.write(str(int(times) - 1))
    return True


NAMES = (
    "ENVDIR",
    "ENABLE_AUTO_RESTART",
    "AUTO_RESTART_INTERVAL",
    "KILL_OLD_DELAY",
    "FOO",
    "BAR",
    "EMPTY",
    "LINE",
    "DIRECTORY",
    ".HIDDEN",
    "SERVER_STARTER_GENERATION",
    "LISTEN_FDS",
)

if broken():
    os._exit(3)
if os.path.exists("DEAF"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
sockets, backlogs = listeners()
life = {
    "pid": os.getpid(),
    "listeners": sockets,
    "environ": {name: os.environ[name] for name in NAMES if name in os.environ},
}
with open("SEEN", "a") as file:
    file.write(json.dumps({**life, "backlogs": backlogs}) + "\n")
while True:
    signal.pause()
