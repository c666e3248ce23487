"""The listening sockets: bind or inherit them once, pass them on to every generation, look after
them.

A listening socket is a queue in the kernel. Sidecar holds the queue and accepts nothing; whoever
has the socket open takes connections from it. So as long as sidecar keeps it, a swap loses no
connection: what comes while nobody accepts waits for the next generation. The price of sharing is
that a program can spoil the socket for all who come after it:

    shutdown() on it      poll() shows it as POLLHUP or POLLRDHUP, for TCP, unix and UDP alike (measured), and leaves no
                          empty connection in the queue as a test connect would. listen() revives a
                          TCP socket, even for the workers that hold it now; unix and UDP sockets
                          stay dead, so a new one is bound.
    its path unlinked     the file at the path is no longer the one that we bound. A private hard link to that file,
                          `.NAME.sidecar` beside it, puts it back under its name; without one, a new
                          socket is bound. The link has no pid in its name: a crash leaves one at
                          most, and the next start replaces it.

Roads not taken. SO_REUSEPORT with a socket for each generation: what waits in a queue is reset when
that socket closes. Binding a unix socket under a private name and renaming it into place would
replace a stale one without a gap, but getsockname() then shows the private name, and nginx, h2o and
Starlet recognise their socket by it.
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
from sidecar.system.sockets import (
    ANY_V4,
    ANY_V6,
    LONGEST_BACKLOG,
    bind_inet,
    bind_unix,
    described,
    file_of,
    is_any_v6,
    is_for,
    is_plain,
    link_privately,
    look_up,
    make_room,
    owner_of,
    private_path,
    problems_of,
    remove_paths,
    resolved,
    tune,
    v6_only,
    where_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from sidecar.system.sockets import LookedUp


# Set on a socket, and so for all generations at once: not changed under a living one.
OF_THE_SOCKET = ("defer", "nonblock", "ipv6only", "backlog", "mode", "owner")


BOUND_ANEW = "a new socket is bound there; workers that hold the old one hear nothing more, the next ones will"


class Held:
    """A socket that sidecar holds, and the file it is bound to: shared by all the listeners that
    mean it.
    """

    __slots__ = ("file", "sock")

    def __init__(self, sock: socket.socket, file: tuple[int, int] | None) -> None:
        self.sock = sock
        self.file = file


class Listener:
    """One socket as some generations know it.

    `key` is its name in SERVER_STARTER_PORT, `name` the one in LISTEN_FDNAMES, `fd` the number that
    the worker gets it as. `ours` is whether its path is sidecar's to unlink at the end: it is not
    if the socket was inherited. `asked` is whether the settings name it, or it only came with the
    others of systemd's.
    """

    def __init__(
        self,
        address: Address,
        sock: socket.socket,
        backlog: int,
        *,
        name: str = "",
        ours: bool = True,
        asked: bool = True,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self.address = address
        #: Whom its path was given to (uid, gid), should it have to be made again.
        self.owner = owner
        self.held = Held(sock, file_of(address.path))
        self.backlog = backlog
        self.given = name
        self.name = address.name or name
        self.ours = ours
        self.asked = asked
        self.fd = -1
        self.where = sock.getsockname()
        self.key = self._key()

    def _key(self) -> str:
        real_port = self.address.kind != UNIX and not self.address.port
        return (
            f"{self.address.text.rpartition(':')[0]}:{self.where[1]}".removeprefix(":")
            if real_port
            else self.address.text
        )

    def again(self, address: Address, asked: bool = True) -> Listener:
        """The same socket under an address that means it, for generations to come. What was set on
        the socket itself stays.
        """
        other = Listener.__new__(Listener)
        other.__dict__.update(self.__dict__)
        old = self.address
        other.address = address.replace(**{name: getattr(old, name) for name in OF_THE_SOCKET})
        other.asked = asked
        other.name = address.name or self.given
        other.fd = -1
        other.key = other._key()
        return other

    def means(self, address: Address) -> bool:
        """Whether an address asks for this socket, word for word."""
        mine = self.address
        return (mine.kind, mine.host, mine.port, mine.path, mine.v6) == (
            address.kind,
            address.host,
            address.port,
            address.path,
            address.v6,
        )

    @property
    def families(self) -> str:
        """Which families it is for, where its address does not tell: at `[::]`; else ""."""
        if self.sock.family != socket.AF_INET6 or self.where[0] != ANY_V6:
            return ""
        return "IPv6 only" if v6_only(self.sock) else "IPv6 and IPv4"

    @property
    def sock(self) -> socket.socket:
        """The socket."""
        return self.held.sock

    @sock.setter
    def sock(self, sock: socket.socket) -> None:
        self.held.sock = sock

    @property
    def file(self) -> tuple[int, int] | None:
        """What identifies the file it is bound to."""
        return self.held.file

    @file.setter
    def file(self, file: tuple[int, int] | None) -> None:
        self.held.file = file

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Listener:
        """What an earlier version has dumped (Listeners.dump)."""
        self = cls(state["address"], state["held"].sock, state["backlog"])
        # Its path may have been taken away meanwhile: what it was is what was dumped, not what is
        # there.
        for name in ("held", "key", "given", "name", "ours", "asked", "fd", "where"):
            setattr(self, name, state[name])
        self.owner = state.get("owner")
        return self

    def mend(self, shut: bool) -> str:
        """Repair what a program has spoilt; `shut` is whether it called shutdown(). A sentence on
        it, "" if all is well.

        Raises ListenError or OSError if it cannot be repaired; the socket is then as it was.
        """
        path, private = self.address.path, private_path(self.address.path)
        if shut:
            did = "a program called shutdown() on the shared socket; "
            if self.address.kind == TCP:
                self.sock.listen(self.backlog)
                # An inherited one that was bound to port 0 comes back on another port. Ours do not,
                # see _bind_inet.
                if self.sock.getsockname() == self.where:
                    return did + "it listens again"
        elif self.file is None or file_of(path) == self.file:
            return ""
        else:
            did = "a program removed the socket's path; "
            make_room(path)
            if file_of(private) == self.file:
                # Unlike rename(), link() never takes the place of something that has come there
                # meanwhile.
                os.link(private, path)
                return did + "it is put back"
        queue, where = self.backlog, self.where
        fresh = (
            bind_unix(self.address, queue, self.owner or owner_of(self.address))
            if path
            else bind_inet(self.address, where, queue, like=self.sock)
        )
        with fresh:
            os.dup2(fresh.fileno(), self.sock.fileno(), inheritable=False)
        self.file = file_of(path)
        return did + BOUND_ANEW

    def close(self) -> None:
        """Close the socket; remove the private link and, if it is ours, the path, as far as they
        still name it.
        """
        self.sock.close()
        path = self.address.path
        remove_paths(self.file, private_path(path), path if self.ours else "")


class Listeners:
    """The listeners of a generation, in the order given: made by `open` at the start, and by
    `changed` when others are wanted.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        #: The paths of the stale sockets that were removed.
        self.removed: list[str] = []
        #: What `mend` could not repair the last time, with a sentence on each.
        self.broken: dict[Listener, str] = {}

    @classmethod
    def open(
        cls,
        addresses: Sequence[Address],
        *,
        backlog: int | None,
        inherited: Sequence[tuple[socket.socket, str]] = (),
        flag: str = "--port",
    ) -> Listeners:
        """Bind every address, or take the inherited socket that is it; inherited ones nobody asked
        for come after.

        `backlog` is for those that have none of their own (None: as long as the kernel allows);
        `inherited` are sockets with their names, owned from now on, whose mode, owner and backlog
        stay as they came; `flag` is who asked. Raises ListenError naming every problem, with
        everything closed, and what had been bound removed again.
        """
        self = cls()
        problems: list[str] = []
        code = 0
        spare = list(inherited)
        for address in _apart(addresses):
            queue = address.backlog or backlog or LONGEST_BACKLOG
            try:
                where = where_of(address)
                given = next((pair for pair in spare if is_for(pair[0], address, where)), None)
                if given:
                    spare.remove(given)
                    self._adopt(address, *given, queue)
                else:
                    self._refuse_twin(address, where)
                    if address.kind == UNIX and make_room(address.path):
                        self.removed.append(address.path)
                    owner = owner_of(address)
                    sock = (
                        bind_unix(address, queue, owner)
                        if address.kind == UNIX
                        else bind_inet(address, where, queue)
                    )
                    self._listeners.append(Listener(address, sock, queue, owner=owner))
            except (ListenError, OSError) as error:
                problems += [
                    f"{flag} {address.spec}: {problem}" for problem in problems_of(address, error)
                ]
                code = code or error.errno or 0
        for sock, name in spare:
            try:
                self._adopt(described(sock), sock, name, backlog or LONGEST_BACKLOG, asked=False)
            except ListenError as error:
                problems += [
                    f"LISTEN_FDS: the socket {name or 'without a name'}: {problem}"
                    for problem in error.problems
                ]
        problems += self._number() if not problems else []
        if problems:
            self.close()
            raise ListenError(problems, code)
        self._name()
        return self

    @classmethod
    def to_look_up(cls, addresses: Sequence[Address], living: Sequence[Listeners]) -> list[Address]:
        """Those of the addresses that only a look-up can say the meaning of, which may take long: a
        host's name, a user's or a group's. One that a set among `living` has already is known.
        """
        known = [each for group in living for each in group]
        return [
            address
            for address in addresses
            if not is_plain(address) and not any(each.means(address) for each in known)
        ]

    @classmethod
    def changed(
        cls,
        addresses: Sequence[Address],
        living: Sequence[Listeners],
        *,
        backlog: int | None,
        found: Mapping[str, LookedUp] | None = None,
    ) -> tuple[Listeners, list[str]]:
        """The set that these addresses ask for, and in sentences what of it stays as it was.

        A socket that a set among `living` holds already is shared, whatever else has changed about
        it; the others are bound now. `found` is what `look_up` has said of some; what it does not
        hold is looked up here. Raises ListenError naming every problem; all is as it was then.
        """
        found = found or {}
        fresh = cls()
        known = list({id(each.held): each for group in living for each in group}.values())
        chosen: list[Listener] = []
        problems: list[str] = []
        remarks: list[str] = []
        for address in _apart(addresses):
            queue = address.backlog or backlog or LONGEST_BACKLOG
            try:
                same = next((each for each in known if each.means(address)), None)
                if same is None:
                    where, owner = resolved(found.get(address.spec) or look_up(address))
                    real = address.kind == UNIX or address.port
                    same = next(
                        (
                            each
                            for each in known
                            if real and each.address.kind == address.kind and each.where == where
                        ),
                        None,
                    )
                if same is not None:
                    known.remove(same)
                    chosen.append(same.again(address))
                    if chosen[-1].address != address:
                        remarks.append(
                            f"--port {address.spec}: {', '.join(OF_THE_SOCKET)} stay as they were until sidecar is started anew"
                        )
                    continue
                for group in (fresh, *living):
                    group._refuse_twin(address, where, group is not fresh)
                sock = (
                    bind_unix(address, queue, owner)
                    if address.kind == UNIX
                    else bind_inet(address, where, queue)
                )
                fresh._listeners.append(Listener(address, sock, queue, owner=owner))
                chosen.append(fresh._listeners[-1])
            except (ListenError, OSError) as error:
                problems += [
                    f"--port {address.spec}: {problem}" for problem in problems_of(address, error)
                ]
        # What systemd passed and nobody asked for is passed on to every generation.
        chosen += [each.again(each.address, asked=False) for each in known if not each.asked]
        new = cls()
        new._listeners = chosen
        problems += (
            new._number([each for group in living for each in group]) if not problems else []
        )
        if problems:
            fresh.close()
            raise ListenError(problems)
        new._name()
        return new, remarks

    def without(self, living: Iterable[Listeners]) -> list[str]:
        """Close those of this set that no set among `living` holds; their keys."""
        held = {id(each.held) for group in living for each in group}
        gone = [each for each in self if id(each.held) not in held]
        for each in gone:
            each.close()
        return [each.key for each in gone]

    @staticmethod
    def dump(sets: Sequence[Listeners]) -> dict[str, Any]:
        """Some sets, for a later version of sidecar. What they share is one socket still when they
        are restored together.
        """
        held = list({id(each.held): each.held for group in sets for each in group}.values())
        places = {id(each): place for place, each in enumerate(held)}
        return {
            "held": [{"sock": Descriptor(each.sock.fileno()), "file": each.file} for each in held],
            "sets": [
                [{**vars(each), "held": places[id(each.held)]} for each in group] for group in sets
            ],
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> list[Listeners]:
        """What an earlier version has dumped, under the same numbers. Raises OSError if a
        descriptor is no socket.
        """
        held = [Held(socket.socket(fileno=each["sock"]), each["file"]) for each in state["held"]]
        sets = []
        for group in state["sets"]:
            sets.append(cls())
            sets[-1]._listeners = [
                Listener.restore({**each, "held": held[each["held"]]}) for each in group
            ]
        return sets

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._listeners)

    def __len__(self) -> int:
        return len(self._listeners)

    def handoff(self) -> list[tuple[int, int]]:
        """Our own file descriptor and the worker's, for each. None of ours equals any of the
        worker's, see _number.
        """
        return [(listener.sock.fileno(), listener.fd) for listener in self]

    def environment(self) -> dict[str, str]:
        """The variables by which a worker finds its sockets; LISTEN_PID has to be added between
        fork and exec.

        systemd's are left out where they could not be true: they only name file descriptors from 3
        up, without a gap.
        """
        found = {
            "SERVER_STARTER_PORT": ";".join(f"{listener.key}={listener.fd}" for listener in self)
        }
        names = {listener.fd: listener.name for listener in self}
        if names and set(names) == set(range(3, 3 + len(names))):
            found["LISTEN_FDS"] = str(len(names))
            found["LISTEN_FDNAMES"] = ":".join(names[fd] for fd in sorted(names))
        return found

    def inodes(self) -> frozenset[int]:
        """The socket inodes of the stream listeners, as /proc/PID/fd shows them. One changes when
        `mend` binds anew.
        """
        return frozenset(
            os.fstat(listener.sock.fileno()).st_ino for listener in self if listener.address.stream
        )

    def mend(self) -> list[str]:
        """Repair every listener that a program has spoilt; one sentence on each that was, and on
        each that stays so.

        Costs one poll(), and an lstat() a path, if all is well. Never raises.
        """
        poll = select.poll()
        for listener in self:
            poll.register(listener.sock, select.POLLRDHUP)
        shut = {fd for fd, _ in poll.poll(0)}
        said: list[str] = []
        were, self.broken = self.broken, {}
        for listener in self:
            try:
                sentence = listener.mend(listener.sock.fileno() in shut)
            except (ListenError, OSError) as error:
                why = " and ".join(problems_of(listener.address, error))
                sentence = (
                    f"new connections do not reach it any more, and it cannot be repaired: {why}"
                )
                self.broken[listener] = f"listener {listener.key}: {sentence}"
            if not sentence and listener in were:
                sentence = "new connections reach it again"
            if sentence:
                said.append(f"listener {listener.key}: {sentence}")
        return said

    def watched(self) -> list[tuple[int, str]]:
        """For ListenerWatch: the descriptor of each that is well, and its path if it has a file."""
        return [
            (each.sock.fileno(), each.address.path if each.file is not None else "")
            for each in self
            if each not in self.broken
        ]

    def close(self) -> None:
        """Close all; unlink the unix paths that still name our sockets, and the private links."""
        for listener in self:
            listener.close()

    def _adopt(
        self, address: Address, sock: socket.socket, name: str, backlog: int, asked: bool = True
    ) -> None:
        """Take over an inherited socket. A unix one, should it be bound anew one day, gets the mode
        and owner it has now.
        """
        try:
            if address.stream and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                sock.listen(backlog)
            tune(sock, address)
        except OSError as error:
            sock.close()
            raise ListenError(
                [
                    f"a listening socket is needed, this one cannot be ({os.strerror(error.errno or 0)})"
                ]
            ) from None
        if address.kind == UNIX and file_of(address.path):
            found = os.lstat(address.path)
            address = address.replace(
                mode=stat.S_IMODE(found.st_mode), owner=f"{found.st_uid}:{found.st_gid}"
            )
            link_privately(address.path)
        self._listeners.append(Listener(address, sock, backlog, name=name, ours=False, asked=asked))

    def _refuse_twin(self, address: Address, where: Any, living: bool = False) -> None:
        """Raise ListenError if one of ours listens there under another name; for UDP, bind() would
        not tell.
        """
        for other in self:
            if other.address.kind != address.kind:
                continue
            if address.kind == UNIX:
                same = other.file is not None and other.file == file_of(address.path)
            else:
                hosts = {other.where[0], where[0]}
                both = (
                    not v6_only(other.sock)
                    if other.sock.family == socket.AF_INET6
                    else address.v6 and not address.ipv6only
                )
                if other.address.v6 != address.v6 and not (both and ANY_V6 in hosts):
                    continue
                wide = address.kind == TCP and not hosts.isdisjoint((ANY_V4, ANY_V6))
                same = other.where[1] == where[1] and (
                    wide or len(hosts) == 1 or hosts == {ANY_V4, ANY_V6}
                )
            if same:
                hint = (
                    "drop it with one reload, and take this one with the next"
                    if living
                    else "leave one of the two out"
                )
                raise ListenError([f"--port {other.address.spec} listens there already; {hint}"])

    def _number(self, others: Sequence[Listener] = ()) -> list[str]:
        """Settle the worker's file descriptors, and move our own out of their way. What hinders us,
        in sentences.

        `others` are the listeners of other sets that live: ours have to be clear of their workers'
        numbers too, for a worker of theirs may yet be started.

        The child of a fork makes the worker's descriptors by one dup2() each. If our 4 had to
        become 3 and our 3 become 4, the first would destroy the second; so all of ours live above
        the highest that any worker gets. Not at a fixed height such as 1100, because the soft limit
        of open files often is 1024.
        """
        fixed = {listener.address.fd for listener in self} - {None}
        free = iter(
            [number for number in range(3, 3 + len(self) + len(fixed)) if number not in fixed]
        )
        for listener in self:
            listener.fd = next(free) if listener.address.fd is None else listener.address.fd
        highest = max([2, *(listener.fd for listener in (*self, *others))])
        try:
            for listener in {id(each.held): each for each in (*self, *others)}.values():
                if listener.sock.fileno() <= highest or not others:
                    with listener.sock as low:
                        listener.sock = socket.socket(
                            fileno=fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, highest + 1)
                        )
        except OSError:
            hint = "take a lower =FD, or raise the limit of open files (ulimit -n)"
            return [
                f"--port: no file descriptor is left above {highest}, which is to be a worker's; {hint}"
            ]
        return []

    def _name(self) -> None:
        """Name those that neither the user nor systemd has named: by port or file name, made unique
        by -2, -3 …
        """
        taken = {listener.name for listener in self}
        for listener in self:
            if not listener.name:
                short = os.path.basename(listener.address.path) or str(listener.where[1])
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


def _apart(addresses: Sequence[Address]) -> list[Address]:
    """The addresses; of them `[::]:PORT` is for IPv6 alone where an IPv4 address with that port is
    asked for as well: both could not be bound otherwise.
    """
    v4 = {(each.kind, each.port) for each in addresses if not each.v6 and each.port}
    return [
        each.replace(ipv6only=True)
        if each.v6 and (each.kind, each.port) in v4 and is_any_v6(each)
        else each
        for each in addresses
    ]
