"""What happens to workers: they are started, become ready, exit, or are too late."""

from __future__ import annotations

from sidecar.core import failures, fallback, retirement, starting
from sidecar.core.model import (
    KILLED,
    LINGERING,
    OUTDATED,
    PREPARING,
    READY,
    SERVING,
    STARTING,
    Worker,
)
from sidecar.core.state import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core import facts
    from sidecar.core.state import State

# The exit status that a shell gives for a program that is not found.
COMMAND_NOT_FOUND_STATUS = 127

# What is added where a program's leader exits and leaves its work to others.
DAEMONIZED_HINT = (
    " and left processes behind (the program seems to daemonize: run it in the foreground)"
)


def on_worker_started(state: State, fact: facts.WorkerStarted, now: float) -> None:
    """Add the worker to the table."""
    worker = Worker(fact.generation, fact.slot, fact.pid, fact.readiness, now)
    generation = state.worker_table.generations[fact.generation]
    if generation.state == SERVING:
        worker.replaces_pid = starting.worker_replaced_by(state, fact.slot)
    generation.workers.append(worker)
    state.log("worker_started", generation=fact.generation, slot=fact.slot, pid=fact.pid)


def on_program_executed(state: State, fact: facts.ProgramExecuted, now: float) -> None:
    """Write down when; --interval counts from then."""
    worker = state.worker_table.find(fact.pid)
    if worker is not None and worker.executed_at is None:
        worker.executed_at = now


def on_spawn_failed(state: State, fact: facts.SpawnFailed, now: float) -> None:
    """The slot stays empty."""
    state.log("spawn_failed", generation=fact.generation, slot=fact.slot, cause=fact.cause)
    failures.lose_worker(state, fact.generation, fact.slot, Failure(fact.cause, 1), now, lived=0.0)


def on_worker_ready(state: State, fact: facts.WorkerReady, now: float) -> None:
    """Take it as ready, unless it was asked to leave meanwhile."""
    worker = state.worker_table.find(fact.pid)
    if worker is not None and worker.state == STARTING:
        mark_ready(state, worker, now)


def mark_ready(state: State, worker: Worker, now: float) -> None:
    """The worker is ready."""
    worker.move(READY)
    worker.ready_at = worker.max_accepting_at = now
    state.ever_ready = True
    if worker.readiness == "interval":
        state.worker_table.generations[worker.generation].ready_by_time = True
    state.log(
        "worker_ready",
        generation=worker.generation,
        slot=worker.slot,
        pid=worker.pid,
        after=now - worker.started_at,
        by=worker.readiness,
    )


def on_readiness_probe_unavailable(state: State, fact: facts.ReadinessProbeUnavailable) -> None:
    """Let time make the worker ready."""
    worker = state.worker_table.find(fact.pid)
    if worker is not None:
        worker.readiness = "interval"
    if not state.probe_unavailable_logged:
        state.probe_unavailable_logged = True
        state.log("readiness_probe_unavailable", cause=fact.cause, interval=state.settings.interval)


def on_worker_exited(state: State, fact: facts.WorkerExited, now: float) -> None:
    """The worker's leader has ended: the worker is gone, or lingers while processes of it live on.
    If nobody had asked it to leave, the slot has lost its worker.
    """
    worker = state.worker_table.find(fact.pid)
    if worker is None:
        return
    asked = not worker.active
    if fallback.is_stable(state, worker, now):
        state.worker_table.generations[worker.generation].was_stable = True
    clean = asked and is_clean_exit(worker, fact)
    state.log(
        "worker_exited" if clean else "worker_died",
        generation=worker.generation,
        slot=worker.slot,
        pid=worker.pid,
        cause=fact.cause,
        lived=now - worker.started_at,
        role=role(state, worker),
        wait_status=fact.wait_status,
    )
    if is_lingering(worker, fact):
        linger(state, worker, fact, asked, now)
    elif fact.group_empty:
        state.worker_table.remove(worker)
    if not asked:
        failure = failure_of(state, worker, fact, now)
        served = 0.0 if worker.ready_at is None else now - worker.ready_at
        failures.lose_worker(state, worker.generation, worker.slot, failure, now, lived=served)


def is_clean_exit(worker: Worker, fact: facts.WorkerExited) -> bool:
    """Whether a worker that was asked to leave has done so. Dying of the signal that sidecar sent is
    a clean exit, also where it is an exit status (a JVM's 143); so is dying of sidecar's SIGKILL.
    """
    return (
        worker.state == KILLED
        or (fact.code == 0 and not fact.signal)
        or worker.retire_signal in (fact.signal, fact.reported_signal)
    )


def is_lingering(worker: Worker, fact: facts.WorkerExited) -> bool:
    """Whether processes of the worker live on that were not killed."""
    return worker.state != KILLED and not fact.group_empty


def linger(state: State, worker: Worker, fact: facts.WorkerExited, asked: bool, now: float) -> None:
    """Processes of the worker have outlived its leader; `asked`: it had been asked to leave."""
    worker.move(LINGERING)
    worker.remaining = fact.remaining
    worker.strays = fact.strays
    worker.remaining_asked = asked and has_asked_its_own(fact)
    if not asked:
        worker.retired_at = now
        worker.kill_at = now + retirement.drain_time(state, worker)


def has_asked_its_own(fact: facts.WorkerExited) -> bool:
    """Whether a leader that was asked to leave has asked its processes. If it exited with status 0
    it has; asked a second time, some would drop what they have in hand. It has probably not asked
    those that left its group.
    """
    return fact.code == 0 and not fact.signal and not fact.strays


def failure_of(state: State, worker: Worker, fact: facts.WorkerExited, now: float) -> Failure:
    """What the death of a worker means for a generation that it fails."""
    early = "" if worker.ready_at is not None else " before it was ready"
    cause = fact.note or fact.cause + early
    if not fact.note and seems_to_daemonize(state, worker, fact, now):
        cause += DAEMONIZED_HINT
    status = fact.shell_status or 1
    # The program does not exist: another attempt does not help.
    permanent = bool(fact.note) and status == COMMAND_NOT_FOUND_STATUS
    return Failure(cause, status, permanent=permanent)


def seems_to_daemonize(state: State, worker: Worker, fact: facts.WorkerExited, now: float) -> bool:
    """Whether the leader soon exited with status 0 and left processes to do the work."""
    left_others = fact.code == 0 and not fact.signal and not fact.group_empty
    return left_others and not fallback.is_stable(state, worker, now)


def role(state: State, worker: Worker) -> str:
    """What a worker that has ended was: new, current or old; stopping, once sidecar stops."""
    if state.stopping:
        return "stopping"
    generation = state.worker_table.generations[worker.generation]
    if not worker.active or generation.state == OUTDATED:
        return "old"
    if generation.state == SERVING:
        return "old" if state.worker_table.coming is not None else "current"
    return "new"


def on_group_emptied(state: State, fact: facts.GroupEmptied) -> None:
    """The worker is gone."""
    worker = state.worker_table.find(fact.pid)
    if worker is not None:
        state.worker_table.remove(worker)


def check_start_deadlines(state: State, now: float) -> None:
    """Let time make workers ready (readiness interval), and give up what takes longer than
    --start-timeout: a worker, or the preparation of a generation.
    """
    timeout = state.settings.start_timeout
    coming = state.worker_table.coming
    if (
        coming is not None
        and coming.state == PREPARING
        and state.is_due(coming.begun_at + timeout, now)
    ):
        cause = f"the check has not ended within {timeout:g} s"
        failures.fail_coming(state, Failure(cause, 1))
    for worker in state.worker_table.active():
        if worker.state != STARTING:
            continue
        if waits_for_time(worker):
            if state.is_due(ready_by_time_at(state, worker), now):
                mark_ready(state, worker, now)
        elif is_overdue(state, worker, now):
            give_up_overdue(state, worker, now)


def waits_for_time(worker: Worker) -> bool:
    """Whether time alone makes the worker ready; not before its program runs."""
    return worker.readiness == "interval" and worker.executed_at is not None


def ready_by_time_at(state: State, worker: Worker) -> float:
    """When time has made it ready: --interval after its program was executed."""
    begun_at = worker.executed_at if worker.executed_at is not None else float("inf")
    return begun_at + state.settings.interval


def is_overdue(state: State, worker: Worker, now: float) -> bool:
    """Whether it should have been ready by now."""
    return state.is_due(worker.started_at + state.settings.start_timeout, now)


def give_up_overdue(state: State, worker: Worker, now: float) -> None:
    """Retire a worker that was not ready in time."""
    limit = f"within {state.settings.start_timeout:g} s"
    cause = (
        f"not ready {limit} (readiness {worker.readiness})"
        if worker.executed_at is not None
        else f"its program could not be run {limit} (a hung file system?)"
    )
    state.log(
        "worker_overdue",
        generation=worker.generation,
        slot=worker.slot,
        pid=worker.pid,
        cause=cause,
    )
    lose_overdue(state, worker, Failure(cause, 1), now)


def lose_overdue(state: State, worker: Worker, failure: Failure, now: float) -> None:
    """Retire a worker that was not ready in time, and only then count the loss: it does not serve."""
    retirement.retire(state, [worker], now)
    failures.lose_worker(state, worker.generation, worker.slot, failure, now, lived=0.0)
