"""Reads /proc: whose child a process is, in which group, for which worker it was started.

A process of a worker may leave the worker's process group (setsid: a daemon, a helper) and outlive
it. It then becomes sidecar's child, as PID 1 or as a subreaper. Its worker is found by what the
process cannot easily lose: its session, and its environment, which every fork and exec passes on
(SIDECAR_WORKER_PID names the worker's leader).
"""

from __future__ import annotations

import os
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from typing import TypeVar

    T = TypeVar("T")

#: The errors for a process or descriptor that no longer exists: ENOENT, ESRCH.
VANISHED = (FileNotFoundError, ProcessLookupError)

#: The variable in the environment of a worker's processes: the pid of the worker's leader.
WORKER_PID_VARIABLE = "SIDECAR_WORKER_PID"


def read(path: str) -> str:
    """The whole of a file in /proc, in a third of the time that open() takes. Errors name the file,
    also those of read(2).
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode("utf-8", "surrogateescape")
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def stat_fields(task: str) -> list[str]:
    """The fields of /proc/PID/stat from the third on: state, parent, group, session … A name may
    hold spaces and parentheses.
    """
    return read(f"/proc/{task}/stat").rpartition(")")[2].split()


def as_owner(pid: int, look: Callable[[], T]) -> T:
    """Look at a process; if that is refused, look again as its owner. Raises PermissionError.

    Root may look at every process only with CAP_SYS_PTRACE, which containers do not have. Without it
    the kernel demands that the filesystem uid and gid are the process's (ptrace(2), "Ptrace access
    mode checking"). Setting the effective ids does that; the real ones stay 0, so the owner may not
    signal sidecar meanwhile. This is the second choice because it leaves sidecar "not dumpable"
    (prctl(2)). It does not help with a process that changed its uid without execve, because that is
    not dumpable itself.
    """
    try:
        return look()
    except PermissionError as error:
        refusal = error
    uid, gid, owner = os.geteuid(), os.getegid(), os.stat(f"/proc/{pid}")
    if uid != 0 or (owner.st_uid, owner.st_gid) == (uid, gid):
        raise refusal
    try:
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
        return look()
    except PermissionError:
        raise refusal from None
    finally:
        os.seteuid(uid)
        os.setegid(gid)


def children_of() -> Callable[[int], list[int]]:
    """A function that returns a process's children. Use one for several processes: without
    CONFIG_PROC_CHILDREN, making it takes a walk over all processes.
    """
    return _children if _children_shown() else _children_by_scan()


def _children(pid: int) -> list[int]:
    """A process's children, of any of its threads. While children come and go some may be missed
    (proc(5)).
    """
    children: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except (*VANISHED, PermissionError):
        return children
    for task in tasks:
        try:
            children += map(int, read(f"/proc/{pid}/task/{task}/children").split())
        except VANISHED:
            continue
    return children


@cache
def _children_shown() -> bool:
    """Whether this kernel has /proc/PID/task/TID/children (CONFIG_PROC_CHILDREN)."""
    return os.path.exists("/proc/thread-self/children")


def _children_by_scan() -> Callable[[int], list[int]]:
    """What `_children` answers, from one walk over all processes."""
    family: dict[int, list[int]] = {}
    for pid, (_, parent, *_) in _all_processes():
        family.setdefault(int(parent), []).append(pid)
    return lambda pid: family.get(pid, [])


def _all_processes() -> Iterator[tuple[int, list[str]]]:
    """Every process and what `stat` says of it. Raises OSError where /proc cannot be read."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            fields = stat_fields(name)
        except OSError:
            continue
        if len(fields) > 2:
            yield int(name), fields


def with_descendants(pids: Collection[int]) -> list[int]:
    """These processes and all that descend from them."""
    return list(_downwards(list(pids)))


def _downwards(found: list[int]) -> Iterator[int]:
    """These processes and then all that descend from them, which are added to `found`."""
    children = children_of()
    for pid in found:  # grows while we walk
        yield pid
        found += [child for child in children(pid) if child not in found]


def adopted_children(known: Collection[int]) -> list[int]:
    """Our own children that live and that we have not started: orphans."""
    found = set()
    for _ in range(2):  # a child that ends while the list is read may hide another
        found.update(children_of()(os.getpid()))
    return [pid for pid in sorted(found.difference(known)) if _is_alive(pid)]


def _is_alive(pid: int) -> bool:
    try:
        return stat_fields(f"{pid}")[0] not in "ZX"
    except OSError:
        return False


def status_field(pid: int | str, name: str) -> str:
    """What a line of /proc/PID/status says, such as CapEff; "" if there is none. Raises OSError."""
    return read(f"/proc/{pid}/status").partition(f"\n{name}:")[2].partition("\n")[0].strip()


def open_files(pid: int) -> tuple[dict[int, int], dict[int, str]]:
    """The open sockets of a process {fd: inode}, and its anonymous files {fd: "[eventpoll]"}
    (anon_inode in proc(5)). Raises OSError.
    """
    sockets: dict[int, int] = {}
    anonymous: dict[int, str] = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            kind, _, which = os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")
        except VANISHED:
            continue
        if kind == "socket":
            sockets[int(fd)] = int(which[1:-1])
        elif kind == "anon_inode":
            anonymous[int(fd)] = which
    return sockets, anonymous


def handles_signals(pid: int, *numbers: int) -> bool:
    """Whether a process has a handler for each of these signals, or blocks them and waits for them
    (sigwait(3), signalfd(2)). Most of them end or stop a process that has none (signal(7)).
    """
    try:
        heard = int(status_field(pid, "SigCgt"), 16) | int(status_field(pid, "SigBlk"), 16)
    except (*VANISHED, PermissionError, ValueError):
        return False
    return all(heard >> number - 1 & 1 for number in numbers)


def start_time(pid: int) -> str:
    """When a process was started, in a clock's ticks: together with its pid its name for good. ""
    if it has gone.
    """
    try:
        return stat_fields(f"{pid}")[19]
    except OSError:
        return ""


def leader_of(pid: int, leaders: Collection[int]) -> int:
    """The one of these leaders to whose worker a process belongs by its group, its session or its
    environment; 0 if it belongs to none. That it descends from one is for the caller to see.
    """
    try:
        _, _, group, session, *_ = stat_fields(f"{pid}")
    except OSError:
        return 0
    for each in (int(group), int(session)):
        if each in leaders:
            return each
    marked = marked_leader(pid)
    return marked if marked in leaders else 0


def marked_leader(pid: int) -> int:
    """The leader of the worker that a process was started for, as its environment has it; 0 if that
    does not tell or is not to be seen.
    """
    try:
        environment = as_owner(pid, lambda: read(f"/proc/{pid}/environ"))
    except OSError:
        return 0
    for entry in environment.split("\0"):
        name, _, value = entry.partition("=")
        if name == WORKER_PID_VARIABLE and value.isdecimal():
            return int(value)
    return 0


def _living_processes() -> Iterator[tuple[int, int, int]]:
    """Every process that is not a zombie: its pid, its parent's, and its group."""
    for pid, (state, parent, group, *_) in _all_processes():
        if state not in "ZX":
            yield pid, int(parent), int(group)


def group_members(group: int) -> list[int]:
    """The processes of a group; none where /proc cannot be read."""
    try:
        return sorted(pid for pid, _, its_group in _living_processes() if its_group == group)
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """Every process below `pid` that is not a zombie."""
    children: dict[int, list[int]] = {}
    for each, parent, _ in _living_processes():
        children.setdefault(parent, []).append(each)
    found: list[int] = []
    queue = [pid]
    while queue:
        its = children.get(queue.pop(), [])
        found += its
        queue += its
    return found


def owning_leader(pid: int, leaders: Collection[int]) -> int | None:
    """The leader that this process is or descends from, or else in whose process group it or an
    ancestor is, or to whose worker its session or environment says it belongs; None if none.

    These are what still tells of a child that forked twice: its parent is then PID 1.
    """
    by_group, first = None, pid
    for _ in range(_MAX_ANCESTORS):
        if pid in leaders:
            return pid
        try:
            _, parent, group, *_ = stat_fields(f"{pid}")
        except OSError:
            break
        if by_group is None and int(group) in leaders:
            by_group = int(group)
        pid = int(parent)
    return by_group or leader_of(first, leaders) or None


_MAX_ANCESTORS = (
    64  # generations of ancestors; a chain that changes under our eyes cannot keep us longer
)


def children_by_group() -> dict[int, list[int]]:
    """Sidecar's children by process group. Use one result for many workers: each call goes through
    all the children.
    """
    children = children_of()
    groups: dict[int, list[int]] = {}
    for child in children(os.getpid()):
        try:
            groups.setdefault(os.getpgid(child), []).append(child)
        except ProcessLookupError:
            continue
    return groups


def worker_tree(leader: int, groups: Mapping[int, list[int]] | None = None) -> Iterator[int]:
    """The leader, the orphans of its process group that are our children now, and all that descend
    from these.
    """
    yield leader  # mostly it is the one, and the rest need not be found
    orphans = (children_by_group() if groups is None else groups).get(leader, ())
    for pid in _downwards([leader, *(orphan for orphan in orphans if orphan != leader)]):
        if pid != leader:
            yield pid


def process_name(pid: int) -> str:
    """What the system calls a process, "a process" if it has gone."""
    try:
        return read(f"/proc/{pid}/comm").rstrip("\n")
    except OSError:
        return "a process"
