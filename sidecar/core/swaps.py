"""When a swap is begun: requests for it are gathered until the moment is right."""

from __future__ import annotations

from sidecar.core import auto_restart, fallback, orders, retirement, takeover
from sidecar.core.model import Generation
from sidecar.core.state import PendingSwap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core import facts
    from sidecar.core.state import State
    from sidecar.settings.table import Settings

# The triggers that nobody has asked for: the first start, what has died, a listener that a program
# has broken.
AUTOMATIC_TRIGGERS = ("start", "crash", "listener")

# How many names of what has changed are kept.
MAX_CHANGED_NAMES = 20


def merge_changed(earlier: tuple[str, ...], later: tuple[str, ...]) -> tuple[str, ...]:
    """The names of both, each once, the latest last; the oldest are dropped if there are too many."""
    kept = [name for name in earlier if name not in later]
    return tuple(dict.fromkeys([*kept, *later]))[-MAX_CHANGED_NAMES:]


def on_swap_triggered(state: State, fact: facts.SwapTriggered, now: float) -> None:
    """Request the swap, unless sidecar stops."""
    if not accepts_requests(state):
        return
    automatic = fact.trigger in AUTOMATIC_TRIGGERS and state.worker_table.coming is None
    settings_from = fallback.to_keep(state) if automatic else 0
    not_before = now + splay(state, fact)
    request(
        state,
        PendingSwap(fact.trigger, not_before, fact.supersedes, fact.changed, settings_from),
    )


def accepts_requests(state: State) -> bool:
    """Whether a swap may be requested: in a stop nothing new is begun."""
    return not state.stopping


def splay(state: State, fact: facts.SwapTriggered) -> float:
    """How long (seconds) the swap is put off: pods that share an envdir do not swap all at once."""
    if fact.trigger != "envdir":
        return 0.0
    return state.settings.env_splay * state.random_fraction()


def request(state: State, wanted: PendingSwap) -> bool:
    """Request a swap; whether it will be begun under this request's name.

    One swap answers all requests, at the earliest of their moments and under the name of that one.
    """
    earlier = state.pending_swap
    if earlier is None:
        state.pending_swap = wanted
        return True
    state.pending_swap = combine(earlier, wanted)
    return not comes_first(earlier, wanted)


def combine(earlier: PendingSwap, later: PendingSwap) -> PendingSwap:
    """The request that stands for both."""
    first = earlier if comes_first(earlier, later) else later
    return first.replace(
        supersedes=earlier.supersedes or later.supersedes,
        changed=merge_changed(earlier.changed, later.changed),
        settings_from=common_settings(earlier, later),
    )


def comes_first(earlier: PendingSwap, later: PendingSwap) -> bool:
    """Whether the swap that was requested earlier is begun earlier, too."""
    return earlier.not_before <= later.not_before


def common_settings(earlier: PendingSwap, later: PendingSwap) -> int:
    """The generation whose settings both ask for, 0 (the current ones) if they differ: whoever asks
    for a swap asks for the current ones.
    """
    return later.settings_from if later.settings_from == earlier.settings_from else 0


def begin_swap(state: State, now: float) -> None:
    """Begin the swap that is requested, if the moment is right."""
    if not may_begin(state):
        return
    coming = state.worker_table.coming
    if coming is None:
        request_automatic_swap(state, now)
    pending = state.pending_swap
    if pending is None:
        return
    if coming is not None and not is_superseded(coming, pending):
        return
    if not state.is_due(pending.not_before, now):
        return
    if coming is not None:
        supersede(state, coming, pending, now)
    if given_up_are_in_the_way(state, now):
        return
    state.pending_swap = None
    begin(state, pending, now)


def may_begin(state: State) -> bool:
    """Whether a generation may be begun: in a stop none is."""
    return not state.stop_state.phase


def request_automatic_swap(state: State, now: float) -> None:
    """Request the swaps that nobody asks for: what served has died, or the automatic restart is due."""
    current = state.worker_table.current
    if current is None:
        return
    if not state.worker_table.active():
        follow_crash(state, current, now)
    elif state.pending_swap is None and auto_restart.is_due(state, now):
        state.log(
            "interval_due",
            interval=state.settings.auto_restart_interval,
            forced=bool(state.worker_table.leaving()),
        )
        state.pending_swap = PendingSwap("interval", now)


def follow_crash(state: State, died: Generation, now: float) -> None:
    """Request a new generation: all workers of the one that served have died."""
    # A retry that waits for its turn does not keep this one from its own.
    again = max(now, state.swap_backoff.not_before)
    settings_from, barred = fallback.to_restore(state, died, now)
    comes_first = request(state, PendingSwap("crash", again, settings_from=settings_from))
    if comes_first and again > now:
        if barred:
            state.log("revert_impossible", generation=died.number, like=barred)
        state.log("retry_scheduled", trigger="crash", pause=again - now)


def is_superseded(coming: Generation, pending: PendingSwap) -> bool:
    """Whether a coming generation is given up for the swap that is requested: what it was made from
    has changed, and none of its workers has taken over.
    """
    return pending.supersedes and not any(
        worker.active and worker.took_over for worker in coming.workers
    )


def supersede(state: State, coming: Generation, pending: PendingSwap, now: float) -> None:
    """Give up a coming generation for a newer one."""
    state.log(
        "swap_superseded",
        generation=coming.number,
        trigger=pending.trigger,
        lasted=now - coming.begun_at,
    )
    state.swap_failure = None
    takeover.give_up(state, coming, now)


def given_up_are_in_the_way(state: State, now: float) -> bool:
    """Whether workers that were given up before they were ready are waited for: they take memory."""
    return any(
        not state.is_due(retirement.waited_for_until(worker), now)
        for worker in state.worker_table.leaving_never_ready()
    )


def begin(state: State, pending: PendingSwap, now: float) -> None:
    """Begin a generation."""
    state.number += 1
    note_changed(state, pending)
    state.open_slots = state.size
    settings = settings_for(state, pending)
    generation = Generation(state.number, pending.trigger, now, settings, state.changed)
    generation.settings_from = pending.settings_from
    state.worker_table.generations[state.number] = generation
    state.log(
        "swap_started",
        generation=state.number,
        trigger=pending.trigger,
        changed=list(pending.changed),
    )
    rejected = state.rejected if pending.settings_from else 0
    state.order(
        orders.Prepare(
            state.number, pending.trigger, state.changed, pending.settings_from, rejected
        )
    )


def note_changed(state: State, pending: PendingSwap) -> None:
    """Add what has changed to what has changed since the generation that serves was begun."""
    state.changed = merge_changed(state.changed, pending.changed)


def settings_for(state: State, pending: PendingSwap) -> Settings:
    """The settings that a generation is begun with."""
    if served := state.worker_table.generations.get(pending.settings_from):
        return served.settings
    if pending.settings_from and state.last_stable_settings is not None:
        return state.last_stable_settings
    return state.settings
