"""Upgrade in place: this process becomes a newer version of its own program, by exec, and keeps its
pid.

The kernel keeps across exec most of what sidecar is: the pid, the children, the listening sockets
and the connections that wait in them, the pid file's lock, pending signals, the monotonic clock. The
rest (upgrade/state.py) goes into a memfd that is sealed, so what is read is what was written. It has
the workers' environments, which are never written to a file. The new version learns the memfd's
number from a variable, which it removes from its environment first of all. It accepts only a sealed
memfd that names this very process.

Exec cannot be undone. So the new version first proves, as a child, that it can start: it reads the
same command line and the same state, with the same descriptors, makes of it everything that it would
need, and ends. It is asked to do so by an option that comes first: a version that knows no upgrades
refuses an option, but would ignore a variable. What fails after the exec all the same is tried again
(upgrade/takeover.py).

PID 1 imports every module of sidecar's that it may ever need when it starts, because what is
imported later is of another version.

The road not taken: a new process that is sent the sockets (SCM_RIGHTS, as tableflip does it). It
would not be PID 1, nor the workers' parent.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal

from sidecar.base.record import Descriptor, Record
from sidecar.upgrade.state import (
    FORMAT,
    OLDER,
    IncompatibleState,
    descriptors,
    from_json_value,
    to_json_value,
)
from sidecar.upgrade.takeover import STATE_VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

CHECK_OPTION = "--upgrade-check="

# So many descriptors have to be free for an exec: the interpreter that starts needs them.
SPARE_DESCRIPTORS = 16

_MEMFD_NAME = "sidecar-upgrade-state"
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
# A descriptor's number is not longer than this.
_MAX_DIGITS = 7


class StartCommand(Record):
    """How this process was started: the program's file, the interpreter's words (from argv[0] to
    sidecar's script), and sidecar's own arguments.
    """

    file: str
    interpreter_words: tuple[str, ...]
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, file: str, original: Sequence[str], argv: Sequence[str]) -> StartCommand | None:
        """From sys.executable, sys.orig_argv and sys.argv; None if they do not fit together."""
        arguments = tuple(argv[1:])
        at = len(original) - len(arguments)
        if not file or at < 1 or tuple(original[at:]) != arguments:
            return None
        # argv[0] is the file: by that name the interpreter finds its environment.
        return cls(file, (file, *original[1:at]), arguments)


def write_state(state: Mapping[str, Any], version: str) -> tuple[int, list[int]]:
    """Write the state into a sealed memfd. Returns its descriptor, and every descriptor that is a
    part of the state. Raises OSError.
    """
    import json  # noqa: PLC0415  (only an upgrade needs it)

    value = to_json_value({**state, "format": FORMAT, "version": version, "pid": os.getpid()})
    fd = os.memfd_create(_MEMFD_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        data = memoryview(json.dumps(value).encode())
        while data:
            data = data[os.write(fd, data) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd, list(descriptors(value))


def read_state(text: str, pid: int) -> dict[str, Any] | None:
    """The state in the descriptor that `text` names, written by process `pid`. The descriptor stays
    open, as "sealed" in the state: it is needed again if this attempt fails.

    None if it is no state. Raises OSError or IncompatibleState if it is one that cannot be read or
    that this version cannot go on from: such a state must never count as no state.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        return None
    import json  # noqa: PLC0415

    fd = int(text)
    try:
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) != _SEALS:
            return None
    except OSError as error:
        if error.errno in (errno.EBADF, errno.EINVAL):  # not open, or not a memfd
            return None
        raise
    try:
        state = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
        writer = state["pid"]
    except (ValueError, KeyError, TypeError):
        raise IncompatibleState("the state of the running sidecar cannot be read") from None
    if writer != pid:
        return None
    return {**to_current_format(state), "sealed": Descriptor(fd)}


def to_current_format(state: dict[str, Any]) -> dict[str, Any]:
    """The state in this version's format, converted from the format before if necessary.

    Raises IncompatibleState.
    """
    if state["format"] in OLDER:
        state = OLDER[state["format"]](state)
    if state["format"] != FORMAT:
        reads = " and ".join(map(str, sorted({*OLDER, FORMAT})))
        raise IncompatibleState(
            f"the running sidecar ({state['version']}) keeps its state in format {state['format']}, this version reads {reads}; "
            "go by a version in between, or start anew"
        )
    found = from_json_value(state)
    assert isinstance(found, dict)
    return found


def check_command(start: StartCommand, state_fd: int) -> tuple[str, ...]:
    """The command by which the new version proves that it can start."""
    return (*start.interpreter_words, f"{CHECK_OPTION}{state_fd}", *start.arguments)


def exec_new_version(
    start: StartCommand, environment: Mapping[str, str], state_fd: int, kept: Sequence[int]
) -> None:
    """Become the new version: does not return. `kept` are the descriptors that it is left.

    Raises OSError if that is not possible, with everything as it was. Block all signals before; they
    stay blocked until the new version has its handlers.
    """
    spare: list[int] = []
    try:
        # These are closed by the exec itself.
        for _ in range(SPARE_DESCRIPTORS):
            spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for fd in (state_fd, *kept):
            os.set_inheritable(fd, True)
        words = (*start.interpreter_words, *start.arguments)
        os.execve(start.file, words, {**environment, STATE_VARIABLE: str(state_fd)})
    finally:
        for fd in (state_fd, *kept):
            os.set_inheritable(fd, False)
        for fd in spare:
            os.close(fd)


def block_signals() -> set[int]:
    """Block every signal. Returns the mask that was in force."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def restore_signal_mask(mask: set[int]) -> None:
    """Put a mask in force that `block_signals` has returned."""
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
