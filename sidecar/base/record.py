"""Frozen values: what facts, orders and settings are made of.

A Record reads like a frozen dataclass and type-checks like one. It is not one, because PID 1 pays
for `dataclasses` at every start: the import brings `inspect` (about 6 ms and 1.5 MB here), and each
decorated class compiles its methods anew (about 0.5 ms); with some forty small classes that is more
than the rest of start-up together.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_: object):  # type: ignore[no-untyped-def]
        return lambda cls: cls


class Descriptor(int):
    """The number of a file descriptor that is a part of sidecar's state: it stays open across an
    upgrade (upgrade/state.py).
    """


class Field:
    """A field with more to say than its default; subclass it to keep what a table of fields needs."""

    default: Any

    def __init__(self, default: Any) -> None:
        self.default = default


@dataclass_transform(frozen_default=True, kw_only_default=False, field_specifiers=(Field,))
class Record:
    """A frozen value with named fields: made positionally or by name, compared by type and content.

    Raises TypeError for a missing, unknown or repeated field, AttributeError on assignment.
    """

    FIELDS: ClassVar[tuple[str, ...]] = ()
    DEFAULTS: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        own = [name for name, kind in cls.__annotations__.items() if "ClassVar" not in str(kind)]
        cls.FIELDS = (*cls.FIELDS, *own)
        cls.DEFAULTS = dict(cls.DEFAULTS)
        for name in own:
            if name in cls.__dict__:
                value = cls.__dict__[name]
                cls.DEFAULTS[name] = value.default if isinstance(value, Field) else value

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fields = type(self).FIELDS
        if len(args) > len(fields):
            raise TypeError(f"{type(self).__name__} takes {len(fields)} values, got {len(args)}")
        values = dict(zip(fields, args, strict=False))
        for name, value in kwargs.items():
            if name not in fields or name in values:
                raise TypeError(f"{type(self).__name__}: unexpected {name!r}")
            values[name] = value
        for name in fields:
            if name not in values:
                if name not in self.DEFAULTS:
                    raise TypeError(f"{type(self).__name__}: {name!r} is missing")
                values[name] = self.DEFAULTS[name]
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self).__name__, *(self.__dict__[name] for name in self.FIELDS)))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self.FIELDS)
        return f"{type(self).__name__}({inside})"

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{**{name: self.__dict__[name] for name in self.FIELDS}, **changes})
