"""A stop ends in its time, whatever is wrong (promise 3)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

# After the lame duck and the drain timeout a stop takes at most this long, whatever is wrong:
# `sidecar check` and the documentation say so.
MAX_STOP_OVERHEAD_S = 5.0
# So much of it is left for the end of what is no worker: a supervisor that has not come to its end
# before has a defect.
SWEEP_S = 1.0


class StopDeadline:
    """The job that ends a stop which has not ended. `leave` ends sidecar with a status; `left` says
    whether it is about to end. Times are seconds of the monotonic clock.
    """

    def __init__(
        self,
        say: Callable[[str, Mapping[str, Any]], None],
        *,
        leave: Callable[[int], None],
        left: Callable[[], bool],
    ) -> None:
        self._say = say
        self._leave = leave
        self._left = left
        self._at = float("inf")
        #: When sidecar leaves, whatever is wrong with it, and when everything is over.
        self.leave_by = self.over_by = float("inf")

    def begin(self, now: float, allowed: float) -> None:
        """A stop begins, which may take that long (seconds); only the first one counts."""
        if self.leave_by == float("inf"):
            self.over_by = now + allowed + MAX_STOP_OVERHEAD_S
            self.leave_by = self._at = self.over_by - SWEEP_S

    def deadline(self) -> float:
        """When sidecar leaves."""
        return self._at

    def on_deadline(self, _now: float) -> None:
        """The stop has not ended in its time: something is wrong, and sidecar leaves."""
        self._at = float("inf")
        if not self._left():
            self._leave(1)
            cause = "a defect in sidecar; it leaves"
            self._say("action_failed", {"what": "stop in order", "cause": cause})
