"""A server of plain sockets, a thread a connection: it answers every line with that line.

    sidecar dev --port 8080 -- python3 serve.py

`sidecar.worker` finds the sockets and says when they are listened to. On TERM it accepts no more,
finishes the lines that have come, and leaves.
"""

import os
import select
import signal
import socket
import threading

from sidecar.worker import generation, listeners, ready

GREETING = os.environ.get("GREETING", "hello")

# A byte in it is the wish to leave: whoever waits for something waits for this, too.
leaving, leave = socket.socketpair()


def serve(connection: socket.socket) -> None:
    """Answer line by line until either side has had enough."""
    with (
        connection,
        connection.makefile("rw", encoding="utf-8", errors="replace", newline="\n") as lines,
    ):
        while leaving not in select.select([connection, leaving], [], [])[0]:
            line = lines.readline()
            if not line:
                return
            lines.write(f"{GREETING} from generation {generation()}: {line}")
            lines.flush()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: leave.send(b"x"))
    doors = listeners(kind=socket.SOCK_STREAM)
    for door in doors:
        # Another generation may take the connection that woke this one.
        door.setblocking(False)
    ready()
    talks = []
    while leaving not in (open_ := select.select([*doors, leaving], [], [])[0]):
        for door in open_:
            try:
                connection, _ = door.accept()
            except BlockingIOError:
                continue
            connection.setblocking(True)
            talks.append(threading.Thread(target=serve, args=(connection,)))
            talks[-1].start()
        talks = [talk for talk in talks if talk.is_alive()]
    for talk in talks:
        talk.join()


if __name__ == "__main__":
    main()
