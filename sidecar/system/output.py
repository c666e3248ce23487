"""Where the output goes that sidecar and its workers share: a file that is appended to, or a
command that reads it.

Both are put in the place of descriptors 1 and 2, which every worker inherits; nothing passes
through PID 1. The command (`| multilog ./log`) is a helper: it reads a pipe whose both ends sidecar
keeps open, so when it dies nobody gets SIGPIPE, what is written meanwhile waits in the pipe, and
the next one reads on. It sees the end of its input when sidecar leaves, and may write out what it
has.
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
    """An output that has been opened, and not yet taken."""

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

    def dump(self) -> dict[str, Any]:
        """For a later version of sidecar, which has it as descriptors 1 and 2 already."""
        kept = [Descriptor(fd) for fd in self._kept]
        return {
            "path": self.path,
            "command": self.command,
            "pid": self.pid,
            "kept": kept,
            "pipe": Descriptor(self._pipe),
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Output:
        """What an earlier version has dumped."""
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

    def take(self) -> None:
        """From now on descriptors 1 and 2 are this. Only a command needs what they were: who waits
        for their end must not wait for us.
        """
        if self.command:
            self._kept = [os.dup(1), os.dup(2)]
        for number in (1, 2):
            os.dup2(self._end, number)
        os.close(self._end)

    def reopen(self) -> bool:
        """Open the file anew, and tell whether it is another one now: the one before has been
        renamed or removed. A pipe or device stays what it is: nobody renames them, and opening a
        pipe could last. Raises StartError, and nothing has changed then.
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

    def end(self) -> dict[str, Any]:
        """Where the log file ends now: its path, inode and size (bytes), for whoever wants to read
        what is written from here on. Nothing if there is none.
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

    def give_back(self) -> None:
        """With a command, descriptors 1 and 2 are what they were, and it sees the end of its input
        once no process writes any more.
        """
        for number, kept in zip((1, 2), self._kept, strict=False):
            os.dup2(kept, number)
            os.close(kept)
        self._kept = []
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def let_open(uid: int) -> str:
    """Let a user open /dev/stdout and /dev/stderr by name, as many programs' settings say. Why that
    did not work, "" if it did.

    The kernel asks who owns what is behind the name. A pipe is given to the user, as systemd and
    runc do, and the terminal of a container (sidecar is PID 1 there). Not a file, a FIFO with a name
    or a terminal that others use: those are not ours to give. What is inherited can be written to
    in any case.
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
