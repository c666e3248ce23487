"""Facts: what happened, in the past tense. The only thing the supervisor ever learns from."""

from __future__ import annotations

from sidecar.base.ending import how_it_ended
from sidecar.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.settings.table import Settings


# Fields with a text for people. It may hold anything that a setting says: who makes a fact masks
# what is to be hidden (settings.hidden), for the core shows it in many places.
FREE_TEXTS = ("cause", "note", "output", "why")


class Fact(Record):
    """Something that happened."""


class SwapTriggered(Fact):
    """Somebody or something wants a new generation.

    `supersedes`: what a generation still starting was made from has changed, so it is to be given
    up (a saved file, a changed envdir); otherwise the wish waits its turn. `changed`: the paths or
    names of variables, as far as they are known.
    """

    trigger: str
    supersedes: bool = False
    changed: tuple[str, ...] = ()


class Configured(Fact):
    """The settings were read anew, and these are in force from now on. What they begin is told
    apart, as a SwapTriggered.
    """

    settings: Settings


class StopAsked(Fact):
    """A stop signal came. `lame_duck`: keep serving for the lame-duck time first (TERM does, INT
    and QUIT do not).
    """

    signal: str
    lame_duck: bool = True


class SizeChanged(Fact):
    """`by` workers more (or fewer) are wanted from now on."""

    by: int
    signal: str = ""


class SignalPassed(Fact):
    """A signal is to be passed to these workers, as far as they serve."""

    signal: str
    to: tuple[int, ...]


class Prepared(Fact):
    """Generation `generation`'s environment has been read and its check has passed: it can be
    started.

    `room`: so many workers fit into the memory beside those that are there, None if that is not
    known; `why` says how it was reckoned.
    """

    generation: int
    room: int | None = None
    why: str = ""


class PreparationFailed(Fact):
    """Generation `generation` cannot be started; `cause` says why (names only, never a value),
    `output` is the last its check wrote.
    """

    generation: int
    cause: str
    output: str = ""


class TimingChanged(Fact):
    """The environment just read says anew whether and when to swap by itself, and how long old
    workers stay beside the new ones.
    """

    enable_auto_restart: bool
    auto_restart_interval: float
    kill_old_delay: float


class WorkerStarted(Fact):
    """A process was started. `readiness` is how it will be known to be ready: accept, notify,
    interval or command.
    """

    generation: int
    slot: int
    pid: int
    readiness: str


class WorkerExecuted(Fact):
    """The worker's process has become its program: until then it is a copy of sidecar."""

    pid: int


class SpawnFailed(Fact):
    """No process could be made (no memory, too many processes)."""

    generation: int
    slot: int
    cause: str


class WorkerReady(Fact):
    """The worker takes connections."""

    pid: int


class WorkerSpread(Fact):
    """`takers` processes of the worker take connections. Told with --slow-start only: of a coming
    worker that is ready, at every change, and of the one that it is to replace, until that is asked
    to shrink.
    """

    pid: int
    takers: int


class GrewTooBig(Fact):
    """The worker's processes hold `memory` bytes, which is more than one may."""

    pid: int
    memory: int


class LookForbidden(Fact):
    """The system does not let us see whether the worker takes connections: go by the interval."""

    pid: int
    cause: str


class WorkerExited(Fact):
    """A worker's leader ended: with `code`, or by `signal` (a name such as "KILL", else "").

    `alone`: no process of it is left, else `left` has the pids that are known, and `strays` those
    of them that are not in its process group. `note` is what is
    known beyond the status (why an exec failed). `core`: it left a core dump. `reported`: the
    signal that the exit status stands for, where it is 128 and a signal's number ("TERM" for 143).
    """

    pid: int
    code: int
    signal: str = ""
    alone: bool = True
    note: str = ""
    core: bool = False
    left: tuple[int, ...] = ()
    reported: str = ""
    strays: tuple[int, ...] = ()

    @property
    def cause(self) -> str:
        """How it ended, in words."""
        if self.note:
            return self.note
        return how_it_ended(self.code, self.signal)

    @property
    def shell_status(self) -> int:
        """What a shell would call it: the exit status, or 128 and the signal's number (`code` holds
        that).
        """
        return 128 + self.code if self.signal else self.code

    @property
    def wait_status(self) -> int:
        """What wait(2) calls it: exit status 1 is 256, SIGTERM 15, and 128 more stand for a core
        dump.
        """
        return self.code + 128 * self.core if self.signal else self.code << 8


class GroupEmptied(Fact):
    """The last process of a worker whose leader had exited is gone."""

    pid: int


if TYPE_CHECKING:
    # Every fact there is: a `match` over it that leaves one out is an error of mypy.
    AnyFact = (
        SwapTriggered
        | Configured
        | StopAsked
        | SizeChanged
        | SignalPassed
        | Prepared
        | PreparationFailed
        | TimingChanged
        | WorkerStarted
        | WorkerExecuted
        | SpawnFailed
        | WorkerReady
        | WorkerSpread
        | GrewTooBig
        | LookForbidden
        | WorkerExited
        | GroupEmptied
    )
