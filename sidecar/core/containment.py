"""A defect is contained: what raised is tried again after a pause that grows, and is said with
pauses that grow. Everything else goes on.

Pure: the moments are seconds on the caller's clock, `chance` is a number in [0, 1) the caller drew.
"""

from __future__ import annotations

from sidecar.core.backoff import Backoff

# A part of the work that raised is left out for a pause, at most the longest; one that has worked
# for so long is as good as new (seconds).
LONGEST_PAUSE, FORGOTTEN = 5.0, 15.0
# The same defect at the same place is said ever more seldom, after the longest silence at the most;
# one that was not said for so long is said at once (seconds).
LONGEST_SILENCE, NEWS = 600.0, 1200.0


class Containment:
    """Which parts of the work raised of late, and what was said about it."""

    def __init__(self) -> None:
        self._parts: dict[str, Backoff] = {}
        self._said: dict[str, Backoff] = {}

    def held_until(self, part: str) -> float:
        """The moment before which a part is left out, because it raised; minus infinity if it is
        not.
        """
        pace = self._parts.get(part)
        return pace.not_before if pace is not None else float("-inf")

    def failed(self, part: str, now: float, chance: float) -> float:
        """A part has raised: the moment of its next attempt."""
        pace = self._parts.setdefault(part, Backoff(FORGOTTEN, LONGEST_PAUSE))
        again = pace.failed(now, _since(pace, now), chance)
        if again > now:
            return again
        return pace.failed(now, 0.0, chance)

    def news(self, what: str, now: float, chance: float) -> bool:
        """Whether a defect, told apart from others by the text `what`, is to be said now."""
        pace = self._said.setdefault(what, Backoff(NEWS, LONGEST_SILENCE))
        if now < pace.not_before:
            return False
        if pace.failed(now, _since(pace, now), chance) == now:
            pace.failed(now, 0.0, chance)
        return True


def _since(pace: Backoff, now: float) -> float:
    """How long it is since the last failure; no time at all before the first."""
    return now - pace.failed_at if pace.failures else 0.0


def place(error: BaseException) -> str:
    """Where it was raised: file and line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
