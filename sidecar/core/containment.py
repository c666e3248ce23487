"""What happens to a part of the work that raised an exception: it is left out for a pause that
grows, and the error is reported again after silences that grow. All other parts go on.

Moments are seconds on the caller's clock; `random_fraction` is a number in [0, 1) that the caller
drew.
"""

from __future__ import annotations

from sidecar.core.backoff import Backoff

# A part that raised is left out for a pause, at most this long. The pauses begin anew with a
# failure this long after the one before.
MAX_PAUSE_S = 5.0
RECOVERED_AFTER_S = 15.0
# The same error at the same place is reported after silences of at most this length. The silences
# begin anew with an error this long after the report before.
MAX_SILENCE_S = 600.0
FORGOTTEN_AFTER_S = 1200.0


class Containment:
    """Which parts of the work have raised of late, and which errors were reported."""

    def __init__(self) -> None:
        #: By the part's name.
        self.parts: dict[str, Backoff] = {}
        #: By the text that tells an error apart.
        self.reports: dict[str, Backoff] = {}

    def paused_until(self, part: str) -> float:
        """The moment until which a part is left out, minus infinity if it is not."""
        backoff = self.parts.get(part)
        return backoff.not_before if backoff is not None else float("-inf")

    def record_failure(self, part: str, now: float, random_fraction: float) -> float:
        """A part has raised: the moment of its next attempt."""
        backoff = self.parts.setdefault(part, Backoff(RECOVERED_AFTER_S, MAX_PAUSE_S))
        again = backoff.record_failure(now, _since_failure(backoff, now), random_fraction)
        if again > now:
            return again
        return backoff.record_failure(now, 0.0, random_fraction)

    def should_report(self, error: str, now: float, random_fraction: float) -> bool:
        """Whether an error, told apart from others by the text `error`, is to be reported now; if
        so, it counts as reported.
        """
        backoff = self.reports.setdefault(error, Backoff(FORGOTTEN_AFTER_S, MAX_SILENCE_S))
        if now < backoff.not_before:
            return False
        if backoff.record_failure(now, _since_failure(backoff, now), random_fraction) == now:
            backoff.record_failure(now, 0.0, random_fraction)
        return True


def _since_failure(backoff: Backoff, now: float) -> float:
    """The time since the last failure, 0 before the first."""
    return now - backoff.last_failure_at if backoff.failures else 0.0


def error_location(error: BaseException) -> str:
    """The file and line that raised the error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
