"""Exponential backoff with jitter, reset after a minimum uptime; and the clock of the automatic
restart.

All moments are seconds on the caller's clock; `chance` is a number in [0, 1) the caller drew.
"""

from __future__ import annotations

# The pause after the first quick failure; each further one doubles it. No setting makes it shorter,
# nor calls a shorter life long: a process that cannot be made fails in no time at all, and trying
# again at once would never end.
FIRST_PAUSE = 0.25


class Backoff:
    """Pauses between attempts: none after a life of `min_uptime`, else doubling from FIRST_PAUSE up
    to `longest`.

    Each is shortened by up to half, at random, so that many who failed together do not come back
    together.
    """

    __slots__ = ("failed_at", "failures", "longest", "min_uptime", "not_before")

    def __init__(self, min_uptime: float, longest: float) -> None:
        self.limit(min_uptime, longest)
        self.failures = 0
        self.failed_at = float("-inf")
        self.not_before = float("-inf")

    def limit(self, min_uptime: float, longest: float) -> None:
        """Go by other limits from the next failure on."""
        self.min_uptime = max(min_uptime, FIRST_PAUSE)
        self.longest = max(longest, FIRST_PAUSE)

    def failed(self, now: float, lived: float, chance: float) -> float:
        """Something failed at `now` after serving for `lived` seconds: the moment before which it
        is not tried again.
        """
        self.failed_at = now
        if lived >= self.min_uptime:
            self.failures = 0
            self.not_before = now
        else:
            pause = min(self.longest, FIRST_PAUSE * 2.0 ** min(self.failures, 30))
            self.failures += 1
            self.not_before = now + pause * (1 - chance / 2)
        return self.not_before

    def held_out(self, since: float, now: float) -> None:
        """What an attempt brought about at `since` is still there: if that is long enough, the
        failures before it are forgotten.
        """
        if since > self.failed_at and now - since >= self.min_uptime:
            self.failures = 0


class Allowance:
    """How often something may be done that others cause: each time uses `pace` seconds up, and so
    much as `burst` seconds may be used up in advance.
    """

    __slots__ = ("burst", "pace", "used")

    def __init__(self, pace: float, burst: float) -> None:
        self.pace = pace
        self.burst = burst
        self.used = float("-inf")

    def use(self, now: float) -> float:
        """It is done at `now`: the moment before which it should not be done again."""
        self.used = max(self.used, now) + self.pace
        return max(now, self.used - self.burst)


class IntervalClock:
    """The automatic restart: due an interval after the last swap, up to a tenth later, and forced
    after twice the interval.
    """

    __slots__ = ("due_at", "forced_at")

    def __init__(self) -> None:
        self.due_at = float("inf")
        self.forced_at = float("inf")

    def wind(self, now: float, interval: float, chance: float) -> None:
        """Start anew at `now`."""
        self.due_at = now + interval * (1 + chance / 10)
        self.forced_at = now + 2 * interval

    def stop(self) -> None:
        """Never be due."""
        self.due_at = self.forced_at = float("inf")
