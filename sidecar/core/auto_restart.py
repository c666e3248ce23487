"""The automatic restart (--enable-auto-restart): a swap at every interval."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core.state import State


def arm(state: State, now: float) -> None:
    """The next automatic restart is an interval away, if there is to be one."""
    state.auto_restart.stop()
    if state.settings.enable_auto_restart:
        interval = state.settings.auto_restart_interval
        state.auto_restart.start(now, interval, state.random_fraction())


def is_due(state: State, now: float) -> bool:
    """Whether it is to be now: the interval is over, and no worker is leaving still (or the wait for
    those is over, too).
    """
    timer = state.auto_restart
    if not state.settings.enable_auto_restart or not state.is_due(timer.due_at, now):
        return False
    return not state.worker_table.leaving() or state.is_due(timer.forced_at, now)


def next_at(state: State) -> float:
    """The moment of the next automatic restart, infinity if there is none."""
    return state.auto_restart.due_at if state.settings.enable_auto_restart else float("inf")
