"""What is told on the way and at the end: JSON lines into a pipe, bars on a terminal (plain lines
where rich is not installed).
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


def show(line: str) -> None:
    """To whoever reads; that nobody does any more is no reason to stop halfway."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class Lines:
    """JSON: one object an event."""

    def begin(self, what: str, count: int) -> None:
        """A phase over so many containers."""

    def end(self) -> None:
        """Of the phase."""

    def tell(self, event: str, **fields: Any) -> None:
        """An event."""
        show(json.dumps({"event": event, **fields}))


class Text(Lines):
    """One line an event, for people."""

    def tell(self, event: str, **fields: Any) -> None:
        """As a line, or as nothing."""
        for line in said(event, fields):
            self.write(printable(line))

    def write(self, line: str) -> None:
        """Below what is there."""
        show(line)


class Bars(Text):
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

    def begin(self, what: str, count: int) -> None:
        """A bar for all."""
        self._progress = self._new()
        self._all = self._progress.add_task(what, total=count)
        self._progress.start()

    def end(self) -> None:
        """The bars go, the lines stay."""
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._under_way = None, {}

    def tell(self, event: str, **fields: Any) -> None:
        """Move a bar, and say the line."""
        name = fields.get("name", "")
        if self._progress is not None and event == "step":
            if name not in self._under_way:
                self._under_way[name] = self._progress.add_task("", total=None)
            self._progress.update(self._under_way[name], description=f"{name}: {fields['step']}")
        if self._progress is not None and event in ("done", "failed"):
            self._progress.advance(self._all)
            if name in self._under_way:
                self._progress.remove_task(self._under_way.pop(name))
        super().tell(event, **fields)

    def write(self, line: str) -> None:
        """Above the bars."""
        self._console.print(line)


def said(event: str, fields: dict[str, Any]) -> Sequence[str]:
    """The lines for people."""
    if event == "found":
        containers = fields["containers"]
        return [
            f"{len(containers)} containers: {', '.join(containers)}",
            *(f"into {each}" for each in fields["copies"]),
        ]
    if event == "done":
        return [f"{fields['name']}: serves generation {summary.serves(fields)}"]
    if event == "failed":
        return [f"{fields['name']}: failed: {summary.remark(fields)}"]
    if event == "hook":
        return [
            f"{': '.join(filter(None, (fields.get('name'), fields['hook'])))}: {line}"
            for line in fields["output"]
        ]
    if event in ("notice", "stopping"):
        return [fields["text"]]
    if event == "report":
        return ["", *summary.table(fields)]
    return []


def face(as_json: bool) -> Lines:
    """The one that whoever reads standard output wants."""
    if as_json or not sys.stdout.isatty():
        return Lines()
    try:
        return Bars()
    except ImportError:
        return Text()
