"""What the tests of --watch share: whoever saves, and what is served then.

That something did nothing is seen by what comes next: another save, whose generation has the next
number and says that only it has changed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.support import Sidecar, alive, until

# Longer than any of the sequences takes, so that a slow machine does not make two of one.
SETTLE = ("--watch-settle", "800ms")


def there(tree: Path) -> dict[str, str]:
    """What a program that starts now would read."""
    files = [
        each
        for each in tree.rglob("*")
        if each.is_file()
        and "/." not in str(each.relative_to(tree.parent))
        and "__pycache__" not in each.parts
    ]
    return {str(each.relative_to(tree)): each.read_text() for each in files}


def served(run: Sidecar) -> dict[str, str]:
    return json.loads(run.get("/tree"))


def watcher(run: Sidecar) -> int:
    """The pid of the watcher, as soon as it is there."""
    found: list[int] = []

    def look() -> bool:
        for word in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split():
            try:
                if b"sidecar.watch" in Path(f"/proc/{word}/cmdline").read_bytes() and alive(
                    int(word)
                ):
                    found.append(int(word))
            except OSError:
                continue
        return bool(found)

    until(look, "the watcher's process")
    return found[0]


def switches(pid: int) -> int:
    """How often the process has gone to sleep of its own accord."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(status["voluntary_ctxt_switches"])


def begun(run: Sidecar) -> Sidecar:
    """Wait until it serves and watches, and its watcher has nothing to do any more."""
    run.wait("watching")
    run.wait("serving")
    pid = watcher(run)
    before = switches(pid)
    until(lambda: switches(pid) > before, "a watcher that waits")
    return run


def replaced(path: Path, text: str) -> None:
    """A save that no reader sees half."""
    path.with_name(f".{path.name}.swp").write_text(text)
    os.replace(path.with_name(f".{path.name}.swp"), path)
