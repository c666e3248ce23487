"""The state that sidecar leaves to the version that takes its place: to JSON values, and back.

Every object is exported field by field under its class's name, whatever fields it has, so a field
that is added one day cannot be forgotten here. When an object is imported it begins as a fresh one:
a field that an older state lacks is as at the start. A class or field that this version does not
know is refused, because ignoring it might lose a worker. FORMAT counts changes of meaning, which the
names do not show.

This module is pure; upgrade/execute.py writes and reads the text.

The road not taken: pickle. It would execute what it reads, and bind both versions to one module path.
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
from sidecar.core.state import Failure, PendingSwap, StopState
from sidecar.core.supervisor import Supervisor
from sidecar.core.worker_table import WorkerTable
from sidecar.policies.restart import RestartPolicy
from sidecar.settings.address import Address
from sidecar.settings.table import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

# The format that is written. A version reads this one, and those that OLDER converts to this one.
FORMAT = 1
OLDER: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

# The key under which a JSON object has the name of its class.
TYPE_KEY = "~"


class IncompatibleState(SidecarError):
    """A state that this version cannot go on from. The text says why."""


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
# Fields of the supervisor that are not exported: a new one gets them as arguments.
_NOT_EXPORTED = ("random_fraction",)

_SEQUENCES: dict[str, Callable[[Iterable[Any]], Any]] = {"tuple": tuple, "set": set, "deque": deque}


def to_json_value(value: Any) -> Any:
    """The value as JSON can represent it. Raises TypeError for what cannot be part of a state: that
    is a defect.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [to_json_value(each) for each in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) and key != TYPE_KEY for key in value):
            return {key: to_json_value(each) for key, each in value.items()}
        pairs = [[to_json_value(key), to_json_value(each)] for key, each in value.items()]
        return {TYPE_KEY: "dict", "of": pairs}
    name = type(value).__name__
    if isinstance(value, (tuple, set, deque)):
        return {TYPE_KEY: name, "of": [to_json_value(each) for each in value]}
    if name not in RECORDS and name not in OBJECTS and name != "Supervisor":
        raise TypeError(f"a state cannot hold a {name}")
    exported = {
        field: to_json_value(getattr(value, field))
        for field in _fields(value)
        if name != "Supervisor" or field not in _NOT_EXPORTED
    }
    return {TYPE_KEY: name, **exported}


def from_json_value(value: Any) -> Any:
    """The value that `to_json_value` was given; a supervisor only as its fields, for
    `import_supervisor`. Raises IncompatibleState.
    """
    if isinstance(value, list):
        return [from_json_value(each) for each in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(TYPE_KEY)
    if kind is None:
        return {key: from_json_value(each) for key, each in value.items()}
    if kind == "dict":
        return {from_json_value(key): from_json_value(each) for key, each in value["of"]}
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](from_json_value(each) for each in value["of"])
    return value if kind == "Supervisor" else _object(kind, value)


def _object(kind: str, value: dict[str, Any]) -> object:
    """The record or object of this class with these fields. Raises IncompatibleState."""
    if kind in RECORDS:
        fields = {name: from_json_value(each) for name, each in value.items() if name != TYPE_KEY}
        try:
            return RECORDS[kind](**fields)
        except TypeError as error:
            raise IncompatibleState(
                f"the state of the running sidecar does not fit this version: {error}"
            ) from None
    if kind not in OBJECTS:
        raise IncompatibleState(
            f"the running sidecar has a {kind} in its state, which this version does not know"
        )
    return _with_fields(OBJECTS[kind](), value)


def import_supervisor(
    value: dict[str, Any], settings: Settings, now: float, random_fraction: Callable[[], float]
) -> Supervisor:
    """The supervisor with these exported fields. What the state lacks is as in a new supervisor with
    these settings; `random_fraction` is its source of random numbers. Raises IncompatibleState.
    """
    found: Supervisor = _with_fields(Supervisor(settings, now, random_fraction), value)
    return found


def descriptors(value: Any) -> Iterator[int]:
    """Every open descriptor in a state, as `to_json_value` gives it."""
    if isinstance(value, Descriptor):
        if value >= 0:
            yield int(value)
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from descriptors(each)


def _fields(value: object) -> list[str]:
    """The names of all the fields of an object, with or without __slots__. Raises TypeError for a
    private one: the names are what two versions agree upon, and nobody may rename them unawares.
    """
    names = [
        *(name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())),
        *getattr(value, "__dict__", ()),
    ]
    for name in names:
        if name.startswith("_"):
            raise TypeError(f"{type(value).__name__}.{name} is private: a state cannot hold it")
    return names


def _with_fields(fresh: Any, value: dict[str, Any]) -> Any:
    """A fresh object with its fields set to these. Raises IncompatibleState for an unknown field."""
    for name, each in value.items():
        if name == TYPE_KEY:
            continue
        if not hasattr(fresh, name):
            raise IncompatibleState(
                f"the running sidecar has a {value[TYPE_KEY]}.{name} in its state, which this version does not know"
            )
        known, found = getattr(fresh, name), from_json_value(each)
        # How long a deque may be is for this version to decide.
        setattr(fresh, name, deque(found, known.maxlen) if isinstance(known, deque) else found)
    return fresh
