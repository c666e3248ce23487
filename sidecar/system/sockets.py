"""Make and bind a listening socket, with an error text that says what is in the way."""

from __future__ import annotations

import errno
import os
import socket
import stat

from sidecar.base.errors import ListenError
from sidecar.settings.address import TCP, UNIX, Address
from sidecar.system.socket_address import ANY_V6, is_v6_only
from sidecar.system.unix_path import (
    make_private_link,
    private_link,
    remove_socket_paths,
    remove_stale_socket,
    socket_file_id,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Connections in the queue. The kernel lowers this to net.core.somaxconn; socket.SOMAXCONN is only
# what Python was compiled with.
MAX_BACKLOG = 65535

# Seconds that the kernel holds back a connection on which nothing was sent (TCP_DEFER_ACCEPT). It
# rounds up to its retransmission steps, here to 7 s.
DEFER_ACCEPT_S = 5

# The mode of a unix socket without mode=, as with Server::Starter.
DEFAULT_MODE = 0o777


def bind_inet(
    address: Address, bind_address: Any, backlog: int, like: socket.socket | None = None
) -> socket.socket:
    """A new TCP or UDP socket, bound to `bind_address` and (TCP) listening. Raises OSError.

    A socket at `[::]` takes IPv4 connections, too, unless the address says otherwise, or `like`, the
    socket that it replaces.
    """
    sock = socket.socket(
        socket.AF_INET6 if address.v6 else socket.AF_INET,
        socket.SOCK_STREAM if address.stream else socket.SOCK_DGRAM,
    )
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.v6:
            only = is_v6_only(like) if like else address.ipv6only or bind_address[0] != ANY_V6
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind(bind_address)
        if address.stream and not bind_address[1]:
            # The kernel has chosen a port. After a shutdown(), listen() would bring this socket
            # back on another port. So a second socket is bound to that port explicitly, while the
            # first one holds it.
            with sock:
                return bind_inet(address, sock.getsockname(), backlog)
        set_options(sock, address)
        if address.stream:
            sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def bind_unix(address: Address, backlog: int, owner: tuple[int, int]) -> socket.socket:
    """A new unix socket at the address's path, listening, with its private link. `owner` is its uid
    and gid, -1 for "leave it". A stale socket at the path is replaced.

    Raises ListenError if anything else is at the path or if the owner cannot be set; OSError.
    """
    path = address.path
    mode = DEFAULT_MODE if address.mode is None else address.mode
    remove_stale_socket(path)
    sock = socket.socket(socket.AF_UNIX)
    # The socket is never more open than the mode says: it is made with that mode, and it refuses
    # connections until listen().
    umask = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(umask)
    try:
        _set_owner_and_mode(address, owner, mode)
        set_options(sock, address)
        sock.listen(backlog)
    except OSError as error:
        made = socket_file_id(path)
        sock.close()
        remove_socket_paths(made, private_link(path), path)
        if address.owner and error.errno in (errno.EPERM, errno.EINVAL):
            may_not = f"uid {os.geteuid()} may not give the socket to {address.owner}"
            raise ListenError(
                [f"{may_not} ({os.strerror(error.errno)}); that needs root or CAP_CHOWN"]
            ) from None
        raise
    return sock


def _set_owner_and_mode(address: Address, owner: tuple[int, int], mode: int) -> None:
    """Give the socket file its private link, owner and mode. Raises ListenError, OSError."""
    file = _open_socket_file(address.path)
    try:
        # Before the owner changes: fs.protected_hardlinks would forbid a link to a file of
        # somebody else.
        make_private_link(address.path)
        if address.owner:
            os.chown(f"/proc/self/fd/{file}", *owner)
        if stat.S_IMODE(os.fstat(file).st_mode) != mode:
            os.chmod(f"/proc/self/fd/{file}", mode)
    finally:
        os.close(file)


def _open_socket_file(path: str) -> int:
    """A descriptor (O_PATH) of the socket file that has just been bound, for chown and chmod.

    By path they could hit something else: whoever may write to the directory may have put a link
    there meanwhile. Raises ListenError if that is so.
    """
    file = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(file)
    if stat.S_ISSOCK(found.st_mode) and found.st_nlink == 1:
        return file
    os.close(file)
    directory = os.path.dirname(path)
    raise ListenError(
        [
            f"somebody who may write to the directory {directory} put something else at the path just as the socket was made there"
        ]
    )


def set_options(sock: socket.socket, address: Address) -> None:
    """Set the options that connections and programs inherit with the socket. Raises OSError."""
    if address.kind == TCP:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if address.defer:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_ACCEPT_S)
    if address.nonblock:
        sock.setblocking(False)


def listen_problems(address: Address, error: ListenError | OSError) -> tuple[str, ...]:
    """Why the address cannot be listened on, in words for the person who can change it."""
    if isinstance(error, ListenError):
        return error.problems
    code = error.errno or 0
    known = _unix_problems(address) if address.kind == UNIX else _inet_problems(address)
    return (known.get(code, os.strerror(code)),)


def _unix_problems(address: Address) -> dict[int, str]:
    """What errno means for a unix socket."""
    directory = os.path.dirname(address.path)
    may_not = f"uid {os.geteuid()} may not make or remove a socket in the directory {directory}"
    return {
        errno.ENOENT: f"the directory {directory} does not exist",
        errno.ENOTDIR: f"{directory} is no directory",
        errno.EACCES: may_not,
        errno.EPERM: may_not,
        errno.EROFS: f"the directory {directory} is on a read-only file system; mount a writable one there, such as a tmpfs",
    }


def _inet_problems(address: Address) -> dict[int, str]:
    """What errno means for a TCP or UDP socket."""
    port = address.port
    known = {
        errno.EADDRINUSE: f"another process listens there; `ss -{'lt' if address.stream else 'lu'}np` shows which",
        errno.EADDRNOTAVAIL: f"no network interface here has the address {address.host}{', or IPv6 is off' if address.v6 else ''}",
        errno.EAFNOSUPPORT: f"this system has no IPv{6 if address.v6 else 4}",
    }
    first = _first_unprivileged_port()
    if port < first:
        sysctl = f"net.ipv4.ip_unprivileged_port_start={port}"
        known[errno.EACCES] = (
            f"port {port} is privileged, uid {os.geteuid()} may not bind it; that needs root, CAP_NET_BIND_SERVICE "
            f"or the sysctl {sysctl}; or take a port from {first} up"
        )
    return known


def _first_unprivileged_port() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1024
