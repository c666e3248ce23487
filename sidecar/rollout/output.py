"""What `sidecar rollout` writes: JSON lines into a pipe, progress bars on a terminal (plain lines if
rich is not installed).
"""

from __future__ import annotations

import json
import os
import sys

from sidecar.base.printable import printable
from sidecar.rollout import summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from rich.progress import Progress, TaskID


def print_line(line: str) -> None:
    """Write a line. If nobody reads any more, the rollout goes on all the same."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class JsonLines:
    """One JSON object for each event."""

    def begin_phase(self, what: str, count: int) -> None:
        """A phase over this many containers begins."""

    def end_phase(self) -> None:
        """The phase has ended."""

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event."""
        print_line(json.dumps({"event": event, **fields}))


class TextLines(JsonLines):
    """One line an event, for people."""

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event as lines, or as nothing."""
        for line in lines_of(event, fields):
            self.write(printable(line))

    def write(self, line: str) -> None:
        """Write one line."""
        print_line(line)


class ProgressBars(TextLines):
    """The same, above one bar for all and a line for each container under way. Raises ImportError
    without rich.
    """

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415  (only a terminal pays for it)
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        self._console = Console(markup=False, highlight=False, soft_wrap=True)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._new: Callable[[], Progress] = lambda: Progress(
            *columns, console=self._console, transient=True
        )
        self._progress: Progress | None = None
        self._under_way: dict[str, TaskID] = {}

    def begin_phase(self, what: str, count: int) -> None:
        """Show one bar for all containers."""
        self._progress = self._new()
        self._all = self._progress.add_task(what, total=count)
        self._progress.start()

    def end_phase(self) -> None:
        """Remove the bars; the lines stay."""
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._under_way = None, {}

    def emit(self, event: str, **fields: Any) -> None:
        """Move a bar, and write the line."""
        name = fields.get("name", "")
        if self._progress is not None and event == "step":
            if name not in self._under_way:
                self._under_way[name] = self._progress.add_task("", total=None)
            self._progress.update(self._under_way[name], description=f"{name}: {fields['step']}")
        if self._progress is not None and event in ("done", "failed"):
            self._progress.advance(self._all)
            if name in self._under_way:
                self._progress.remove_task(self._under_way.pop(name))
        super().emit(event, **fields)

    def write(self, line: str) -> None:
        """Write one line above the bars."""
        self._console.print(line)


def lines_of(event: str, fields: dict[str, Any]) -> Sequence[str]:
    """The lines for people; none for an event that only programs want."""
    match event:
        case "found":
            containers = fields["containers"]
            return [
                f"{len(containers)} containers: {', '.join(containers)}",
                *(f"into {each}" for each in fields["copies"]),
            ]
        case "done":
            lines = [f"{fields['name']}: serves generation {summary.serves(fields)}"]
        case "failed":
            lines = [f"{fields['name']}: failed: {summary.remark(fields)}"]
        case "hook":
            who = ": ".join(filter(None, (fields.get("name"), fields["hook"])))
            lines = [f"{who}: {line}" for line in fields["output"]]
        case "notice" | "stopping":
            lines = [fields["text"]]
        case "report":
            lines = ["", *summary.table(fields)]
        case _:
            lines = []
    return lines


def choose(as_json: bool) -> JsonLines:
    """JSON if that is asked for or nobody looks, else bars, or lines without rich."""
    if as_json or not sys.stdout.isatty():
        return JsonLines()
    try:
        return ProgressBars()
    except ImportError:
        return TextLines()
