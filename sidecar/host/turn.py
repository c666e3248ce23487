"""What a turn of the loop is made of, and how a defect in it is contained: a part that raises is
said, left out for a pause and tried again, while the others go on.
"""

from __future__ import annotations

import time

from sidecar.core.containment import Containment, error_location
from sidecar.system.jitter import random_fraction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from sidecar.host.job import Timed

    Say = Callable[[str, Mapping[str, Any]], None]


class Part:
    """A part of the loop's turn: `what` it does, in words that follow "cannot"; `deadline` says
    when it is due, `work` does it. `always`: in every turn, due or not.
    """

    __slots__ = ("always", "deadline", "what", "work")

    def __init__(
        self,
        what: str,
        deadline: Callable[[], float],
        work: Callable[[float], None],
        always: bool = False,
    ) -> None:
        self.what = what
        self.deadline = deadline
        self.work = work
        self.always = always


def due(what: str, job: Timed, always: bool = False) -> Part:
    """The part of a job that has a deadline."""
    return Part(what, job.deadline, job.on_deadline, always)


class Turn:
    """The parts, in order, and what raised of late. `say` tells of an event. Times are seconds of
    the monotonic clock.
    """

    def __init__(self, say: Say) -> None:
        self.say = say
        self.parts: Sequence[Part] = ()
        #: Something has raised, and what it left undone was not looked for yet.
        self.defective = False
        self._saying = False
        self._containment = Containment()

    def deadline(self, now: float) -> float:
        """When the next part is due."""
        return min(self._due(part, now) for part in self.parts)

    def work(self, now: float) -> None:
        """Do what is due, each part by itself."""
        for part in self.parts:
            if self._containment.paused_until(part.what) > now:
                continue
            due = part.always or self._due(part, now) <= now
            if due and not self.attempt(part.what, part.work, now):
                self.postpone(part.what, now)

    def _due(self, part: Part, now: float) -> float:
        """When a part of the turn is due."""
        try:
            due = part.deadline()
        except Exception as error:
            self.note_defect(part.what, error, now)
            due = self.postpone(part.what, now)
        held = self._containment.paused_until(part.what)
        # What is done in every turn has no deadline of its own to come back to after a failure.
        return max(due, held) if not part.always or held <= now else held

    def postpone(self, what: str, now: float) -> float:
        """It has raised: when to do it again."""
        return self._containment.record_failure(what, now, random_fraction())

    def attempt(
        self, what: str, work: Callable[..., None], *args: Any, again: bool = False
    ) -> bool:
        """Do a part of the work; whether it succeeded. What it raises is logged. With `again` it is
        tried once more at once: only for what does no harm if it is done twice.
        """
        for _ in range(1 + again):
            try:
                work(*args)
            except Exception as error:
                self.note_defect(what, error, time.monotonic())
            else:
                return True
        return False

    def note_defect(self, what: str, error: Exception, now: float) -> None:
        """Say what was wrong, unless that was said a while ago: what the system refused as that,
        all else as a defect of sidecar's own. Its text is not shown then, for it may hold anything.
        """
        self.defective = True
        if self._saying:
            return  # in saying so
        kind, where = type(error).__name__, error_location(error)
        self._saying = True
        try:
            if not self._containment.should_report(
                f"{what} {kind} {where}", now, random_fraction()
            ):
                return
            if isinstance(error, OSError) and error.strerror:
                self.say("action_failed", {"what": what, "cause": error.strerror})
            else:
                self.say("internal_error", {"error": kind, "where": where})
        except Exception:
            pass  # nothing is left to say it with
        finally:
            self._saying = False
