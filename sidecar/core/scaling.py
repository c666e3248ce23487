"""How many workers there are to be: what settings, commands and signals ask for, and at which pace."""

from __future__ import annotations

from sidecar.core import retirement
from sidecar.core.state import GROWTH_INTERVAL_S

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core import facts
    from sidecar.core.model import Worker
    from sidecar.core.state import State
    from sidecar.settings.table import Settings

# TTIN makes no more workers than this, or four times those in the settings: a program may send it in
# a loop.
MAX_WORKERS_BY_SIGNAL = 64


def on_settings_changed(state: State, before: Settings, after: Settings) -> None:
    """Take the number of workers that the settings ask for now, if they ask for another one;
    otherwise the size stays what TTIN and TTOU have made of it.
    """
    if after.workers != before.workers:
        resize(state, after.workers, "")


def on_size_changed(state: State, fact: facts.SizeChanged) -> None:
    """Take the new number of workers, if it may be had."""
    size = max(1, state.size + fact.by)
    if fact.signal:
        # A command comes from a person, but a signal may come from a program that has gone wrong.
        limit = max(max_workers(state), state.size)
        if size > limit:
            if not state.worker_limit_logged:
                state.worker_limit_logged = True
                state.log("worker_limit_reached", workers=limit, signal=fact.signal)
            return
    resize(state, size, fact.signal)


def max_workers(state: State) -> int:
    """How many workers signals can bring about."""
    settings = state.settings
    return settings.max_workers or max(MAX_WORKERS_BY_SIGNAL, 4 * settings.workers)


def resize(state: State, size: int, signal: str) -> None:
    """There are to be `size` workers; `signal` asked for it, or "" (settings, a command)."""
    state.worker_limit_logged = False
    state.log("scaled", workers=size, before=state.size, signal=signal)
    state.size = size
    if not signal:
        state.open_slots = size


def open_slots(state: State, now: float) -> None:
    """Open the slots that signals have asked for, at a pace. A slot with a worker is open."""
    filled = max((each.slot for each in state.worker_table.active()), default=-1)
    state.open_slots = min(state.size, max(state.open_slots, filled + 1))
    while state.open_slots < state.size and state.is_due(state.next_slot_at, now):
        state.open_slots += 1
        state.next_slot_at = state.growth_limit.use(now)
    waiting = state.size - state.open_slots
    if waiting and not state.scaling_paced_logged:
        state.log("scaling_paced", waiting=waiting, pause=GROWTH_INTERVAL_S)
        state.scaling_paced_logged = True
    elif not waiting and state.growth_limit.used_until <= now:
        state.scaling_paced_logged = False


def retire_surplus(state: State, now: float) -> None:
    """Retire the workers in slots that are not wanted any more."""
    surplus = [worker for worker in state.worker_table.active() if worker.slot >= state.size]
    if not surplus:
        return
    ready = reliably_ready(state)
    if ready and all(worker.slot >= state.size for worker in ready):
        # None of those that are to stay accepts connections yet: one of the others does until then.
        keep(surplus, ready[0])
    retirement.retire(state, surplus, now)


def keep(surplus: list[Worker], worker: Worker) -> None:
    """Take a worker out of the surplus."""
    surplus.remove(worker)


def reliably_ready(state: State) -> list[Worker]:
    """The ready workers, without those of a coming generation that may still fail."""
    coming = state.worker_table.coming
    return [
        worker
        for worker in state.worker_table.ready()
        if coming is None or worker.generation != coming.number or worker.took_over
    ]
