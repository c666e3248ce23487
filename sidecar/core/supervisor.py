"""The decisions: what to do next, from what has happened. No process, no socket, no clock; see
docs/how-it-works.md.

`observe(fact, now)` writes a fact down and decides nothing. `reconcile(now)` looks at the whole
state and returns orders; the caller performs them, observes what came of them, and reconciles again
until there are none. `deadline` is then the next moment at which reconcile could say something new.
It is not a list of timers kept beside the state, but the earliest moment that the last reconcile
asked about (`State.is_due`) and found in the future, so the two cannot disagree.

The alternative is a callback for each timer and each child. Each callback is simple alone, but no
single place then says what a TERM means between a HUP, a crash and a drain deadline, and it cannot
be simulated.

What each step decides is in the modules beside this one; here is their order.
"""

from __future__ import annotations

from sidecar.base.exhaustive import assert_never
from sidecar.core import (
    auto_restart,
    facts,
    failures,
    orders,
    recycling,
    retirement,
    scaling,
    slow_start,
    starting,
    stopping,
    swaps,
    takeover,
    worker_events,
)
from sidecar.core.containment import error_location
from sidecar.core.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.core.model import Worker

    Step = Callable[[State, float], None]


class Supervisor(State):
    """The state of one run, what is written into it, and what follows from it."""

    # --- observe: write the fact down

    # A case for each fact, and nothing else.
    def observe(self, fact: facts.AnyFact, now: float) -> None:  # noqa: C901, PLR0912
        """Write down what happened at `now`."""
        match fact:
            case facts.SwapTriggered():
                swaps.on_swap_triggered(self, fact, now)
            case facts.SettingsChanged():
                self._on_settings_changed(fact, now)
            case facts.StopRequested():
                stopping.on_stop_requested(self, fact, now)
            case facts.SizeChanged():
                scaling.on_size_changed(self, fact)
            case facts.SignalForwardRequested():
                self.signals_to_forward.append((fact.signal, fact.pids))
            case facts.GenerationPrepared():
                starting.on_generation_prepared(self, fact)
            case facts.PreparationFailed():
                failures.on_preparation_failed(self, fact)
            case facts.TimingChanged():
                self._on_timing_changed(fact)
            case facts.WorkerStarted():
                worker_events.on_worker_started(self, fact, now)
            case facts.ProgramExecuted():
                worker_events.on_program_executed(self, fact, now)
            case facts.SpawnFailed():
                worker_events.on_spawn_failed(self, fact, now)
            case facts.WorkerReady():
                worker_events.on_worker_ready(self, fact, now)
            case facts.AcceptingCountChanged():
                slow_start.on_accepting_count_changed(self, fact, now)
            case facts.MemoryLimitExceeded():
                recycling.on_memory_limit_exceeded(self, fact)
            case facts.ReadinessProbeUnavailable():
                worker_events.on_readiness_probe_unavailable(self, fact)
            case facts.WorkerExited():
                worker_events.on_worker_exited(self, fact, now)
            case facts.GroupEmptied():
                worker_events.on_group_emptied(self, fact)
            case _:
                assert_never(fact)

    def _on_settings_changed(self, fact: facts.SettingsChanged, now: float) -> None:
        """Times and counts hold at once, also for what is going on. Signals do not: each generation
        keeps those it was begun with.
        """
        if not self._takes_settings():
            return
        before, self.settings = self.settings, fact.settings
        after = fact.settings
        scaling.on_settings_changed(self, before, after)
        for backoff in (self.swap_backoff, self.outages, *self.slot_backoffs.values()):
            backoff.set_limits(after.min_uptime, after.max_backoff)
        timer = (after.enable_auto_restart, after.auto_restart_interval)
        if (
            timer != (before.enable_auto_restart, before.auto_restart_interval)
            and self.worker_table.current is not None
        ):
            auto_restart.arm(self, now)

    def _takes_settings(self) -> bool:
        """Whether other settings may be put in force: how long a stop takes at most is known when it
        begins, and stays so.
        """
        return not self.stopping

    def _on_timing_changed(self, fact: facts.TimingChanged) -> None:
        self.settings = self.settings.replace(
            enable_auto_restart=fact.enable_auto_restart,
            auto_restart_interval=fact.auto_restart_interval,
            kill_old_delay=fact.kill_old_delay,
        )

    # --- reconcile: look at the whole state, say what to do

    def reconcile(self, now: float) -> list[orders.AnyOrder]:
        """What to do at `now`; to be called again with what came of it, until it is nothing."""
        self.deadline = float("inf")
        if self.exited:
            return []
        self._step(worker_events.check_start_deadlines, now)
        self._step(retirement.retire_remaining, now)
        self._step(stopping.advance_stop, now)
        if not self._is_leaving():
            self._step(scaling.open_slots, now)
            self._step(failures.handle_failed_generation, now)
            self._step(failures.stop_after_failures, now)
            self._step(takeover.take_over, now)
            self._step(scaling.retire_surplus, now)
            self._step(swaps.begin_swap, now)
            self._step(starting.make_room, now)
            self._step(starting.start_missing_workers, now)
            self._step(slow_start.rebalance_processes, now)
            self._step(recycling.recycle_oversize, now)
        self._step(forward_signals, now)
        self._step(retirement.kill_overdue, now)
        self._step(retirement.remove_finished, now)
        self._step(stopping.exit_when_empty, now)
        decided, self.decided = self.decided, []
        return decided

    def _is_leaving(self) -> bool:
        """Whether all workers were asked to leave, in a stop: nothing is begun any more."""
        return self.stop_state.phase == "leaving"

    def _step(self, step: Step, now: float) -> None:
        """Take one step. If it raises, the other steps are taken all the same, what it had decided
        before is done, and it is taken again after a pause.
        """
        name = step.__name__
        if not self.is_due(self.containment.paused_until(name), now):
            return
        try:
            step(self, now)
        except Exception as error:
            fraction = self.random_fraction
            self.is_due(self.containment.record_failure(name, now, fraction()), now)
            kind, where = type(error).__name__, error_location(error)
            if self.containment.should_report(f"{kind} {where}", now, fraction()):
                self.log("internal_error", error=kind, where=where)

    # --- for those who ask

    @property
    def next_restart(self) -> float:
        """The moment of the next automatic restart, infinity if there is none."""
        return auto_restart.next_at(self)

    def workers_to_shrink_for(self, pid: int) -> list[int] | None:
        """The pids of the workers that the coming worker `pid` is to replace and that were not asked
        to shrink yet (--slow-start); None if nobody need count the processes of `pid`.
        """
        return slow_start.to_shrink_for(self, pid)

    def status_rows(self) -> list[tuple[int, int]]:
        """(generation, pid) of each worker that has ever been ready, for the status file."""
        return [
            (worker.generation, worker.pid)
            for worker in self.worker_table.workers()
            if worker.ready_at is not None
        ]


def forward_signals(state: State, _now: float) -> None:
    """Forward the signals that somebody has asked for."""
    for signal, pids in state.signals_to_forward:
        for worker in receivers(state):
            if worker.pid in pids:
                state.order(orders.ForwardSignal(worker.pid, signal))
    state.signals_to_forward.clear()


def receivers(state: State) -> list[Worker]:
    """The workers that a signal may be forwarded to. One that is still starting is not among them:
    until its program has installed a handler, most signals end it.
    """
    return state.worker_table.ready()
