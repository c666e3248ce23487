"""The status file, as Server::Starter has it: the living workers, for other processes to read.

It has one line `GENERATION:PID` for each living worker. Readers see a whole version, never a part.
If the generation that was started last has failed, a file `STATUS.failed` beside it says
`GENERATION CAUSE`; `start_server --restart` reports that.

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
        #: The failure that STATUS.failed has. At first it is not known: an earlier process may have
        #: left such a file.
        self._written_failure: tuple[int, str] | None = (0, "")

    def export_state(self) -> dict[str, Any]:
        """What is in the files, for a later version of sidecar."""
        return {
            "written": None if self._written is None else self._written.decode("ascii"),
            "written_failure": self._written_failure,
        }

    def import_state(self, state: dict[str, Any]) -> None:
        """Take over what an earlier version has exported."""
        self._written = None if state["written"] is None else state["written"].encode("ascii")
        self._written_failure = state["written_failure"]

    def write(self, rows: Iterable[tuple[int, int]]) -> None:
        """Replace the file by these (generation, pid) rows, in numeric order, unless it has them
        already. Raises OSError; the file is then as it was.
        """
        text = b"".join(b"%d:%d\n" % row for row in sorted(rows))
        if text == self._written:
            return
        _replace(self.path, text)
        self._written = text

    def write_failure(self, failed: tuple[int, str] | None) -> None:
        """Write which generation failed and why, or (None) that none has. Raises OSError."""
        if failed == self._written_failure:
            return
        if failed is None:
            safe_open.remove(self.path + ".failed")
        else:
            _replace(
                self.path + ".failed",
                f"{failed[0]} {failed[1]}\n".encode("utf-8", "backslashreplace"),
            )
        self._written_failure = failed

    def remove(self) -> None:
        """Remove the files, the status file only if it has what was written last: it may be another
        process's by now. Raises OSError.
        """
        self.write_failure(None)
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
    """Put a file in the place of what is at `path`. Raises OSError; nothing has changed then."""
    refuse_special(path, follow=False)  # a rename would replace even /dev/null
    new = f"{path}.{os.getpid()}"
    safe_open.remove(new)  # left by an earlier process: in a container the pid is often the same
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
