"""The style `dev` of the log: for who is at a terminal and has just saved a file."""

from __future__ import annotations

from sidecar.base.printable import printable
from sidecar.log.messages import DEV, INFO, PHRASES, WARNING, show, shown_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

COLOURS = {"·": 2, "~": 36, "●": 32, "!": 33, "✗": 31}


class Dev:
    """What the style remembers: the failure that was said last, and how often it came."""

    def __init__(self) -> None:
        self._failed: object = None
        self._failures = 0

    def lines(self, event: str, fields: Mapping[str, Any], stamp: str, colour: bool) -> str:
        """The lines of an event, none for most events. `stamp`: the time, as it begins a line."""
        shown = shown_fields(event, fields)
        level, phrase = PHRASES[event]
        more: list[str] = []
        if event == "swap_failed":
            about = (fields["cause"], fields["output"])
            self._failures = self._failures + 1 if about == self._failed else 1
            self._failed = about
            text, more = _failure(fields, self._failures)
        elif event == "worker_died" and fields["role"] == "new":
            return ""  # the failure that follows says it
        elif event in DEV:
            text = DEV[event].format_map(shown)
        elif level == INFO:
            return ""
        else:
            text = f"{'!' if level == WARNING else '✗'} {phrase.format_map(shown)}"
        if event == "serving":
            text += ", mended" * (self._failed is not None)
            self._failed = None
        lines = [stamp + printable(text.replace("\n", " "), "\t"), *more]
        if colour:
            lines[0] = f"\033[{COLOURS[text[0]]}m{lines[0]}\033[m"
        return "\n".join(lines) + "\n"


def _failure(fields: Mapping[str, Any], times: int) -> tuple[str, list[str]]:
    """A failed swap for who has just saved a file: once in full, then only that it is the same
    again.
    """
    serving = (
        f"generation {', '.join(map(str, fields['still']))} serves on"
        if fields["still"]
        else "nothing serves"
    )
    if times > 1:
        return (
            f"✗ generation {fields['generation']} failed in the same way ({times} times now); {serving}",
            [],
        )
    output = fields["output"].split("\n") if fields["output"] else []
    told = [f"changed: {show(fields['changed'])}"] if fields["changed"] else []
    told.append(
        f"{serving}; save to try again"
        if fields["still"]
        else f"{serving}; save, or wait, to try again"
    )
    first = f"✗ generation {fields['generation']} failed after {show(fields['lasted'])} s: {fields['cause']}"
    return first, [
        *(f"         │ {each}" for each in output),
        *(f"         {printable(each)}" for each in told),
    ]
