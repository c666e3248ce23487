"""The sockets that sidecar was started with: systemd's protocol (sd_listen_fds(3))."""

from __future__ import annotations

import errno
import socket

from sidecar.base.errors import ListenError
from sidecar.settings.address import TCP, UDP, UNIX, Address
from sidecar.system.socket_address import ANY_V4, ANY_V6, is_v6_only

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# The first descriptor that systemd passes (SD_LISTEN_FDS_START).
_FIRST_FD = 3


def inherited(environ: Mapping[str, str], pid: int) -> list[tuple[socket.socket, str]]:
    """The sockets that were passed to process `pid`, each with its name, close-on-exec from now on.

    Empty if there are none, or if they are meant for another process. They keep their numbers until
    `Listeners.open` moves them. Raises ListenError naming every descriptor that sidecar cannot pass
    on: it passes on TCP, UDP and unix stream sockets.
    """
    count = environ.get("LISTEN_FDS", "")
    if not count or environ.get("LISTEN_PID") != str(pid):
        return []
    if not (count.isascii() and count.isdigit()):
        raise ListenError([f"LISTEN_FDS: {count!r} is no number of file descriptors"])
    names = iter(environ.get("LISTEN_FDNAMES", "").split(":"))
    found, problems = [], []
    for fd in range(_FIRST_FD, _FIRST_FD + int(count)):
        which = f"LISTEN_FDS: file descriptor {fd} of {count}"
        try:
            sock = socket.socket(fileno=fd)
            sock.set_inheritable(False)
            found.append((sock, next(names, "")))
            address_of(sock)
        except ListenError as error:
            problems += [f"{which}: {problem}" for problem in error.problems]
        except OSError as error:
            if error.errno == errno.EBADF:
                problems.append(f"{which} is not open")
                break
            problems.append(f"{which} is no socket")
    if problems:
        for sock, _ in found:
            sock.close()
        raise ListenError(problems)
    return found


def address_of(sock: socket.socket) -> Address:
    """The address that an inherited socket is bound to. Raises ListenError if it is of a kind that
    sidecar cannot pass on.
    """
    bound_to = sock.getsockname()
    if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM:
        path = bound_to
        if not isinstance(path, str) or not path.startswith("/") or set(path) & set(";="):
            raise ListenError(
                [
                    "a unix socket has to have a path, without ';' and '=': SERVER_STARTER_PORT could not carry it"
                ]
            )
        return Address(spec=path, kind=UNIX, text=path, path=path)
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type not in (
        socket.SOCK_STREAM,
        socket.SOCK_DGRAM,
    ):
        raise ListenError(["it is neither a TCP, a UDP nor a unix stream socket"])
    host, port = bound_to[:2]
    v6 = sock.family == socket.AF_INET6
    text = f"[{host}]:{port}" if v6 else str(port) if host == ANY_V4 else f"{host}:{port}"
    kind = TCP if sock.type == socket.SOCK_STREAM else UDP
    return Address(spec=text, kind=kind, text=text, host=host, port=port, v6=v6)


def is_for(sock: socket.socket, address: Address, bind_address: Any) -> bool:
    """Whether an inherited socket is the one that an address asks for. `bind_address` is what the
    address means for bind().
    """
    bound_to = sock.getsockname()
    if sock.type != (socket.SOCK_STREAM if address.stream else socket.SOCK_DGRAM):
        return False
    if bound_to == bind_address or sock.family != socket.AF_INET6:
        return bool(bound_to == bind_address)
    # systemd's ListenStream=8080 is [::]:8080 for both families, and so an answer to `8080`, too.
    any_v4 = bind_address[0] == ANY_V4
    return not is_v6_only(sock) and any_v4 and bound_to[:2] == (ANY_V6, bind_address[1])
