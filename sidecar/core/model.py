"""The states of a worker and of a generation, and the tables of legal moves between them.

A worker::

    starting ──→ ready ──→ draining ──→ killed ──→ gone
        │          │           │           ↑
        │          └───────→ lingering ────┘
        └──→ (draining, lingering, killed or gone: at any time)

*lingering* means that the leader has exited while processes of its group live on. They hold the
listeners and would go on accepting with old code, so the worker is not gone until they are.

A generation is *preparing* while its environment is read and its check runs, *starting* until its
workers have taken over, *serving* then, *outdated* once another one serves or it has failed, and
*gone* with its last worker.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.settings.table import Settings

# --- a worker's states
STARTING, READY, DRAINING, LINGERING, KILLED, GONE = (
    "starting",
    "ready",
    "draining",
    "lingering",
    "killed",
    "gone",
)

WORKER_MOVES: dict[str, frozenset[str]] = {
    STARTING: frozenset({READY, DRAINING, LINGERING, KILLED, GONE}),
    READY: frozenset({DRAINING, LINGERING, KILLED, GONE}),
    DRAINING: frozenset({LINGERING, KILLED, GONE}),
    LINGERING: frozenset({KILLED, GONE}),
    KILLED: frozenset({GONE}),
    GONE: frozenset(),
}

# --- a generation's states ("starting" and "gone" are shared)
PREPARING, SERVING, OUTDATED = "preparing", "serving", "outdated"

GENERATION_MOVES: dict[str, frozenset[str]] = {
    PREPARING: frozenset({STARTING, OUTDATED}),
    STARTING: frozenset({SERVING, OUTDATED}),
    SERVING: frozenset({OUTDATED}),
    OUTDATED: frozenset({GONE}),
    GONE: frozenset(),
}


class IllegalMove(Exception):
    """A state was followed by one that cannot follow it: an error in the supervisor, never in what
    a user did.
    """


class Worker:
    """One process of a generation, leader of its own process group. Moments are seconds on the
    supervisor's clock.
    """

    __slots__ = (
        "accepting",
        "accepting_before",
        "executed_at",
        "generation",
        "kill_at",
        "last_resized_at",
        "max_accepting",
        "max_accepting_at",
        "oversize_bytes",
        "pid",
        "readiness",
        "ready_at",
        "remaining",
        "remaining_asked",
        "replaces_pid",
        "retire_signal",
        "retired_at",
        "shrunk_by",
        "slot",
        "started_at",
        "state",
        "strays",
        "took_over",
    )

    def __init__(
        self, generation: int, slot: int, pid: int, readiness: str, started_at: float
    ) -> None:
        self.generation = generation
        self.slot = slot
        self.pid = pid
        #: How it is seen to be ready: accept, notify, interval or command.
        self.readiness = readiness
        self.started_at = started_at
        #: When its process executed its program.
        self.executed_at: float | None = None
        self.state = STARTING
        self.ready_at: float | None = None
        self.retired_at: float | None = None
        #: The signal it was asked to leave with, "" before that.
        self.retire_signal = ""
        #: When it is killed; finite once it is draining or lingering.
        self.kill_at = float("inf")
        #: Its slot's worker of the generation before was retired in its favour.
        self.took_over = False
        #: The processes that have outlived its leader, until that was reported; None if there are
        #: none. `strays` are those of them that have left its process group.
        self.remaining: tuple[int, ...] | None = None
        self.strays: tuple[int, ...] = ()
        #: Whether the leader has asked them to leave.
        self.remaining_asked = False
        #: The memory it held when that was more than --max-memory, else 0.
        self.oversize_bytes = 0
        #: The pid of the worker with too much memory in whose place it was started, else 0.
        self.replaces_pid = 0
        # With --slow-start, for a program that has processes of its own. While this worker is
        # coming: how many of them accept connections, and the most that were seen, and when first.
        self.accepting = 0
        self.max_accepting = 0
        self.max_accepting_at = float("inf")
        # While its successor is coming: how many accepted connections before, by how many it was
        # asked to shrink, and when it was sent the last signal for that.
        self.accepting_before = 0
        self.shrunk_by = 0
        self.last_resized_at = float("-inf")

    def move(self, state: str) -> None:
        """Go on to `state`. Raises IllegalMove."""
        if state not in WORKER_MOVES[self.state]:
            raise IllegalMove(f"worker {self.pid}: {self.state} to {state}")
        self.state = state

    @property
    def active(self) -> bool:
        """Whether it is starting or ready: it was not asked to leave, and its leader is alive."""
        return self.state in (STARTING, READY)

    @property
    def may_have_connections(self) -> bool:
        """Whether it is ready, or it may be and nobody can tell: its program runs and has the
        listeners, and only with readiness accept is it seen that a worker accepts nothing yet.
        """
        return self.ready_at is not None or (
            self.executed_at is not None and self.readiness != "accept"
        )

    def __repr__(self) -> str:
        return (
            f"<worker {self.pid} of generation {self.generation}, slot {self.slot}, {self.state}>"
        )


class Generation:
    """One numbered life of the server program."""

    __slots__ = (
        "begun_at",
        "changed",
        "number",
        "ready_by_time",
        "room",
        "room_checked",
        "room_reason",
        "serving_at",
        "settings",
        "settings_from",
        "state",
        "trigger",
        "waits_until_alone",
        "was_stable",
        "workers",
    )

    def __init__(
        self,
        number: int,
        trigger: str,
        begun_at: float,
        settings: Settings,
        changed: tuple[str, ...] = (),
    ) -> None:
        self.number = number
        #: Those it was begun with; the signals that its program understands are among them.
        self.settings = settings
        self.trigger = trigger
        #: What has changed since the generation before it that served was begun.
        self.changed = changed
        self.begun_at = begun_at
        self.serving_at = float("inf")
        self.state = PREPARING
        #: How many of its workers fit into the memory beside the workers that are there (None if
        #: that is not known), how that was calculated, and whether it was acted upon.
        self.room: int | None = None
        self.room_reason = ""
        self.room_checked = False
        #: It starts no worker before those of other generations have exited.
        self.waits_until_alone = False
        #: Time alone has made a worker of it ready (readiness interval).
        self.ready_by_time = False
        #: A worker of it that has exited was ready for --min-uptime.
        self.was_stable = False
        #: The generation whose settings and environment it has, 0 if it has its own.
        self.settings_from = 0
        #: Every worker of it that is not gone.
        self.workers: list[Worker] = []

    def move(self, state: str) -> None:
        """Go on to `state`. Raises IllegalMove."""
        if state not in GENERATION_MOVES[self.state]:
            raise IllegalMove(f"generation {self.number}: {self.state} to {state}")
        self.state = state

    def in_slot(self, slot: int) -> Worker | None:
        """The active worker that holds `slot` for this generation."""
        for worker in self.workers:
            if worker.slot == slot and worker.active:
                return worker
        return None

    def __repr__(self) -> str:
        return f"<generation {self.number}, {self.state}, {self.workers}>"
