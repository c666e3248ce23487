"""For programs that run under sidecar (or start_server, or systemd): take the sockets, and tell when
they are ready.

    from sidecar.worker import listeners, ready

    for sock in listeners():
        ...                     # accept from it
    ready()                     # with --ready notify: this program takes connections now

Needs the standard library only; nothing else of sidecar is imported. The sockets are described by
two protocols, SERVER_STARTER_PORT (Server::Starter) and LISTEN_FDS (systemd, sd_listen_fds(3)).
Sidecar sets both, and either is enough. They may name a socket differently, so `listeners` chooses
by the socket itself: its port, path or type.
"""

from __future__ import annotations

import os
import socket

__all__ = ["generation", "listeners", "ready", "server_ports"]

# The sockets by file descriptor. They are kept here because a socket object that nobody keeps closes
# its descriptor.
_taken: dict[int, socket.socket] = {}


def server_ports() -> dict[str, int]:
    """The file descriptors by name, as Server::Starter's function `server_ports` returns them:
    {"8080": 3, "/run/app.sock": 4}.

    Empty if there are no listeners. Raises LookupError if the process was not started by sidecar or
    start_server.
    """
    text = os.environ.get("SERVER_STARTER_PORT")
    if text is None:
        raise LookupError(
            "SERVER_STARTER_PORT is not set: start this program with `sidecar run --port … --` or start_server"
        )
    pairs = (pair.rpartition("=") for pair in text.split(";") if pair)
    return {name: int(fd) for name, _, fd in pairs}


def listeners(
    *, port: int | None = None, path: str | None = None, kind: int | None = None
) -> list[socket.socket]:
    """The sockets that were passed to this process, in the order of their file descriptors. Every
    call returns the same objects.

    `port` selects those that are bound to that port, `path` the unix socket at that path, `kind`
    those of that type (socket.SOCK_STREAM or socket.SOCK_DGRAM). Empty if there are none. A socket
    that was closed is left out; so is a descriptor that is no socket, because the environment may be
    meant for another process.
    """
    fds: set[int] = set()
    if "SERVER_STARTER_PORT" in os.environ:
        fds.update(server_ports().values())
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        fds.update(range(3, 3 + int(os.environ.get("LISTEN_FDS") or 0)))
    found = []
    for fd in sorted(fds):
        try:
            if fd not in _taken:
                _taken[fd] = socket.socket(fileno=fd)
            sock = _taken[fd]
            where = sock.getsockname()
        except OSError:  # it is no socket, or it was closed meanwhile
            continue
        if port is not None and not (isinstance(where, tuple) and where[1] == port):
            continue
        if (path is None or where == path) and (kind is None or sock.type == kind):
            found.append(sock)
    return found


def ready(status: str = "") -> bool:
    """Tell that this process takes connections now, with an optional status text for people
    (sd_notify(3)).

    Returns whether it was sent. Without NOTIFY_SOCKET (any `--ready` other than notify) nothing is
    sent. Raises OSError if the socket cannot be reached.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    message = "READY=1" + (f"\nSTATUS={status}" if status else "")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
    return True


def generation() -> int:
    """The number of the generation that this process belongs to, from 1; 0 if it has none."""
    return int(os.environ.get("SERVER_STARTER_GENERATION") or 0)
