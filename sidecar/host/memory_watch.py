"""What workers take of the memory: with --max-memory it is looked at again and again; a swap has to
fit beside the workers that are there; and a worker that the kernel has killed may have been killed
because there was none left.
"""

from __future__ import annotations

from sidecar.core import facts
from sidecar.core.room import Room
from sidecar.system import cgroup, resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.core.model import Worker
    from sidecar.core.worker_table import WorkerTable
    from sidecar.host.job import Tools

# With --max-memory the workers' memory is looked at that often (seconds).
CHECK_INTERVAL_S = 5.0


class MemoryWatch:
    """The job that looks whether a worker has grown too big. `worker_table` has the workers; `limit` is
    how much each may hold (bytes), None for any amount.
    """

    def __init__(
        self, tools: Tools, limit: int | None, now: float, worker_table: WorkerTable
    ) -> None:
        self._tools = tools
        self._worker_table = worker_table
        self._limit: int | None = None
        self._at = float("inf")
        self.configure(limit, now)

    def configure(self, limit: int | None, now: float) -> None:
        """Another limit holds from now on, if it is another."""
        if limit != self._limit:
            self._limit = limit
            self._at = now + CHECK_INTERVAL_S if limit else float("inf")

    def deadline(self) -> float:
        """The time of the next look."""
        return self._at

    def on_deadline(self, now: float) -> None:
        """Find the workers that hold more memory than they may."""
        self._at = now + CHECK_INTERVAL_S
        for worker in self._worker_table.ready():
            self._tools.attempt("look at the workers' memory", self._check, worker.pid, now)

    def _check(self, pid: int, now: float) -> None:
        memory = resources.more_than(self._limit or 0, pid)
        if memory:
            self._tools.observe(facts.MemoryLimitExceeded(pid, memory), now)


class MemoryRoom:
    """How many workers of a coming generation fit beside those that are there, and what the kernel
    has killed for want of memory. Asked when something happens; never looks by itself.
    """

    def __init__(self) -> None:
        self._room = Room()
        self._kills = cgroup.oom_kill_count()

    def left_for(
        self, generation: int, there: Iterable[Worker], size: int
    ) -> tuple[int | None, str]:
        """How many of a generation's `size` workers fit beside those that are there, and why; None
        where that is not to be seen.
        """
        found = cgroup.free_bytes()
        if found is None:
            return None, ""
        sizes = [
            (each.generation, resources.private_memory(each.pid), each.ready_at is not None)
            for each in there
        ]
        return self._room.begin(generation, *found, sizes, size, cgroup.oom_kill_count())

    def only_one_left(self) -> None:
        """One generation is left of the swap that was begun last."""
        if self._room.begun:
            self._room.end(cgroup.oom_kill_count())

    def has_killed(self) -> bool:
        """Whether the kernel has killed a process for want of memory since that was asked last."""
        before, self._kills = self._kills, cgroup.oom_kill_count()
        return self._kills > before
