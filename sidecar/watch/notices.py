"""What a user should know about the watched files: sentences for the log, each once."""

from __future__ import annotations

import os
import re
import time

from sidecar.system.procfs import descendants, read
from sidecar.watch.entries import MAX_DIGESTED_BYTES
from sidecar.watch.output import MAX_PATHS, send
from sidecar.watch.scanner import MAX_DIRECTORIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.watch.tree import Difference, Tree

MAX_NOTICES = 100
# A path that changes so many times in a row is reported, sooner if the program has it open for
# writing. In a row means: not longer than this after the change before.
REPEATED_BY_PROGRAM, REPEATED_BY_ANYBODY, REPEATED_WITHIN_S = 4, 12, 10.0

# What stops a program in a debugger that reads the terminal, by the extension of the file.
_BREAKPOINTS = {
    ".py": re.compile(
        r"^[ \t]*(?:import i?pdb; *)?(?:breakpoint\(|i?pdb\.set_trace\()", re.MULTILINE
    ),
    ".rb": re.compile(r"^[ \t]*(?:binding\.(?:irb|pry|break)\b|byebug\b|debugger\b)", re.MULTILINE),
}


class Notices:
    """The sentences about one tree."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._repeats: dict[str, tuple[int, float]] = {}
        self._sent: set[str] = set()

    def send(self, subject: str, text: str) -> None:
        """Send a sentence, once for each subject. Raises OSError."""
        if subject not in self._sent and len(self._sent) < MAX_NOTICES:
            self._sent.add(subject)
            send("notice", text=text)

    def on_begin(self) -> None:
        """Say which roots are not watched, or too much."""
        for root, shown in self._tree.roots.items():
            if kind := self._tree.fileless_type(root):
                self.send(root, f"{shown} is a {kind} file system, so nothing is watched there")
            elif os.path.exists(root) and not os.path.isfile(root) and not os.path.isdir(root):
                self.send(
                    root, f"{shown} is neither directory nor file, so nothing is watched there"
                )
            elif root == "/":
                self.send(root, "/ is watched, the whole system: say --watch DIR for less")

    def on_scan(self, refused: Mapping[str, str]) -> None:
        """Say what could not be read, and why."""
        for path, reason in refused.items():
            self.send(
                path,
                f"{self._tree.display_path(path)} cannot be read ({reason}), "
                "so changes in it are not seen",
            )

    def on_tick(self) -> None:
        """Say that the tree is too large."""
        if self._tree.too_large:
            self.send(
                "directories",
                f"there are more directories than are watched ({MAX_DIRECTORIES:,}): "
                "ignore some with --watch-ignore",
            )

    def on_changed(self, differences: list[Difference]) -> None:
        """Say which of these files stop in a debugger, or seem to be written by the program."""
        now = time.monotonic()
        before, self._repeats = self._repeats, {}
        for each in differences[:MAX_PATHS]:
            path = self._tree.display_path(each.path)
            if line := breakpoint_line(each.path) if each.entry is not None else 0:
                self.send(
                    f"{path}: breakpoint",
                    f"{path}:{line} stops in a debugger, which has no terminal under sidecar: "
                    "use remote-pdb (docs/dev-loop.md)",
                )
            count, when = before.get(path, (0, now))
            count = count + 1 if now - when <= REPEATED_WITHIN_S else 1
            self._repeats[path] = (count, now)
            if count >= REPEATED_BY_PROGRAM and path not in self._sent:
                self._on_repeated(each, path, count)

    def _on_repeated(self, difference: Difference, path: str, count: int) -> None:
        pid = writing_process(difference.path)
        if not pid and count < REPEATED_BY_ANYBODY:
            return
        root = (self._tree.rules.root(difference.path) or "").rstrip("/")
        pattern = difference.path.removeprefix(root)
        who = (
            f"process {pid} of the program has it open for writing"
            if pid
            else "if the program writes it itself"
        )
        self.send(
            path,
            f"{path} has changed {count} times in a row, each soon after the last: {who}; "
            f"ignore it (--watch-ignore '{pattern}')",
        )


def breakpoint_line(path: str) -> int:
    """The line of a Python or Ruby program that stops it in a debugger of the terminal's; 0 if none
    does.
    """
    pattern = _BREAKPOINTS.get(os.path.splitext(path)[1])
    if pattern is None or os.environ.get("PYTHONBREAKPOINT"):
        return 0
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_DIGESTED_BYTES)
    except OSError:
        return 0
    first = pattern.search(text)
    return text.count("\n", 0, first.start()) + 1 if first else 0


def writing_process(path: str) -> int:
    """A process below sidecar (our parent) that has the file open for writing; 0 if none is found."""
    try:
        wanted = os.stat(path)
    except OSError:
        return 0
    for pid in descendants(os.getppid()):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                found = os.stat(f"/proc/{pid}/fd/{fd}")
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    info = read(f"/proc/{pid}/fdinfo/{fd}")
                    flags = int(info.partition("flags:")[2].split()[0], 8)
                    if flags & os.O_ACCMODE != os.O_RDONLY:
                        return pid
        except (OSError, IndexError):
            continue
    return 0


def limit_text(sysctl: str) -> str:
    """A sentence on a limit of inotify's that is reached, with its present value."""
    what = "watch" if sysctl.endswith("watches") else "instance"
    of_namespace = sysctl.replace("fs.inotify.max_user_", "user.max_inotify_")
    values = []
    for each in (sysctl, of_namespace):
        try:
            with open("/proc/sys/" + each.replace(".", "/"), encoding="ascii") as file:
                values.append((int(file.read()), each))
        except (OSError, ValueError):
            continue
    value, name = min(values, default=(0, sysctl), key=lambda each: (each[0], each[1] != sysctl))
    return f"no inotify {what} is left: raise the sysctl {name}" + (
        f", it is {value}" if value else ""
    )
