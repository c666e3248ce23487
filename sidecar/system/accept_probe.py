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
import signal
import socket
import struct
from errno import EIO, EMFILE, ENFILE, ENOMEM
from functools import cache  # comes with socket

from sidecar.base.errors import SidecarError
from sidecar.base.record import Descriptor, Record
from sidecar.core.backoff import Allowance
from sidecar.system.procfs import VANISHED, as_owner, children_of, read, stat, worker_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from typing import Any

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

# No descriptor, or no memory for one: that says nothing about who is looked at.
IN_NEED = (EMFILE, ENFILE, ENOMEM)


class LookForbidden(SidecarError):
    """The system does not let us see whether a worker takes connections; the text says in a clause
    what is in the way.

    It may pass: a process that has changed its user is hidden until it calls execve or makes itself
    visible, as nginx's workers do. So believe what lasts: `Glances.refused`.
    """


# ── accept: looking from outside


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
    for pid in _tree(leader):
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
        status = read(f"/proc/{pid}/status")
        masks = [status.partition(f"{name}:")[2].split()[0] for name in ("SigCgt", "SigBlk")]
    except (*VANISHED, PermissionError, IndexError):
        return False
    heard = int(masks[0], 16) | int(masks[1], 16)
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
    for pid in _tree(leader):
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
            found.append(Listening(held[inode], _name(held[inode]), address, inode))
    return found


def _name(pid: int) -> str:
    """What the system calls a process, "a process" if it has gone."""
    try:
        return read(f"/proc/{pid}/comm").rstrip("\n")
    except OSError:
        return "a process"


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


# ── who is who


def owner(pid: int, leaders: Collection[int]) -> int | None:
    """The leader that this process is or descends from, or else in whose process group it or an
    ancestor is, or to whose worker its session or environment says it belongs; None if none.

    These are what still tells of a child that forked twice: its parent is then PID 1.
    """
    by_group, first = None, pid
    for _ in range(_DEEPEST):
        if pid in leaders:
            return pid
        try:
            _, parent, group, *_ = stat(f"{pid}")
        except OSError:
            break
        if by_group is None and int(group) in leaders:
            by_group = int(group)
        pid = int(parent)
    return by_group or worker_of(first, leaders) or None


_DEEPEST = 64  # generations of ancestors; a chain that changes under our eyes cannot keep us longer


def by_group() -> dict[int, list[int]]:
    """Our own children by process group: for who asks about many workers, as each question would go
    through all of them again.
    """
    children = children_of()
    groups: dict[int, list[int]] = {}
    for child in children(os.getpid()):
        try:
            groups.setdefault(os.getpgid(child), []).append(child)
        except ProcessLookupError:
            continue
    return groups


def _tree(leader: int, groups: Mapping[int, list[int]] | None = None) -> Iterator[int]:
    """The leader, the orphans of its process group that are our children now, and all that descend
    from these.
    """
    yield leader  # mostly it is the one, and the rest need not be found
    children = children_of()
    orphans = (by_group() if groups is None else groups).get(leader, ())
    found = [leader, *(orphan for orphan in orphans if orphan != leader)]
    for pid in found:  # grows while we walk
        if pid != leader:
            yield pid
        found += [child for child in children(pid) if child not in found]


def usage(leader: int, groups: Mapping[int, list[int]] | None = None) -> tuple[int, float] | None:
    """What a worker's whole tree takes: resident memory in bytes (shared pages counted once for
    each process), and CPU time in seconds.

    The time of children that were waited for is in their parent's, so it never falls. None if it is
    not to be seen. `groups` is what by_group() says.
    """
    try:
        return _usage(leader, groups)
    except OSError:  # without /proc, or without a descriptor to read it with
        return None


def _usage(leader: int, groups: Mapping[int, list[int]] | None) -> tuple[int, float] | None:
    """The same. Raises OSError where the processes cannot be found."""
    pages, ticks, seen = 0, 0, False
    for pid in _tree(leader, groups):
        try:
            # proc(5): the name, in brackets, may hold anything; then come state (3), utime, stime,
            # cutime, cstime (14 to 17), rss (24).
            fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        except OSError as error:
            if error.errno in IN_NEED:
                raise
            continue
        try:
            ticks += sum(map(int, fields[11:15]))
            pages += int(fields[21])
            seen = True
        except IndexError:
            continue
    return (pages * _PAGE, ticks / _TICKS) if seen else None


def memory(leader: int) -> int | None:
    """The resident memory of a worker's whole tree in bytes; None if it is not to be seen. Raises
    OSError if sidecar itself is in need (no descriptors left).
    """
    taken = _usage(leader, None)
    return None if taken is None else taken[0]


def private_memory(leader: int) -> int:
    """What the system would have back if the worker's whole tree ended, cached files aside (bytes);
    0 if that is not to be seen.

    Memory that processes share (preloaded code) is counted once: each process has its part of it
    (proc(5), smaps_rollup).
    """
    total = 0
    for pid in _tree(leader):
        try:
            lines = read(f"/proc/{pid}/smaps_rollup").splitlines()
        except VANISHED:
            continue
        except OSError:
            return 0
        for line in lines:
            name, _, rest = line.partition(":")
            if name in ("Pss_Anon", "Pss_Shmem"):
                total += int(rest.split()[0]) << 10
    return total


_PAGE, _TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


def more_than(limit: int, leader: int) -> int:
    """The memory of a worker's whole tree in bytes if that is more than `limit`, else 0.

    What counts is what would be free without it: shared pages by their share (PSS). That takes the
    kernel a walk over all pages, so it is asked for only if the resident memory, which is never
    less, is too much; and that has to do where /proc refuses. Raises OSError if sidecar itself is in
    need (no descriptors left).
    """
    if (memory(leader) or 0) <= limit:
        return 0
    held = 0
    for pid in _tree(leader):
        try:
            try:
                share = next(
                    line
                    for line in read(f"/proc/{pid}/smaps_rollup").split("\n")
                    if line.startswith("Pss:")
                )
                held += int(share.split()[1]) * 1024
            except (PermissionError, StopIteration):
                held += int(read(f"/proc/{pid}/statm").split()[1]) * _PAGE
        except (OSError, IndexError, ValueError):
            continue
    return held if held > limit else 0


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


# ── notify: being told


class NotifySocket:
    """The socket that NOTIFY_SOCKET names: programs send it READY=1, STATUS=… (sd_notify(3)).

    Its address is abstract (unix(7)): that needs no writable directory, leaves nothing behind and
    can be reached by a program that has changed its user. Anyone in the network namespace may write
    to it, so a message counts by its sender's pid, which the kernel vouches for, and nobody can
    make PID 1 wait or work for long:

    Descriptors that come along are never taken, so no file of somebody else is flushed here. But
    the kernel closes them in the process that reads the message, and the last close of a TCP socket
    with SO_LINGER lasts as long as its sender wants (socket(7)); a signal ends that wait.

    A sender that has ended before it could be looked at (`systemd-notify --no-block; exec server`)
    shows no more than its pid and uid: of these `receive` tells that nobody knows whose they are.

    Who writes without end is read at a measured pace (`rest`).
    """

    MOST = 16  # messages a turn
    LONGEST = 4096  # bytes a message
    LONGEST_CLOSE = 0.01  # seconds for closing what came along with a message
    # Seconds between two turns, on average; and how much of that may be used up in advance.
    PACE, BURST = 0.05, 2.0

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        """Bind it, non-blocking and close-on-exec, or go on with what an earlier version of sidecar
        has dumped. Raises OSError.
        """
        self.ignored = 0
        """How many messages were of strangers or made no sense."""
        self._allowance = Allowance(self.PACE, self.BURST)
        if state is not None:
            self._socket, self.address = socket.socket(fileno=state["fd"]), state["address"]
            return
        name = f"sidecar-{os.getpid()}-{os.urandom(8).hex()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_PASSCRED, 1
        )  # before bind: no message without a pid
        self._socket.bind(f"\0{name}")
        self.address = f"@{name}"
        """What goes into NOTIFY_SOCKET."""

    def dump(self) -> dict[str, Any]:
        """For a later version of sidecar: the workers know it by this address."""
        return {"fd": Descriptor(self._socket.fileno()), "address": self.address}

    def fileno(self) -> int:
        """For select: readable when a message is there."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it; its name is gone with it."""
        self._socket.close()

    def rest(self, now: float) -> float:
        """Count a turn of `receive` at `now`; the moment (seconds on the caller's clock) before
        which there should be no other one, `now` unless somebody writes without end.
        """
        return self._allowance.use(now)

    def receive(
        self, leaders: Collection[int], uids: Collection[int] = ()
    ) -> list[tuple[int, dict[str, str]]]:
        """The waiting messages of these workers, as (leader, {"READY": "1", "STATUS": …}), at most
        MOST a call. The leader is 0 where the sender has ended, so that nobody knows whose it was,
        and was one of these users.

        A long one is cut after the last whole line of its first 4 KiB. It is looked at before it is
        taken: systemd-notify sends a descriptor (BARRIER=1) and lives only until that is closed.
        """
        messages = []
        for _ in range(self.MOST):
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    self.LONGEST, _CREDENTIALS, socket.MSG_PEEK
                )
            except BlockingIOError:
                break
            sender, uid = 0, -1  # of another pid namespace, if it stays so
            for _, kind, content in ancillary:
                if kind == socket.SCM_CREDENTIALS:
                    sender, uid, _ = struct.unpack("=iII", content)  # struct ucred
            leader = owner(sender, leaders) if sender else None
            if leader is None and sender and uid in uids and not os.path.exists(f"/proc/{sender}"):
                leader = 0
            # Cut short was what had no room: descriptors.
            self._take(flags & socket.MSG_CTRUNC)
            fields = _assignments(data.rpartition(b"\n")[0] if flags & socket.MSG_TRUNC else data)
            if leader is not None and fields:
                messages.append((leader, fields))
            else:
                self.ignored += 1
        return messages

    def _take(self, descriptors: int) -> None:
        """Remove the first message from the queue; with descriptors, for no longer than
        LONGEST_CLOSE.
        """
        if not descriptors:
            self._socket.recv(1)
            return
        before = signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, self.LONGEST_CLOSE, self.LONGEST_CLOSE)
        try:
            self._socket.recv(1)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


_CREDENTIALS = socket.CMSG_SPACE(12)  # room for a struct ucred, and for nothing else


def _assignments(data: bytes) -> dict[str, str]:
    """A message's lines NAME=VALUE; empty if there are none or it is not UTF-8."""
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        return {}
    return {
        name: value
        for name, sign, value in (line.partition("=") for line in lines)
        if sign and name
    }
