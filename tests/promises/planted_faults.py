"""The faults that test_planted_faults.py plants in the core, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sidecar.core import (
    failures,
    fallback,
    recycling,
    retirement,
    scaling,
    slow_start,
    starting,
    stopping,
    supervisor,
    swaps,
    takeover,
    worker_events,
)
from sidecar.core.backoff import FIRST_PAUSE_S, AutoRestartTimer, Backoff
from sidecar.core.model import READY
from sidecar.core.state import State
from sidecar.core.supervisor import Supervisor
from sidecar.core.worker_table import WorkerTable

INF = float("inf")


class Fault:
    """What is planted, the promises that may be broken by it first, and the changes: (module or
    class, name, what takes its place).
    """

    def __init__(
        self, what: str, promises: str, *changes: tuple[Any, str, Any], first: int = 0
    ) -> None:
        self.what = what
        self.promises = promises.split(" or ")
        self.changes = changes
        # Where to begin to look: a few faults show in one of some thousand schedules only.
        self.first = first

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The core has the fault as long as this lasts."""
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in self.changes]
        try:
            for owner, name, fault in self.changes:
                setattr(owner, name, fault)
            yield
        finally:
            for owner, name, real in before:
                setattr(owner, name, real)


def always(value: object) -> Callable[..., Any]:
    """What gives this value, whatever it is asked."""

    def answer(*_args: object, **_named: object) -> object:
        return value

    return answer


def nothing(*_args: object, **_named: object) -> None:
    """Do nothing."""


def after(real: Callable[..., Any], then: Callable[..., Any]) -> Callable[..., Any]:
    """Do what is right, and then something else, with the same arguments."""

    def both(*args: Any, **named: Any) -> Any:
        result = real(*args, **named)
        then(*args, **named)
        return result

    both.__name__ = real.__name__
    return both


def changing(real: Callable[..., Any], change: Callable[..., Any]) -> Callable[..., Any]:
    """Give something else than what is right: `change` is given that, and the same arguments."""

    def changed(*args: Any, **named: Any) -> Any:
        return change(real(*args, **named), *args, **named)

    changed.__name__ = real.__name__
    return changed


# --- the faults that take more than a line


def retire_when_spawned(state, coming, mine):
    return not mine or (
        not takeover.all_slots_are_filled(state, coming) and not starting.surge(state, coming)
    )


def any_worker_is_ready(_state, coming):
    return any(worker.state == READY for worker in coming.workers)


real_record_failure = Backoff.record_failure


def record_failure_without_pause(self, now, lived, random_fraction):
    real_record_failure(self, now, lived, random_fraction)
    self.not_before = now
    return now


def record_failure_for_ever(self, now, lived, random_fraction):
    before = self.failures
    not_before = real_record_failure(self, now, lived, random_fraction)
    if lived >= self.min_uptime:
        self.failures = before
    return not_before


def set_limits_without_least(self, min_uptime, max_pause):
    self.min_uptime = max(min_uptime, FIRST_PAUSE_S)
    self.max_pause = max_pause


def start_too_early(self, now, interval, _random_fraction):
    self.due_at = now + interval / 2
    self.forced_at = now + 2 * interval


def is_due_a_second_later(self, moment, now):
    if moment <= now:
        return True
    self.deadline = min(self.deadline, moment + 1.0)
    return False


def is_due_and_the_last_counts(self, moment, now):
    if moment <= now:
        return True
    self.deadline = moment
    return False


def wake_every_second(self, now):
    self.deadline = min(self.deadline, now + 1.0)


def forget_kill_deadline(_state, worker, _now):
    worker.kill_at = INF


def lingers_for_ever(_state, worker, _fact, asked, _now):
    if not asked:
        worker.kill_at = INF


def short_drain_if_not_ready(state, worker):
    drain_timeout = state.settings.drain_timeout
    if worker.ready_at is not None:
        return drain_timeout
    return min(drain_timeout, retirement.NEVER_READY_GRACE_S)


real_on_worker_exited = worker_events.on_worker_exited


def take_the_group_for_gone(state, fact, now):
    real_on_worker_exited(state, fact.replace(group_empty=True), now)


def lose_before_retiring(state, worker, failure, now):
    failures.lose_worker(state, worker.generation, worker.slot, failure, now, lived=0.0)
    retirement.retire(state, [worker], now)


real_on_swap_triggered = swaps.on_swap_triggered


def lose_triggers_in_a_swap(state, fact, now):
    if state.worker_table.coming is None or fact.supersedes:
        real_on_swap_triggered(state, fact, now)


def record_last_lost_without_outage(state, current, _failure, now):
    lived = now - current.serving_at
    state.swap_backoff.record_failure(now, lived, state.random_fraction())


def ask_twice(state, _worker, _now):
    state.order(state.decided[-1])


def ask_without_order(state, _worker, _now):
    state.decided.pop()


def ask_also_who_drains(state, workers, now):
    for worker in workers:
        retirement.ask_to_leave(state, worker, now)


def let_all_be_replaced(state, replacements):
    replaced = [worker for worker, _ in replacements]
    oversize = [worker for worker in state.worker_table.ready() if worker.oversize_bytes]
    return [worker for worker in oversize if worker not in replaced]


def spawn_with_the_first_size(state, generation, slot):
    workers = generation.settings.workers
    state.order(starting.orders.Spawn(generation.number, slot, workers, generation.trigger))


def only_ready_in_slot(self, slot, generation):
    return [
        worker
        for worker in self.ready()
        if worker.slot == slot and worker.generation != generation.number
    ]


real_begin_lame_duck = stopping.begin_lame_duck


def keep_the_pending_swap(state, now):
    pending = state.pending_swap
    real_begin_lame_duck(state, now)
    state.pending_swap = pending


real_to_restore = fallback.to_restore


def restore_as_if_nothing_was_rejected(state, died, now):
    rejected, state.rejected = state.rejected, 0
    try:
        return real_to_restore(state, died, now)
    finally:
        state.rejected = rejected


def stable_at_once(_state, worker, now):
    until = now if worker.retired_at is None else worker.retired_at
    return worker.ready_at is not None and until >= worker.ready_at


real_exit_when_empty, real_remove_finished = stopping.exit_when_empty, retirement.remove_finished


def exit_and_then_remove(state, now):
    real_exit_when_empty(state, now)
    real_remove_finished(state, now)


def forget_what_changed_before(state, pending):
    state.changed = pending.changed


def keep_the_oldest(earlier, later):
    kept = [name for name in earlier if name not in later]
    return tuple(dict.fromkeys([*kept, *later]))[: swaps.MAX_CHANGED_NAMES]


def grown_never(state, worker, coming):
    enough = slow_start.has_enough_processes(state, worker, coming)
    return worker.max_accepting_at if enough else INF


FAULTS = [
    Fault(
        "the old workers are retired when the new ones are spawned, not when they are ready",
        "Continuity",
        (takeover, "is_incomplete", retire_when_spawned),
        (slow_start, "fully_grown_at", lambda _state, worker, _coming: worker.started_at),
    ),
    Fault(
        "the old workers are retired without waiting for the slots that are not filled",
        "Continuity or No bad generation takes over",
        (takeover, "all_slots_are_filled", always(True)),
    ),
    Fault(
        "kill_old_delay is ignored",
        "Continuity or No bad generation takes over",
        (takeover, "kill_old_delay", always(0.0)),
    ),
    Fault(
        "a failed generation's workers that took over in a rolling swap are retired with the rest",
        "Continuity",
        (takeover, "given_up_workers", lambda generation: generation.workers),
    ),
    Fault(
        "TTOU takes the last ready worker",
        "Continuity",
        (scaling, "keep", nothing),
    ),
    Fault(
        "TTOU trusts a coming worker that may still fail",
        "Continuity or No bad generation takes over",
        (scaling, "reliably_ready", lambda state: state.worker_table.ready()),
    ),
    Fault(
        "the stop has no lame duck",
        "Continuity or Drain ends",
        (stopping, "lame_duck_time", always(0.0)),
    ),
    Fault(
        "a worker of the coming generation that dies is forgotten",
        "No bad generation takes over",
        (failures, "fail_coming", nothing),
    ),
    Fault(
        "a failed generation is promoted as long as it has one ready worker",
        "No bad generation takes over",
        (failures, "may_serve_all_the_same", any_worker_is_ready),
    ),
    Fault(
        "a worker that is never ready is waited for",
        "No bad generation takes over or Recovery",
        (worker_events, "is_overdue", always(False)),
    ),
    Fault(
        "the interval counts from the fork",
        "No bad generation takes over or Orderly",
        (worker_events, "waits_for_time", lambda worker: worker.readiness == "interval"),
        (
            worker_events,
            "ready_by_time_at",
            lambda state, worker: worker.started_at + state.settings.interval,
        ),
    ),
    Fault(
        "a failed generation's workers are left running",
        "No bad generation takes over or Orderly or Latest wins",
        (takeover, "given_up_workers", always([])),
    ),
    Fault(
        "old workers that are being started again stay when a new generation serves",
        "No bad generation takes over",
        (takeover, "retire_late", nothing),
    ),
    Fault(
        "no backoff",
        "No spin or Recycling",
        (Backoff, "record_failure", record_failure_without_pause),
    ),
    Fault(
        "the backoff does not grow",
        "No spin",
        (Backoff, "_next_pause", always(FIRST_PAUSE_S)),
    ),
    Fault(
        "the pauses never begin anew after a generation that has held out",
        "No spin",
        (failures, "forget_failed_swaps", nothing),
    ),
    Fault(
        "the pauses never begin anew after a long life",
        "No spin",
        (Backoff, "record_failure", record_failure_for_ever),
    ),
    Fault(
        "a pause may be nothing (--max-backoff 0)",
        "No spin",
        (Backoff, "set_limits", set_limits_without_least),
    ),
    Fault(
        "a slot is respawned without a pause",
        "No spin",
        (starting, "may_respawn_in", always(True)),
    ),
    Fault(
        "an idle supervisor wakes up every second",
        "No spin",
        (Supervisor, "reconcile", after(Supervisor.reconcile, wake_every_second)),
    ),
    Fault(
        "the automatic restart comes too early",
        "No spin",
        (AutoRestartTimer, "start", start_too_early),
    ),
    Fault(
        "a swap that was asked for is tried again while something serves",
        "No spin",
        (failures, "is_retried", always(True)),
    ),
    Fault(
        "an automatic restart that failed is tried again at once",
        "No spin",
        (failures, "rearm_auto_restart", nothing),
    ),
    Fault(
        "a deadline is a second late",
        "Drain ends or Stop always ends or No spin or No bad generation takes over",
        (State, "is_due", is_due_a_second_later),
    ),
    Fault(
        "a deadline is forgotten when another is nearer already",
        "Drain ends or Stop always ends or No spin or Recovery",
        (State, "is_due", is_due_and_the_last_counts),
    ),
    Fault(
        "the kill deadline is forgotten",
        "Drain ends or Stop always ends or Recovery",
        (retirement, "ask_to_leave", after(retirement.ask_to_leave, forget_kill_deadline)),
    ),
    Fault(
        "who never served is given the whole drain time",
        "Drain ends",
        (retirement, "drain_time", lambda state, _worker: state.settings.drain_timeout),
    ),
    Fault(
        "who was not ready, but can have had connections, is killed as if it had none",
        "Drain ends",
        (retirement, "drain_time", short_drain_if_not_ready),
    ),
    Fault(
        "the next attempt waits for all the drain time of what was given up",
        "Latest wins",
        (retirement, "waited_for_until", lambda worker: worker.kill_at),
    ),
    Fault(
        "a lingering group is taken for gone",
        "Orderly",
        (worker_events, "on_worker_exited", take_the_group_for_gone),
    ),
    Fault(
        "a group whose leader died unasked lingers for ever",
        "Drain ends or Stop always ends or Recovery",
        (worker_events, "linger", after(worker_events.linger, lingers_for_ever)),
    ),
    Fault(
        "what outlives its leader is not asked to leave",
        "Drain ends",
        (retirement, "ask_group_to_leave", nothing),
    ),
    Fault(
        "what a leader has told to leave is asked again",
        "Orderly",
        (worker_events, "has_asked_its_own", always(False)),
    ),
    Fault(
        "what has left its group is not asked to leave where its leader left by itself",
        "Drain ends",
        (worker_events, "has_asked_its_own", lambda fact: fact.code == 0 and not fact.signal),
    ),
    Fault(
        "the second TERM is swallowed in the lame-duck time",
        "Stop always ends",
        (stopping, "another_signal_ends_lame_duck", always(False)),
    ),
    Fault(
        "the same TERM twice at once is two",
        "Drain ends",
        (stopping, "DUPLICATE_SIGNAL_S", 0.0),
    ),
    Fault(
        "a TERM while draining is swallowed",
        "Stop always ends or Drain ends",
        (stopping, "hurry", nothing),
    ),
    Fault(
        "a crashed slot is filled although everything leaves",
        "Stop always ends or Orderly",
        (Supervisor, "_is_leaving", always(False)),
        (stopping, "outdate_all", nothing),
    ),
    Fault(
        "a generation is begun although a stop was asked for",
        "Stop always ends",
        (swaps, "may_begin", always(True)),
    ),
    Fault(
        "what cannot be killed is waited for for ever",
        "Stop always ends",
        (stopping, "has_waited_enough", always(False)),
    ),
    Fault(
        "the exit does not wait for what is being killed",
        "Stop always ends",
        (retirement, "KILL_GRACE_S", 0.0),
    ),
    Fault(
        "a generation that is superseded goes on",
        "Latest wins",
        (swaps, "is_superseded", always(False)),
    ),
    Fault(
        "a worker that has taken over and was then one too many still protects its generation from being superseded",
        "Latest wins",
        (
            swaps,
            "is_superseded",
            lambda coming, pending: (
                pending.supersedes and not any(worker.took_over for worker in coming.workers)
            ),
        ),
        first=5000,
    ),
    Fault(
        "a worker that is not ready in time counts as serving when its loss is paced",
        "No spin or Max failures",
        (worker_events, "lose_overdue", lose_before_retiring),
    ),
    Fault(
        "a generation is given up for any trigger",
        "Latest wins",
        (
            swaps,
            "is_superseded",
            lambda coming, _pending: (
                not any(worker.active and worker.took_over for worker in coming.workers)
            ),
        ),
    ),
    Fault(
        "a watch after a HUP in the same swap is a HUP",
        "Latest wins",
        (
            swaps,
            "combine",
            changing(
                swaps.combine,
                lambda both, earlier, _later: both.replace(supersedes=earlier.supersedes),
            ),
        ),
    ),
    Fault(
        "a changed envdir does not wait for its splay to end but for twice that",
        "Latest wins or Recycling",
        (swaps, "splay", changing(swaps.splay, lambda splay, *_: 2 * splay)),
        first=4500,
    ),
    Fault(
        "a saved file waits for an envdir's splay",
        "Latest wins",
        (swaps, "comes_first", always(True)),
    ),
    Fault(
        "what has changed is forgotten when a swap fails",
        "Latest wins",
        (swaps, "note_changed", forget_what_changed_before),
    ),
    Fault(
        "of two triggers only the later says what has changed",
        "Latest wins",
        (
            swaps,
            "combine",
            changing(
                swaps.combine, lambda both, _earlier, later: both.replace(changed=later.changed)
            ),
        ),
    ),
    Fault(
        "a trigger during a swap is lost",
        "Latest wins or Recovery or Recycling",
        (swaps, "on_swap_triggered", lose_triggers_in_a_swap),
    ),
    Fault(
        "a next generation does not wait for the one that was given up",
        "Latest wins",
        (swaps, "given_up_are_in_the_way", always(False)),
    ),
    Fault(
        "what failed is not tried again though nothing serves",
        "Recovery or No spin",
        (
            failures,
            "is_retried",
            lambda state, failed, _still, _degraded: (
                failed.trigger in swaps.AUTOMATIC_TRIGGERS or state.settings.as_server_starter
            ),
        ),
    ),
    Fault(
        "a swap for a broken listener that failed is not tried again",
        "Recovery",
        (swaps, "AUTOMATIC_TRIGGERS", ("start", "crash")),
    ),
    Fault(
        "a crashed slot is not filled",
        "Recovery or No spin",
        (starting, "may_respawn", always(False)),
    ),
    Fault(
        "nothing follows when the last worker has died",
        "No spin or Recovery",
        (swaps, "follow_crash", nothing),
    ),
    Fault(
        "a swap makes room although one more would fit",
        "Continuity",
        (
            starting,
            "needs_all_room",
            lambda coming: (
                coming.settings.overlap == "never"
                or (coming.settings.overlap == "auto" and coming.room in (0, 1))
            ),
        ),
    ),
    Fault(
        "what makes room is not waited for",
        "Overlap",
        (starting, "others_are_alive", always(False)),
    ),
    Fault(
        "more are started than there is room for",
        "Max surge",
        (starting, "surge", lambda state, _coming: state.settings.max_surge),
    ),
    Fault(
        "max_surge is one too many",
        "Max surge",
        (
            retirement,
            "live_process_count",
            changing(
                retirement.live_process_count,
                lambda count, *_, besides=None: count - (besides is None),
            ),
        ),
    ),
    Fault(
        "a rolling swap waits for what cannot be killed",
        "Recovery",
        (retirement, "still_counts", always(True)),
    ),
    Fault(
        "it gives up one failure too late",
        "Max failures",
        (
            failures,
            "max_failures_reached",
            lambda state: state.settings.max_failures < state.outages.failures,
        ),
    ),
    Fault(
        "it gives up although something serves",
        "Max failures or Continuity",
        (failures, "is_outage", always(True)),
        (
            failures,
            "should_give_up",
            lambda state, _left: failures.has_failed_too_often(state) and not state.stopping,
        ),
    ),
    Fault(
        "it never gives up once something has served",
        "Max failures",
        (
            failures,
            "is_outage",
            changing(failures.is_outage, lambda outage, state, *_: outage and not state.ever_ready),
        ),
    ),
    Fault(
        "who takes over and dies soon, again and again, is not given up",
        "Max failures",
        (failures, "lose_last_worker", record_last_lost_without_outage),
    ),
    Fault(
        "failures from before a generation that has held out are still counted",
        "Max failures",
        (takeover, "forget_outages", nothing),
    ),
    Fault(
        "a stop retires with the signal of a swap",
        "Orderly",
        (retirement, "retire_signal", lambda _state, own: own.signal_on_hup),
    ),
    Fault(
        "old workers are asked to leave with the signal of the settings read last",
        "Orderly",
        (retirement, "own_settings", lambda state, _worker: state.settings),
    ),
    Fault(
        "settings read during a stop change its bound",
        "Stop always ends or Drain ends or Orderly or Continuity",
        (Supervisor, "_takes_settings", always(True)),
    ),
    Fault(
        "the workers that the settings ask for now are not heeded",
        "Orderly",
        (scaling, "on_settings_changed", nothing),
    ),
    Fault(
        "settings that say nothing of the workers undo TTIN",
        "Orderly or Continuity",
        (
            scaling,
            "on_settings_changed",
            lambda state, _before, after: scaling.resize(state, after.workers, ""),
        ),
    ),
    Fault(
        "a worker is signalled twice",
        "Orderly",
        (retirement, "ask_to_leave", after(retirement.ask_to_leave, ask_twice)),
    ),
    Fault(
        "a worker that drains is asked again by the stop",
        "Orderly or Legal moves",
        (retirement, "retire", ask_also_who_drains),
    ),
    Fault(
        "a worker is killed without being asked first",
        "Orderly or No bad generation takes over",
        (retirement, "ask_to_leave", after(retirement.ask_to_leave, ask_without_order)),
    ),
    Fault(
        "a generation is never closed",
        "Orderly",
        (retirement, "forget", nothing),
    ),
    Fault(
        "a signal is passed to workers that are still starting",
        "Orderly",
        (supervisor, "receivers", lambda state: list(state.worker_table.workers())),
    ),
    Fault(
        "after a slow start that failed the old program stays smaller",
        "Slow start",
        (
            slow_start,
            "wanted_shrinkage",
            changing(
                slow_start.wanted_shrinkage, lambda wanted, _state, old: max(wanted, old.shrunk_by)
            ),
        ),
    ),
    Fault(
        "a slow start takes the old program's last process",
        "Slow start",
        (
            slow_start,
            "wanted_shrinkage",
            lambda state, old: min(
                slow_start.successor_processes(state, old), old.accepting_before
            ),
        ),
    ),
    Fault(
        "a slow start asks for a process before there is another for it",
        "Slow start",
        (
            slow_start,
            "successor_processes",
            changing(slow_start.successor_processes, lambda count, *_: count + 1 if count else 0),
        ),
    ),
    Fault(
        "the signals of a slow start follow each other at once",
        "Slow start",
        (slow_start, "may_resize", always(True)),
    ),
    Fault(
        "a slow start is over with the first process",
        "Slow start",
        (slow_start, "has_enough_processes", always(True)),
    ),
    Fault(
        "a slow start waits for a smaller program for ever",
        "Recovery",
        (slow_start, "fully_grown_at", grown_never),
    ),
    Fault(
        "a worker that is too big leaves before its successor is ready",
        "Continuity",
        (recycling, "may_leave", always(True)),
    ),
    Fault(
        "all workers that are too big are replaced at once",
        "Recycling or Max surge or Continuity",
        (recycling, "to_replace_next", let_all_be_replaced),
    ),
    Fault(
        "workers that are too big are replaced during a swap",
        "Recycling or Orderly or Max surge",
        (recycling, "swap_is_near", always(False)),
    ),
    Fault(
        "a program that is always too big is recycled without a pause",
        "Recycling",
        (
            recycling,
            "not_before",
            lambda state, worker: starting.slot_backoff(state, worker.slot).not_before,
        ),
    ),
    Fault(
        "a worker that is too big stays beside its successor",
        "Recycling",
        (recycling, "finish", nothing),
    ),
    Fault(
        "a worker is recycled while a swap is due",
        "Recycling",
        (recycling, "swap_is_near", lambda state, _now: state.worker_table.coming is not None),
    ),
    Fault(
        "a worker is told how many its generation was begun with",
        "Orderly",
        (starting, "spawn", spawn_with_the_first_size),
    ),
    Fault(
        "only ready workers are replaced in their slot",
        "Max surge or Continuity or No bad generation takes over",
        (WorkerTable, "others_in_slot", only_ready_in_slot),
    ),
    Fault(
        "a crashed slot stays empty while a check runs",
        "No spin",
        (
            starting,
            "may_respawn",
            lambda state, coming: bool(state.worker_table.active()) and coming is None,
        ),
    ),
    Fault(
        "the oldest changes are told, not the latest",
        "Latest wins",
        (swaps, "merge_changed", keep_the_oldest),
    ),
    Fault(
        "a swap that was wanted is still wanted in a stop",
        "Stop always ends",
        (stopping, "begin_lame_duck", keep_the_pending_swap),
    ),
    Fault(
        "a swap may be wished for in a stop",
        "Stop always ends",
        (swaps, "accepts_requests", always(True)),
    ),
    Fault(
        "what time alone made ready and what died soon is begun anew with what there is now",
        "Way back",
        (fallback, "is_worth_restoring", lambda died, stable: died.settings_from and stable),
    ),
    Fault(
        "what was seen to be ready goes back, too",
        "Way back",
        (fallback, "is_worth_restoring", lambda died, stable: died.settings_from or not stable),
    ),
    Fault(
        "it goes back again and again",
        "Way back",
        (fallback, "give_up_restored", nothing),
    ),
    Fault(
        "what was refused is begun when what serves has died",
        "Way back",
        (fallback, "to_restore", restore_as_if_nothing_was_rejected),
    ),
    Fault(
        "what was refused is tried again when nothing serves",
        "Way back",
        (failures, "retry_with_settings_from", always(0)),
    ),
    Fault(
        "what was refused is out for ever, also when it serves by now",
        "Way back",
        (takeover, "accept_settings", nothing),
    ),
    Fault(
        "a swap that was asked for goes back",
        "Way back",
        (
            swaps,
            "common_settings",
            lambda earlier, later: later.settings_from or earlier.settings_from,
        ),
    ),
    Fault(
        "it goes back to what has not held out",
        "Way back",
        (fallback, "is_stable", stable_at_once),
    ),
    Fault(
        "orders go on after Exit",
        "Orderly",
        (retirement, "remove_finished", nothing),
        (stopping, "exit_when_empty", exit_and_then_remove),
    ),
]
