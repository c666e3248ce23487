"""Which settings and environment a generation gets that nobody has asked for: the current ones, or
those of a generation that is known to have worked.

Two cases. What readiness by time alone has declared ready may never have worked; so when such a
generation dies soon, the last one that was stable is restored. And where a swap that somebody asked
for has failed, the generation that served meanwhile is kept when it dies.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core.model import Generation, Worker
    from sidecar.core.state import State


def to_keep(state: State) -> int:
    """The generation that serves, or did last, if the current settings were rejected since; 0
    otherwise.
    """
    current = state.worker_table.current
    if not state.rejected or current is None or state.settings.as_server_starter:
        return 0
    return current.number


def is_stable(state: State, worker: Worker, now: float) -> bool:
    """Whether a worker is ready, or was, for --min-uptime."""
    until = now if worker.retired_at is None else worker.retired_at
    min_uptime = state.swap_backoff.min_uptime
    return worker.ready_at is not None and until - worker.ready_at >= min_uptime


def remember_if_stable(state: State, served: Generation, now: float) -> bool:
    """Remember a generation that has served, if it was stable; whether it was."""
    if not served.was_stable and not any(is_stable(state, each, now) for each in served.workers):
        return False
    state.last_stable, state.last_stable_settings = served.number, served.settings
    return True


def forget_stable(state: State) -> None:
    """What was stable does not work any more."""
    state.last_stable, state.last_stable_settings = 0, None


def to_restore(state: State, died: Generation, now: float) -> tuple[int, int]:
    """The generation to restore now that all workers of `died` have died, 0 for none; and the one
    that would be restored if it did not have other listeners.

    A generation is restored if time alone made `died` ready and it died soon. It is restored once:
    if it dies soon, too, it is given up. If it is stable and dies later, it is begun again as it
    was, because nobody has asked for anything else.
    """
    stable = remember_if_stable(state, died, now)
    if kept := to_keep(state):
        return kept, 0
    give_up_restored(state, died, stable)
    wanted = is_worth_restoring(died, stable)
    settings = state.last_stable_settings
    if settings is None or not wanted or state.settings.as_server_starter:
        return 0, 0
    if settings.port != state.settings.port:
        return 0, state.last_stable
    return state.last_stable, 0


def give_up_restored(state: State, died: Generation, stable: bool) -> None:
    """A generation that was restored and died soon: what it was restored from does not work, either."""
    if died.settings_from and not stable:
        forget_stable(state)


def is_worth_restoring(died: Generation, stable: bool) -> bool:
    """Whether another generation's settings are wanted after `died`."""
    return died.settings_from > 0 if stable else died.ready_by_time
