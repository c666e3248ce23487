"""What sidecar leaves to the version of itself that takes its place: its state as plain data, and
that data as state again.

Every object is written down field by field under its class's name, whatever fields it has, so that
a field that is added one day is not forgotten here. Made anew, an object begins as a fresh one:
what an older state lacks is as at a start. What a state has and this version does not know is
refused, for dropping it might drop a worker. FORMAT counts changes of meaning, which no reader
could see.

Not pickle: it would run what it reads, and bind both versions to one module path. Pure; upgrade/execute.py
carries the text across.
"""

from __future__ import annotations

from collections import deque

from sidecar.base.errors import SidecarError
from sidecar.base.record import Descriptor, Record
from sidecar.control import commands
from sidecar.core import facts, orders
from sidecar.core.backoff import AutoRestartTimer, Backoff, RateLimit
from sidecar.core.containment import Containment
from sidecar.core.history import EventHistory
from sidecar.core.model import Generation, Worker
from sidecar.core.supervisor import Failure, PendingSwap, StopState, Supervisor
from sidecar.core.worker_table import WorkerTable
from sidecar.policies.restart import RestartPolicy
from sidecar.settings.address import Address
from sidecar.settings.table import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

# The format that is written. A version reads this one and the one before, as long as OLDER can make
# this one of it.
FORMAT = 1
OLDER: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

MARK = "~"


class Unfit(SidecarError):
    """A state that this version cannot go on from; the text says why."""


# Values, compared by content; and objects, with how a fresh one is made.
RECORDS: dict[str, type[Record]] = {
    each.__name__: each
    for each in (
        Address,
        Settings,
        PendingSwap,
        Failure,
        *(each for words in (orders, facts) for each in vars(words).values()),
    )
    if isinstance(each, type) and issubclass(each, Record)
}
OBJECTS: dict[str, Callable[[], object]] = {
    "WorkerTable": WorkerTable,
    "Generation": lambda: Generation(0, "", 0.0, Settings()),
    "Worker": lambda: Worker(0, 0, 0, "", 0.0),
    "StopState": StopState,
    "Backoff": lambda: Backoff(0.0, 0.0),
    "RateLimit": lambda: RateLimit(0.0, 0.0),
    "AutoRestartTimer": AutoRestartTimer,
    "EventHistory": EventHistory,
    "Containment": Containment,
    "RestartPolicy": lambda: RestartPolicy(0.0),
    "EventStream": commands.EventStream,
    "ReloadOutcome": lambda: commands.ReloadOutcome(0),
    "UpgradeOutcome": commands.UpgradeOutcome,
}
# Of the supervisor, what a new one is given anyway.
GIVEN = ("random_fraction",)


def plain(value: Any) -> Any:
    """A value as JSON has it. Raises TypeError for what has no place in a state: a defect."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) and key != MARK for key in value):
            return {key: plain(each) for key, each in value.items()}
        return {MARK: "dict", "of": [[plain(key), plain(each)] for key, each in value.items()]}
    if isinstance(value, (tuple, set, deque)):
        return {MARK: type(value).__name__, "of": [plain(each) for each in value]}
    name = type(value).__name__
    if name not in RECORDS and name not in OBJECTS and name != "Supervisor":
        raise TypeError(f"a state cannot hold a {name}")
    return {
        MARK: name,
        **{
            field: plain(getattr(value, field))
            for field in _fields(value)
            if name != "Supervisor" or field not in GIVEN
        },
    }


def revived(value: Any) -> Any:
    """The value again. Raises Unfit."""
    if isinstance(value, list):
        return [revived(each) for each in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(MARK)
    if kind is None:
        return {key: revived(each) for key, each in value.items()}
    if kind == "dict":
        return {revived(key): revived(each) for key, each in value["of"]}
    if kind in ("tuple", "set", "deque"):
        return {"tuple": tuple, "set": set, "deque": deque}[kind](
            revived(each) for each in value["of"]
        )
    if kind == "Supervisor":
        return value  # to be made by `supervisor`
    if kind in RECORDS:
        fields = {name: revived(each) for name, each in value.items() if name != MARK}
        try:
            return RECORDS[kind](**fields)
        except TypeError as error:
            raise Unfit(
                f"the state of the running sidecar does not fit this version: {error}"
            ) from None
    if kind not in OBJECTS:
        raise Unfit(
            f"the running sidecar has a {kind} in its state, which this version does not know"
        )
    return _filled(OBJECTS[kind](), value)


def revived_supervisor(
    value: dict[str, Any], settings: Settings, now: float, chance: Callable[[], float]
) -> Supervisor:
    """The supervisor that was written down, with a chance of its own; `settings` are for what the
    state may lack. Raises Unfit.
    """
    found: Supervisor = _filled(Supervisor(settings, now, chance), value)
    return found


def descriptors(value: Any) -> Iterator[int]:
    """Every descriptor in a state that has not become text yet."""
    if isinstance(value, Descriptor):
        if value >= 0:
            yield int(value)
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from descriptors(each)


def _fields(value: object) -> list[str]:
    return [
        *(name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())),
        *getattr(value, "__dict__", ()),
    ]


def _filled(fresh: Any, value: dict[str, Any]) -> Any:
    for name, each in value.items():
        if name == MARK:
            continue
        if not hasattr(fresh, name):
            raise Unfit(
                f"the running sidecar has a {value[MARK]}.{name} in its state, which this version does not know"
            )
        known, found = getattr(fresh, name), revived(each)
        # How much is remembered is this version's to say.
        setattr(fresh, name, deque(found, known.maxlen) if isinstance(known, deque) else found)
    return fresh
