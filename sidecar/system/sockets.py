"""Listening sockets: made and bound, or taken over from systemd, with an error that says what is in
the way.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

from sidecar.base.errors import ListenError
from sidecar.settings.address import TCP, UDP, UNIX, Address
from sidecar.system.safe_open import unlink_same
from sidecar.system.users import group_id, user_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    # Where to bind to, and whom a unix socket is given to; or nothing, and why that is not known.
    LookedUp = tuple[tuple[Any, tuple[int, int]] | None, Sequence[str]]

# As many as the kernel allows: it lowers this to net.core.somaxconn, while socket.SOMAXCONN is only
# what was compiled in.
LONGEST_BACKLOG = 65535

# Seconds for which the kernel keeps a connection that has said nothing (it rounds up to its
# retransmit steps, here 7).
DEFER_SECONDS = 5

# What a unix socket without mode= gets, as from Server::Starter.
DEFAULT_MODE = 0o777

ANY_V4, ANY_V6 = "0.0.0.0", "::"  # noqa: S104 - what a bare port means, and what [::] does


def inherited(environ: Mapping[str, str], pid: int) -> list[tuple[socket.socket, str]]:
    """The sockets that systemd passed to this process (sd_listen_fds(3)), with their names;
    close-on-exec from now on.

    None if they are meant for another process. They keep their numbers until `Listeners.open` moves
    them. Raises ListenError naming every descriptor that is not what sidecar can pass on: a TCP,
    UDP or unix stream socket.
    """
    count = environ.get("LISTEN_FDS", "")
    if not count or environ.get("LISTEN_PID") != str(pid):
        return []
    if not (count.isascii() and count.isdigit()):
        raise ListenError([f"LISTEN_FDS: {count!r} is no number of file descriptors"])
    names = iter(environ.get("LISTEN_FDNAMES", "").split(":"))
    found, problems = [], []
    for fd in range(3, 3 + int(count)):
        try:
            sock = socket.socket(fileno=fd)
            sock.set_inheritable(False)
            found.append((sock, next(names, "")))
            described(sock)
        except ListenError as error:
            problems += [
                f"LISTEN_FDS: file descriptor {fd} of {count}: {problem}"
                for problem in error.problems
            ]
        except OSError as error:
            problems.append(
                f"LISTEN_FDS: file descriptor {fd} of {count} is {'not open' if error.errno == errno.EBADF else 'no socket'}"
            )
            if error.errno == errno.EBADF:
                break
    if problems:
        for sock, _ in found:
            sock.close()
        raise ListenError(problems)
    return found


def described(sock: socket.socket) -> Address:
    """The address that an inherited socket is bound to. Raises ListenError if it is of a kind
    sidecar cannot pass on.
    """
    where = sock.getsockname()
    if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM:
        if not isinstance(where, str) or not where.startswith("/") or set(where) & set(";="):
            raise ListenError(
                [
                    "a unix socket has to have a path, without ';' and '=': SERVER_STARTER_PORT could not carry it"
                ]
            )
        return Address(spec=where, kind=UNIX, text=where, path=where)
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type not in (
        socket.SOCK_STREAM,
        socket.SOCK_DGRAM,
    ):
        raise ListenError(["it is neither a TCP, a UDP nor a unix stream socket"])
    host, port = where[:2]
    v6 = sock.family == socket.AF_INET6
    text = f"[{host}]:{port}" if v6 else str(port) if host == ANY_V4 else f"{host}:{port}"
    return Address(
        spec=text,
        kind=TCP if sock.type == socket.SOCK_STREAM else UDP,
        text=text,
        host=host,
        port=port,
        v6=v6,
    )


def is_for(sock: socket.socket, address: Address, where: Any) -> bool:
    """Whether an inherited socket is what an address asks for."""
    there = sock.getsockname()
    if sock.type != (socket.SOCK_STREAM if address.stream else socket.SOCK_DGRAM):
        return False
    if there == where or sock.family != socket.AF_INET6:
        return bool(there == where)
    # systemd's ListenStream=8080 is [::]:8080 for both families; that is what `8080` asks for, too.
    return not v6_only(sock) and where[0] == ANY_V4 and there[:2] == (ANY_V6, where[1])


def v6_only(sock: socket.socket) -> bool:
    """Whether an IPv6 socket leaves IPv4 out."""
    return bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


def is_any_v6(address: Address) -> bool:
    try:
        return not any(socket.inet_pton(socket.AF_INET6, address.host))
    except OSError:
        return False


def look_up(address: Address) -> LookedUp:
    """What the names in an address stand for. May take as long as a name server does."""
    try:
        return (where_of(address), owner_of(address)), ()
    except ListenError as error:
        return None, error.problems


def resolved(looked_up: LookedUp) -> tuple[Any, tuple[int, int]]:
    """What was found. Raises ListenError if it was not."""
    found, problems = looked_up
    if found is None:
        raise ListenError(problems)
    return found


def is_plain(address: Address) -> bool:
    """Whether it names nothing that would have to be looked up."""
    if address.kind == UNIX:
        return all(not name or name.isdigit() for name in address.owner.split(":"))
    return _plain_where(address) is not None


def _plain_where(address: Address) -> Any:
    """`where_of` of an address without a name; None for one with a name, or a v6 one with a zone."""
    family = socket.AF_INET6 if address.v6 else socket.AF_INET
    try:
        host = socket.inet_ntop(family, socket.inet_pton(family, address.host or ANY_V4))
    except (OSError, ValueError):
        return None
    return (host, address.port, *([0, 0] if address.v6 else []))


def owner_of(address: Address) -> tuple[int, int]:
    """Whom a unix socket is to be given to: uid and gid, -1 for as it is. Raises ListenError."""
    user, _, group = address.owner.partition(":")
    return _id("user", user), _id("group", group)


def where_of(address: Address) -> Any:
    """What to bind to, in the form in which getsockname() will show it. Raises ListenError if the
    host is unknown.
    """
    host, port = address.host or ANY_V4, address.port
    if address.kind == UNIX:
        return address.path
    plain = _plain_where(address)
    if plain is not None:
        return plain
    family = socket.AF_INET6 if address.v6 else socket.AF_INET
    # As bytes, because a str would bring encodings.idna and the Unicode tables into PID 1.
    name = host.encode() if host.isascii() else host
    try:
        return socket.getaddrinfo(name, port, family, socket.SOCK_STREAM)[0][4]
    except (socket.gaierror, ValueError) as error:
        problem = f"{host} {'is no IPv6 address' if address.v6 else 'does not resolve'} ({error.args[-1]})"
    try:
        if not address.v6:
            only = socket.getaddrinfo(name, port, socket.AF_INET6, socket.SOCK_STREAM)[0][4][0]
            problem = f"{host} has only an IPv6 address; say [{only}]:{'' if address.stream else 'u'}{port}"
    except (socket.gaierror, ValueError):
        pass
    raise ListenError([problem])


def bind_inet(
    address: Address, where: Any, backlog: int, like: socket.socket | None = None
) -> socket.socket:
    """A new TCP or UDP socket, bound to `where` and listening. At `[::]` it is for IPv4, too, unless
    the address says otherwise, or `like`, the one in whose place it comes.
    """
    sock = socket.socket(
        socket.AF_INET6 if address.v6 else socket.AF_INET,
        socket.SOCK_STREAM if address.stream else socket.SOCK_DGRAM,
    )
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.v6:
            only = v6_only(like) if like else address.ipv6only or where[0] != ANY_V6
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind(where)
        if address.stream and not where[1]:
            # After shutdown(), listen() would bring it back on another port than the kernel has
            # chosen now. So a second socket is bound to that port explicitly while the first one
            # holds it.
            with sock:
                return bind_inet(address, sock.getsockname(), backlog)
        tune(sock, address)
        if address.stream:
            sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def bind_unix(address: Address, backlog: int, owner: tuple[int, int]) -> socket.socket:
    """A new unix socket at its path, with its private link, and listening; a stale one that is
    there is replaced.

    Raises ListenError if anything else is there, or its owner cannot be set.
    """
    path = address.path
    mode = DEFAULT_MODE if address.mode is None else address.mode
    make_room(path)
    sock = socket.socket(socket.AF_UNIX)
    # It is never more open than asked: it is born with its mode, and refuses connections until
    # listen().
    umask = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(umask)
    try:
        file = _opened(path)
        try:
            # Before its owner changes: fs.protected_hardlinks would forbid the link to a file of
            # somebody else.
            link_privately(path)
            if address.owner:
                os.chown(f"/proc/self/fd/{file}", *owner)
            if stat.S_IMODE(os.fstat(file).st_mode) != mode:
                os.chmod(f"/proc/self/fd/{file}", mode)
        finally:
            os.close(file)
        tune(sock, address)
        sock.listen(backlog)
    except OSError as error:
        made = file_of(path)
        sock.close()
        remove_paths(made, private_path(path), path)
        if address.owner and error.errno in (errno.EPERM, errno.EINVAL):
            may_not = f"uid {os.geteuid()} may not give the socket to {address.owner}"
            raise ListenError(
                [f"{may_not} ({os.strerror(error.errno)}); that needs root or CAP_CHOWN"]
            ) from None
        raise
    return sock


def tune(sock: socket.socket, address: Address) -> None:
    """Set the options that connections and programs inherit with the socket."""
    if address.kind == TCP:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if address.defer:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_SECONDS)
    if address.nonblock:
        sock.setblocking(False)


def _opened(path: str) -> int:
    """A descriptor (O_PATH) of the socket file that has just been bound, to change its mode and
    owner by: who may write to the directory may have put a link to something else at the path
    meanwhile. Raises ListenError if that is so.
    """
    file = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(file)
    if stat.S_ISSOCK(found.st_mode) and found.st_nlink == 1:
        return file
    os.close(file)
    where = os.path.dirname(path)
    raise ListenError(
        [
            f"somebody who may write to the directory {where} put something else at the path just as the socket was made there"
        ]
    )


def make_room(path: str) -> bool:
    """Remove a stale socket from `path`; whether it did. Raises ListenError if anything else is
    there, for it is not ours to remove.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    form = stat.S_IFMT(found.st_mode)
    if form != stat.S_IFSOCK:
        what = {
            stat.S_IFREG: "regular file",
            stat.S_IFDIR: "directory",
            stat.S_IFLNK: "symbolic link",
        }.get(form, "pipe or device")
        raise ListenError([f"a {what} is at the path; remove it, or take another path"])
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(path)
    if answer == errno.EACCES:
        raise ListenError(
            [
                f"a socket is at the path, and uid {os.geteuid()} may not connect to it to see whether it is stale; remove it"
            ]
        )
    if answer != errno.ECONNREFUSED:
        raise ListenError(["something is listening on it already"])
    unlink_same(path, (found.st_dev, found.st_ino))
    return True


def private_path(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.sidecar")


def link_privately(path: str) -> None:
    """Make the private link to the socket file at `path`, in place of a former one; go without
    where that cannot be.
    """
    try:
        former = file_of(private_path(path))
        if former:
            unlink_same(private_path(path), former)
        os.link(path, private_path(path))
    except OSError:
        pass


def file_of(path: str) -> tuple[int, int] | None:
    """What identifies the socket file at `path`, None if there is none. Not reused as long as a
    socket is bound to it.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


def remove_paths(file: tuple[int, int] | None, *paths: str) -> None:
    """Remove those of the paths that still name this socket file."""
    for path in paths:
        try:
            if file and path:
                unlink_same(path, file)
        except OSError:
            pass  # an unwritable directory, say; the next start replaces the stale socket


def _id(kind: str, name: str) -> int:
    """The uid or gid of a user or group given by name or number, -1 (leave as it is) for "". Raises
    ListenError.
    """
    if not name:
        return -1
    try:
        found = user_id(name) if kind == "user" else group_id(name)
    except KeyError:
        found = _NOBODY
    if found >= _NOBODY:
        raise ListenError(
            [f"there is no {kind} {name!r} here; one given as a number need not be known"]
        )
    return found


# No uid or gid is that large: (uid_t) -1 stands for "leave it as it is" (chown(2)).
_NOBODY = 2**32 - 1


def problems_of(address: Address, error: ListenError | OSError) -> tuple[str, ...]:
    """Why it cannot be listened on, for the person who can mend it."""
    if isinstance(error, ListenError):
        return error.problems
    code, me, port = error.errno or 0, f"uid {os.geteuid()}", address.port
    directory = os.path.dirname(address.path)
    if address.kind == UNIX:
        known = {
            errno.ENOENT: f"the directory {directory} does not exist",
            errno.ENOTDIR: f"{directory} is no directory",
            errno.EACCES: f"{me} may not make or remove a socket in the directory {directory}",
            errno.EPERM: f"{me} may not make or remove a socket in the directory {directory}",
            errno.EROFS: f"the directory {directory} is on a read-only file system; mount a writable one there, such as a tmpfs",
        }
    else:
        known = {
            errno.EADDRINUSE: f"another process listens there; `ss -{'lt' if address.stream else 'lu'}np` shows which",
            errno.EADDRNOTAVAIL: f"no network interface here has the address {address.host}{', or IPv6 is off' if address.v6 else ''}",
            errno.EAFNOSUPPORT: f"this system has no IPv{6 if address.v6 else 4}",
        }
        first = _first_unprivileged_port()
        if port < first:
            sysctl = f"net.ipv4.ip_unprivileged_port_start={port}"
            known[errno.EACCES] = (
                f"port {port} is privileged, {me} may not bind it; that needs root, CAP_NET_BIND_SERVICE "
                f"or the sysctl {sysctl}; or take a port from {first} up"
            )
    return (known.get(code, os.strerror(code)),)


def _first_unprivileged_port() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1024
