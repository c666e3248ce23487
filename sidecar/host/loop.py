"""The loop of PID 1: wait, observe, reconcile, perform. One process, one thread, one blocking call.

Everything that can happen ends the one wait: a signal (also a child's end), a message, the next
moment of the supervisor or of a job. Each turn writes down what happened, asks the supervisor what
to do until it says nothing more, and does it. The loop decides nothing.

A defect is contained. A turn is made of parts, and a part that raises is said, left out for a pause
and tried again, while the others go on (turn.py). Signals, ended children and orders wait in
queues; they are taken one at a time, so that an exception loses none but its own cause, and that is
tried a second time. Then the jobs look for what the defect left undone.
"""

from __future__ import annotations

import time
from collections import deque

from sidecar.core import facts
from sidecar.host.stop_deadline import StopDeadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.core import orders
    from sidecar.core.supervisor import Supervisor
    from sidecar.host.redaction import Redaction
    from sidecar.host.sources import Sources
    from sidecar.host.turn import Turn

# Should the wait for what happens fail itself, the loop turns this slowly.
DEFECT_PAUSE_S = 0.2


class Loop:
    """One run of sidecar. `turn` has the parts of a turn, `sources` what it waits on; `redaction`
    takes secret values out of each fact.
    """

    def __init__(
        self,
        turn: Turn,
        sources: Sources,
        supervisor: Supervisor,
        redaction: Redaction,
    ) -> None:
        self._turn = turn
        self._sources = sources
        self._supervisor = supervisor
        self._redaction = redaction
        self.stop_deadline = StopDeadline(
            turn.say, leave=self.leave, left=lambda: self.exit_status is not None
        )
        # Orders that have not been performed yet.
        self._orders: deque[orders.AnyOrder] = deque()
        #: Performs one order; raises nothing.
        self.perform: Callable[[orders.AnyOrder, float], None]
        #: Called when the wait itself has failed: children may have ended.
        self.reap: Callable[[float], None]
        #: Called after a defect: the jobs look for what it left undone.
        self.recoveries: Sequence[Callable[[float], None]] = ()
        #: The status that sidecar ends with; None while it runs.
        self.exit_status: int | None = None

    def run(self) -> int:
        """Turn until sidecar is to end: its exit status. Raises what went wrong if a stop had to be
        over by then and the loop itself is wrong.
        """
        self._turn.attempt("see to what is due", self._work, time.monotonic())
        while self.exit_status is None:
            try:
                self._turn_once()
            except Exception as error:
                self._contain_defect(error)
        return self.exit_status

    def leave(self, status: int) -> None:
        """End after this turn, with that status."""
        self.exit_status = status

    def stopping(self) -> bool:
        """Whether a stop was asked for: nothing new will be begun."""
        return self._supervisor.stop_state.signals_received > 0

    def observe(self, fact: facts.AnyFact, now: float) -> None:
        """Let the supervisor know of a fact."""
        fact = self._redaction.fact(fact)
        if isinstance(fact, facts.StopRequested):
            self._limit_stop(now, fact.lame_duck)
        self._supervisor.observe(fact, now)

    def decide(self, now: float) -> None:
        """Reconcile until there is nothing to do at this moment."""
        while True:
            while self._orders:
                self.perform(self._orders.popleft(), now)
            self._orders.extend(self._supervisor.reconcile(now))
            if self.stopping():
                self._limit_stop(now, self._supervisor.stop_state.lame_duck)
            if not self._orders:
                return

    def _turn_once(self) -> None:
        """Wait until something happens, then see to it."""
        now = time.monotonic()
        readable = self._sources.wait(self._turn.deadline(now) - now)
        now = time.monotonic()
        for key in readable:
            if self._sources.has(key) and not self._turn.attempt(
                "read what has come", key.data, now
            ):
                self._sources.pause(key, self._turn.postpone(f"read {key.fd}", now))
        self._work(now)

    def _work(self, now: float) -> None:
        """Do what is due; after a defect, what it left undone."""
        self._turn.work(now)
        if self._turn.defective:
            self._turn.defective = False
            for recover in self.recoveries:
                self._turn.attempt("look its processes over", recover, now)

    def _limit_stop(self, now: float, lame_duck: bool) -> None:
        """A stop begins: from now on it is known when it is over at the latest."""
        of = self._supervisor.settings
        self.stop_deadline.begin(now, (of.lame_duck if lame_duck else 0.0) + of.drain_timeout)

    def _contain_defect(self, error: Exception) -> None:
        """The turn itself is wrong: go on holding the sockets, and do what can be done.

        Raises the error again once a stop had to be over: better a rough end than none.
        """
        now = time.monotonic()
        self._turn.note_defect("wait for what happens", error, now)
        if now >= self.stop_deadline.leave_by:
            raise error
        # Nothing else can wait now: without this pause it would spin (promise 4).
        time.sleep(DEFECT_PAUSE_S)
        self.reap(now)
        self._turn.attempt("see to what is due", self._work, now)
