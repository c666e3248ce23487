"""When a process that has to run all the time is started again after it has ended.

Pure: all moments are seconds on the caller's clock, `random_fraction` is a number in [0, 1) that
the caller drew.
"""

from __future__ import annotations

from sidecar.core.backoff import Backoff

# A process that lived shorter is started again after a pause that grows up to the longest: what it
# does for others is missed meanwhile.
MIN_UPTIME_S, MAX_PAUSE_S = 10.0, 5.0


class RestartPolicy:
    """The restarts of one process, which is started first at `start_at` (infinity: when the caller
    likes).

    The pause before a restart is never shorter than `min_pause_s`. With `runs_during_stop` the
    process is started again even while sidecar stops.
    """

    __slots__ = (
        "backoff",
        "min_pause_s",
        "outdated",
        "running",
        "runs_during_stop",
        "start_at",
        "started_at",
    )

    def __init__(
        self, start_at: float, *, min_pause_s: float = 0.0, runs_during_stop: bool = False
    ) -> None:
        self.min_pause_s = min_pause_s
        self.runs_during_stop = runs_during_stop
        self.running = False
        #: An earlier version of sidecar has started it: it is ended, and started again at once.
        self.outdated = False
        self.start_at = start_at
        self.started_at = start_at
        self.backoff = Backoff(MIN_UPTIME_S, MAX_PAUSE_S)

    def started(self, now: float) -> None:
        """The process runs."""
        self.running = True
        self.started_at = now
        self.start_at = float("inf")

    def ended(self, now: float, random_fraction: float) -> float:
        """The process has ended, or could not be started: the pause until the next start, in
        seconds.
        """
        lived = now - self.started_at if self.running else 0.0
        self.running = False
        if self.outdated:
            self.outdated = False
            self.start_at = now
        else:
            not_before = self.backoff.record_failure(now, lived, random_fraction)
            self.start_at = max(not_before, now + self.min_pause_s)
        return self.start_at - now

    def lost(self, now: float) -> None:
        """After an internal error there is no process, and perhaps nothing that would start it:
        start it now, unless a moment for that is known.
        """
        self.running = False
        if self.start_at == float("inf"):
            self.start_at = now

    def taken_over(self) -> None:
        """Another version of sidecar goes on with this: a process that runs is outdated."""
        self.outdated = self.running

    def is_wanted(self, stopping: bool) -> bool:
        """Whether it is started again when it has ended; `stopping`: sidecar stops."""
        return self.runs_during_stop or not stopping

    def deadline(self, stopping: bool) -> float:
        """When it has to be started."""
        return self.start_at if self.is_wanted(stopping) else float("inf")
