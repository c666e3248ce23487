"""Orders: what to do, in the imperative. The only thing the supervisor ever says."""

from __future__ import annotations

from sidecar.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Order(Record):
    """Something to do."""


class Prepare(Order):
    """Read the environment for `generation` and run its check; answered by Prepared or
    PreparationFailed.

    `changed`: what has changed since the generation that serves was begun. `like`: it gets the
    settings and the environment of that generation, 0 for those of now. `refused`: that one serves,
    or did last, and what there is now was tried as this generation and failed; 0 if it is not so.
    """

    generation: int
    trigger: str
    changed: tuple[str, ...] = ()
    like: int = 0
    refused: int = 0


class Spawn(Order):
    """Start one worker; answered at once (before the next reconcile) by WorkerStarted or
    SpawnFailed.
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


class Pass(Order):
    """Send `signal` on to the worker's leader; nothing follows from it."""

    pid: int
    signal: str


class Close(Order):
    """A generation is gone: forget its environment, and look after the listeners it shared."""

    generation: int


class Say(Order):
    """Tell the people who read the log. `event` is one of log.PHRASES, `fields` what it is about."""

    event: str
    fields: dict[str, Any]


class Exit(Order):
    """End sidecar with `status`; `reason` is for the termination log, "" where it ends as asked."""

    status: int
    reason: str = ""


if TYPE_CHECKING:
    # Every order there is: a `match` over it that leaves one out is an error of mypy.
    AnyOrder = Prepare | Spawn | Retire | RetireGroup | Kill | Pass | Close | Say | Exit
