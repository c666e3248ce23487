"""What a worker's whole tree of processes takes: memory and CPU time."""

from __future__ import annotations

import os
from errno import EMFILE, ENFILE, ENOMEM

from sidecar.system.procfs import VANISHED, read, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PAGE, _TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")

# No descriptor, or no memory for one: that says nothing about who is looked at.
# No descriptor, or no memory for one: that says nothing about who is looked at.
IN_NEED = (EMFILE, ENFILE, ENOMEM)


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
    for pid in tree(leader, groups):
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
    for pid in tree(leader):
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
    """The memory of a worker's whole tree in bytes if that is more than `limit`, else 0.

    What counts is what would be free without it: shared pages by their share (PSS). That takes the
    kernel a walk over all pages, so it is asked for only if the resident memory, which is never
    less, is too much; and that has to do where /proc refuses. Raises OSError if sidecar itself is in
    need (no descriptors left).
    """
    if (memory(leader) or 0) <= limit:
        return 0
    held = 0
    for pid in tree(leader):
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
