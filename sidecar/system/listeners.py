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

import errno
import fcntl
import os
import select
import socket
import stat

from sidecar.base.errors import ListenError
from sidecar.base.record import Descriptor
from sidecar.settings.address import TCP, UDP, UNIX, Address
from sidecar.system.safe_open import unlink_same
from sidecar.system.users import group_id, user_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
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

# Set on a socket, and so for all generations at once: not changed under a living one.
OF_THE_SOCKET = ("defer", "nonblock", "ipv6only", "backlog", "mode", "owner")

ANY_V4, ANY_V6 = "0.0.0.0", "::"  # noqa: S104 - what a bare port means, and what [::] does

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
        self.held = Held(sock, _file(address.path))
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
        return "IPv6 only" if _v6_only(self.sock) else "IPv6 and IPv4"

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
        path, private = self.address.path, _private(self.address.path)
        if shut:
            did = "a program called shutdown() on the shared socket; "
            if self.address.kind == TCP:
                self.sock.listen(self.backlog)
                # An inherited one that was bound to port 0 comes back on another port. Ours do not,
                # see _bind_inet.
                if self.sock.getsockname() == self.where:
                    return did + "it listens again"
        elif self.file is None or _file(path) == self.file:
            return ""
        else:
            did = "a program removed the socket's path; "
            _make_room(path)
            if _file(private) == self.file:
                # Unlike rename(), link() never takes the place of something that has come there
                # meanwhile.
                os.link(private, path)
                return did + "it is put back"
        queue, where = self.backlog, self.where
        fresh = (
            _bind_unix(self.address, queue, self.owner or _owner(self.address))
            if path
            else _bind_inet(self.address, where, queue, like=self.sock)
        )
        with fresh:
            os.dup2(fresh.fileno(), self.sock.fileno(), inheritable=False)
        self.file = _file(path)
        return did + BOUND_ANEW

    def close(self) -> None:
        """Close the socket; remove the private link and, if it is ours, the path, as far as they
        still name it.
        """
        self.sock.close()
        for path in (_private(self.address.path), self.address.path if self.ours else ""):
            try:
                if self.file and path:
                    unlink_same(path, self.file)
            except OSError:
                pass  # an unwritable directory, say; the next start replaces the stale socket


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
                where = _where(address)
                given = next((pair for pair in spare if _is(pair[0], address, where)), None)
                if given:
                    spare.remove(given)
                    self._adopt(address, *given, queue)
                else:
                    self._refuse_twin(address, where)
                    if address.kind == UNIX and _make_room(address.path):
                        self.removed.append(address.path)
                    owner = _owner(address)
                    sock = (
                        _bind_unix(address, queue, owner)
                        if address.kind == UNIX
                        else _bind_inet(address, where, queue)
                    )
                    self._listeners.append(Listener(address, sock, queue, owner=owner))
            except (ListenError, OSError) as error:
                problems += [
                    f"{flag} {address.spec}: {problem}" for problem in _problems(address, error)
                ]
                code = code or error.errno or 0
        for sock, name in spare:
            try:
                self._adopt(_described(sock), sock, name, backlog or LONGEST_BACKLOG, asked=False)
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
            if not _is_plain(address) and not any(each.means(address) for each in known)
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
                    where, owner = _known(found.get(address.spec) or look_up(address))
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
                    _bind_unix(address, queue, owner)
                    if address.kind == UNIX
                    else _bind_inet(address, where, queue)
                )
                fresh._listeners.append(Listener(address, sock, queue, owner=owner))
                chosen.append(fresh._listeners[-1])
            except (ListenError, OSError) as error:
                problems += [
                    f"--port {address.spec}: {problem}" for problem in _problems(address, error)
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
                why = " and ".join(_problems(listener.address, error))
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
            _tune(sock, address)
        except OSError as error:
            sock.close()
            raise ListenError(
                [
                    f"a listening socket is needed, this one cannot be ({os.strerror(error.errno or 0)})"
                ]
            ) from None
        if address.kind == UNIX and _file(address.path):
            found = os.lstat(address.path)
            address = address.replace(
                mode=stat.S_IMODE(found.st_mode), owner=f"{found.st_uid}:{found.st_gid}"
            )
            _link_privately(address.path)
        self._listeners.append(Listener(address, sock, backlog, name=name, ours=False, asked=asked))

    def _refuse_twin(self, address: Address, where: Any, living: bool = False) -> None:
        """Raise ListenError if one of ours listens there under another name; for UDP, bind() would
        not tell.
        """
        for other in self:
            if other.address.kind != address.kind:
                continue
            if address.kind == UNIX:
                same = other.file is not None and other.file == _file(address.path)
            else:
                hosts = {other.where[0], where[0]}
                both = (
                    not _v6_only(other.sock)
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
            _described(sock)
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


def _described(sock: socket.socket) -> Address:
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


def _is(sock: socket.socket, address: Address, where: Any) -> bool:
    """Whether an inherited socket is what an address asks for."""
    there = sock.getsockname()
    if sock.type != (socket.SOCK_STREAM if address.stream else socket.SOCK_DGRAM):
        return False
    if there == where or sock.family != socket.AF_INET6:
        return bool(there == where)
    # systemd's ListenStream=8080 is [::]:8080 for both families; that is what `8080` asks for, too.
    return not _v6_only(sock) and where[0] == ANY_V4 and there[:2] == (ANY_V6, where[1])


def _v6_only(sock: socket.socket) -> bool:
    """Whether an IPv6 socket leaves IPv4 out."""
    return bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


def _apart(addresses: Sequence[Address]) -> list[Address]:
    """The addresses; of them `[::]:PORT` is for IPv6 alone where an IPv4 address with that port is
    asked for as well: both could not be bound otherwise.
    """
    v4 = {(each.kind, each.port) for each in addresses if not each.v6 and each.port}
    return [
        each.replace(ipv6only=True)
        if each.v6 and (each.kind, each.port) in v4 and _where_is_any(each)
        else each
        for each in addresses
    ]


def _where_is_any(address: Address) -> bool:
    try:
        return not any(socket.inet_pton(socket.AF_INET6, address.host))
    except OSError:
        return False


def look_up(address: Address) -> LookedUp:
    """What the names in an address stand for. May take as long as a name server does."""
    try:
        return (_where(address), _owner(address)), ()
    except ListenError as error:
        return None, error.problems


def _known(looked_up: LookedUp) -> tuple[Any, tuple[int, int]]:
    """What was found. Raises ListenError if it was not."""
    found, problems = looked_up
    if found is None:
        raise ListenError(problems)
    return found


def _is_plain(address: Address) -> bool:
    """Whether it names nothing that would have to be looked up."""
    if address.kind == UNIX:
        return all(not name or name.isdigit() for name in address.owner.split(":"))
    return _plain_where(address) is not None


def _plain_where(address: Address) -> Any:
    """`_where` of an address without a name; None for one with a name, or a v6 one with a zone."""
    family = socket.AF_INET6 if address.v6 else socket.AF_INET
    try:
        host = socket.inet_ntop(family, socket.inet_pton(family, address.host or ANY_V4))
    except (OSError, ValueError):
        return None
    return (host, address.port, *([0, 0] if address.v6 else []))


def _owner(address: Address) -> tuple[int, int]:
    """Whom a unix socket is to be given to: uid and gid, -1 for as it is. Raises ListenError."""
    user, _, group = address.owner.partition(":")
    return _id("user", user), _id("group", group)


def _where(address: Address) -> Any:
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


def _bind_inet(
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
            only = _v6_only(like) if like else address.ipv6only or where[0] != ANY_V6
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind(where)
        if address.stream and not where[1]:
            # After shutdown(), listen() would bring it back on another port than the kernel has
            # chosen now. So a second socket is bound to that port explicitly while the first one
            # holds it.
            with sock:
                return _bind_inet(address, sock.getsockname(), backlog)
        _tune(sock, address)
        if address.stream:
            sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _bind_unix(address: Address, backlog: int, owner: tuple[int, int]) -> socket.socket:
    """A new unix socket at its path, with its private link, and listening; a stale one that is
    there is replaced.

    Raises ListenError if anything else is there, or its owner cannot be set.
    """
    path = address.path
    mode = DEFAULT_MODE if address.mode is None else address.mode
    _make_room(path)
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
            _link_privately(path)
            if address.owner:
                os.chown(f"/proc/self/fd/{file}", *owner)
            if stat.S_IMODE(os.fstat(file).st_mode) != mode:
                os.chmod(f"/proc/self/fd/{file}", mode)
        finally:
            os.close(file)
        _tune(sock, address)
        sock.listen(backlog)
    except OSError as error:
        Listener(address, sock, backlog).close()
        if address.owner and error.errno in (errno.EPERM, errno.EINVAL):
            may_not = f"uid {os.geteuid()} may not give the socket to {address.owner}"
            raise ListenError(
                [f"{may_not} ({os.strerror(error.errno)}); that needs root or CAP_CHOWN"]
            ) from None
        raise
    return sock


def _tune(sock: socket.socket, address: Address) -> None:
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


def _make_room(path: str) -> bool:
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


def _private(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.sidecar")


def _link_privately(path: str) -> None:
    """Make the private link to the socket file at `path`, in place of a former one; go without
    where that cannot be.
    """
    try:
        former = _file(_private(path))
        if former:
            unlink_same(_private(path), former)
        os.link(path, _private(path))
    except OSError:
        pass


def _file(path: str) -> tuple[int, int] | None:
    """What identifies the socket file at `path`, None if there is none. Not reused as long as a
    socket is bound to it.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


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


def _problems(address: Address, error: ListenError | OSError) -> tuple[str, ...]:
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
