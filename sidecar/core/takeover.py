"""When a coming generation takes over: slot by slot, each old worker once a new one is ready."""

from __future__ import annotations

from sidecar.core import auto_restart, fallback, retirement, slow_start, starting
from sidecar.core.model import OUTDATED, READY, SERVING, STARTING, Generation, Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core.state import State


def take_over(state: State, now: float) -> None:
    """Retire old workers whose slot has a new one that is ready. With the last of them, the new
    generation becomes the serving one.
    """
    coming = state.worker_table.coming
    if coming is None or coming.state != STARTING:
        return
    if is_only_one_ready(state, coming):
        serve_without_swap(state, coming, now)
        return
    mine = [worker for worker in coming.workers if worker.active]
    if is_incomplete(state, coming, mine):
        return
    grown_at = max(slow_start.fully_grown_at(state, worker, coming) for worker in mine)
    if not state.is_due(grown_at, now):
        return
    if not state.is_due(grown_at + kill_old_delay(state), now):
        log_delay(state, mine, coming)
        return
    for worker in mine:
        worker.took_over = True
    replaced = replaced_by(state, mine, coming)
    if replaced:
        log_retiring(state, replaced, coming)
        retirement.retire(state, replaced, now)
    if all_slots_are_filled(state, coming):
        serve(state, coming, now)


def is_incomplete(state: State, coming: Generation, mine: list[Worker]) -> bool:
    """Whether a worker that is wanted before any may take over is not ready yet. With --max-surge
    these are the workers that were started so far.
    """
    if not mine or any(worker.state == STARTING for worker in mine):
        return True
    return not all_slots_are_filled(state, coming) and not starting.surge(state, coming)


def all_slots_are_filled(state: State, coming: Generation) -> bool:
    """Whether `coming` has a worker in each slot."""
    return not starting.empty_slots(state, coming)


def kill_old_delay(state: State) -> float:
    """How long (seconds) old workers stay beside new ones that are ready."""
    return state.settings.kill_old_delay


def replaced_by(state: State, mine: list[Worker], coming: Generation) -> list[Worker]:
    """The old workers in the slots of these workers of `coming`."""
    table = state.worker_table
    return [old for worker in mine for old in table.others_in_slot(worker.slot, coming)]


def is_only_one_ready(state: State, coming: Generation) -> bool:
    """Whether `coming` has a ready worker and no other generation has (a first start, or what served
    has died meanwhile).
    """
    return any(
        worker.state == READY for worker in coming.workers
    ) and not state.worker_table.ready_outside(coming)


def serve_without_swap(state: State, coming: Generation, now: float) -> None:
    """`coming` serves at once, because there is nothing to replace."""
    if coming.trigger not in ("start", "crash"):
        # Whoever asked for a swap is told of its end, also if what was to be replaced has died.
        log_retiring(state, [], coming)
    serve(state, coming, now)


def serve(state: State, generation: Generation, now: float) -> None:
    """`generation` serves from now on; the one before is outdated, and its workers leave."""
    before = state.worker_table.current
    if before is not None:
        forget_outages(state, before, now)
        fallback.remember_if_stable(state, before, now)
        before.move(OUTDATED)
    generation.move(SERVING)
    generation.serving_at = now
    state.failed_swap = None
    accept_settings(state, generation)
    state.changed = ()
    auto_restart.arm(state, now)
    state.log(
        "serving",
        generation=generation.number,
        trigger=generation.trigger,
        took=now - generation.begun_at,
        changed=list(generation.changed),
        pids=[worker.pid for worker in generation.workers if worker.active],
    )
    retire_late(state, generation, now)


def forget_outages(state: State, before: Generation, now: float) -> None:
    """The failures before a generation that was stable do not count against --max-failures."""
    state.outages.record_uptime(before.serving_at, now)


def accept_settings(state: State, serving: Generation) -> None:
    """The current settings are not rejected any more if it is with them that a generation serves."""
    if not serving.settings_from:
        state.rejected = 0


def retire_late(state: State, serving: Generation, now: float) -> None:
    """Retire workers that the generation before was starting again: they have nobody to replace."""
    late = [
        worker
        for worker in state.worker_table.active()
        if worker.generation != serving.number and worker.state == STARTING
    ]
    retirement.retire(state, late, now)


def give_up(state: State, generation: Generation, now: float) -> None:
    """`generation` will not take over any more. Those of its workers that have done so stay: they
    are all there is in their slots.
    """
    generation.move(OUTDATED)
    retirement.retire(state, given_up_workers(generation), now)


def given_up_workers(generation: Generation) -> list[Worker]:
    """The workers of a generation that is given up which have not taken over."""
    return [worker for worker in generation.workers if not worker.took_over]


def log_retiring(state: State, workers: list[Worker], coming: Generation) -> None:
    """Say that these old workers are retired."""
    delayed = state.delay_logged_for == coming.number
    state.log(
        "retiring",
        generation=coming.number,
        pids=[worker.pid for worker in workers],
        signal=retirement.swap_signal(state, workers),
        delay=state.settings.kill_old_delay if delayed else 0.0,
    )


def log_delay(state: State, mine: list[Worker], coming: Generation) -> None:
    """Say, once for each generation, that old workers stay for --kill-old-delay."""
    replaced = replaced_by(state, mine, coming)
    if replaced and state.delay_logged_for != coming.number:
        state.delay_logged_for = coming.number
        state.log(
            "retire_delayed",
            generation=coming.number,
            pids=[old.pid for old in replaced],
            signal=retirement.swap_signal(state, replaced),
            delay=state.settings.kill_old_delay,
        )
