"""--slow-start: an old worker gives up its processes one by one as those of its successor come.

For programs with processes of their own that understand TTOU (one process less) and TTIN (one
more), such as gunicorn.
"""

from __future__ import annotations

from sidecar.core import orders
from sidecar.core.model import READY, STARTING, Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core import facts
    from sidecar.core.model import Generation
    from sidecar.core.state import State

# Signals of one kind that wait for a program are one signal (signal(7)), so the next TTOU or TTIN is
# sent this much later.
RESIZE_SIGNAL_INTERVAL_S = 0.1


def on_accepting_count_changed(state: State, fact: facts.AcceptingCountChanged, now: float) -> None:
    """Write down how many processes of a worker accept connections."""
    worker = state.worker_table.find(fact.pid)
    coming = state.worker_table.coming
    if worker is None:
        return
    if coming is None or worker.generation != coming.number:
        if not worker.shrunk_by:
            worker.accepting_before = fact.accepting
        return
    worker.accepting = fact.accepting
    if fact.accepting > worker.max_accepting:
        worker.max_accepting = fact.accepting
        worker.max_accepting_at = now


def to_shrink_for(state: State, pid: int) -> list[int] | None:
    """The pids of the workers that the coming worker `pid` is to replace and that were not asked to
    shrink yet.

    None if it does not matter how many processes of `pid` accept connections.
    """
    coming, worker = state.worker_table.coming, state.worker_table.find(pid)
    if (
        coming is None
        or worker is None
        or not state.settings.slow_start
        or worker.generation != coming.number
        or not worker.active
    ):
        return None
    replaced = state.worker_table.others_in_slot(worker.slot, coming)
    return [old.pid for old in replaced if not old.shrunk_by]


def fully_grown_at(state: State, worker: Worker, coming: Generation) -> float:
    """When a ready worker of `coming` counts as complete: once it has as many processes as the one
    it replaces, or when no more have come for --start-timeout.
    """
    if has_enough_processes(state, worker, coming):
        return worker.max_accepting_at
    return worker.max_accepting_at + state.settings.start_timeout


def has_enough_processes(state: State, worker: Worker, coming: Generation) -> bool:
    """Whether it has had as many processes as the one it replaces, if they can be counted."""
    replaced = state.worker_table.others_in_slot(worker.slot, coming)
    wanted = max((old.accepting_before for old in replaced), default=0)
    return worker.max_accepting >= wanted or worker.readiness != "accept"


def rebalance_processes(state: State, now: float) -> None:
    """Let each old worker have as many processes less as its successor has, and always one.

    Where no successor is coming any more (the swap failed, or a newer one begins), the old worker
    gets back what it gave up.
    """
    coming = state.worker_table.coming
    for old in state.worker_table.ready():
        if coming is not None and old.generation == coming.number:
            continue
        wanted = wanted_shrinkage(state, old)
        if wanted == old.shrunk_by or not may_resize(state, old, now):
            continue
        signal, step = ("TTOU", 1) if wanted > old.shrunk_by else ("TTIN", -1)
        old.shrunk_by += step
        old.last_resized_at = now
        state.log(
            "worker_shrunk",
            generation=old.generation,
            slot=old.slot,
            pid=old.pid,
            signal=signal,
            left=old.accepting_before - old.shrunk_by,
            had=old.accepting_before,
            new=successor_processes(state, old),
        )
        state.order(orders.ForwardSignal(old.pid, signal))


def may_resize(state: State, old: Worker, now: float) -> bool:
    """Whether the last signal that resized it is long enough ago."""
    return state.is_due(old.last_resized_at + RESIZE_SIGNAL_INTERVAL_S, now)


def wanted_shrinkage(state: State, old: Worker) -> int:
    """How many processes less than before an old worker is to have."""
    return max(0, min(successor_processes(state, old), old.accepting_before - 1))


def successor_processes(state: State, old: Worker) -> int:
    """How many processes of its successor accept connections, 0 if there is none that is ready."""
    coming = state.worker_table.coming
    if coming is None or coming.state != STARTING:
        return 0
    successor = coming.in_slot(old.slot)
    return successor.accepting if successor is not None and successor.state == READY else 0
