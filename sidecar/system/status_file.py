"""The status file, as Server::Starter has it: which workers there are, for other processes to read.

It has one line `GENERATION:PID` for each living worker. Readers see one version or the next, never a
part. As long as the last generation tried is one that failed, a file `STATUS.failed` beside it says
`GENERATION CAUSE`: what `start_server --restart` reports.

The files get mode 0644, less what the umask takes away.
"""

from __future__ import annotations

import os

from sidecar.system import safe_open
from sidecar.system.safe_open import identity, refuse_special, unlink_same, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_MODE = 0o644
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class StatusFile:
    """A file of `GENERATION:PID` lines; nothing is there before the first write."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._written: bytes | None = None
        # Not known yet: an earlier life may have left one.
        self._told: tuple[int, str] | None = (0, "")

    def dump(self) -> dict[str, Any]:
        """What is in it, for a later version of sidecar."""
        return {
            "written": None if self._written is None else self._written.decode("ascii"),
            "told": self._told,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Know what an earlier version has dumped."""
        self._written = None if state["written"] is None else state["written"].encode("ascii")
        self._told = state["told"]

    def write(self, rows: Iterable[tuple[int, int]]) -> None:
        """Replace the file by these (generation, pid) rows, in numeric order; nothing is done if
        they are what it has.

        Raises OSError; the file then is as it was.
        """
        text = b"".join(b"%d:%d\n" % row for row in sorted(rows))
        if text == self._written:
            return
        _replace(self.path, text)
        self._written = text

    def tell(self, failed: tuple[int, str] | None) -> None:
        """Say that a generation failed and why, or (None) that none has. Raises OSError."""
        if failed == self._told:
            return
        if failed is None:
            safe_open.remove(self.path + ".failed")
        else:
            _replace(
                self.path + ".failed",
                f"{failed[0]} {failed[1]}\n".encode("utf-8", "backslashreplace"),
            )
        self._told = failed

    def remove(self) -> None:
        """Remove the file if it holds what this wrote last: not one that was never written, nor
        another's. Raises OSError.
        """
        self.tell(None)
        if self._written is None:
            return
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if os.read(fd, len(self._written) + 1) == self._written:
                unlink_same(self.path, identity(fd))
        finally:
            os.close(fd)
        self._written = None


def _replace(path: str, text: bytes) -> None:
    """Put a file in the place of what is there. Raises OSError, and nothing has changed then."""
    refuse_special(path, follow=False)  # a rename would replace even /dev/null
    new = f"{path}.{os.getpid()}"
    safe_open.remove(new)  # of an earlier life: in a container the pid is often the same
    fd = os.open(new, _NEW, _MODE)
    try:
        try:
            write_all(fd, text)
        finally:
            os.close(fd)
        os.rename(new, path)
    except OSError:
        safe_open.remove(new)
        raise
