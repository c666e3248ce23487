"""One listening socket that sidecar holds, and its repair when a program has spoiled it.

All generations share the socket, so whatever a program does to it remains for the next ones:

    shutdown() on it      poll() shows it as POLLHUP or POLLRDHUP, for TCP, unix and UDP alike
                          (measured). listen() revives a TCP socket, even for the workers that hold
                          it now. Unix and UDP sockets stay dead, so a new one is bound.
    its path removed      The file at the path is no longer the one that sidecar bound. The private
                          link (unix_path.py) puts it back under its name; without a link, a new
                          socket is bound.

The road not taken: a test connection would show the damage, too, but it leaves an empty connection
in the queue.
"""

from __future__ import annotations

import os
import socket

from sidecar.settings.address import TCP, UNIX, Address
from sidecar.system.socket_address import ANY_V6, is_v6_only, owner_ids
from sidecar.system.sockets import bind_inet, bind_unix
from sidecar.system.unix_path import (
    private_link,
    remove_socket_paths,
    remove_stale_socket,
    socket_file_id,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sidecar.system.unix_path import FileId

# Options that are set on the socket and so for all generations at once. They are not changed while
# a generation has the socket.
SOCKET_OPTIONS = ("defer", "nonblock", "ipv6only", "backlog", "mode", "owner")

BOUND_AGAIN = "a new socket is bound there; workers that hold the old one hear nothing more, the next ones will"


class SharedSocket:
    """A socket that sidecar holds, and the file that it is bound to (None: no file). All the
    listeners that mean this socket share one such object.
    """

    __slots__ = ("file", "sock")

    def __init__(self, sock: socket.socket, file: FileId | None) -> None:
        self.sock = sock
        self.file = file


class Listener:
    """One socket as some generations know it.

    `key` is its name in SERVER_STARTER_PORT, `name` the one in LISTEN_FDNAMES, `worker_fd` the
    descriptor's number in a worker. `bound_to` is what getsockname() said when it was bound.
    `owns_path`: sidecar removes its path at the end (not that of an inherited socket).
    `configured`: the settings name it; otherwise it only came with the others of systemd's.
    """

    def __init__(
        self,
        address: Address,
        sock: socket.socket,
        backlog: int,
        *,
        name: str = "",
        owns_path: bool = True,
        configured: bool = True,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self.address = address
        #: The uid and gid that its path was given to, should it have to be made again.
        self.owner = owner
        self.shared = SharedSocket(sock, socket_file_id(address.path))
        self.backlog = backlog
        #: The name that systemd gave it, "" for none.
        self.inherited_name = name
        self.name = address.name or name
        self.owns_path = owns_path
        self.configured = configured
        self.worker_fd = -1
        self.bound_to = sock.getsockname()
        self.key = self._key()

    def _key(self) -> str:
        """The address's text, with the port that the kernel chose where the text says port 0."""
        if self.address.kind == UNIX or self.address.port:
            return self.address.text
        return f"{self.address.text.rpartition(':')[0]}:{self.bound_to[1]}".removeprefix(":")

    @property
    def sock(self) -> socket.socket:
        """The socket."""
        return self.shared.sock

    @property
    def file(self) -> FileId | None:
        """What identifies the file that it is bound to; None if it has no file."""
        return self.shared.file

    @property
    def families(self) -> str:
        """The IP families that a socket at `[::]` takes, in words; "" for any other address, which
        says it itself.
        """
        if self.sock.family != socket.AF_INET6 or self.bound_to[0] != ANY_V6:
            return ""
        return "IPv6 only" if is_v6_only(self.sock) else "IPv6 and IPv4"

    def for_next_generation(self, address: Address, configured: bool = True) -> Listener:
        """The same socket under an address that means it, for generations to come. What was set on
        the socket itself stays (SOCKET_OPTIONS).
        """
        other = Listener.__new__(Listener)
        other.__dict__.update(self.__dict__)
        kept = {name: getattr(self.address, name) for name in SOCKET_OPTIONS}
        other.address = address.replace(**kept)
        other.configured = configured
        other.name = address.name or self.inherited_name
        other.worker_fd = -1
        other.key = other._key()
        return other

    def matches(self, address: Address) -> bool:
        """Whether an address asks for this socket, in the same words: names are not looked up."""
        own = self.address
        return (own.kind, own.host, own.port, own.path, own.v6) == (
            address.kind,
            address.host,
            address.port,
            address.path,
            address.v6,
        )

    def export_state(self, socket_number: int) -> dict[str, Any]:
        """Its state for a later version of sidecar, with the number of its socket instead of the
        socket.
        """
        return {**vars(self), "shared": socket_number}

    @classmethod
    def from_state(cls, state: dict[str, Any], shared: SharedSocket) -> Listener:
        """The listener that an earlier version has exported, on this socket.

        What the state says counts, and not what the socket and its path are now: a program may have
        spoiled them meanwhile.
        """
        self = cls(state["address"], shared.sock, state["backlog"])
        self.__dict__.update({**state, "shared": shared})
        return self

    def repair(self, shut_down: bool) -> str:
        """Repair what a program has spoiled. `shut_down`: a program called shutdown() on it.
        Returns a sentence on what was done, "" if all was well.

        Raises ListenError or OSError if it cannot be repaired; the socket is then as it was.
        """
        if shut_down:
            what = "a program called shutdown() on the shared socket; "
            if self._listen_again():
                return what + "it listens again"
        elif self.file is None or socket_file_id(self.address.path) == self.file:
            return ""
        else:
            what = "a program removed the socket's path; "
            if self._put_path_back():
                return what + "it is put back"
        self._bind_again()
        return what + BOUND_AGAIN

    def _listen_again(self) -> bool:
        """Revive a TCP socket; whether that was enough."""
        if self.address.kind != TCP:
            return False
        self.sock.listen(self.backlog)
        # An inherited socket that was bound to port 0 comes back on another port. Sidecar's own do
        # not, see sockets.bind_inet.
        return bool(self.sock.getsockname() == self.bound_to)

    def _put_path_back(self) -> bool:
        """Make the path again from the private link, if that is still there; whether it was."""
        path = self.address.path
        remove_stale_socket(path)
        if socket_file_id(private_link(path)) != self.file:
            return False
        # Unlike rename(), link() never replaces what has come to the path meanwhile.
        os.link(private_link(path), path)
        return True

    def _bind_again(self) -> None:
        """Put a new socket in the place of the spoiled one, under the same descriptor."""
        if self.address.path:
            owner = self.owner or owner_ids(self.address)
            fresh = bind_unix(self.address, self.backlog, owner)
        else:
            fresh = bind_inet(self.address, self.bound_to, self.backlog, like=self.sock)
        with fresh:
            os.dup2(fresh.fileno(), self.sock.fileno(), inheritable=False)
        self.shared.file = socket_file_id(self.address.path)

    def close(self) -> None:
        """Close the socket. Remove the private link and, if sidecar owns it, the path, as far as
        they still name this socket.
        """
        self.sock.close()
        path = self.address.path
        remove_socket_paths(self.file, private_link(path), path if self.owns_path else "")
