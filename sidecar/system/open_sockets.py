"""Which sockets the processes of a worker have open: sidecar's listeners, and sockets of their own."""

from __future__ import annotations

from sidecar.base.record import Record
from sidecar.system.procfs import VANISHED, as_owner, open_files, process_name, worker_tree
from sidecar.system.sock_diag import listening_sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection


class OwnListener(Record):
    """A TCP socket that a worker's process listens on by itself: the process's pid and name, the
    address as HOST:PORT (an IPv6 host in brackets), and the socket's inode.
    """

    pid: int
    program: str
    address: str
    inode: int


def holds_socket(pid: int, inodes: Collection[int]) -> bool:
    """Whether a process has one of these sockets open, as far as can be seen."""
    try:
        sockets = _sockets_of(pid)
    except OSError:
        return False
    return not set(sockets.values()).isdisjoint(inodes)


def own_listeners(leader: int, ours: Collection[int]) -> list[OwnListener]:
    """The TCP sockets on which processes of the leader's tree listen and which are none of `ours`
    (inodes). Empty where the system does not show them.

    Raises OSError if sidecar itself lacks something, such as a free descriptor.
    """
    holders: dict[int, int] = {}
    for pid in worker_tree(leader):
        try:
            for inode in _sockets_of(pid).values():
                if inode not in ours:
                    holders.setdefault(inode, pid)
        except (*VANISHED, PermissionError):
            continue
    if not holders:
        return []
    return [
        OwnListener(
            holders[each.inode], process_name(holders[each.inode]), each.address, each.inode
        )
        for each in listening_sockets()
        if each.inode in holders
    ]


def _sockets_of(pid: int) -> dict[int, int]:
    """The sockets of one process {fd: inode}, seen as its owner where that is refused."""
    return as_owner(pid, lambda: open_files(pid))[0]
