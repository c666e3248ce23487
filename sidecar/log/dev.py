"""The style `dev` of the log: for a programmer at a terminal who has just saved a file."""

from __future__ import annotations

from sidecar.base.printable import printable
from sidecar.log.messages import DEV_PHRASES, INFO, PHRASES, WARNING, format_value, phrase_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

COLOURS = {"·": 2, "~": 36, "●": 32, "!": 33, "✗": 31}


class DevStyle:
    """The style. It remembers the last failure and how often it has come, so that it is shown in
    full only once.
    """

    def __init__(self) -> None:
        self._failed: object = None
        self._failures = 0

    def lines(self, event: str, fields: Mapping[str, Any], stamp: str, colour: bool) -> str:
        """The lines of an event, "" for most events. `stamp` is the time, as it begins a line."""
        shown = phrase_fields(event, fields)
        level, phrase = PHRASES[event]
        more: list[str] = []
        if event == "swap_failed":
            about = (fields["cause"], fields["output"])
            self._failures = self._failures + 1 if about == self._failed else 1
            self._failed = about
            text, more = _failure(fields, self._failures)
        elif event == "worker_died" and fields["role"] == "new":
            return ""  # the failed swap that follows says it
        elif event in DEV_PHRASES:
            text = DEV_PHRASES[event].format_map(shown)
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
    """The first line and the other ones of a failed swap. The same failure for the second time is
    one line.
    """
    number, serving = fields["generation"], "nothing serves"
    if fields["still"]:
        serving = f"generation {', '.join(map(str, fields['still']))} serves on"
    if times > 1:
        return f"✗ generation {number} failed in the same way ({times} times now); {serving}", []
    lines = [f"         │ {each}" for each in fields["output"].split("\n") if fields["output"]]
    if fields["changed"]:
        lines.append("         " + printable(f"changed: {format_value(fields['changed'])}"))
    advice = "save to try again" if fields["still"] else "save, or wait, to try again"
    lines.append("         " + printable(f"{serving}; {advice}"))
    lasted = format_value(fields["lasted"])
    return f"✗ generation {number} failed after {lasted} s: {fields['cause']}", lines
