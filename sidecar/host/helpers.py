"""Helpers: child processes that do for PID 1 what would bring threads or libraries into it, and
that it can do without for a while.

A helper writes what it has to say to a pipe, one JSON object a line. Nothing is ever written to its
own input: the end of that tells a helper that sidecar has gone. A helper that ends is started again
after a pause. One that is stopped (SIGSTOP) or that breaks the protocol is killed first. Serving
never depends on a helper.
"""

from __future__ import annotations

import fcntl
import os
import sys

from sidecar.base.record import Descriptor
from sidecar.policies.restart import RestartPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Handoff = list[tuple[int, int]]
    # What an event is made of: by the name of each member, whether a value is allowed there; the
    # value None stands for a member that is missing.
    Shape = Mapping[str, Callable[[object], bool]]

# PID 1 keeps no more of a line that has no end yet.
MAX_LINE_BYTES = 1 << 16
# What is read of one helper in one turn of the loop, so that a helper that writes without end does
# not keep PID 1 from everything else.
MAX_READ_BYTES = 1 << 18

# Also a helper that has run for long is started again only after this pause: what ended it may
# still be going on.
MIN_PAUSE_S = 0.1

# The descriptors that a helper gets have numbers up to this one. PID 1 keeps what it hands over at
# higher numbers, so that no dup2() in the child destroys what a later one has to copy.
MAX_HELPER_FD = 9

# The variables of sidecar's environment that a helper gets if it talks to strangers. The others may
# be secret, or mean something to a library.
PLAIN_VARIABLES = (
    "PATH",
    "LD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE",
)

# What a short-lived helper may take, and how much it may answer.
ANSWER_TIMEOUT_S, MAX_ANSWER_BYTES = 20.0, 1 << 20


def text(value: object) -> bool:
    """Whether it is a text that can be a path or a variable (execve(2): no NUL)."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:  # half of a surrogate pair, which no file name has
        return False
    return True


def texts(value: object) -> bool:
    """Whether it is a list of such texts."""
    return isinstance(value, list) and all(map(text, value))


def number(value: object) -> bool:
    """Whether it is a whole number that can be a count."""
    return type(value) is int and 0 <= value < 1 << 63


def flag(value: object) -> bool:
    """Whether it is true, false, or missing."""
    return value is None or isinstance(value, bool)


# The event "notice", which any helper may write.
NOTICE: Shape = {"text": text}


class Helper:
    """One helper. `argv` starts it in `environment`; it is started first at `start_at` (seconds on
    the caller's clock). `pid` is 0 while there is no process.

    `make_fds` makes the descriptors that it gets from 3 up, for one start: pairs of ours and its
    number. `allowed_events` has the shape of each event that it may write; `on_event` is called with
    each, and the time. Other events are ignored. With `runs_during_stop` it is started again even
    while sidecar stops. `stop_signal` ends it when another version of sidecar has taken over.
    """

    def __init__(
        self,
        name: str,
        argv: tuple[str, ...],
        start_at: float,
        *,
        environment: Mapping[str, str],
        make_fds: Callable[[], Handoff],
        allowed_events: Mapping[str, Shape],
        on_event: Callable[[dict[str, Any], float], None],
        runs_during_stop: bool = False,
        stop_signal: str = "KILL",
    ) -> None:
        self.name = name
        self.argv = argv
        self.environment = environment
        self.on_event = on_event
        self.stop_signal = stop_signal
        self.restart = RestartPolicy(
            start_at, min_pause_s=MIN_PAUSE_S, runs_during_stop=runs_during_stop
        )
        self.pid = 0
        self._make_fds = make_fds
        self._allowed_events = allowed_events
        self._output = self._input = -1
        self._partial_line = b""
        self._lent_fds: tuple[int, ...] = ()
        #: How it has broken the protocol, "" as long as it has not.
        self.protocol_error = ""

    def export_state(self) -> dict[str, Any]:
        """What a later version of sidecar needs to read what this helper still has to say, and to
        replace it.
        """
        return {
            "pid": self.pid,
            "restart": self.restart,
            "output": Descriptor(self._output),
            "input": Descriptor(self._input),
            "partial_line": self._partial_line.decode("latin-1"),
        }

    def import_state(self, state: Mapping[str, Any]) -> None:
        """Go on with what an earlier version has exported."""
        self.pid = state["pid"]
        self.restart = state["restart"]
        self.restart.taken_over()
        self._output, self._input = state["output"], state["input"]
        self._partial_line = state["partial_line"].encode("latin-1")

    def open(self) -> Handoff:
        """Make its pipes. Our descriptors and the helper's numbers, for one start. Raises OSError."""
        stdin, self._input = os.pipe2(os.O_CLOEXEC)
        # Noted one by one: the next call may fail, and `close` has to know what there is.
        self._lent_fds = (stdin,)
        self._output, stdout = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lent_fds += (stdout,)
        # Only our end is not to block.
        os.set_blocking(stdout, True)
        return [(stdin, 0), (stdout, 1), *self._make_fds()]

    def own_until_started(self, fd: int) -> int:
        """Close this descriptor once the helper has been started. Its new number, which is the one
        to hand over. Raises OSError; it is closed then.
        """
        fd = move_fd_above(fd)
        self._lent_fds += (fd,)
        return fd

    def started(self, pid: int, now: float) -> None:
        """The helper runs."""
        self.pid = pid
        self.restart.started(now)
        for fd in self._lent_fds:
            os.close(fd)
        self._lent_fds = ()

    def fileno(self) -> int:
        """Readable when it has written something, or has closed its output."""
        return self._output

    def read_events(self) -> list[dict[str, Any]]:
        """The allowed events that it has written since, up to the first line that breaks the
        protocol. `protocol_error` then says how, and nothing after it is read.
        """
        taken = 0
        while taken < MAX_READ_BYTES:
            try:
                part = os.read(self._output, 1 << 16)
            except OSError:  # nothing more for now (EAGAIN), or nothing to read from
                break
            if not part:
                break
            taken += len(part)
            self._partial_line += part
        *lines, self._partial_line = self._partial_line.split(b"\n")
        events = []
        for line in lines:
            if not self.protocol_error and (event := self._parse(line)) is not None:
                events.append(event)
        if len(self._partial_line) > MAX_LINE_BYTES:
            self.protocol_error = self.protocol_error or "its line has no end"
            self._partial_line = b""
        return events

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        """The event in one line; None if it is ignored, or breaks the protocol."""
        import json  # noqa: PLC0415  (only who has a helper pays for it)

        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            self.protocol_error = "what it wrote is no JSON"
            return None
        if not isinstance(value, dict) or not isinstance(value.get("event"), str):
            self.protocol_error = "what it wrote is no event"
            return None
        shape = self._allowed_events.get(value["event"])
        if shape is None:
            return None
        for name, fits in shape.items():
            if not fits(value.get(name)):
                self.protocol_error = (
                    f'"{name}" of its event "{value["event"]}" is not what it has to be'
                )
                return None
        return {"event": value["event"], **{name: value.get(name) for name in shape}}

    def ended(self, now: float, random_fraction: float) -> float:
        """It has ended, or could not be started: the pause until the next start, in seconds."""
        self.close()
        self.pid = 0
        self.protocol_error = ""
        return self.restart.ended(now, random_fraction)

    def close(self) -> None:
        """Close our ends of its pipes; it sees the end of its input."""
        for fd in (*self._lent_fds, self._output, self._input):
            if fd >= 0:
                os.close(fd)
        self._lent_fds = ()
        self._output = self._input = -1
        self._partial_line = b""


def move_fd_above(fd: int) -> int:
    """Move a descriptor above the numbers that a helper's own descriptors get. Its new number.

    Raises OSError; it is closed then, too.
    """
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, MAX_HELPER_FD + 1)
    finally:
        os.close(fd)


def module(name: str, *words: str) -> tuple[str, ...]:
    """The command that runs a module of sidecar as a helper. It is isolated from the environment's
    Python settings if sidecar itself is.
    """
    # -P: not from the working directory, which is the application's.
    return (sys.executable, "-I" if sys.flags.isolated else "-P", "-m", name, *words)


def environment(own: Mapping[str, str]) -> Mapping[str, str]:
    """The environment a helper gets: sidecar's own, and where sidecar was imported from."""
    if sys.flags.isolated:
        return own
    place = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return {**own, "PYTHONPATH": os.pathsep.join([place, *filter(None, [own.get("PYTHONPATH")])])}


def ask(argv: tuple[str, ...], environment: Mapping[str, str]) -> str:
    """Run a short-lived helper and wait for it: what it has written, "" if it failed.

    Only for the time before the loop: the loop must not wait.
    """
    import select  # noqa: PLC0415
    import signal  # noqa: PLC0415
    import time  # noqa: PLC0415

    mine, theirs = os.pipe2(os.O_CLOEXEC)
    until = time.monotonic() + ANSWER_TIMEOUT_S
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
    while len(data) <= MAX_ANSWER_BYTES and poll.poll(max(0.0, until - time.monotonic()) * 1000):
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
