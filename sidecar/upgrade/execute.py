"""Upgrade in place: this process becomes a newer version of its own program, by exec, and stays who
it is.

What the kernel keeps across exec is most of what sidecar is: the pid, the children, the listening
sockets and the connections that wait in them, the pid file's lock, pending signals, the monotonic
clock. The rest (upgrade/state.py) goes into a memfd that is sealed, so that what is read is what was
written; it holds the workers' environments, and no file ever does. The new version learns its
number from a variable, which it takes out of its environment before anything else. It believes it
only of a sealed memfd that names this very process.

Exec cannot be undone, so the new version first proves, as a child, that it can start: it reads the
same command line and the same state, with the same descriptors, makes everything of it that it
would, and ends. Asked for as an option that comes first, because a version that knows nothing of
upgrades refuses that, and a variable it would ignore. What fails after the exec all the same is tried again
(upgrade/takeover.py).

Every module of sidecar's that PID 1 may ever need is imported when it starts: what is imported
later is of another version.

The road not taken: a new process that is sent the sockets (SCM_RIGHTS, tableflip). It is not PID 1,
nor the workers' parent.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal

from sidecar.base.record import Descriptor, Record
from sidecar.upgrade.state import FORMAT, OLDER, Unfit, descriptors, plain, revived
from sidecar.upgrade.takeover import VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

OPTION = "--upgrade-check="

# As many descriptors have to be free for it: so the interpreter that starts in our place finds room.
SPARE = 16

_NAME = "sidecar-heritage"
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Origin(Record):
    """How this process was started: the program's file, its arguments up to sidecar's own words,
    and those.
    """

    file: str
    before: tuple[str, ...]
    words: tuple[str, ...]

    @classmethod
    def of(cls, file: str, original: Sequence[str], argv: Sequence[str]) -> Origin | None:
        """From sys.executable, sys.orig_argv and sys.argv; None if they do not fit together."""
        words = tuple(argv[1:])
        at = len(original) - len(words)
        if not file or at < 1 or tuple(original[at:]) != words:
            return None
        # By this name the interpreter finds its environment again.
        return cls(file, (file, *original[1:at]), words)


def seal(state: Mapping[str, Any], version: str) -> tuple[int, list[int]]:
    """The state in a sealed memfd, and every descriptor that is a part of it. Raises OSError."""
    import json  # noqa: PLC0415  (only who upgrades pays for it)

    told = plain({**state, "format": FORMAT, "version": version, "pid": os.getpid()})
    fd = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        data = memoryview(json.dumps(told).encode())
        while data:
            data = data[os.write(fd, data) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd, list(descriptors(told))


def unseal(text: str, pid: int) -> dict[str, Any] | None:
    """The state in the descriptor that `text` names, written by process `pid`. The descriptor stays
    open, as "sealed" in the state: it is needed again should this attempt fail.

    None if it is nothing of the kind. Raises OSError or Unfit if it is, and cannot be read, or this
    version cannot go on from it: it must never be taken for nothing.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        return None
    import json  # noqa: PLC0415

    fd = int(text)
    try:
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) != _SEALS:
            return None
    except OSError as error:
        if error.errno in (errno.EBADF, errno.EINVAL):  # nothing, or nothing that can be sealed
            return None
        raise
    try:
        state = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
        writer = state["pid"]
    except (ValueError, KeyError, TypeError):
        raise Unfit("the state of the running sidecar cannot be read") from None
    if writer != pid:
        return None
    return {**fit(state), "sealed": Descriptor(fd)}


def fit(state: dict[str, Any]) -> dict[str, Any]:
    """A state in this version's format, made of the one before if it has to be. Raises Unfit."""
    if state["format"] in OLDER:
        state = OLDER[state["format"]](state)
    if state["format"] != FORMAT:
        reads = " and ".join(map(str, sorted({*OLDER, FORMAT})))
        raise Unfit(
            f"the running sidecar ({state['version']}) keeps its state in format {state['format']}, this version reads {reads}; "
            "go by a version in between, or start anew"
        )
    found = revived(state)
    assert isinstance(found, dict)
    return found


def check_command(origin: Origin, state: int) -> tuple[str, ...]:
    """What proves that the new version can start."""
    return (*origin.before, f"{OPTION}{state}", *origin.words)


def become(origin: Origin, environment: Mapping[str, str], state: int, kept: Sequence[int]) -> None:
    """Be the new version: does not return. Raises OSError if that cannot be, with everything as it
    was.

    All signals are blocked, and stay so until the new version has its handlers.
    """
    spare: list[int] = []
    try:
        # Closed by the exec itself.
        for _ in range(SPARE):
            spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for fd in (state, *kept):
            os.set_inheritable(fd, True)
        os.execve(
            origin.file, (*origin.before, *origin.words), {**environment, VARIABLE: str(state)}
        )
    finally:
        for fd in (state, *kept):
            os.set_inheritable(fd, False)
        for fd in spare:
            os.close(fd)


def block() -> set[int]:
    """Block every signal; the mask that was."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def unblock(mask: set[int]) -> None:
    """Give the mask back."""
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
