"""Pauses: exponential backoff with jitter, a limit on how often something is done, and the timer of
the automatic restart.

Moments and durations are seconds on the caller's clock; `random_fraction` is a number in [0, 1)
that the caller drew.
"""

from __future__ import annotations

# The pause after the first quick failure; each further one doubles it. No setting makes a pause
# shorter than this, and no shorter life counts as a long one: a process that cannot be made fails
# in no time at all, and trying again at once would never end.
FIRST_PAUSE_S = 0.25


class Backoff:
    """Pauses between attempts: none after `min_uptime`, else FIRST_PAUSE_S, doubled with each
    failure in a row up to `max_pause`.

    Each pause is shortened by up to half, at random, so that many who failed together do not come
    back together.
    """

    __slots__ = ("failures", "last_failure_at", "max_pause", "min_uptime", "not_before")

    def __init__(self, min_uptime: float, max_pause: float) -> None:
        self.set_limits(min_uptime, max_pause)
        #: How many failures there were in a row.
        self.failures = 0
        self.last_failure_at = float("-inf")
        #: The moment before which there is to be no attempt.
        self.not_before = float("-inf")

    def set_limits(self, min_uptime: float, max_pause: float) -> None:
        """Use other limits from the next failure on."""
        self.min_uptime = max(min_uptime, FIRST_PAUSE_S)
        self.max_pause = max(max_pause, FIRST_PAUSE_S)

    def record_failure(self, now: float, lived: float, random_fraction: float) -> float:
        """Something failed at `now`, after it had worked for `lived` seconds: the moment before
        which it is not to be tried again.
        """
        self.last_failure_at = now
        if lived >= self.min_uptime:
            self.failures = 0
            self.not_before = now
        else:
            pause = self._next_pause()
            self.failures += 1
            self.not_before = now + pause * (1 - random_fraction / 2)
        return self.not_before

    def record_uptime(self, since: float, now: float) -> None:
        """What began at `since` works still. If that is for long enough, forget the failures before
        it.
        """
        if since > self.last_failure_at and now - since >= self.min_uptime:
            self.failures = 0

    def _next_pause(self) -> float:
        """The pause that follows one more failure in a row, before it is shortened."""
        return min(self.max_pause, FIRST_PAUSE_S * 2.0 ** min(self.failures, 30))


class RateLimit:
    """How often something may be done: once in `interval` seconds, and at once as often as fits
    into `burst` seconds more.
    """

    __slots__ = ("burst", "interval", "used_until")

    def __init__(self, interval: float, burst: float) -> None:
        self.interval = interval
        self.burst = burst
        self.used_until = float("-inf")

    def use(self, now: float) -> float:
        """It is done at `now`: the moment before which it is not to be done again."""
        self.used_until = max(self.used_until, now) + self.interval
        return max(now, self.used_until - self.burst)


class AutoRestartTimer:
    """When the automatic restart is due: an interval, and up to a tenth of it, after the last swap.

    It waits for workers that are still leaving, until `forced_at`.
    """

    __slots__ = ("due_at", "forced_at")

    def __init__(self) -> None:
        self.due_at = float("inf")
        self.forced_at = float("inf")

    def start(self, now: float, interval: float, random_fraction: float) -> None:
        """Count from `now`."""
        self.due_at = now + interval * (1 + random_fraction / 10)
        self.forced_at = now + 2 * interval

    def stop(self) -> None:
        """Never be due."""
        self.due_at = self.forced_at = float("inf")
