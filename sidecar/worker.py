"""For programs that run under sidecar (or start_server, or systemd): take the sockets, say when
ready.

    from sidecar.worker import listeners, ready

    for sock in listeners():
        ...                     # accept from it
    ready()                     # under --ready notify: connections are taken from now on

Standard library only, and nothing else of sidecar is loaded. The sockets come in two protocols,
SERVER_STARTER_PORT (Server::Starter) and LISTEN_FDS (systemd, sd_listen_fds(3)); sidecar speaks
both, and either will do. They say the same of a socket but for its name, so what counts here is the
socket itself: each is given once, and is chosen by its own port, path or type.
"""

from __future__ import annotations

import os
import socket

__all__ = ["generation", "listeners", "ready", "server_ports"]

# Kept here, so that a list that nobody keeps does not close the process's only listener; by file
# descriptor.
_taken: dict[int, socket.socket] = {}


def server_ports() -> dict[str, int]:
    """The file descriptors by name, as Server::Starter's function of that name has them: {"8080":
    3, "/run/app.sock": 4}.

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
    """The sockets that were passed to this process, in the order of their file descriptors; the
    same objects at every call.

    `port` takes only those bound to that port, `path` only the unix socket at that path, `kind`
    only socket.SOCK_STREAM or socket.SOCK_DGRAM. Empty if there are none. One that was closed is
    not given again; a descriptor that is no socket is left alone, for the environment may be
    somebody else's.
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
        except OSError:  # no socket, or closed meanwhile
            continue
        if port is not None and not (isinstance(where, tuple) and where[1] == port):
            continue
        if (path is None or where == path) and (kind is None or sock.type == kind):
            found.append(sock)
    return found


def ready(status: str = "") -> bool:
    """Say that this process takes connections now, with a status text for people if you like
    (sd_notify(3)).

    Whether anybody wanted to know: without NOTIFY_SOCKET (any other `--ready` than notify) it does
    nothing. Raises OSError if the socket cannot be reached.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    message = "READY=1" + (f"\nSTATUS={status}" if status else "")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
    return True


def generation() -> int:
    """The number of the generation that this process belongs to, from 1; 0 if nobody counts."""
    return int(os.environ.get("SERVER_STARTER_GENERATION") or 0)
