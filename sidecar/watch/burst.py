"""A burst: what has become dirty one soon after the other, and is looked at once."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.watch.inotify import Event

FEW_PATHS = 3
MAX_OPEN_FILES = 100
OPEN_FILE_TIMEOUT_S = 1.0  # a log is never closed


class Burst:
    """What has become dirty and has not been looked at. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Everything has been looked at."""
        self.first: float | None = None
        self.last = 0.0
        #: More than a few paths, or a directory.
        self.many = False
        #: It was prolonged because files were only gone.
        self.held = False
        #: What the last look has found, where there is no inotify.
        self.seen: object = None
        self._paths: set[tuple[int, str]] = set()
        self._open_files: dict[tuple[int, str], float] = {}

    def note(self, now: float, many: bool = False) -> None:
        """Something has happened."""
        self.first = now if self.first is None else self.first
        self.last = now
        self.many |= many

    def note_path(self, event: Event) -> None:
        """Count the paths."""
        if len(self._paths) <= FEW_PATHS:
            self._paths.add((event.wd, event.name))
            self.many |= len(self._paths) > FEW_PATHS

    def note_writing(self, event: Event, now: float) -> None:
        """Remember which files are being written."""
        key = (event.wd, event.name)
        if event.complete:
            self._open_files.pop(key, None)
            return
        known = key in self._open_files or len(self._open_files) >= MAX_OPEN_FILES
        if known or not event.being_written or event.dependents is None:
            return
        try:
            status = os.lstat(os.path.join(event.dependents.path, event.name))
        except OSError:
            return
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:  # a hard link is not written
            self._open_files[key] = now

    def deadline(self, settle_s: float, longest_s: float) -> float | None:
        """When to look: after quiet for `settle_s`, at the latest `longest_s` after the first."""
        if self.first is None:
            return None
        quiet = self.last + settle_s
        if self._open_files:
            quiet = max(quiet, max(self._open_files.values()) + OPEN_FILE_TIMEOUT_S)
        return min(quiet, self.first + longest_s)
