"""Readiness `accept`: see from outside whether a worker takes connections.

Between fork and the first answered request lies everything that imports, migrations and warm-ups
may take. Server::Starter waits a fixed second: too long for most programs, too short for the rest.
A program that says READY=1 may say it too early (gunicorn does, before it imports the application).
So we look for ourselves.

A program takes connections from a listening socket in one of few ways, and Linux shows each of them
in proc(5):

    it keeps the socket in an epoll set         /proc/PID/fdinfo/N   what the set holds, and for which events
    a thread sleeps in accept, select or poll   /proc/PID/syscall    the call and its arguments, and what they point
                                                /proc/PID/mem        to: an fd_set, an array of struct pollfd
    it is too busy ever to wait                 /proc/PID/fd         a connection that came in through the listener

The last is for a worker that comes while the service is saturated: its loop of accept, answer,
accept finds the queue never empty and is never seen asleep. The listener is known by its socket
inode, the one name that dup, fork and SCM_RIGHTS leave alone.

Nothing is stopped, injected or connected to. Roads not taken: a connect proves nothing (the
kernel's queue takes it for a program that is still importing, and the old generation may answer);
ptrace stops the worker and shuts out a debugger; sock_diag(7) tells that a socket listens, not that
anyone accepts; a line in the program's log is a guess about its words; eBPF needs privileges that
no container has.

Not seen: a wait by io_uring (its socket is not shown); who asks in vain, sleeps and asks again;
and, in Go or Rust's tokio, the time between making a listener, which puts it in the epoll set at
once, and accepting from it.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from errno import EIO
from functools import cache  # comes with socket

from sidecar.base.errors import SidecarError
from sidecar.base.record import Record
from sidecar.system.procfs import VANISHED, as_owner, name, read, stat, status, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_READABLE = 0x001 | 0x040  # (E)POLLIN | (E)POLLRDNORM: poll(2), epoll_ctl(2)

_X86_64 = {
    "43": "accept",
    "288": "accept",
    "23": "select",
    "270": "select",
    "7": "poll",
    "271": "poll",
}
_GENERIC = {
    "202": "accept",
    "242": "accept",
    "72": "select",
    "73": "poll",
}  # linux/include/uapi/asm-generic/unistd.h
# System call numbers, as /proc/PID/syscall writes them, to the way in which the arguments name file
# descriptors.
_CALLS = {"x86_64": _X86_64, "aarch64": _GENERIC, "riscv64": _GENERIC, "loongarch64": _GENERIC}.get(
    os.uname().machine
)

# A socket's protocol, as the attribute system.sockprotoname calls it (xattr(7)), to its address
# family.
_FAMILIES = {
    b"TCP": socket.AF_INET,
    b"TCPv6": socket.AF_INET6,
    b"UNIX-STREAM": socket.AF_UNIX,
    b"UNIX": socket.AF_UNIX,
}


class LookForbidden(SidecarError):
    """The system does not let us see whether a worker takes connections; the text says in a clause
    what is in the way.

    It may pass: a process that has changed its user is hidden until it calls execve or makes itself
    visible, as nginx's workers do. So believe what lasts: `Glances.refused`.
    """


def takes_connections(leader: int, listeners: Collection[int]) -> bool:
    """Whether some process of the leader's tree takes connections from one of the listeners (socket
    inodes).

    A process that vanishes meanwhile is just not there. Raises LookForbidden if nothing was found
    and something could not be looked at, OSError if sidecar itself is in need (no descriptors
    left).
    """
    return any(_takers(leader, listeners, ()))


def takers(leader: int, listeners: Collection[int], known: Collection[int]) -> set[int]:
    """The processes of the leader's tree that take connections from one of the listeners; raises as
    `takes_connections`.

    Of those `known` to take connections it is enough that they are still there: one that is between
    two connections just now shows nothing. A master that only looks after others is none of them.
    """
    return set(_takers(leader, listeners, known))


def _takers(leader: int, listeners: Collection[int], known: Collection[int]) -> Iterator[int]:
    if blindness := _blindness():
        raise LookForbidden(blindness)
    found = False
    refusal = (
        f"/proc hides process {leader} from uid {os.geteuid()} (hidepid)" if _hidden(leader) else ""
    )
    for pid in tree(leader):
        try:
            if not _exiting(f"{pid}") if pid in known else _look(pid, listeners):
                found = True
                yield pid
        except VANISHED:
            continue
        except PermissionError as error:
            if not _exiting(f"{pid}"):
                refusal = f"uid {os.geteuid()} may not read {error.filename} ({error.strerror})"
        except LookForbidden as error:
            refusal = str(error)
    if refusal and not found:
        raise LookForbidden(refusal)


def holds(pid: int, listeners: Collection[int]) -> bool:
    """Whether a process has one of the listeners (socket inodes) open, as far as can be seen."""
    try:
        sockets = _sockets(pid)
    except OSError:
        return False
    return not set(sockets.values()).isdisjoint(listeners)


def handles(pid: int, *numbers: int) -> bool:
    """Whether a process has a handler for each of these signals, or blocks them and waits for them
    (sigwait(3), signalfd(2)). Else most of them end or stop it (signal(7)).
    """
    try:
        heard = int(status(pid, "SigCgt"), 16) | int(status(pid, "SigBlk"), 16)
    except (*VANISHED, PermissionError, ValueError):
        return False
    return all(heard >> number - 1 & 1 for number in numbers)


def _look(pid: int, listeners: Collection[int]) -> bool:
    """Look at one process, as its owner where that is refused."""
    return as_owner(pid, lambda: _takes(pid, listeners))


def _sockets(pid: int) -> dict[int, int]:
    """The sockets of one process {fd: inode}, seen as its owner where that is refused."""
    return as_owner(pid, lambda: _files(pid))[0]


class Listening(Record):
    """A process that listens on a TCP socket: its pid and name, the address as HOST:PORT (a v6 host
    in brackets), and the socket's inode.
    """

    pid: int
    program: str
    address: str
    inode: int


def elsewhere(leader: int, ours: Collection[int]) -> list[Listening]:
    """Where processes of the leader's tree listen (TCP) on sockets of their own, which are none of
    `ours` (inodes). Empty where the system does not show it. Raises OSError if sidecar itself is in
    need.
    """
    held: dict[int, int] = {}
    for pid in tree(leader):
        try:
            for inode in _sockets(pid).values():
                if inode not in ours:
                    held.setdefault(inode, pid)
        except (*VANISHED, PermissionError):
            continue
    found = []
    for family, size in ((socket.AF_INET, 4), (socket.AF_INET6, 16)) if held else ():
        for answer in _tcp_sockets(family, 1 << 10):  # TCP_LISTEN
            inode = struct.unpack_from("=I", answer, 68)[0]
            if inode not in held:
                continue
            port = int.from_bytes(answer[4:6], "big")
            host = socket.inet_ntop(family, answer[8 : 8 + size])
            address = f"[{host}]:{port}" if size == 16 else f"{host}:{port}"
            found.append(Listening(held[inode], name(held[inode]), address, inode))
    return found


def _takes(pid: int, listeners: Collection[int]) -> bool:
    """Look at one process; the questions that may be refused (Yama, unknown machines) come last."""
    sockets, special = _files(pid)
    if _in_epoll(pid, sockets, special, listeners):
        return True
    held = {fd for fd, inode in sockets.items() if inode in listeners}
    if not held:
        return False
    if _connected(pid, sockets, held) or _asleep(pid, held):
        return True
    for fd, kind in special.items():
        # 6 and 13 are IORING_OP_POLL_ADD and IORING_OP_ACCEPT. Idle rings are common: libuv has
        # some for files.
        if kind == "[io_uring]" and any(
            f"op={op}," in read(f"/proc/{pid}/fdinfo/{fd}") for op in (6, 13)
        ):
            raise LookForbidden(
                f"process {pid} waits by io_uring, which does not show for which socket"
            )
    return False


def _files(pid: int) -> tuple[dict[int, int], dict[int, str]]:
    """The open files of a process that matter here: sockets {fd: inode}, anonymous ones {fd:
    "[eventpoll]" …}.
    """
    sockets: dict[int, int] = {}
    special: dict[int, str] = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            kind, _, name = os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")
        except VANISHED:
            continue
        if kind == "socket":
            sockets[int(fd)] = int(name[1:-1])
        elif kind == "anon_inode":
            special[int(fd)] = name
    return sockets, special


def _in_epoll(
    pid: int, sockets: dict[int, int], special: dict[int, str], listeners: Collection[int]
) -> bool:
    """Whether an epoll set holds a listener and asks when it is readable.

    A member's line: `tfd: 7 events: 19 data: 7 pos:0 ino:51b8 sdev:8`, all but tfd in hex; no ino
    before Linux 4.13.
    """
    for fd, kind in special.items():
        if kind != "[eventpoll]":
            continue
        for line in read(f"/proc/{pid}/fdinfo/{fd}").splitlines():
            if line.startswith("tfd:"):
                _, target, _, events, *rest = line.split()
                shown = [int(word[4:], 16) for word in rest if word.startswith("ino:")]
                inode = shown[0] if shown else sockets.get(int(target))
                if inode in listeners and int(events, 16) & _READABLE:
                    return True
    return False


def _connected(pid: int, sockets: dict[int, int], held: set[int]) -> bool:
    """Whether the process has a connection that came in through a listener that it holds.

    Such a connection has the listener's own address. Asking for addresses costs up to 20 ms where
    tens of thousands of connections are (and through /proc/PID/net ten times that), so it is asked
    once for each socket, and only for those of a listener's family: most programs have none before
    they accept one, an event loop's socketpair aside.
    """
    families = {fd: _family(pid, fd) for fd in sockets}
    for family in {families[fd] for fd in held}:
        if family is None:
            continue
        entrances = {
            inode for fd, inode in sockets.items() if families[fd] == family and fd in held
        }
        others = {inode for fd, inode in sockets.items() if families[fd] == family} - entrances
        if not others:
            continue
        if not (entrances | others).issubset(_address):
            if len(_address) > 10_000:
                _address.clear()
            shown = _addresses(family)
            _address.update((inode, shown.get(inode)) for inode in entrances | others)
        if ({_address[inode] for inode in entrances} - {None}) & {
            _address[inode] for inode in others
        }:
            return True
    return False


_address: dict[
    int, bytes | None
] = {}  # by socket inode, for good: what was accepted or listens never moves


def _family(pid: int, fd: int) -> int | None:
    """The address family of a stream socket; None where it does not tell, or is of another kind."""
    try:
        return _FAMILIES.get(
            os.getxattr(f"/proc/{pid}/fd/{fd}", "system.sockprotoname").rstrip(b"\0")
        )
    except OSError:
        return None


def _addresses(family: int) -> dict[int, bytes]:
    """The local addresses of all listening and connected stream sockets, by inode: a TCP port, the
    path of a unix socket.

    From sock_diag(7), as `ss` has them; empty where that is not to be had.
    """
    found: dict[int, bytes] = {}
    if family != socket.AF_UNIX:  # TCP_ESTABLISHED, TCP_CLOSE_WAIT, TCP_LISTEN
        for answer in _tcp_sockets(family, 1 << 1 | 1 << 8 | 1 << 10):
            found[struct.unpack_from("=I", answer, 68)[0]] = answer[4:6]
        return found
    # struct unix_diag_req: every state, UDIAG_SHOW_NAME
    for answer in _sock_diag(struct.pack("=BBHIIIII", family, 0, 0, 0xFFFF_FFFF, 0, 1, 0, 0)):
        # struct unix_diag_msg, then attributes, the name first if there is one
        inode, length, attribute = struct.unpack_from("=I8xHH", answer, 4)
        if attribute == 0:
            found[inode] = answer[20 : 16 + length]
    return found


def _tcp_sockets(family: int, states: int) -> Iterator[bytes]:
    """Every TCP socket in one of the states, a set of bits (tcp_states.h), as struct inet_diag_msg."""
    # struct inet_diag_req_v2
    return _sock_diag(struct.pack("=BBHI48x", family, socket.IPPROTO_TCP, 0, states))


def _sock_diag(request: bytes) -> Iterator[bytes]:
    """What the kernel answers to a dump of sockets, message by message; less where it refuses."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as kernel:  # NETLINK_SOCK_DIAG
            # struct nlmsghdr: SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP
            kernel.send(struct.pack("=IHHII", 16 + len(request), 20, 0x301, 0, 0) + request)
            while True:
                answer = kernel.recv(1 << 16, socket.MSG_DONTWAIT)
                while answer:
                    size, kind = struct.unpack_from("=IH", answer)
                    if kind != 20:  # NLMSG_DONE, NLMSG_ERROR
                        return
                    yield answer[16:size]
                    answer = answer[size + 3 & ~3 :]
    except OSError:
        return


def _asleep(pid: int, held: set[int]) -> bool:
    """Whether a thread sleeps in a system call until a connection comes to a listener that the
    process holds.

    A thread's `syscall` reads `running`, or `-1 SP PC` (asleep, but not in a call), or the number
    and arguments in hex.
    """
    if _CALLS is None:
        raise LookForbidden(f"the numbers of system calls on {os.uname().machine} are not known")
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            number, *words = read(f"/proc/{pid}/task/{task}/syscall").split()
            way = _CALLS.get(number)
            if way is None:
                continue
            first, second = (int(word, 16) & (1 << 63) - 1 for word in words[:2])
            if way == "accept":  # (fd, …)
                asked = {first & 0xFFFF_FFFF}
            elif way == "select":  # (nfds, readfds, …): bit n of readfds stands for fd n
                bits = int.from_bytes(_memory(pid, second, min(first, 1 << 16) + 7 >> 3), "little")
                asked = {fd for fd in held if fd < first and bits >> fd & 1}
            else:  # (fds, nfds, …): struct pollfd {int fd; short events, revents;}
                array = _memory(pid, first, min(second, 1 << 16) * 8)
                asked = {
                    fd
                    for fd, events, _ in struct.iter_unpack("=ihh", array[: len(array) & ~7])
                    if events & _READABLE
                }
        except VANISHED:
            continue
        except PermissionError:
            if _exiting(f"{pid}/task/{task}"):
                continue
            raise
        if asked & held:
            return True
    return False


def _memory(pid: int, address: int, size: int) -> bytes:
    """Bytes of a process's memory; fewer, or none, where it has none."""
    path = f"/proc/{pid}/mem"
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, address)
    except OSError as error:
        if error.errno == EIO:
            return b""
        raise
    finally:
        os.close(fd)


def _exiting(task: str) -> bool:
    """Whether a process or thread has no memory any more (vsize, the 23rd field): its files are
    refused, not missing.
    """
    try:
        return stat(task)[20] == "0"
    except OSError:
        return True


def _hidden(pid: int) -> bool:
    """Whether a process exists that /proc does not show us (hidepid)."""
    if os.path.exists(f"/proc/{pid}"):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@cache
def _blindness() -> str:
    """Why looking is hopeless here: of ourselves, who may see everything, we do not see what we
    wait for; else empty.

    So it is in gVisor, without /proc, and where /proc is of another pid namespace.
    """
    pid = os.getpid()
    with socket.socket(socket.AF_UNIX) as decoy, select.epoll() as waiting:
        waiting.register(decoy, select.EPOLLIN)
        try:
            inode = os.fstat(decoy.fileno()).st_ino
            seen = _in_epoll(
                pid, {decoy.fileno(): inode}, {waiting.fileno(): "[eventpoll]"}, {inode}
            )
            read(f"/proc/{pid}/syscall")
        except (*VANISHED, PermissionError):
            seen = False
    return (
        ""
        if seen
        else f"/proc does not show what process {pid} waits for, though that is sidecar itself"
    )


class Glances:
    """When to look at which coming worker: after 2 ms, then ever more seldom up to every 50 ms.

    A look costs PID 1 time that it would rather sleep, so many workers share that: each then waits
    at least 2 ms for each of the others. Times are seconds of one clock, which the caller reads.
    """

    FIRST, FACTOR, LONGEST, SHARE = 0.002, 1.25, 0.050, 0.002
    PATIENCE = 20  # refusals: about half a second

    def __init__(self) -> None:
        self._next: dict[
            int, tuple[float, float]
        ] = {}  # worker: when, and how long it waited for that
        self._refusals: dict[int, int] = {}

    def add(self, pid: int, now: float) -> None:
        """A worker has been started."""
        self._next[pid] = (now + self.FIRST, self.FIRST)
        self._refusals[pid] = 0

    def drop(self, pid: int) -> None:
        """It is ready, or gone, or never was: no more looks at it."""
        self._next.pop(pid, None)
        self._refusals.pop(pid, None)

    def deadline(self) -> float | None:
        """The time of the next look; None if nobody is coming."""
        return min(self._next.values())[0] if self._next else None

    def due(self, now: float) -> list[int]:
        """Whom to look at now, longest overdue first; each gets its next time."""
        pids = sorted(
            (pid for pid, (when, _) in self._next.items() if when <= now),
            key=lambda pid: self._next[pid],
        )
        for pid in pids:
            wait = min(self._next[pid][1] * self.FACTOR, self.LONGEST)
            self._next[pid] = (now + max(wait, self.SHARE * (len(self._next) - 1)), wait)
        return pids

    def refused(self, pid: int) -> bool:
        """A look at it was forbidden; whether that has been so often enough to be believed."""
        self._refusals[pid] = self._refusals.get(pid, 0) + 1
        return self._refusals[pid] >= self.PATIENCE
