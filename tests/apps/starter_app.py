"""A program under start_server: notes what it was given in the file SEEN, one JSON line a life, then waits for a signal.

A file BREAK makes it exit with 3 at once, and is used up by that; a file DEAF makes it deaf to TERM.
"""

from __future__ import annotations

import json
import os
import signal
import socket


def listeners() -> list[tuple[str, str, str]]:
    found = []
    for pair in filter(None, os.environ["SERVER_STARTER_PORT"].split(";")):
        key, _, fd = pair.partition("=")
        sock = socket.socket(fileno=os.dup(int(fd)))
        found.append((key, sock.type.name, str(sock.getsockname())))
    return found


NAMES = (
    "ENVDIR",
    "ENABLE_AUTO_RESTART",
    "AUTO_RESTART_INTERVAL",
    "KILL_OLD_DELAY",
    "FOO",
    "BAR",
    "SERVER_STARTER_GENERATION",
    "LISTEN_FDS",
)

if os.path.exists("BREAK"):
    os.unlink("BREAK")
    os._exit(3)
if os.path.exists("DEAF"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
life = {"pid": os.getpid(), "listeners": listeners(), "environ": {name: os.environ[name] for name in NAMES if name in os.environ}}
with open("SEEN", "a") as file:
    file.write(json.dumps(life) + "\n")
while True:
    signal.pause()
