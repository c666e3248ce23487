"""`assert_never`, without importing `typing`, which costs PID 1 some milliseconds at every start."""

from __future__ import annotations

__all__ = ["assert_never"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import assert_never
else:

    def assert_never(value: object) -> None:
        """Stand in the last branch of a `match`: mypy reports an error if a type can still reach it.

        Raises AssertionError if a value does.
        """
        raise AssertionError(f"no branch for {value!r}")
