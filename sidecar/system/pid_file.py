"""The pid file, as Server::Starter has it: other processes find this one by it.

A pid file is a lock that has a number in it. The lock (flock) says whether a sidecar lives, and the
kernel drops it when its holder dies in whatever way; the number says which process it is. So a file
that was left behind, by a crash or in a restarted container where every pid is the same again, does
not matter, and a second sidecar is refused before it has changed a byte.

Roads not taken:

- O_EXCL (the Go start_server): a stale file blocks the start.
- Truncating on open and waiting for the lock (the Perl one): a second instance destroys the live pid
  file, and then hangs.
- fcntl locks: they are lost when the process forks to the background.
- Destructors: a forked child whose exec failed would remove its parent's files.

The file gets mode 0644, less what the umask takes away.
"""

from __future__ import annotations

import errno
import fcntl
import os

from sidecar.base.errors import StartError
from sidecar.base.record import Descriptor
from sidecar.system.safe_open import (
    identity,
    open_for_writing,
    refuse_special,
    unlink_same,
    write_all,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# How often the locked file may turn out to be one that its holder has just removed. It takes one
# attempt for each sidecar that is exiting at the moment.
MAX_ATTEMPTS = 100

_MODE = 0o644


class PidFile:
    """A pid file that this process holds: its path, and the descriptor that has the lock. Programs
    do not inherit the descriptor.
    """

    def __init__(self, path: str, fd: int) -> None:
        """`fd` has the lock already: it comes from `take`, or from an earlier version of sidecar."""
        self.path = path
        self.fd = fd

    def export_state(self) -> dict[str, Any]:
        """The file and its lock, for a later version of sidecar: the arguments of PidFile."""
        return {"path": self.path, "fd": Descriptor(self.fd)}

    @classmethod
    def take(cls, path: str) -> PidFile:
        """Lock the pid file and write this process's pid into it.

        Raises StartError if another process holds it (the file is then as it was), or if it cannot
        be written.
        """
        for _ in range(MAX_ATTEMPTS):
            try:
                fd = _open(path)
            except OSError as error:
                raise _unwritable(path, error) from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _pid_in(fd)
                os.close(fd)
                raise StartError(
                    f"the pid file {path} is held by {holder}; stop that first, or give another --pid-file"
                ) from None
            except OSError as error:
                os.close(fd)
                raise _unwritable(path, error) from None
            if _same(fd, path):
                file = cls(path, fd)
                file.rewrite()
                return file
            os.close(fd)  # its holder removed it between our open and our lock
        raise StartError(f"the pid file {path} cannot be taken: it is replaced again and again")

    def rewrite(self) -> None:
        """Write this process's pid, after `take` or a fork. If that fails, raises StartError and
        gives the file up.
        """
        try:
            write_all(self.fd, _line())
            # Afterwards: whoever reads meanwhile finds a pid on the first line.
            os.ftruncate(self.fd, len(_line()))
        except OSError as error:
            self.release()
            raise _unwritable(self.path, error) from None

    def release(self) -> None:
        """Give up the lock, and remove the file if the path still names it and it has this
        process's pid. Never raises.
        """
        if self.fd < 0:
            return
        try:
            # Empty: what should have been written could not be.
            if os.pread(self.fd, 32, 0) in (_line(), b""):
                unlink_same(os.path.realpath(self.path), identity(self.fd))
        except OSError:
            pass  # a stale pid file does not matter
        finally:
            os.close(self.fd)
            self.fd = -1


def _open(path: str) -> int:
    """Open a pid file, or make it; its content stays. Raises OSError, also for what is not a file
    of its own.
    """
    refuse_special(path, follow=True)
    fd = open_for_writing(path, os.O_RDWR, _MODE)
    for output in (0, 1, 2):
        if _same(
            fd, output
        ):  # /dev/stdout, where that is redirected to a file: a log would be truncated
            os.close(fd)
            raise OSError(errno.EINVAL, "it is this process's own input or output", path)
    return fd


def _same(fd: int, other: str | int) -> bool:
    """Whether the file open as `fd` is the one that a path names, or that another descriptor (if
    open) is of.
    """
    try:
        return os.path.samestat(os.fstat(fd), os.stat(other))
    except OSError:
        return False


def _line() -> bytes:
    """What the pid file of this process says."""
    return b"%d\n" % os.getpid()


def _pid_in(fd: int) -> str:
    """Who a pid file says it belongs to; it may be empty for a moment, or hold anything."""
    pid = os.pread(fd, 20, 0).strip()
    return f"process {pid.decode()}" if pid.isdigit() else "another process"


def _unwritable(path: str, error: OSError) -> StartError:
    return StartError(f"the pid file {path} cannot be written: {error.strerror}", error.errno or 0)
