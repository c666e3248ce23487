"""Orders: what to do, in the imperative. The supervisor gives nothing else."""

from __future__ import annotations

from sidecar.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Order(Record):
    """Something to do."""


class Prepare(Order):
    """Read the environment for `generation` and run its check; the answer is GenerationPrepared or
    PreparationFailed.

    `changed`: what has changed since the generation that serves was begun. `settings_from`: use the
    settings and the environment of that generation, 0 for the current ones. `rejected`: the
    generation with which the current settings were tried and failed, while the one in
    `settings_from` served; 0 if there is none.
    """

    generation: int
    trigger: str
    changed: tuple[str, ...] = ()
    settings_from: int = 0
    rejected: int = 0


class Spawn(Order):
    """Start one worker; answered at once (before the next reconcile) by WorkerStarted or
    SpawnFailed. `workers` is how many there are to be.
    """

    generation: int
    slot: int
    workers: int
    trigger: str


class Retire(Order):
    """Send `signal` to the worker's leader, once."""

    pid: int
    signal: str


class RetireGroup(Order):
    """Send `signal` to every process that has outlived the worker's leader, once."""

    pid: int
    signal: str


class Kill(Order):
    """Send SIGKILL to the worker's whole group."""

    pid: int


class ForwardSignal(Order):
    """Send `signal` to the worker's leader; the supervisor expects nothing from it."""

    pid: int
    signal: str


class ForgetGeneration(Order):
    """All workers of the generation have exited: forget its environment, and close the listeners
    that no other generation uses.
    """

    generation: int


class LogEvent(Order):
    """Write a line to the log. `event` is one of log.PHRASES, `fields` what the line is about."""

    event: str
    fields: dict[str, Any]


class Exit(Order):
    """End sidecar with `status`. `reason` is for the termination log, "" where somebody asked for
    the stop.
    """

    status: int
    reason: str = ""


if TYPE_CHECKING:
    # Every order there is: a `match` over it that leaves one out is an error of mypy.
    AnyOrder = (
        Prepare
        | Spawn
        | Retire
        | RetireGroup
        | Kill
        | ForwardSignal
        | ForgetGeneration
        | LogEvent
        | Exit
    )
