"""What every job of the host has in common: what the loop asks of it, and what it may ask of the
loop.

A job knows no other job. It is told when its deadline has come, when there is something to read and
when a process that it has started has ended; what it finds out it says, or observes as a fact.
"""

from __future__ import annotations

from sidecar.host.tail import Tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from _typeshed import HasFileno

    from sidecar.core import facts
    from sidecar.system.child import Launch
    from sidecar.system.processes import Ended

    class Job(Protocol):
        """A job that starts processes."""

        def on_exit(self, ended: Ended, now: float) -> None:
            """A process that was started for it has ended. Called again should it raise."""

    class Timed(Protocol):
        """A job that has something to do at a moment (seconds of the monotonic clock)."""

        def deadline(self) -> float:
            """The next such moment, infinity for none."""

        def on_deadline(self, now: float) -> None:
            """It has come."""


class Tools:
    """What a job may ask of the loop."""

    __slots__ = (
        "abandon",
        "attempt",
        "listen_to",
        "note_defect",
        "observe",
        "say",
        "start",
        "stop_listening",
        "stopping",
    )

    def __init__(
        self,
        *,
        say: Callable[[str, Mapping[str, Any]], None],
        observe: Callable[[facts.AnyFact, float], None],
        start: Callable[[Launch, Job], int],
        abandon: Callable[[int], None],
        listen_to: Callable[[HasFileno | int, Callable[[float], None]], None],
        stop_listening: Callable[[HasFileno | int], None],
        attempt: Callable[..., bool],
        note_defect: Callable[[str, Exception, float], None],
        stopping: Callable[[], bool],
    ) -> None:
        #: An event and its fields: log it, and tell it to whoever waits for events.
        self.say = say
        #: Let the supervisor know of a fact.
        self.observe = observe
        #: Start a process whose end the job is told; its pid. Raises OSError.
        self.start = start
        #: Kill such a process, and tell nobody of its end.
        self.abandon = abandon
        #: Have a function called in each turn in which there is something to read.
        self.listen_to = listen_to
        self.stop_listening = stop_listening
        #: Do a part of the work by itself: Turn.attempt.
        self.attempt = attempt
        #: Say that an exception was caught, in words that follow "cannot".
        self.note_defect = note_defect
        #: Whether a stop was asked for: nothing new is begun then.
        self.stopping = stopping

    def collect(self, tail: Tail) -> None:
        """Keep the last of what a process writes, which has been started with this tail."""
        tail.started()
        self.listen_to(tail, lambda _: self.read_tail(tail))

    def read_tail(self, tail: Tail) -> None:
        """There is more."""
        if not tail.take():
            self.stop_listening(tail)

    def last_words(self, tail: Tail) -> str:
        """The end of what it wrote; nothing more is kept."""
        self.stop_listening(tail)
        return tail.close()
