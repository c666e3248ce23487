"""Repairing the listeners: a program may shut one down, or remove its path. What spoils one is heard
at once (system/listener_watch.py).
"""

from __future__ import annotations

from sidecar.core import facts
from sidecar.core.backoff import Backoff, RateLimit
from sidecar.system.jitter import random_fraction
from sidecar.system.listener_watch import ListenerWatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.host.job import Tools
    from sidecar.system.listeners import Listeners

# A program may spoil listeners again and again: there is at most one repair in each interval, but a
# burst worth so many seconds at once. What cannot be repaired is tried again after growing pauses.
REPAIR_INTERVAL_S, REPAIR_BURST_S = 0.05, 5.0
MAX_PAUSE_S = 30.0


class ListenerRepair:
    """The job that repairs them. `listeners` are those of now; `leaving` says whether the workers
    have been asked to leave for good: then a closed door is right.
    """

    def __init__(
        self, tools: Tools, *, listeners: Callable[[], Listeners], leaving: Callable[[], bool]
    ) -> None:
        self._tools = tools
        self._listeners = listeners
        self._leaving = leaving
        #: What tells when a listener is spoilt, and when to look at all of them, whatever it tells.
        self._watch: ListenerWatch | None = None
        self._watch_problem = ""
        self._check_at = float("-inf")
        self._allowance = RateLimit(REPAIR_INTERVAL_S, REPAIR_BURST_S)
        self._pace = Backoff(0.0, MAX_PAUSE_S)
        #: What is said of those that could not be repaired.
        self._broken: tuple[str, ...] = ()

    def deadline(self) -> float:
        """When to look at them."""
        return self._check_at

    def on_deadline(self, now: float) -> None:
        """Look at them, and repair what has to be repaired."""
        if self._watch is not None:
            self._watch.take()
        if self._leaving():
            self._check_at = float("inf")
            return
        listeners = self._listeners()
        before, known = listeners.inodes(), self._broken
        news = [remark for remark in listeners.repair() if remark not in known]
        self._broken = tuple(listeners.unrepaired.values())
        for remark in news:
            self._tools.say("listener_repaired", {"text": remark})
        if listeners.inodes() != before:
            # Bound anew: the workers that live hold a socket nobody can reach any more.
            self._tools.observe(facts.SwapTriggered("listener"), now)
        if news or self._watch is None:
            # There may be other sockets and files now: watch these, and look once more, because
            # something may have happened to them meanwhile. Who spoils them without end is not
            # heard each time.
            self.close()
            self._check_at = self._allowance.use(now)
            if self._check_at <= now:
                self._start_watching(listeners)
        elif self._broken:
            self._check_at = self._pace.record_failure(now, 0.0, random_fraction())
        else:
            self._pace.failures = 0
            self._check_at = float("inf")

    def changed(self, now: float) -> None:
        """There are other listeners now."""
        self.close()
        self._check_at = now

    def close(self) -> None:
        """Watch them no more."""
        if self._watch is not None:
            self._tools.stop_listening(self._watch)
            self._watch.close()
            self._watch = None

    def _start_watching(self, listeners: Listeners) -> None:
        """Hear at once when a program spoils a listener of now."""
        self._watch = ListenerWatch(listeners.to_watch())
        self._tools.listen_to(self._watch, self.on_deadline)
        problem = self._watch.problem
        if problem and problem != self._watch_problem:
            remark = f"a removed path of a listener is noticed only when a worker ends ({problem})"
            self._tools.say("notice", {"text": remark})
        self._watch_problem = problem
