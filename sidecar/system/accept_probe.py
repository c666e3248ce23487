"""Readiness `accept`: see from outside whether a worker takes connections.

Between fork and the first answered request lies everything that imports, migrations and warm-ups
may take. Server::Starter waits for a fixed second: too long for most programs, too short for the
rest. A program that sends READY=1 may send it too early (gunicorn does, before it imports the
application). So sidecar looks for itself.

A program takes connections from a listening socket in one of a few ways, and Linux shows each of
them in proc(5):

    it keeps the socket in an epoll set         /proc/PID/fdinfo/N   what is in the set, for which events
    a thread sleeps in accept, select or poll   /proc/PID/syscall    the call and its arguments, and in
                                                /proc/PID/mem        memory an fd_set or struct pollfd[]
    it is too busy ever to wait                 /proc/PID/fd         a connection that came in through
                                                                     the listener

The last is for a worker that starts while the service is saturated: its loop of accept, answer,
accept never finds the queue empty, and so it is never seen asleep. The listener is known by its
socket inode, because dup, fork and SCM_RIGHTS do not change it.

Nothing is stopped, injected or connected to. Roads not taken:

- A connection proves nothing: the kernel's queue takes it for a program that is still importing,
  and the old generation may answer it.
- ptrace stops the worker and shuts out a debugger.
- sock_diag(7) tells that a socket listens, not that anyone accepts.
- A line in the program's log is a guess about its words.
- eBPF needs privileges that no container has.

What is not seen: a wait by io_uring (the kernel does not show its socket); a program that asks
without waiting, sleeps and asks again; and, in Go or Rust's tokio, the time between making a
listener, which puts it in the epoll set at once, and accepting from it.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from errno import EIO
from functools import cache  # comes with socket

from sidecar.base.errors import SidecarError
from sidecar.system.procfs import VANISHED, as_owner, open_files, read, stat_fields, worker_tree
from sidecar.system.sock_diag import local_addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_READABLE = 0x001 | 0x040  # (E)POLLIN | (E)POLLRDNORM: poll(2), epoll_ctl(2)

# The numbers of system calls, as /proc/PID/syscall writes them, and the way in which the arguments
# name file descriptors. linux/include/uapi/asm-generic/unistd.h has the generic ones.
_X86_64 = {
    "43": "accept",
    "288": "accept",
    "23": "select",
    "270": "select",
    "7": "poll",
    "271": "poll",
}
_GENERIC = {"202": "accept", "242": "accept", "72": "select", "73": "poll"}
_CALLS = {"x86_64": _X86_64, "aarch64": _GENERIC, "riscv64": _GENERIC, "loongarch64": _GENERIC}.get(
    os.uname().machine
)
# A call that claims to wait for more descriptors than this is not believed.
_MAX_WAITED_FOR = 1 << 16

_IORING_OP_POLL_ADD, _IORING_OP_ACCEPT = 6, 13  # linux/io_uring.h

# The address family by what the attribute system.sockprotoname calls a socket's protocol (xattr(7)).
_FAMILIES = {
    b"TCP": socket.AF_INET,
    b"TCPv6": socket.AF_INET6,
    b"UNIX-STREAM": socket.AF_UNIX,
    b"UNIX": socket.AF_UNIX,
}

# The local address by socket inode. It stays true: what listens or was accepted never moves.
_known_addresses: dict[int, bytes | None] = {}
_MAX_KNOWN_ADDRESSES = 10_000


class ProbeForbidden(SidecarError):
    """The system does not let sidecar see whether a worker takes connections. The text says in a
    clause what is in the way.

    It may pass: a process that has changed its user is hidden until it calls execve or makes itself
    visible, as nginx's workers do. So believe it only if it lasts (core/probe_schedule.py).
    """


def accepts_connections(leader: int, listeners: Collection[int]) -> bool:
    """Whether some process of the leader's tree takes connections from one of the listeners (socket
    inodes).

    A process that vanishes meanwhile counts as not there. Raises ProbeForbidden if nothing was found
    and something could not be looked at; OSError if sidecar itself lacks something, such as a free
    descriptor.
    """
    return any(_accepting(leader, listeners, ()))


def accepting_pids(leader: int, listeners: Collection[int], known: Collection[int]) -> set[int]:
    """The processes of the leader's tree that take connections from one of the listeners. Raises
    what `accepts_connections` raises.

    A process among `known`, which was found earlier, only has to be alive: between two connections
    it shows nothing. A master that only looks after other processes is not among them.
    """
    return set(_accepting(leader, listeners, known))


def _accepting(leader: int, listeners: Collection[int], known: Collection[int]) -> Iterator[int]:
    if blindness := _why_blind():
        raise ProbeForbidden(blindness)
    found = False
    refusal = ""
    if _is_hidden(leader):
        refusal = f"/proc hides process {leader} from uid {os.geteuid()} (hidepid)"
    for pid in worker_tree(leader):
        try:
            if _still_accepts(pid) if pid in known else _accepts_seen_as_owner(pid, listeners):
                found = True
                yield pid
        except VANISHED:
            continue
        except PermissionError as error:
            if not _is_exiting(f"{pid}"):
                refusal = f"uid {os.geteuid()} may not read {error.filename} ({error.strerror})"
        except ProbeForbidden as error:
            refusal = str(error)
    if refusal and not found:
        raise ProbeForbidden(refusal)


def _still_accepts(pid: int) -> bool:
    """Whether a process that was found to accept is still alive."""
    return not _is_exiting(f"{pid}")


def _accepts_seen_as_owner(pid: int, listeners: Collection[int]) -> bool:
    """Look at one process, as its owner where that is refused."""
    return as_owner(pid, lambda: _process_accepts(pid, listeners))


def _process_accepts(pid: int, listeners: Collection[int]) -> bool:
    """Look at one process. What may be refused (by Yama, or on unknown machines) comes last."""
    sockets, anonymous = open_files(pid)
    if _epoll_set_has(pid, sockets, anonymous, listeners):
        return True
    held = {fd for fd, inode in sockets.items() if inode in listeners}
    if not held:
        return False
    if _has_accepted_connection(pid, sockets, held) or _thread_waits(pid, held):
        return True
    if _waits_by_io_uring(pid, anonymous):
        raise ProbeForbidden(
            f"process {pid} waits by io_uring, which does not show for which socket"
        )
    return False


def _epoll_set_has(
    pid: int, sockets: dict[int, int], anonymous: dict[int, str], listeners: Collection[int]
) -> bool:
    """Whether an epoll set of the process has a listener and waits until it is readable.

    A member's line reads `tfd: 7 events: 19 data: 7 pos:0 ino:51b8 sdev:8`. All but tfd is in hex;
    there is no ino before Linux 4.13.
    """
    for fd, kind in anonymous.items():
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


def _has_accepted_connection(pid: int, sockets: dict[int, int], held: set[int]) -> bool:
    """Whether the process has a connection that came in through a listener that it holds (`held`:
    the listeners' descriptors).

    Such a connection has the listener's own address. Addresses are asked for once for each socket,
    because that takes up to 20 ms where tens of thousands of connections are. They are asked for
    only where there are other sockets of a listener's family: most programs have none before they
    accept one, apart from an event loop's socketpair.
    """
    families = {fd: _socket_family(pid, fd) for fd in sockets}
    for family in {families[fd] for fd in held} - {None}:
        same_family = {fd for fd in sockets if families[fd] == family}
        entrances = {sockets[fd] for fd in same_family & held}
        others = {sockets[fd] for fd in same_family} - entrances
        if not others:
            continue
        addresses = _addresses_of(entrances | others, family)
        entered_at = {addresses[inode] for inode in entrances} - {None}
        if entered_at & {addresses[inode] for inode in others}:
            return True
    return False


def _addresses_of(inodes: set[int], family: int | None) -> dict[int, bytes | None]:
    """The local addresses of these sockets of one family, None where that is not known."""
    if family is not None and not inodes.issubset(_known_addresses):
        if len(_known_addresses) > _MAX_KNOWN_ADDRESSES:
            _known_addresses.clear()
        shown = local_addresses(family)
        _known_addresses.update((inode, shown.get(inode)) for inode in inodes)
    return _known_addresses


def _socket_family(pid: int, fd: int) -> int | None:
    """The address family of a stream socket; None for another kind, or where that is not shown."""
    try:
        protocol = os.getxattr(f"/proc/{pid}/fd/{fd}", "system.sockprotoname")
    except OSError:
        return None
    return _FAMILIES.get(protocol.rstrip(b"\0"))


def _thread_waits(pid: int, held: set[int]) -> bool:
    """Whether a thread sleeps in a system call until a connection comes to one of the descriptors in
    `held`.
    """
    if _CALLS is None:
        raise ProbeForbidden(f"the numbers of system calls on {os.uname().machine} are not known")
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            if _waited_for(pid, task, held) & held:
                return True
        except VANISHED:
            continue
        except PermissionError:
            if not _is_exiting(f"{pid}/task/{task}"):
                raise
    return False


def _waited_for(pid: int, task: str, held: set[int]) -> set[int]:
    """The descriptors that a thread waits for in accept, select or poll.

    A thread's `syscall` reads `running`, or `-1 SP PC` (asleep, but not in a call), or the call's
    number and arguments in hex.
    """
    number, *words = read(f"/proc/{pid}/task/{task}/syscall").split()
    way = _CALLS.get(number) if _CALLS is not None else None
    if way is None:
        return set()
    first, second = (int(word, 16) & (1 << 63) - 1 for word in words[:2])
    if way == "accept":  # (fd, …)
        return {first & 0xFFFF_FFFF}
    if way == "select":  # (nfds, readfds, …): bit n of readfds stands for fd n
        size = min(first, _MAX_WAITED_FOR) + 7 >> 3
        bits = int.from_bytes(_read_memory(pid, second, size), "little")
        return {fd for fd in held if fd < first and bits >> fd & 1}
    # poll (fds, nfds, …): struct pollfd {int fd; short events, revents;}
    array = _read_memory(pid, first, min(second, _MAX_WAITED_FOR) * 8)
    entries = struct.iter_unpack("=ihh", array[: len(array) & ~7])
    return {fd for fd, events, _ in entries if events & _READABLE}


def _waits_by_io_uring(pid: int, anonymous: dict[int, str]) -> bool:
    """Whether an io_uring of the process waits for a connection or for a socket to be readable. Idle
    rings are common: libuv has some for files.
    """
    return any(
        f"op={operation}," in read(f"/proc/{pid}/fdinfo/{fd}")
        for fd, kind in anonymous.items()
        if kind == "[io_uring]"
        for operation in (_IORING_OP_POLL_ADD, _IORING_OP_ACCEPT)
    )


def _read_memory(pid: int, address: int, size: int) -> bytes:
    """Bytes of a process's memory; fewer, or none, where the process has none."""
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, address)
    except OSError as error:
        if error.errno == EIO:
            return b""
        raise
    finally:
        os.close(fd)


def _is_exiting(task: str) -> bool:
    """Whether a process or thread has no memory any more (vsize, the 23rd field of its stat). /proc
    then refuses its files, as if they were forbidden.
    """
    try:
        return stat_fields(task)[20] == "0"
    except OSError:
        return True


def _is_hidden(pid: int) -> bool:
    """Whether a process exists that /proc does not show to us (hidepid)."""
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
def _why_blind() -> str:
    """Why looking is hopeless on this system, "" if it is not: sidecar may see everything of itself,
    and does not see what it waits for.

    This is so in gVisor, without /proc, and where /proc is of another pid namespace.
    """
    pid = os.getpid()
    with socket.socket(socket.AF_UNIX) as decoy, select.epoll() as waiting:
        waiting.register(decoy, select.EPOLLIN)
        try:
            inode = os.fstat(decoy.fileno()).st_ino
            seen = _epoll_set_has(
                pid, {decoy.fileno(): inode}, {waiting.fileno(): "[eventpoll]"}, {inode}
            )
            read(f"/proc/{pid}/syscall")
        except (*VANISHED, PermissionError):
            seen = False
    if seen:
        return ""
    return f"/proc does not show what process {pid} waits for, though that is sidecar itself"
