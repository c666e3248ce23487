"""Facts: what happened, in the past tense. The supervisor learns from nothing else."""

from __future__ import annotations

from sidecar.base.exit_text import describe_exit
from sidecar.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.settings.table import Settings


# Fields that hold a text for people. Such a text may quote a setting: whoever makes a fact replaces
# secret values in these fields first, because the core shows them in many places.
FREE_TEXTS = ("cause", "note", "output", "room_reason")


class Fact(Record):
    """Something that happened."""


class SwapTriggered(Fact):
    """Somebody or something wants a new generation.

    `supersedes`: what a generation that is still starting was made from has changed (a saved file,
    a changed envdir), so that generation is given up. Otherwise the swap waits its turn. `changed`:
    the paths, or the names of variables, that have changed, as far as they are known.
    """

    trigger: str
    supersedes: bool = False
    changed: tuple[str, ...] = ()


class SettingsChanged(Fact):
    """The settings were read again, and `settings` are in force from now on. A swap that follows
    from it is a SwapTriggered of its own.
    """

    settings: Settings


class StopRequested(Fact):
    """A stop signal came. `lame_duck`: keep serving for the lame-duck time first (TERM does, INT
    and QUIT do not).
    """

    signal: str
    lame_duck: bool = True


class SizeChanged(Fact):
    """The number of workers is to change by `by`. `signal` names the signal that asked for it, ""
    if it was a command.
    """

    by: int
    signal: str = ""


class SignalForwardRequested(Fact):
    """`signal` is to be forwarded to those of the workers `pids` that are ready."""

    signal: str
    pids: tuple[int, ...]


class GenerationPrepared(Fact):
    """The environment of generation `generation` was read and its check passed: it can be started.

    `room`: how many of its workers fit into the memory beside the workers that are there, None if
    that is not known. `room_reason` says how `room` was calculated.
    """

    generation: int
    room: int | None = None
    room_reason: str = ""


class PreparationFailed(Fact):
    """Generation `generation` cannot be started. `cause` says why (names only, never a value),
    `output` is the last that its check wrote.
    """

    generation: int
    cause: str
    output: str = ""


class TimingChanged(Fact):
    """The environment that was just read sets the automatic restart and --kill-old-delay again
    (start_server reads both from the envdir). Durations are seconds.
    """

    enable_auto_restart: bool
    auto_restart_interval: float
    kill_old_delay: float


class WorkerStarted(Fact):
    """A process was started. `readiness` is how it is seen to be ready: accept, notify, interval or
    command.
    """

    generation: int
    slot: int
    pid: int
    readiness: str


class ProgramExecuted(Fact):
    """The worker's process has executed its program; until then it is a copy of sidecar."""

    pid: int


class SpawnFailed(Fact):
    """No process could be made (no memory, too many processes)."""

    generation: int
    slot: int
    cause: str


class WorkerReady(Fact):
    """The worker accepts connections."""

    pid: int


class AcceptingCountChanged(Fact):
    """`accepting` processes of the worker accept connections.

    With --slow-start only: for a coming worker that is ready, at every change; for the worker that
    it replaces, until that one is asked to shrink.
    """

    pid: int
    accepting: int


class MemoryLimitExceeded(Fact):
    """The worker's processes hold `memory_bytes`, more than --max-memory."""

    pid: int
    memory_bytes: int


class ReadinessProbeUnavailable(Fact):
    """The system does not show whether the worker accepts connections: --interval is used instead."""

    pid: int
    cause: str


class WorkerExited(Fact):
    """A worker's leader ended, with exit status `code`, or by `signal` (a name such as "KILL", else
    ""; `code` is the signal's number then).

    `group_empty`: no process of the worker is left. Otherwise `remaining` holds the pids that are
    known, and `strays` those of them that have left its process group. `note`: what is known beyond
    the status (why an exec failed). `core_dumped`: it left a core dump. `reported_signal`: the
    signal that an exit status above 128 stands for ("TERM" for 143), else "".
    """

    pid: int
    code: int
    signal: str = ""
    group_empty: bool = True
    note: str = ""
    core_dumped: bool = False
    remaining: tuple[int, ...] = ()
    reported_signal: str = ""
    strays: tuple[int, ...] = ()

    @property
    def cause(self) -> str:
        """How it ended, in words."""
        if self.note:
            return self.note
        return describe_exit(self.code, self.signal)

    @property
    def shell_status(self) -> int:
        """The status as a shell gives it: the exit status, or 128 plus the signal's number."""
        return 128 + self.code if self.signal else self.code

    @property
    def wait_status(self) -> int:
        """The status as wait(2) gives it: 256 for exit status 1, 15 for SIGTERM, and 128 more for a
        core dump.
        """
        return self.code + 128 * self.core_dumped if self.signal else self.code << 8


class GroupEmptied(Fact):
    """The last process of a worker whose leader had exited has ended."""

    pid: int


if TYPE_CHECKING:
    # Every fact there is: a `match` over it that leaves one out is an error of mypy.
    AnyFact = (
        SwapTriggered
        | SettingsChanged
        | StopRequested
        | SizeChanged
        | SignalForwardRequested
        | GenerationPrepared
        | PreparationFailed
        | TimingChanged
        | WorkerStarted
        | ProgramExecuted
        | SpawnFailed
        | WorkerReady
        | AcceptingCountChanged
        | MemoryLimitExceeded
        | ReadinessProbeUnavailable
        | WorkerExited
        | GroupEmptied
    )
