"""From an address of the settings to what bind() takes: names of hosts, users and groups are looked
up here.

A lookup takes as long as a name server does. `is_plain` says whether an address needs one, so that
PID 1 can leave it to a child process.
"""

from __future__ import annotations

import socket

from sidecar.base.errors import ListenError
from sidecar.settings.address import UNIX, Address
from sidecar.system.users import group_id, user_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    #: The result of a lookup: what to bind to and the owner (uid, gid) of a unix socket; or None,
    #: and the reasons why that is not known.
    Lookup = tuple[tuple[Any, tuple[int, int]] | None, Sequence[str]]

ANY_V4, ANY_V6 = "0.0.0.0", "::"  # noqa: S104 - what a bare port means, and what [::] does

# No uid or gid is that large: for chown(2), (uid_t) -1 means "leave it as it is".
_INVALID_ID = 2**32 - 1


def look_up(address: Address) -> Lookup:
    """Resolve the names in an address. Never raises; may take as long as a name server does."""
    try:
        return (bind_address(address), owner_ids(address)), ()
    except ListenError as error:
        return None, error.problems


def looked_up(result: Lookup) -> tuple[Any, tuple[int, int]]:
    """The result of `look_up`. Raises ListenError if the lookup failed."""
    found, problems = result
    if found is None:
        raise ListenError(problems)
    return found


def is_plain(address: Address) -> bool:
    """Whether an address has no name that would have to be looked up."""
    if address.kind == UNIX:
        return all(not name or name.isdigit() for name in address.owner.split(":"))
    return _numeric_address(address) is not None


def bind_address(address: Address) -> Any:
    """What bind() takes, in the form in which getsockname() shows it: (host, port) for IPv4,
    (host, port, 0, 0) for IPv6, a path for a unix socket.

    Raises ListenError if the host cannot be resolved.
    """
    if address.kind == UNIX:
        return address.path
    numeric = _numeric_address(address)
    return numeric if numeric is not None else _resolve_host(address)


def _numeric_address(address: Address) -> Any:
    """The same for a host that is an IP address; None for a name, or an IPv6 address with a zone."""
    family = socket.AF_INET6 if address.v6 else socket.AF_INET
    try:
        host = socket.inet_ntop(family, socket.inet_pton(family, address.host or ANY_V4))
    except (OSError, ValueError):
        return None
    return (host, address.port, *([0, 0] if address.v6 else []))


def _resolve_host(address: Address) -> Any:
    """The same for a host's name. Raises ListenError."""
    host, port = address.host, address.port
    family = socket.AF_INET6 if address.v6 else socket.AF_INET
    # As bytes, because a str would import encodings.idna and the Unicode tables into PID 1.
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


def owner_ids(address: Address) -> tuple[int, int]:
    """The uid and gid that a unix socket is given to; -1 means "leave it as it is". Raises
    ListenError for an unknown user or group.
    """
    user, _, group = address.owner.partition(":")
    return _numeric_id("user", user), _numeric_id("group", group)


def _numeric_id(kind: str, name: str) -> int:
    """The uid or gid of a user or group given by name or number, -1 for "". Raises ListenError."""
    if not name:
        return -1
    try:
        found = user_id(name) if kind == "user" else group_id(name)
    except KeyError:
        found = _INVALID_ID
    if found >= _INVALID_ID:
        raise ListenError(
            [f"there is no {kind} {name!r} here; one given as a number need not be known"]
        )
    return found


def is_any_v6(address: Address) -> bool:
    """Whether the host is the IPv6 address `::`, in whatever spelling."""
    try:
        return not any(socket.inet_pton(socket.AF_INET6, address.host))
    except OSError:
        return False


def is_v6_only(sock: socket.socket) -> bool:
    """Whether an IPv6 socket takes no IPv4 connections."""
    return bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
