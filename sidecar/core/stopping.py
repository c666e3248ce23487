"""The stop: lame duck, drain, kill, exit. Each further stop signal skips a wait."""

from __future__ import annotations

from sidecar.core import orders, retirement, takeover
from sidecar.core.model import KILLED, OUTDATED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core import facts
    from sidecar.core.state import State

# A stop signal that comes again within this time is the same one: `timeout` sends it to its child
# and then to the group.
DUPLICATE_SIGNAL_S = 0.1


def on_stop_requested(state: State, fact: facts.StopRequested, now: float) -> None:
    """Count a stop signal."""
    stop = state.stop_state
    if fact.signal == stop.signal and now < stop.last_signal_at + DUPLICATE_SIGNAL_S:
        return
    if stop.signals_received == 0:
        stop.lame_duck = fact.lame_duck
    stop.signals_received += 1
    stop.last_signal_at = now
    stop.signal = fact.signal


def advance_stop(state: State, now: float) -> None:
    """Carry the stop on."""
    stop = state.stop_state
    if stop.signals_received == 0:
        return
    if stop.phase == "":
        begin_lame_duck(state, now)
    if stop.phase == "lame duck" and lame_duck_is_over(state, now):
        begin_leaving(state, now)
    if stop.phase == "leaving":
        hurry(state, now)


def begin_lame_duck(state: State, now: float) -> None:
    """Begin the stop: serve on for the lame-duck time, begin nothing new."""
    stop, settings, table = state.stop_state, state.settings, state.worker_table
    stop.signals_handled = 1
    state.pending_swap = None
    lame_duck = lame_duck_time(state)
    stop.phase = "lame duck"
    stop.phase_ends_at = now + lame_duck
    coming = table.coming
    if coming is not None and table.ready_outside(coming) and lame_duck:
        takeover.give_up(state, coming, now)
    if not stop.exit_status:
        state.log(
            "stopping",
            signal=stop.signal,
            lame_duck=lame_duck,
            drain_timeout=settings.drain_timeout,
            sending=retirement.stop_signal(state, settings),
            pids=[worker.pid for worker in table.workers()],
        )


def lame_duck_time(state: State) -> float:
    """How long (seconds) to serve on: not at all if nothing serves."""
    if state.stop_state.lame_duck and state.worker_table.ready():
        return state.settings.lame_duck
    return 0.0


def lame_duck_is_over(state: State, now: float) -> bool:
    """Whether its time is over, nothing serves any more, or another signal ends it."""
    stop = state.stop_state
    if not state.worker_table.active() or state.is_due(stop.phase_ends_at, now):
        return True
    return another_signal_ends_lame_duck(state)


def another_signal_ends_lame_duck(state: State) -> bool:
    """Whether there is a stop signal that was not acted upon; it is now."""
    stop = state.stop_state
    if stop.signals_received == stop.signals_handled:
        return False
    stop.signals_handled += 1
    return True


def begin_leaving(state: State, now: float) -> None:
    """Ask every worker to leave."""
    state.stop_state.phase = "leaving"
    state.stop_state.phase_ends_at = float("inf")
    for worker in state.worker_table.leaving():
        worker.kill_at = min(worker.kill_at, now + state.settings.drain_timeout)
    retirement.retire(state, list(state.worker_table.workers()), now)
    outdate_all(state)


def outdate_all(state: State) -> None:
    """No generation serves any more, and none is to."""
    for generation in state.worker_table.generations.values():
        if generation.state != OUTDATED:
            generation.move(OUTDATED)


def hurry(state: State, now: float) -> None:
    """Let another stop signal end the drain time."""
    stop = state.stop_state
    if stop.signals_received > stop.signals_handled:
        stop.signals_handled = stop.signals_received
        for worker in state.worker_table.leaving():
            worker.kill_at = now


def exit_when_empty(state: State, now: float) -> None:
    """Exit with the last worker, or a while after the last was killed. This is the last order."""
    stop = state.stop_state
    if stop.phase != "leaving":
        return
    left = list(state.worker_table.workers())
    if (
        left
        and all(worker.state == KILLED for worker in left)
        and stop.phase_ends_at == float("inf")
    ):
        stop.phase_ends_at = now + retirement.KILL_GRACE_S
    if not left or has_waited_enough(state, now):
        state.log("stopped", status=stop.exit_status, left=[worker.pid for worker in left])
        state.order(orders.Exit(stop.exit_status, stop.exit_reason))
        state.exited = True


def has_waited_enough(state: State, now: float) -> bool:
    """Whether the workers that are left were killed long enough ago."""
    return state.is_due(state.stop_state.phase_ends_at, now)
