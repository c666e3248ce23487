"""When a coming worker is looked at: the schedule of the readiness probes. Pure."""

from __future__ import annotations


class ProbeSchedule:
    """When to look at which coming worker: after 2 ms, then ever more seldom up to every 50 ms.

    A look costs PID 1 time that it would rather sleep, so many workers share that: each then waits
    at least 2 ms for each of the others. All moments are seconds on the caller's clock.
    """

    FIRST_DELAY_S, DELAY_GROWTH, MAX_DELAY_S, DELAY_PER_WORKER_S = 0.002, 1.25, 0.050, 0.002
    #: So many forbidden looks at a worker are believed; they take about half a second.
    MAX_REFUSALS = 20

    def __init__(self) -> None:
        # By worker: the moment of the next look, and the delay before it.
        self._next: dict[int, tuple[float, float]] = {}
        self._refusals: dict[int, int] = {}

    def add(self, pid: int, now: float) -> None:
        """A worker has been started."""
        self._next[pid] = (now + self.FIRST_DELAY_S, self.FIRST_DELAY_S)
        self._refusals[pid] = 0

    def drop(self, pid: int) -> None:
        """Look at this worker no more: it is ready, or has gone, or was never added."""
        self._next.pop(pid, None)
        self._refusals.pop(pid, None)

    def deadline(self) -> float | None:
        """The moment of the next look; None if no worker is coming."""
        return min(self._next.values())[0] if self._next else None

    def due(self, now: float) -> list[int]:
        """The workers to look at now, the longest overdue first. Each gets its next moment."""
        pids = sorted(
            (pid for pid, (when, _) in self._next.items() if when <= now),
            key=lambda pid: self._next[pid],
        )
        for pid in pids:
            delay = min(self._next[pid][1] * self.DELAY_GROWTH, self.MAX_DELAY_S)
            shared = self.DELAY_PER_WORKER_S * (len(self._next) - 1)
            self._next[pid] = (now + max(delay, shared), delay)
        return pids

    def refused(self, pid: int) -> bool:
        """Count a forbidden look at a worker; whether that has been often enough to be believed."""
        self._refusals[pid] = self._refusals.get(pid, 0) + 1
        return self._refusals[pid] >= self.MAX_REFUSALS
