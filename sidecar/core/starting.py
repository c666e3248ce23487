"""Which workers are started: how many at a time, in which slots, and after which pauses."""

from __future__ import annotations

from sidecar.core import orders, retirement
from sidecar.core.backoff import Backoff
from sidecar.core.model import PREPARING, STARTING, Generation, Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core import facts
    from sidecar.core.state import State


def on_generation_prepared(state: State, fact: facts.GenerationPrepared) -> None:
    """The coming generation can be started."""
    coming = state.worker_table.coming
    if coming is not None and coming.number == fact.generation and coming.state == PREPARING:
        coming.move(STARTING)
        coming.room, coming.room_reason = fact.room, fact.room_reason


def surge(state: State, coming: Generation) -> int:
    """How many workers there may be beyond those that are wanted while `coming` takes over, 0 for
    any number.
    """
    max_surge, room = state.settings.max_surge, coming.room
    if coming.settings.overlap != "auto" or not room or room >= state.size:
        return max_surge
    return min(max_surge or room, room)


def make_room(state: State, now: float) -> None:
    """A coming generation is about to start: if there is no room for any of it, make room; if there
    is not room for all of it, say so.

    To make room, the old workers leave before the new ones start. What connects meanwhile waits in
    the listeners' queues, but if the new workers fail, nothing serves. So this is done only where it
    was asked for (--overlap never), or where not one worker more would fit.
    """
    coming = state.worker_table.coming
    if state.stop_state.phase or coming is None or coming.state != STARTING or coming.room_checked:
        return
    coming.room_checked = True
    if needs_all_room(coming):
        coming.waits_until_alone = True
        old = [
            worker for worker in state.worker_table.active() if worker.generation != coming.number
        ]
        if old:
            never = coming.settings.overlap == "never"
            state.log(
                "overlap_skipped",
                generation=coming.number,
                pids=[each.pid for each in old],
                signal=retirement.swap_signal(state, old),
                why="--overlap never" if never else coming.room_reason,
            )
            retirement.retire(state, old, now)
    elif surge(state, coming) != state.settings.max_surge and state.worker_table.active():
        state.log(
            "overlap_limited",
            generation=coming.number,
            surge=surge(state, coming),
            why=coming.room_reason,
        )


def needs_all_room(coming: Generation) -> bool:
    """Whether no worker of `coming` may start beside old ones."""
    overlap = coming.settings.overlap
    return overlap == "never" or (overlap == "auto" and coming.room == 0)


def empty_slots(state: State, generation: Generation) -> list[int]:
    """The slots in which `generation` has no worker, those in which nobody serves first."""
    mine = {worker.slot for worker in generation.workers if worker.active}
    held = {worker.slot for worker in state.worker_table.active()}
    return sorted(
        (slot for slot in range(state.open_slots) if slot not in mine),
        key=lambda slot: (slot in held, slot),
    )


def start_missing_workers(state: State, now: float) -> None:
    """Start what is missing: of the coming generation as far as --max-surge allows, otherwise of the
    serving one.
    """
    coming, current = state.worker_table.coming, state.worker_table.current
    if (
        state.stop_state.phase == ""
        and coming is not None
        and coming.state == STARTING
        and state.swap_failure is None
    ):
        for slot in slots_to_start(state, coming, now):
            spawn(state, coming, slot)
    elif current is not None and may_respawn(state, coming):
        for slot in slots_to_respawn(state, now):
            spawn(state, current, slot)


def slots_to_start(state: State, coming: Generation, now: float) -> list[int]:
    """The slots in which the coming generation may start a worker now."""
    slots = empty_slots(state, coming)
    if coming.waits_until_alone and others_are_alive(state, coming, now):
        slots = []
    at_a_time = surge(state, coming)
    serving_elsewhere = any(
        worker.generation != coming.number for worker in state.worker_table.active()
    )
    # With nothing else serving, --max-surge is ignored.
    if slots and at_a_time and serving_elsewhere:
        alive = retirement.live_process_count(state, now)
        slots = slots[: max(0, state.size + at_a_time - alive)]
    return slots


def others_are_alive(state: State, coming: Generation, now: float) -> bool:
    """Whether workers of other generations are there still."""
    return retirement.live_process_count(state, now, besides=coming) > 0


def may_respawn(state: State, coming: Generation | None) -> bool:
    """Whether the serving generation gets back workers that it has lost: not while another one
    starts, which will replace them, and not if all are lost, which a new generation follows.
    """
    return bool(state.worker_table.active()) and (coming is None or coming.state == PREPARING)


def slots_to_respawn(state: State, now: float) -> list[int]:
    """The slots without a worker whose pause is over."""
    held = {worker.slot for worker in state.worker_table.active()}
    return [
        slot
        for slot in range(state.open_slots)
        if slot not in held and may_respawn_in(state, slot, now)
    ]


def may_respawn_in(state: State, slot: int, now: float) -> bool:
    """Whether the slot's pause is over."""
    return state.is_due(slot_backoff(state, slot).not_before, now)


def slot_backoff(state: State, slot: int) -> Backoff:
    """The pauses between the slot's workers that die."""
    settings = state.settings
    return state.slot_backoffs.setdefault(slot, Backoff(settings.min_uptime, settings.max_backoff))


def spawn(state: State, generation: Generation, slot: int) -> None:
    """Start a worker."""
    state.order(orders.Spawn(generation.number, slot, state.size, generation.trigger))


def worker_replaced_by(state: State, slot: int) -> int:
    """The pid of the worker with too much memory in this slot, which a worker that is started there
    replaces; 0 if there is none.
    """

    def is_oversize(worker: Worker) -> bool:
        return worker.slot == slot and worker.oversize_bytes > 0

    return next((each.pid for each in state.worker_table.ready() if is_oversize(each)), 0)


def has_lost_slot(state: State) -> bool:
    """Whether a slot has no ready worker because it has lost one. Workers that are missing otherwise
    have only just been asked for.
    """
    ready = {worker.slot for worker in state.worker_table.ready()}
    return any(
        slot < state.size and slot not in ready and backoff.last_failure_at > float("-inf")
        for slot, backoff in state.slot_backoffs.items()
    )


def pending_respawns(state: State) -> dict[int, float]:
    """The slots that wait to be filled again, and until when."""
    held = {worker.slot for worker in state.worker_table.active()}
    if not held:
        return {}
    return {
        slot: backoff.not_before
        for slot, backoff in state.slot_backoffs.items()
        if slot < state.size and slot not in held
    }
