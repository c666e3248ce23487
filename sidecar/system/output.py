"""--log-file: the output that sidecar and its workers share goes to a file, or to a command.

Either replaces descriptors 1 and 2, which every worker inherits; nothing passes through PID 1. The
command (`| multilog ./log`) is a helper that reads a pipe. Sidecar keeps both ends of the pipe open.
So when the command dies nobody gets SIGPIPE, what is written meanwhile waits in the pipe, and the
next command reads on. When sidecar exits the command sees the end of its input, and may write out
what it has.
"""

from __future__ import annotations

import os
import stat

from sidecar.base.errors import StartError
from sidecar.base.record import Descriptor
from sidecar.system.safe_open import open_for_writing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Output:
    """An output that has been opened; `redirect` puts it in force."""

    def __init__(self, target: str) -> None:
        """Open `target`, a path or `| COMMAND`. Raises StartError."""
        piped = target.lstrip().startswith("|")
        self.path = "" if piped else target
        self.command = target.lstrip()[1:].strip() if piped else ""
        #: The command's pid, 0 while there is none.
        self.pid = 0
        self._kept: list[int] = []
        self._pipe = -1
        if self.path:
            self._end = self._append(special=True)
        elif self.command:
            self._pipe, self._end = os.pipe2(os.O_CLOEXEC)
        else:
            raise StartError(f"failed to open pipe:{target}: the command is missing")

    def export_state(self) -> dict[str, Any]:
        """Its state for a later version of sidecar, which has it as descriptors 1 and 2 already."""
        kept = [Descriptor(fd) for fd in self._kept]
        return {
            "path": self.path,
            "command": self.command,
            "pid": self.pid,
            "kept": kept,
            "pipe": Descriptor(self._pipe),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Output:
        """The output that an earlier version has exported."""
        self = cls.__new__(cls)
        self.path, self.command, self.pid = state["path"], state["command"], state["pid"]
        self._kept, self._pipe, self._end = state["kept"], state["pipe"], -1
        return self

    def _append(self, special: bool) -> int:
        """A descriptor of the file; `special`: it may be a pipe or a device. Raises StartError."""
        try:
            return open_for_writing(self.path, os.O_WRONLY | os.O_APPEND, 0o666, special)
        except OSError as error:
            raise StartError(
                f"failed to open log file:{self.path}: {error.strerror}", error.errno or 0
            ) from None

    def redirect(self) -> None:
        """Put it in the place of descriptors 1 and 2. What they were before is kept only for a
        command: whoever waits for the end of a former output must not wait for sidecar.
        """
        if self.command:
            self._kept = [os.dup(1), os.dup(2)]
        for number in (1, 2):
            os.dup2(self._end, number)
        os.close(self._end)

    def reopen(self) -> bool:
        """Open the file again. Returns whether it is another one now, because the one before has
        been renamed or removed. A pipe or device stays as it is: nobody renames them, and opening a
        pipe could block. Raises StartError; nothing has changed then.
        """
        another = False
        if self.path and stat.S_ISREG(os.fstat(1).st_mode):
            end = self._append(special=False)
            os.set_blocking(end, True)  # as the workers got it before
            another = not os.path.samestat(os.fstat(1), os.fstat(end))
            for number in (1, 2):
                os.dup2(end, number)
            os.close(end)
        return another

    def log_file_end(self) -> dict[str, Any]:
        """The log file's path, inode and present size (bytes), for whoever wants to read what is
        written from here on. Empty if there is no log file.
        """
        if not self.path:
            return {}
        status = os.fstat(1)
        return {
            "log_file": os.path.abspath(self.path),
            "log_inode": status.st_ino,
            "log_from": status.st_size,
        }

    def handoff(self) -> list[tuple[int, int]]:
        """The command's descriptors: it reads the pipe, and writes where sidecar did before."""
        return [(self._pipe, 0), (self._kept[0], 1), (self._kept[1], 2)]

    def restore_descriptors(self) -> None:
        """With a command: make descriptors 1 and 2 what they were before. The command sees the end
        of its input once no process has the pipe any more.
        """
        for number, kept in zip((1, 2), self._kept, strict=False):
            os.dup2(kept, number)
            os.close(kept)
        self._kept = []
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def let_user_open_outputs(uid: int) -> str:
    """Let a user open /dev/stdout and /dev/stderr by name, as many programs' settings say. Returns
    why that did not work, "" if it did.

    The kernel looks at the owner of what is behind the name. So a pipe is given to the user, as
    systemd and runc do it, and so is the terminal of a container (sidecar is PID 1 there). A file, a
    named FIFO or a terminal that others use are not sidecar's to give. The descriptors that a worker
    inherits can be written to in any case.
    """
    why = ""
    for fd in (1, 2):
        try:
            pipe = os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")
            if (pipe or (os.getpid() == 1 and os.isatty(fd))) and os.fstat(fd).st_uid != uid:
                os.fchown(fd, uid, -1)
        except PermissionError as error:
            why = f"{error.strerror} (CAP_CHOWN is missing)"
        except OSError:
            continue
    return why
