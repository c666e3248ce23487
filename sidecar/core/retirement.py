"""How workers leave: they are asked to by a signal, once, and killed if they do not exit in time."""

from __future__ import annotations

from sidecar.core import orders
from sidecar.core.model import DRAINING, GONE, KILLED, LINGERING, Generation, Worker
from sidecar.settings import launchers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core.state import State
    from sidecar.settings.table import Settings

# A worker that never accepted connections has nothing to finish: it gets this long between the
# retire signal and SIGKILL. The next generation waits this long, at most, for a worker that was
# given up before it was ready.
NEVER_READY_GRACE_S = 2.0
# How long sidecar waits for what it has killed before it goes on all the same (an uninterruptible
# process may take for ever). A stop has 5 s for all that comes after the drain timeout: `sidecar
# check` says so.
KILL_GRACE_S = 3.0


def retire(state: State, workers: list[Worker], now: float) -> None:
    """Ask each worker to leave, unless it was asked already; from then on it drains."""
    for worker in workers:
        if worker.active:
            ask_to_leave(state, worker, now)


def ask_to_leave(state: State, worker: Worker, now: float) -> None:
    """Send a worker the signal that its own program understands as the order to leave."""
    signal = retire_signal(state, own_settings(state, worker))
    worker.move(DRAINING)
    worker.retired_at = now
    worker.retire_signal = signal
    worker.kill_at = now + drain_time(state, worker)
    state.order(orders.Retire(worker.pid, signal))


def own_settings(state: State, worker: Worker) -> Settings:
    """The settings that the worker's generation was begun with."""
    return state.worker_table.generations[worker.generation].settings


def retire_signal(state: State, own: Settings) -> str:
    """The signal that asks a worker to leave which was begun with the settings `own`."""
    if state.stop_state.phase == "leaving":
        return stop_signal(state, own)
    return own.signal_on_hup


def stop_signal(state: State, own: Settings) -> str:
    """The same in a stop. Server::Starter sends TERM where it was sent INT."""
    if state.stop_state.signal == "INT" and own.as_server_starter:
        return "TERM"
    return own.signal_on_term


def swap_signal(state: State, workers: list[Worker]) -> str:
    """The signal that these workers are retired with: that of the generation they are of."""
    if not workers:
        return state.settings.signal_on_hup
    return own_settings(state, workers[0]).signal_on_hup


def drain_time(state: State, worker: Worker) -> float:
    """How long (seconds) a worker that is to leave may take: it may have requests to finish, or
    none.
    """
    drain_timeout = state.settings.drain_timeout
    if worker.may_have_connections:
        return drain_timeout
    return min(drain_timeout, NEVER_READY_GRACE_S)


def waited_for_until(worker: Worker) -> float:
    """When the next generation stops waiting for a leaving worker that was never ready."""
    asked_at = worker.retired_at if worker.retired_at is not None else worker.started_at
    return min(worker.kill_at, asked_at + NEVER_READY_GRACE_S)


def retire_remaining(state: State, now: float) -> None:
    """Report the processes that have outlived their leader, and ask them to leave, once: nobody else
    does, and they go on accepting with old code.
    """
    for worker in state.worker_table.leaving():
        remaining, worker.remaining = worker.remaining, None
        if remaining is None:
            continue
        own = own_settings(state, worker)
        signal = "" if worker.remaining_asked else retire_signal(state, own)
        if remaining:  # otherwise they are ending already
            in_group = set(remaining) != set(worker.strays)
            state.log(
                "leader_exited",
                generation=worker.generation,
                slot=worker.slot,
                pid=worker.pid,
                pids=list(remaining),
                strays=list(worker.strays),
                signal=signal,
                kill_in=max(0.0, worker.kill_at - now),
                shell=in_group and launchers.has_shell_parent(own.command),
            )
        if signal:
            ask_group_to_leave(state, worker, signal)


def ask_group_to_leave(state: State, worker: Worker, signal: str) -> None:
    """Send the signal to what has outlived the worker's leader."""
    state.order(orders.RetireGroup(worker.pid, signal))


def kill_overdue(state: State, now: float) -> None:
    """Kill the workers that did not exit in time."""
    for worker in state.worker_table.leaving():
        if state.is_due(worker.kill_at, now):
            since = now - (worker.retired_at if worker.retired_at is not None else now)
            state.log(
                "worker_killed",
                generation=worker.generation,
                slot=worker.slot,
                pid=worker.pid,
                after=since,
                leader=worker.state != LINGERING,
            )
            worker.move(KILLED)
            state.order(orders.Kill(worker.pid))


def remove_finished(state: State, _now: float) -> None:
    """Forget the generations that have no worker left."""
    for generation in state.worker_table.finished():
        generation.move(GONE)
        del state.worker_table.generations[generation.number]
        forget(state, generation)


def forget(state: State, generation: Generation) -> None:
    """Nothing is kept for a generation any more."""
    state.order(orders.ForgetGeneration(generation.number))


def live_process_count(state: State, now: float, besides: Generation | None = None) -> int:
    """How many workers there are (without those of the generation `besides`). A worker that even
    SIGKILL has not ended for a while is not counted: nothing can wait for it.
    """
    left_out = besides.number if besides is not None else None
    return sum(
        still_counts(state, worker, now)
        for worker in state.worker_table.workers()
        if worker.generation != left_out
    )


def still_counts(state: State, worker: Worker, now: float) -> bool:
    """Whether a worker is alive, or was killed so lately that its end is still waited for."""
    return worker.state != KILLED or not state.is_due(worker.kill_at + KILL_GRACE_S, now)
