"""What a worker's whole tree of processes takes: memory and CPU time."""

from __future__ import annotations

import os
from errno import EMFILE, ENFILE, ENOMEM

from sidecar.system.procfs import VANISHED, read, worker_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PAGE_BYTES, _TICKS_PER_S = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")

# Sidecar has no free descriptor, or no memory for one: that says nothing about the process that it
# looks at.
_SIDECAR_LACKS_RESOURCES = (EMFILE, ENFILE, ENOMEM)


def usage(leader: int, groups: Mapping[int, list[int]] | None = None) -> tuple[int, float] | None:
    """What a worker's whole tree takes: resident memory in bytes (shared pages counted once for
    each process), and CPU time in seconds. None if that cannot be seen.

    The CPU time of children that were waited for is in their parent's, so it never falls. `groups`
    is the result of procfs.children_by_group.
    """
    try:
        return _usage(leader, groups)
    except OSError:  # without /proc, or without a descriptor to read it with
        return None


def _usage(leader: int, groups: Mapping[int, list[int]] | None) -> tuple[int, float] | None:
    """The same. Raises OSError where the processes cannot be found."""
    pages, ticks, seen = 0, 0, False
    for pid in worker_tree(leader, groups):
        try:
            # proc(5): the name, in brackets, may hold anything; then come state (3), utime, stime,
            # cutime, cstime (14 to 17), rss (24).
            fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        except OSError as error:
            if error.errno in _SIDECAR_LACKS_RESOURCES:
                raise
            continue
        try:
            ticks += sum(map(int, fields[11:15]))
            pages += int(fields[21])
            seen = True
        except IndexError:
            continue
    return (pages * _PAGE_BYTES, ticks / _TICKS_PER_S) if seen else None


def memory(leader: int) -> int | None:
    """The resident memory of a worker's whole tree in bytes; None if it cannot be seen. Raises
    OSError if sidecar itself lacks something, such as a free descriptor.
    """
    taken = _usage(leader, None)
    return None if taken is None else taken[0]


def private_memory(leader: int) -> int:
    """The bytes that would be free if the worker's whole tree ended, without cached files; 0 if that
    cannot be seen.

    Memory that processes share (preloaded code) is counted once: each process counts its share of it
    (proc(5), smaps_rollup).
    """
    total = 0
    for pid in worker_tree(leader):
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


def more_than(limit: int, leader: int) -> int:
    """The memory of a worker's whole tree in bytes if that is more than `limit` bytes, else 0.

    Each process counts its share of shared pages (PSS). For that the kernel walks over all pages, so
    it is read only if the resident memory, which is never less, is above the limit. Where /proc
    refuses it, the resident memory counts. Raises OSError if sidecar itself lacks something, such as
    a free descriptor.
    """
    if (memory(leader) or 0) <= limit:
        return 0
    held = 0
    for pid in worker_tree(leader):
        try:
            try:
                share = next(
                    line
                    for line in read(f"/proc/{pid}/smaps_rollup").split("\n")
                    if line.startswith("Pss:")
                )
                held += int(share.split()[1]) * 1024
            except (PermissionError, StopIteration):
                held += int(read(f"/proc/{pid}/statm").split()[1]) * _PAGE_BYTES
        except (OSError, IndexError, ValueError):
            continue
    return held if held > limit else 0
