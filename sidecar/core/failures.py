"""What fails, and what follows: a generation is given up, another attempt is made after a pause, or
sidecar ends by itself (--max-failures).
"""

from __future__ import annotations

from sidecar.core import auto_restart, fallback, starting, stopping, swaps, takeover
from sidecar.core.model import PREPARING, READY, STARTING, Generation, Worker
from sidecar.core.state import Failure, PendingSwap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core import facts
    from sidecar.core.state import State


def on_preparation_failed(state: State, fact: facts.PreparationFailed) -> None:
    """The coming generation cannot be started."""
    coming = state.worker_table.coming
    if coming is not None and coming.number == fact.generation:
        state.swap_failure = Failure(fact.cause, 1, fact.output)


def lose_worker(
    state: State, number: int, slot: int, failure: Failure, now: float, lived: float
) -> None:
    """A slot of generation `number` has lost its worker, which had served for `lived` seconds: that
    fails a coming generation, and begins a pause of the slot in any other.
    """
    generation = state.worker_table.generations[number]
    if generation.state in (PREPARING, STARTING):
        fail_coming(state, failure)
        return
    starting.slot_backoff(state, slot).record_failure(now, lived, state.random_fraction())
    current = state.worker_table.current
    if current is not None and not state.worker_table.active():
        lose_last_worker(state, current, failure, now)


def fail_coming(state: State, failure: Failure) -> None:
    """The coming generation has failed; the first reason is the one that is reported."""
    state.swap_failure = state.swap_failure or failure


def lose_last_worker(state: State, current: Generation, failure: Failure, now: float) -> None:
    """Nothing is left of the generation that serves."""
    lived = now - current.serving_at
    state.swap_backoff.record_failure(now, lived, state.random_fraction())
    record_outage(state, failure, now, lived)


def handle_failed_generation(state: State, now: float) -> None:
    """Give up a coming generation that has failed. What it has taken over already goes on serving."""
    coming, failure = state.worker_table.coming, state.swap_failure
    if coming is not None and failure is not None:
        if may_serve_all_the_same(state, coming):
            takeover.serve_without_swap(state, coming, now)
        else:
            report_and_give_up(state, coming, failure, now)
    # Only now: if something above raises, the step is taken again and must find the failure.
    state.swap_failure = None


def report_and_give_up(state: State, coming: Generation, failure: Failure, now: float) -> None:
    """The swap has failed: report it, and see to another attempt if there is to be one."""
    reject_settings(state, coming)
    still, degraded = still_serving(state, coming), has_taken_over(coming)
    if is_outage(state, still, degraded):
        record_outage(state, failure, now)
    final = should_give_up(state, staying_workers(state, coming))
    pause = None
    if not final and not state.stopping and is_retried(state, coming, still, degraded):
        pause = schedule_retry(state, coming.trigger, now)
    rearm_auto_restart(state, coming, now)
    state.log(
        "swap_failed",
        generation=coming.number,
        trigger=coming.trigger,
        cause=failure.cause,
        lasted=now - coming.begun_at,
        still=still,
        degraded=degraded,
        again=None if final else next_attempt_in(state, now),
        changed=list(coming.changed),
        output=failure.output,
    )
    if pause is not None:
        pending = state.pending_swap
        trigger = pending.trigger if pending is not None else coming.trigger
        state.log("retry_scheduled", trigger=trigger, pause=pause)
    state.failed_swap = (coming.number, failure.cause)
    if coming.settings_from and not state.rejected:
        fallback.forget_stable(state)
    takeover.give_up(state, coming, now)


def may_serve_all_the_same(state: State, coming: Generation) -> bool:
    """Whether nothing else accepts connections: better this generation without one of its workers
    than none.
    """
    return takeover.is_only_one_ready(state, coming)


def reject_settings(state: State, failed: Generation) -> None:
    """Somebody has asked for a swap to the current settings, and it failed."""
    asked_for = failed.trigger not in swaps.AUTOMATIC_TRIGGERS and not failed.settings_from
    if asked_for and state.worker_table.current is not None:
        state.rejected = failed.number


def still_serving(state: State, failed: Generation) -> list[int]:
    """The other generations that have a ready worker."""
    ready = {worker.generation for worker in state.worker_table.ready()}
    return sorted(ready - {failed.number})


def has_taken_over(failed: Generation) -> bool:
    """Whether some of its workers serve in the place of old ones."""
    return any(worker.state == READY and worker.took_over for worker in failed.workers)


def is_outage(_state: State, still: list[int], degraded: bool) -> bool:
    """Whether nothing accepts connections now that a generation has failed."""
    return not still and not degraded


def staying_workers(state: State, failed: Generation) -> list[Worker]:
    """The active workers that are there when the failed generation has been given up."""
    return [
        worker
        for worker in state.worker_table.active()
        if worker.took_over or worker.generation != failed.number
    ]


def rearm_auto_restart(state: State, failed: Generation, now: float) -> None:
    """What failed is tried at the next interval, not at the one that is over."""
    if state.auto_restart.due_at <= now or failed.trigger == "interval":
        auto_restart.arm(state, now)


def record_outage(state: State, failure: Failure, now: float, lived: float = 0.0) -> None:
    """A start has failed, or what served has died after `lived` seconds, and nothing else accepts
    connections: one of --max-failures in a row, unless something was stable since the last.
    """
    current = state.worker_table.current
    if current is not None:
        state.outages.record_uptime(current.serving_at, now)
    state.outages.record_failure(now, lived, 0.0)
    state.latest_outage = failure


def should_give_up(state: State, left: list[Worker]) -> bool:
    """Whether there were too many failures in a row and no worker is `left` that may serve."""
    return has_failed_too_often(state) and not left and not state.stopping


def has_failed_too_often(state: State) -> bool:
    """Whether there were --max-failures in a row; one is enough if the program does not exist and
    never did.
    """
    most, outage = state.settings.max_failures, state.latest_outage
    absent = outage is not None and outage.permanent and not state.ever_ready
    return most > 0 and (absent or max_failures_reached(state))


def max_failures_reached(state: State) -> bool:
    """Whether there were --max-failures in a row."""
    return state.settings.max_failures <= state.outages.failures


def stop_after_failures(state: State, now: float) -> None:
    """End by itself when the latest failure was one too many, with the status it stands for."""
    failure, stop = state.latest_outage, state.stop_state
    if failure is None or state.worker_table.coming is not None:
        return
    final = should_give_up(state, state.worker_table.active())
    state.latest_outage = None
    if not final:
        return
    stop.signals_received += 1
    stop.lame_duck = False
    stop.exit_status = failure.exit_status
    stop.exit_reason = failure.cause
    state.log(
        "gave_up",
        failures=state.outages.failures,
        cause=failure.cause,
        status=failure.exit_status,
    )
    stopping.advance_stop(state, now)


def is_retried(state: State, failed: Generation, still: list[int], degraded: bool) -> bool:
    """Whether a failed generation is followed by another attempt that nobody asks for.

    While something serves, whoever asked for a swap was told how it ended, and may ask again; a file
    or an envdir is changed again; the interval comes again. What nobody asked for is always repaired.
    """
    serves = bool(still) or degraded
    return (
        not serves or failed.trigger in swaps.AUTOMATIC_TRIGGERS or state.settings.as_server_starter
    )


def schedule_retry(state: State, trigger: str, now: float) -> float | None:
    """Request another attempt after a pause: the pause, None if something else comes first."""
    forget_failed_swaps(state, now)
    again = state.swap_backoff.record_failure(now, 0.0, state.random_fraction())
    settings_from = retry_with_settings_from(state)
    if settings_from and trigger not in swaps.AUTOMATIC_TRIGGERS:
        trigger = "crash"  # what was asked for has failed; this is for what has died
    comes_first = swaps.request(state, PendingSwap(trigger, again, settings_from=settings_from))
    return again - now if comes_first else None


def forget_failed_swaps(state: State, now: float) -> None:
    """The pauses begin anew if the generation that serves has been stable since the last failure."""
    current = state.worker_table.current
    if current is not None:
        state.swap_backoff.record_uptime(current.serving_at, now)


def retry_with_settings_from(state: State) -> int:
    """The generation with whose settings the next attempt is made, 0 for the current ones."""
    return fallback.to_keep(state)


def next_attempt_in(state: State, now: float) -> float | None:
    """In how many seconds a generation is begun if nobody asks for one, None if never."""
    if state.stopping:
        return None
    pending = state.pending_swap
    due_at = auto_restart.next_at(state) if pending is None else pending.not_before
    return max(0.0, due_at - now) if due_at < float("inf") else None
