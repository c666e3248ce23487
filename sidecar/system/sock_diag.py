"""The kernel's tables of sockets (sock_diag(7)), as `ss` reads them.

The road not taken: /proc/net/tcp and /proc/net/unix. Where tens of thousands of connections are,
they take about ten times as long (measured).
"""

from __future__ import annotations

import socket
import struct

from sidecar.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NETLINK_SOCK_DIAG = 4  # linux/netlink.h
_SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
_NLM_F_REQUEST_AND_DUMP = 0x301  # linux/netlink.h
_UDIAG_SHOW_NAME, _UNIX_DIAG_NAME = 1, 0  # linux/unix_diag.h
_ALL_STATES = 0xFFFF_FFFF

# linux/tcp_states.h
_ESTABLISHED, _CLOSE_WAIT, _LISTEN = 1 << 1, 1 << 8, 1 << 10


class ListeningSocket(Record):
    """A TCP socket that listens: its inode, and its address as HOST:PORT (an IPv6 host in brackets)."""

    inode: int
    address: str


def listening_sockets() -> Iterator[ListeningSocket]:
    """Every TCP socket that listens in this network namespace; fewer, or none, where the kernel does
    not show them.
    """
    for family, size in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        for message in _tcp_sockets(family, _LISTEN):
            port = int.from_bytes(message[4:6], "big")
            host = socket.inet_ntop(family, message[8 : 8 + size])
            address = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
            yield ListeningSocket(_tcp_inode(message), address)


def local_addresses(family: int) -> dict[int, bytes]:
    """The local addresses of all listening and connected stream sockets of a family, by inode: the
    port of a TCP socket, the path of a unix socket. Empty where the kernel does not show them.
    """
    if family == socket.AF_UNIX:
        return _unix_paths()
    states = _ESTABLISHED | _CLOSE_WAIT | _LISTEN
    return {_tcp_inode(message): message[4:6] for message in _tcp_sockets(family, states)}


def _unix_paths() -> dict[int, bytes]:
    """The paths of all unix sockets that have one, by inode."""
    found: dict[int, bytes] = {}
    # struct unix_diag_req
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _UDIAG_SHOW_NAME, 0, 0)
    for message in _dump(request):
        # struct unix_diag_msg, then attributes. A name comes first if there is one.
        inode, length, attribute = struct.unpack_from("=I8xHH", message, 4)
        if attribute == _UNIX_DIAG_NAME:
            found[inode] = message[20 : 16 + length]
    return found


def _tcp_sockets(family: int, states: int) -> Iterator[bytes]:
    """Every TCP socket in one of the states (a set of bits), as struct inet_diag_msg."""
    # struct inet_diag_req_v2
    return _dump(struct.pack("=BBHI48x", family, socket.IPPROTO_TCP, 0, states))


def _tcp_inode(message: bytes) -> int:
    """The inode in a struct inet_diag_msg."""
    inode: int = struct.unpack_from("=I", message, 68)[0]
    return inode


def _dump(request: bytes) -> Iterator[bytes]:
    """The kernel's answer to a request, message by message; fewer where it refuses."""
    # struct nlmsghdr: length, type, flags, sequence number, port
    flags = _NLM_F_REQUEST_AND_DUMP
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, flags, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
            kernel.send(header + request)
            while True:
                answer = kernel.recv(1 << 16, socket.MSG_DONTWAIT)
                while answer:
                    size, kind = struct.unpack_from("=IH", answer)
                    if kind != _SOCK_DIAG_BY_FAMILY:  # the end (NLMSG_DONE), or an error
                        return
                    yield answer[16:size]
                    answer = answer[size + 3 & ~3 :]
    except OSError:
        return
