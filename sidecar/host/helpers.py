"""Helpers: child processes that do for PID 1 what would bring threads or libraries into it, and
that it can do without for a while.

A helper writes what it has to say, one JSON object a line, to a pipe. The other way there is a pipe
that nothing is ever written to: its end tells a helper that sidecar has gone. One that ends is
started again after a pause; one that is stopped (SIGSTOP) or writes what nobody can read is killed
first, for it is deaf or mad. Serving never depends on any of this.
"""

from __future__ import annotations

import fcntl
import os
import sys

from sidecar.base.record import Descriptor
from sidecar.core.backoff import Backoff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Handoff = list[tuple[int, int]]
    # What a line is made of: by the name of each member, whether a value may be its; None stands
    # for one that is missing.
    Shape = Mapping[str, Callable[[object], bool]]

# A line of a helper's is shorter than this (bytes): PID 1 keeps no more of what it cannot read yet.
LONGEST_LINE = 1 << 16
# As much is read in one turn of the loop: a chatty helper must not keep PID 1 from everything else.
READ_AT_ONCE = 1 << 18

# A helper that lived shorter is started again after a pause, at most the longest (seconds):
# somebody may be waiting for what it has to say.
MIN_UPTIME, LONGEST_PAUSE = 10.0, 5.0

# What a helper is given from 3 up lies above this here: by one dup2() each, none destroys another.
ABOVE = 9

# Of sidecar's environment, what a helper needs that talks to strangers. The rest may be secret, or
# mean something to a library.
PLAIN = (
    "PATH",
    "LD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE",
)


def text(value: object) -> bool:
    """Whether it is a text that may be a path, or go into an environment (execve(2): no NUL)."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:  # a half of a surrogate pair, which is no byte of a file's name
        return False
    return True


def texts(value: object) -> bool:
    """Whether it is a list of such."""
    return isinstance(value, list) and all(map(text, value))


def number(value: object) -> bool:
    """Whether it is a whole number, of things that were counted."""
    return type(value) is int and 0 <= value < 1 << 63


def flag(value: object) -> bool:
    """Whether it is true, false, or missing."""
    return value is None or isinstance(value, bool)


# The shape of an event that any helper may write.
REMARK: Shape = {"text": text}


class Helper:
    """One helper: `argv` starts it. `pid` is 0 while there is none; `start_at` is then when it is
    due (seconds on the caller's clock).

    `says` has the shape of each event that is heeded, and `heed` is called with each, and the time; `given` makes what it finds from descriptor 3 up, for
    one start; `to_the_end`: it is started again even while sidecar stops; `ends_on` is the signal
    that ends it when another version is to take its place.
    """

    def __init__(
        self, name: str, argv: tuple[str, ...], start_at: float, *,
        environment: Mapping[str, str], given: Callable[[], Handoff], says: Mapping[str, Shape],
        heed: Callable[[dict[str, Any], float], None],
        to_the_end: bool = False, ends_on: str = "KILL",
    ) -> None:  # fmt: skip
        self.name = name
        self.argv = argv
        self.environment = environment
        self.says = says
        self.heed = heed
        self.to_the_end = to_the_end
        self.ends_on = ends_on
        self.pid = 0
        self._given = given
        self.start_at = start_at
        self._since = start_at
        self._pace = Backoff(MIN_UPTIME, LONGEST_PAUSE)
        self._read = self._keep = -1
        self._partial = b""
        self._theirs: tuple[int, ...] = ()
        #: One of an earlier version of sidecar: it is to end, and another is started at once.
        self.outdated = False
        #: Why what it wrote cannot be understood, "" as long as it can.
        self.mad = ""

    def dump(self) -> dict[str, Any]:
        """For a later version of sidecar: it reads what this one has still to say, and ends it."""
        return {
            "pid": self.pid, "start_at": self.start_at, "since": self._since, "pace": self._pace,
            "read": Descriptor(self._read), "keep": Descriptor(self._keep), "partial": self._partial.decode("latin-1"),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what an earlier version has dumped."""
        self.pid, self.start_at, self._since, self._pace = (
            state["pid"],
            state["start_at"],
            state["since"],
            state["pace"],
        )
        self._read, self._keep, self._partial = (
            state["read"],
            state["keep"],
            state["partial"].encode("latin-1"),
        )
        self.outdated = self.pid != 0

    def open(self) -> Handoff:
        """Make its pipes; our descriptors and its own, for one start. Raises OSError."""
        stdin, self._keep = os.pipe2(os.O_CLOEXEC)
        self._theirs = (stdin,)  # each at once: what comes next may fail, and `ended` closes these
        self._read, stdout = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._theirs += (stdout,)
        # Only our end is not to block.
        os.set_blocking(stdout, True)
        return [(stdin, 0), (stdout, 1), *self._given()]

    def lend(self, fd: int) -> int:
        """A descriptor that is ours until it has started."""
        fd = clear(fd)
        self._theirs += (fd,)
        return fd

    def started(self, pid: int, now: float) -> None:
        """It runs."""
        self.pid = pid
        self._since = now
        self.start_at = float("inf")
        for fd in self._theirs:
            os.close(fd)
        self._theirs = ()

    def fileno(self) -> int:
        """Readable when it has said something, or has closed its side."""
        return self._read

    def lines(self) -> list[dict[str, Any]]:
        """What it has said since, each of an event that is heeded and in its shape; up to the first
        line that is none, of which `mad` then speaks. Nothing after that is read.
        """
        taken = 0
        while taken < READ_AT_ONCE:
            try:
                part = os.read(self._read, 1 << 16)
            except OSError:  # nothing more for now (EAGAIN), or not to be had
                break
            if not part:
                break
            taken += len(part)
            self._partial += part
        *whole, self._partial = self._partial.split(b"\n")
        said = []
        for line in whole:
            if not self.mad and (value := self._understood(line)) is not None:
                said.append(value)
        if len(self._partial) > LONGEST_LINE:
            self.mad = self.mad or "its line has no end"
            self._partial = b""
        return said

    def _understood(self, line: bytes) -> dict[str, Any] | None:
        """One line; None if it is not heeded, or `mad` says why it cannot be."""
        import json  # noqa: PLC0415  (only who has a helper pays for it)

        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            self.mad = "what it wrote is no JSON"
            return None
        if not isinstance(value, dict) or not isinstance(value.get("event"), str):
            self.mad = "what it wrote is no event"
            return None
        shape = self.says.get(value["event"])
        if shape is None:
            return None
        for name, fits in shape.items():
            if not fits(value.get(name)):
                self.mad = f'"{name}" of its event "{value["event"]}" is not what it has to be'
                return None
        return {"event": value["event"], **{name: value.get(name) for name in shape}}

    def ended(self, now: float, chance: float) -> float:
        """It has gone, or could not be started; the pause until it is started again, in seconds."""
        self.close()
        lived = now - self._since if self.pid else 0.0
        self.pid = 0
        self.mad = ""
        if self.outdated:
            self.outdated, self.start_at = False, now
            return 0.0
        self.start_at = self._pace.failed(now, lived, chance)
        # Even one that lived long gets a moment: what ended it may still be going on.
        self.start_at = max(self.start_at, now + 0.1)
        return self.start_at - now

    def close(self) -> None:
        """Close our ends of its pipes; it sees the end of its input."""
        for fd in (*self._theirs, self._read, self._keep):
            if fd >= 0:
                os.close(fd)
        self._theirs = ()
        self._read = self._keep = -1
        self._partial = b""


def clear(fd: int) -> int:
    """The descriptor at another number, clear of those that a helper's own are about to take.

    Raises OSError; it is closed then, too.
    """
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE + 1)
    finally:
        os.close(fd)


def module(name: str, *words: str) -> tuple[str, ...]:
    """The command that runs a module of sidecar's as a helper, as isolated from the environment's
    Python settings as sidecar itself.
    """
    # -P: not from the working directory, which is the application's.
    return (sys.executable, "-I" if sys.flags.isolated else "-P", "-m", name, *words)


def environment(own: Mapping[str, str]) -> Mapping[str, str]:
    """The environment a helper gets: sidecar's own, and where sidecar was imported from."""
    if sys.flags.isolated:
        return own
    place = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return {**own, "PYTHONPATH": os.pathsep.join([place, *filter(None, [own.get("PYTHONPATH")])])}


# What is asked at the start has this long (seconds) and this much (bytes) to answer.
PATIENCE, LONGEST_ANSWER = 20.0, 1 << 20


def ask(argv: tuple[str, ...], environment: Mapping[str, str]) -> str:
    """What a short-lived helper writes to its output, waiting for it; "" if it fails. For the
    start: a loop must not wait.
    """
    import select  # noqa: PLC0415
    import signal  # noqa: PLC0415
    import time  # noqa: PLC0415

    mine, theirs = os.pipe2(os.O_CLOEXEC)
    until = time.monotonic() + PATIENCE
    data = b""
    try:
        actions = [(os.POSIX_SPAWN_DUP2, theirs, 1)]
        pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
    except OSError:
        os.close(mine)
        return ""
    finally:
        os.close(theirs)
    poll = select.poll()
    poll.register(mine, select.POLLIN)
    while len(data) <= LONGEST_ANSWER and poll.poll(max(0.0, until - time.monotonic()) * 1000):
        part = os.read(mine, 1 << 16)
        if not part:
            break
        data += part
    else:
        os.kill(pid, signal.SIGKILL)
        data = b""
    os.close(mine)
    _, status = os.waitpid(pid, 0)
    return "" if status else data.decode("utf-8", "replace")


class Tail:
    """The last of what a command writes, kept for whoever has to be told why it failed."""

    MOST = 2000  # bytes

    def __init__(self, most: int = MOST) -> None:
        """`most`: how many bytes are kept. Raises OSError."""
        self._most = most
        self._read, self.write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        self._data = b""

    def fileno(self) -> int:
        """Readable when there is more."""
        return self._read

    def started(self) -> None:
        """The command has its end."""
        os.close(self.write)
        self.write = -1

    def take(self) -> bool:
        """Read what is there; whether there may be more to come."""
        for _ in range(64):
            try:
                part = os.read(self._read, 1 << 14)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not part:
                return False
            self._data = (self._data + part)[-self._most :]
        return True

    def close(self) -> str:
        """Read the rest and close; the text, from the beginning of a line where it had to be cut."""
        data = self.close_raw()
        cut = data.partition(b"\n")[2] if len(data) == self._most else data
        return cut.decode("utf-8", "replace").strip("\n")

    def close_raw(self) -> bytes:
        """The same, as it was written."""
        if self._read >= 0:
            self.take()
        for fd in (self._read, self.write):
            if fd >= 0:
                os.close(fd)
        self._read = self.write = -1
        return self._data
