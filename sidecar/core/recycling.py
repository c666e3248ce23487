"""--max-memory: a worker that holds too much is replaced by another of its generation."""

from __future__ import annotations

from sidecar.core import retirement, starting
from sidecar.core.backoff import Backoff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core import facts
    from sidecar.core.model import Worker
    from sidecar.core.state import State

# A worker that exceeds the limit this soon after it was ready may be of a program that is simply
# bigger. Each one doubles the slot's pause before the next is replaced, up to the longest pause.
# These are not the slot's pauses for crashes: --min-uptime is about something else, and if the
# successor crashes, the slot is to be filled at once.
MIN_UPTIME_S = 600.0
MAX_PAUSE_S = 600.0


def on_memory_limit_exceeded(state: State, fact: facts.MemoryLimitExceeded) -> None:
    """Write down what a worker holds."""
    worker = state.worker_table.find(fact.pid)
    if worker is not None:
        worker.oversize_bytes = fact.memory_bytes


def recycle_oversize(state: State, now: float) -> None:
    """Start another worker beside one that holds too much, and retire that one once the new one is
    ready: one slot at a time, the biggest first.
    """
    replacements = replacements_under_way(state)
    for worker, other in replacements:
        if may_leave(state, other, now):
            finish(state, worker, other, now)
    current = state.worker_table.current
    if current is None or state.stop_state.phase or swap_is_near(state, now):
        return
    for worker in to_replace_next(state, replacements):
        if worker.slot < state.size and state.is_due(not_before(state, worker), now):
            state.log(
                "recycling",
                generation=worker.generation,
                slot=worker.slot,
                pid=worker.pid,
                memory=worker.oversize_bytes,
                limit=state.settings.max_memory,
            )
            starting.spawn(state, current, worker.slot)
            return


def to_replace_next(state: State, replacements: list[tuple[Worker, Worker]]) -> list[Worker]:
    """The workers that hold too much, the biggest first; none while one is being replaced."""
    if replacements:
        return []
    oversize = [worker for worker in state.worker_table.ready() if worker.oversize_bytes]
    return sorted(oversize, key=lambda worker: -worker.oversize_bytes)


def replacements_under_way(state: State) -> list[tuple[Worker, Worker]]:
    """The workers that hold too much, each with the one that was started to replace it."""
    return [
        (worker, other)
        for other in state.worker_table.active()
        if other.replaces_pid
        and (worker := state.worker_table.find(other.replaces_pid)) is not None
        and worker.active
        and worker.slot == other.slot
    ]


def swap_is_near(state: State, now: float) -> bool:
    """Whether a swap is going on or due: what it replaces anyway is not replaced beforehand."""
    pending = state.pending_swap
    return state.worker_table.coming is not None or (
        pending is not None and pending.not_before <= now
    )


def not_before(state: State, worker: Worker) -> float:
    """The moment before which a worker that holds too much is not replaced."""
    return max(
        starting.slot_backoff(state, worker.slot).not_before,
        recycle_backoff(state, worker.slot).not_before,
    )


def may_leave(state: State, successor: Worker, now: float) -> bool:
    """Whether the worker that `successor` replaces may leave."""
    if successor.ready_at is None:
        return False
    return state.is_due(successor.ready_at + state.settings.kill_old_delay, now)


def finish(state: State, worker: Worker, successor: Worker, now: float) -> None:
    """Retire a worker that holds too much; its successor is ready."""
    lived = now - (worker.ready_at if worker.ready_at is not None else now)
    backoff = recycle_backoff(state, worker.slot)
    again = backoff.record_failure(now, lived, state.random_fraction())
    state.log(
        "recycled",
        generation=worker.generation,
        slot=worker.slot,
        pid=worker.pid,
        by=successor.pid,
        memory=worker.oversize_bytes,
        lived=lived,
        pause=again - now,
    )
    retirement.retire(state, [worker], now)


def recycle_backoff(state: State, slot: int) -> Backoff:
    """The pauses between workers of the slot that hold too much soon."""
    return state.recycle_backoffs.setdefault(slot, Backoff(MIN_UPTIME_S, MAX_PAUSE_S))
