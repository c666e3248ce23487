"""The listeners of a generation: bound or inherited once, passed on to every generation.

A listening socket is a queue in the kernel. Sidecar holds the queue and accepts nothing; whoever
has the socket open takes connections from it. So as long as sidecar keeps the socket, a swap loses
no connection: what arrives while nobody accepts waits for the next generation. The price of sharing
is that a program can spoil the socket for all who come after it (listener.py repairs that).

Roads not taken:

- SO_REUSEPORT with a socket for each generation. When such a socket is closed, the kernel resets
  the connections that wait in its queue.
- Binding a unix socket under a private name and renaming it into place. That would replace a stale
  one without a gap, but getsockname() then shows the private name, and nginx, h2o and Starlet
  recognise their socket by it.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat

from sidecar.base.errors import ListenError
from sidecar.base.record import Descriptor
from sidecar.settings.address import TCP, UNIX, Address
from sidecar.system.inherited_sockets import address_of, is_for
from sidecar.system.listener import SOCKET_OPTIONS, Listener, SharedSocket
from sidecar.system.socket_address import (
    ANY_V4,
    ANY_V6,
    bind_address,
    is_any_v6,
    is_plain,
    is_v6_only,
    look_up,
    looked_up,
    owner_ids,
)
from sidecar.system.sockets import MAX_BACKLOG, bind_inet, bind_unix, listen_problems, set_options
from sidecar.system.unix_path import make_private_link, remove_stale_socket, socket_file_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from sidecar.system.socket_address import Lookup


class Listeners:
    """The listeners of a generation, in the order given. `open` makes the first set, `reconfigure`
    a set of other ones.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        #: The paths of the stale sockets that were removed.
        self.removed_paths: list[str] = []
        #: What `repair` could not repair the last time, with a sentence on each.
        self.unrepaired: dict[Listener, str] = {}

    @classmethod
    def open(
        cls,
        addresses: Sequence[Address],
        *,
        backlog: int | None,
        inherited: Sequence[tuple[socket.socket, str]] = (),
        flag: str = "--port",
    ) -> Listeners:
        """Bind every address, or take the inherited socket for it. Inherited sockets that no address
        asks for come last.

        `backlog` is for those that have none of their own (None: as long as the kernel allows).
        `inherited` are sockets with their names; they belong to the set from now on, and their mode,
        owner and backlog stay as they came. `flag` names the option in error texts. Raises
        ListenError naming every problem; everything is then closed, and what had been bound is
        removed again.
        """
        self = cls()
        problems: list[str] = []
        code = 0
        spare = list(inherited)
        for address in _separate_families(addresses):
            queue = address.backlog or backlog or MAX_BACKLOG
            try:
                where = bind_address(address)
                given = next((pair for pair in spare if is_for(pair[0], address, where)), None)
                if given:
                    spare.remove(given)
                    self._adopt(address, *given, queue)
                else:
                    self._reject_duplicate(address, where)
                    if address.kind == UNIX and remove_stale_socket(address.path):
                        self.removed_paths.append(address.path)
                    self._bind(address, where, owner_ids(address), queue)
            except (ListenError, OSError) as error:
                problems += _with_prefix(f"{flag} {address.spec}", listen_problems(address, error))
                code = code or error.errno or 0
        for sock, name in spare:
            try:
                self._adopt(address_of(sock), sock, name, backlog or MAX_BACKLOG, configured=False)
            except ListenError as error:
                which = f"LISTEN_FDS: the socket {name or 'without a name'}"
                problems += _with_prefix(which, error.problems)
        problems += self._assign_fds() if not problems else []
        if problems:
            self.close()
            raise ListenError(problems, code)
        self._assign_names()
        return self

    @classmethod
    def needing_lookup(
        cls, addresses: Sequence[Address], living: Sequence[Listeners]
    ) -> list[Address]:
        """The addresses whose meaning only a lookup can tell, which may take long: the name of a
        host, a user or a group. What a set among `living` has already is known.
        """
        known = [each for group in living for each in group]
        return [
            address
            for address in addresses
            if not is_plain(address) and not any(each.matches(address) for each in known)
        ]

    @classmethod
    def reconfigure(
        cls,
        addresses: Sequence[Address],
        living: Sequence[Listeners],
        *,
        backlog: int | None,
        found: Mapping[str, Lookup] | None = None,
    ) -> tuple[Listeners, list[str]]:
        """The set that these addresses ask for, and sentences on what of it stays as it was.

        A socket that a set among `living` has already is shared, whatever else has changed about it;
        the others are bound now. `found` has results of `look_up` by the address's text; what is
        missing there is looked up here. Raises ListenError naming every problem; everything is then
        as it was.
        """
        found = found or {}
        fresh = cls()
        known = list({id(each.shared): each for group in living for each in group}.values())
        chosen: list[Listener] = []
        problems: list[str] = []
        remarks: list[str] = []
        for address in _separate_families(addresses):
            try:
                same, where, owner = _find(address, known, found)
                if same is not None:
                    known.remove(same)
                    chosen.append(same.for_next_generation(address))
                    if chosen[-1].address != address:
                        remarks.append(
                            f"--port {address.spec}: {', '.join(SOCKET_OPTIONS)} stay as they were until sidecar is started anew"
                        )
                    continue
                for group in (fresh, *living):
                    group._reject_duplicate(address, where, group is not fresh)
                queue = address.backlog or backlog or MAX_BACKLOG
                chosen.append(fresh._bind(address, where, owner, queue))
            except (ListenError, OSError) as error:
                problems += _with_prefix(f"--port {address.spec}", listen_problems(address, error))
        # What systemd passed and no setting asks for is passed on to every generation.
        chosen += [
            each.for_next_generation(each.address, configured=False)
            for each in known
            if not each.configured
        ]
        new = cls()
        new._listeners = chosen
        others = [each for group in living for each in group]
        problems += new._assign_fds(others) if not problems else []
        if problems:
            fresh.close()
            raise ListenError(problems)
        new._assign_names()
        return new, remarks

    def close_unused(self, in_use: Iterable[Listeners]) -> list[str]:
        """Close the listeners of this set that no set in `in_use` has. Returns their keys."""
        used = {id(each.shared) for group in in_use for each in group}
        unused = [each for each in self if id(each.shared) not in used]
        for each in unused:
            each.close()
        return [each.key for each in unused]

    @staticmethod
    def export_state(sets: Sequence[Listeners]) -> dict[str, Any]:
        """The state of these sets for a later version of sidecar. A socket that they share is one
        socket again when they are imported together.
        """
        sockets = list({id(each.shared): each.shared for group in sets for each in group}.values())
        numbers = {id(each): number for number, each in enumerate(sockets)}
        return {
            "sockets": [
                {"sock": Descriptor(each.sock.fileno()), "file": each.file} for each in sockets
            ],
            "sets": [
                [each.export_state(numbers[id(each.shared)]) for each in group] for group in sets
            ],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> list[Listeners]:
        """The sets that an earlier version has exported, on the same descriptors. Raises OSError if
        a descriptor is no socket.
        """
        sockets = [
            SharedSocket(socket.socket(fileno=each["sock"]), each["file"])
            for each in state["sockets"]
        ]
        sets = []
        for group in state["sets"]:
            sets.append(cls())
            sets[-1]._listeners = [
                Listener.from_state(each, sockets[each["shared"]]) for each in group
            ]
        return sets

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._listeners)

    def __len__(self) -> int:
        return len(self._listeners)

    def handoff(self) -> list[tuple[int, int]]:
        """For each listener, sidecar's descriptor and the worker's. None of sidecar's equals any of
        the worker's, see `_assign_fds`.
        """
        return [(listener.sock.fileno(), listener.worker_fd) for listener in self]

    def environment(self) -> dict[str, str]:
        """The variables by which a worker finds its sockets. LISTEN_PID is added between fork and
        exec.

        systemd's are left out where they would be wrong: they can only name file descriptors from 3
        up, without a gap.
        """
        pairs = ";".join(f"{listener.key}={listener.worker_fd}" for listener in self)
        found = {"SERVER_STARTER_PORT": pairs}
        names = {listener.worker_fd: listener.name for listener in self}
        if names and set(names) == set(range(3, 3 + len(names))):
            found["LISTEN_FDS"] = str(len(names))
            found["LISTEN_FDNAMES"] = ":".join(names[fd] for fd in sorted(names))
        return found

    def inodes(self) -> frozenset[int]:
        """The socket inodes of the stream listeners, as /proc/PID/fd shows them. An inode changes
        when `repair` binds a new socket.
        """
        return frozenset(
            os.fstat(listener.sock.fileno()).st_ino for listener in self if listener.address.stream
        )

    def repair(self) -> list[str]:
        """Repair every listener that a program has spoiled. Returns a sentence on each that was
        repaired and on each that cannot be.

        Costs one poll() and one lstat() for each path if all is well. Never raises.
        """
        poll = select.poll()
        for listener in self:
            poll.register(listener.sock, select.POLLRDHUP)
        shut_down = {fd for fd, _ in poll.poll(0)}
        remarks: list[str] = []
        before, self.unrepaired = self.unrepaired, {}
        for listener in self:
            try:
                sentence = listener.repair(listener.sock.fileno() in shut_down)
            except (ListenError, OSError) as error:
                why = " and ".join(listen_problems(listener.address, error))
                sentence = (
                    f"new connections do not reach it any more, and it cannot be repaired: {why}"
                )
                self.unrepaired[listener] = f"listener {listener.key}: {sentence}"
            if not sentence and listener in before:
                sentence = "new connections reach it again"
            if sentence:
                remarks.append(f"listener {listener.key}: {sentence}")
        return remarks

    def to_watch(self) -> list[tuple[int, str]]:
        """What ListenerWatch is to watch: the descriptor of each listener that is well, and its path
        ("" if it has no file).
        """
        return [
            (each.sock.fileno(), each.address.path if each.file is not None else "")
            for each in self
            if each not in self.unrepaired
        ]

    def close(self) -> None:
        """Close all. Remove the unix paths that still name these sockets, and the private links."""
        for listener in self:
            listener.close()

    def _bind(self, address: Address, where: Any, owner: tuple[int, int], backlog: int) -> Listener:
        """Bind an address and add its listener. Raises ListenError, OSError."""
        sock = (
            bind_unix(address, backlog, owner)
            if address.kind == UNIX
            else bind_inet(address, where, backlog)
        )
        self._listeners.append(Listener(address, sock, backlog, owner=owner))
        return self._listeners[-1]

    def _adopt(
        self,
        address: Address,
        sock: socket.socket,
        name: str,
        backlog: int,
        configured: bool = True,
    ) -> None:
        """Take over an inherited socket. A unix socket keeps its present mode and owner, should it
        have to be bound again one day. Raises ListenError.
        """
        try:
            if address.stream and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                sock.listen(backlog)
            set_options(sock, address)
        except OSError as error:
            sock.close()
            raise ListenError(
                [
                    f"a listening socket is needed, this one cannot be ({os.strerror(error.errno or 0)})"
                ]
            ) from None
        if address.kind == UNIX and socket_file_id(address.path):
            found = os.lstat(address.path)
            owner = f"{found.st_uid}:{found.st_gid}"
            address = address.replace(mode=stat.S_IMODE(found.st_mode), owner=owner)
            make_private_link(address.path)
        self._listeners.append(
            Listener(address, sock, backlog, name=name, owns_path=False, configured=configured)
        )

    def _reject_duplicate(self, address: Address, where: Any, living: bool = False) -> None:
        """Raise ListenError if a listener of this set has the address under another name. For UDP,
        bind() would not refuse it. `living`: the set is in use already.
        """
        for other in self:
            if _same_place(other, address, where):
                hint = (
                    "drop it with one reload, and take this one with the next"
                    if living
                    else "leave one of the two out"
                )
                raise ListenError([f"--port {other.address.spec} listens there already; {hint}"])

    def _assign_fds(self, others: Sequence[Listener] = ()) -> list[str]:
        """Choose the worker's file descriptors, and move sidecar's own out of their way. Returns
        problems, in sentences.

        `others` are the listeners of other living sets. Sidecar's descriptors have to be clear of
        their workers' numbers, too, because one of their workers may yet be started.

        The child of a fork makes the worker's descriptors by one dup2() each. If 4 had to become 3
        and 3 become 4, the first dup2() would destroy the second descriptor. So all of sidecar's
        live above the highest that any worker gets. Not above a fixed number such as 1100, because
        the soft limit of open files often is 1024.
        """
        fixed = {listener.address.fd for listener in self} - {None}
        free = iter(
            [number for number in range(3, 3 + len(self) + len(fixed)) if number not in fixed]
        )
        for listener in self:
            listener.worker_fd = next(free) if listener.address.fd is None else listener.address.fd
        highest = max([2, *(listener.worker_fd for listener in (*self, *others))])
        try:
            for shared in {id(each.shared): each.shared for each in (*self, *others)}.values():
                if shared.sock.fileno() <= highest or not others:
                    with shared.sock as low:
                        fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, highest + 1)
                        shared.sock = socket.socket(fileno=fd)
        except OSError:
            hint = "take a lower =FD, or raise the limit of open files (ulimit -n)"
            return [
                f"--port: no file descriptor is left above {highest}, which is to be a worker's; {hint}"
            ]
        return []

    def _assign_names(self) -> None:
        """Name the listeners that neither the user nor systemd has named: by port or file name, made
        unique by -2, -3 …
        """
        taken = {listener.name for listener in self}
        for listener in self:
            if not listener.name:
                short = os.path.basename(listener.address.path) or str(listener.bound_to[1])
                # A colon would separate two names, and systemd takes printable ASCII only.
                short = "".join(
                    letter if " " < letter < "\x7f" and letter != ":" else "_" for letter in short
                )
                listener.name = next(
                    name
                    for n in range(1, len(self) + 2)
                    if (name := f"{short}-{n}" if n > 1 else short) not in taken
                )
                taken.add(listener.name)


def _find(
    address: Address, known: Sequence[Listener], found: Mapping[str, Lookup]
) -> tuple[Listener | None, Any, tuple[int, int]]:
    """The listener among `known` that an address means (None: none), and what the address's names
    stand for: what to bind to, and the owner. Raises ListenError if that is not known.
    """
    same = next((each for each in known if each.matches(address)), None)
    if same is not None:
        return same, same.bound_to, (-1, -1)
    where, owner = looked_up(found.get(address.spec) or look_up(address))
    if address.kind == UNIX or address.port:
        for each in known:
            if each.address.kind == address.kind and each.bound_to == where:
                return each, where, owner
    return None, where, owner


def _same_place(other: Listener, address: Address, where: Any) -> bool:
    """Whether a listener has the place that an address asks for: the same socket file, or the same
    port at hosts that overlap.
    """
    if other.address.kind != address.kind:
        return False
    if address.kind == UNIX:
        return other.file is not None and other.file == socket_file_id(address.path)
    hosts = {other.bound_to[0], where[0]}
    both_families = (
        not is_v6_only(other.sock)
        if other.sock.family == socket.AF_INET6
        else address.v6 and not address.ipv6only
    )
    if other.address.v6 != address.v6 and not (both_families and ANY_V6 in hosts):
        return False
    wildcard = address.kind == TCP and not hosts.isdisjoint((ANY_V4, ANY_V6))
    overlap = wildcard or len(hosts) == 1 or hosts == {ANY_V4, ANY_V6}
    return bool(other.bound_to[1] == where[1] and overlap)


def _separate_families(addresses: Sequence[Address]) -> list[Address]:
    """The addresses, with `[::]:PORT` for IPv6 only where an IPv4 address asks for the same port:
    otherwise the two could not both be bound.
    """
    v4 = {(each.kind, each.port) for each in addresses if not each.v6 and each.port}
    return [
        each.replace(ipv6only=True)
        if each.v6 and (each.kind, each.port) in v4 and is_any_v6(each)
        else each
        for each in addresses
    ]


def _with_prefix(which: str, problems: Iterable[str]) -> list[str]:
    return [f"{which}: {problem}" for problem in problems]
