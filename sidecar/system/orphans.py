"""The orphans of workers: processes that have outlived their own parent and are sidecar's children
now, as PID 1 or as a subreaper.

Each belongs to the worker whose leader started it, directly or not; that is told by its process
group, its session, its environment (procfs.leader_of), or by having been below the leader when that
was asked to leave. Nobody polls for orphans: a process becomes one in the moment in which its parent
ends, and that end wakes sidecar.
"""

from __future__ import annotations

import os

from sidecar.system import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from typing import Any

    Send = Callable[[Callable[[int, int], None], int, int], bool]


class Orphans:
    """Whose orphan is whose. Leaders are added when they start, and forgotten when nothing of their
    worker is left.
    """

    def __init__(self) -> None:
        self._leaders: set[int] = set()
        #: By leader that was asked to leave: what was below it then, with each one's start time.
        self._below_at_retire: dict[int, dict[int, str]] = {}
        #: The leaders whose worker was killed.
        self._killed: set[int] = set()
        #: The leader by orphan. An orphan keeps its pid until sidecar reaps it.
        self._leader_by_orphan: dict[int, int] = {}

    def export_state(self) -> dict[str, Any]:
        """Its state for a later version of sidecar."""
        return {
            "leaders": self._leaders,
            "below_at_retire": self._below_at_retire,
            "killed": self._killed,
            "leader_by_orphan": self._leader_by_orphan,
        }

    def import_state(self, state: dict[str, Any]) -> None:
        """Take over what an earlier version has exported."""
        self._leaders, self._killed = state["leaders"], state["killed"]
        self._below_at_retire = state["below_at_retire"]
        self._leader_by_orphan = state["leader_by_orphan"]

    def add_leader(self, pid: int) -> None:
        """A worker has been started."""
        self._leaders.add(pid)

    def forget_leaders(self, pids: Iterable[int]) -> None:
        """Nothing is left of these workers."""
        for pid in pids:
            self._leaders.discard(pid)
            self._killed.discard(pid)
            self._below_at_retire.pop(pid, None)

    def has_leader_among(self, pids: Iterable[int]) -> bool:
        """Whether one of these is a worker's leader."""
        return not self._leaders.isdisjoint(pids)

    def reaped(self, pid: int) -> None:
        """A child was reaped; it may have been an orphan."""
        self._leader_by_orphan.pop(pid, None)

    def before_retire(self, leader: int) -> None:
        """Remember what is below a leader that is about to be asked to leave: its children become
        orphans when it ends.
        """
        try:
            below = procfs.with_descendants([leader])[1:]
            self._below_at_retire[leader] = {each: procfs.start_time(each) for each in below}
        except OSError:
            pass

    def before_kill(self, pid: int) -> None:
        """A worker is killed: its orphans are, too, also those that are found later."""
        if pid in self._leaders:
            self._killed.add(pid)

    def pids(self) -> list[int]:
        """All the orphans that are known."""
        return list(self._leader_by_orphan)

    def by_leader(self, started: Collection[int]) -> dict[int, list[int]]:
        """The orphans by their worker's leader. `started` are the children that sidecar has started
        itself. Never raises: where /proc cannot be read, those known already are given.
        """
        try:
            for pid in procfs.adopted_children(started):
                if pid not in self._leader_by_orphan and (leader := self._find_leader(pid)):
                    self._leader_by_orphan[pid] = leader
        except OSError:
            pass
        found: dict[int, list[int]] = {}
        for pid, leader in self._leader_by_orphan.items():
            found.setdefault(leader, []).append(pid)
        return found

    def unowned(self, started: Collection[int]) -> list[int]:
        """The orphans that belong to no worker, as far as can be seen."""
        self.by_leader(started)
        try:
            adopted = procfs.adopted_children(started)
        except OSError:
            return []
        return [pid for pid in adopted if pid not in self._leader_by_orphan]

    def _find_leader(self, pid: int) -> int:
        """The leader to whose worker an orphan belongs; 0 for none."""
        for leader, below in self._below_at_retire.items():
            if pid in below and below[pid] == procfs.start_time(pid):
                return leader
        return procfs.leader_of(pid, self._leaders)

    def killed_among(self, leaders: Iterable[int]) -> set[int]:
        """Those of these leaders whose worker was killed."""
        return self._killed.intersection(leaders)

    def signal_outside_group(self, leader: int, number: int, send: Send) -> None:
        """Send a signal to the worker's orphans that are not in its process group, and to what is
        below them. Never raises.
        """
        orphans = [pid for pid, owner in self._leader_by_orphan.items() if owner == leader]
        try:
            found = procfs.with_descendants(orphans) if orphans else []
        except OSError:
            found = orphans
        for pid in found:
            try:
                if os.getpgid(pid) != leader:
                    send(os.kill, pid, number)
            except OSError:
                continue
