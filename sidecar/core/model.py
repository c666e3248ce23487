"""The lives of a worker and of a generation: their states, and the table of legal moves.

A worker::

    starting ──→ ready ──→ draining ──→ killed ──→ gone
        │          │           │           ↑
        │          └───────→ lingering ────┘
        └──→ (draining, lingering, killed or gone: at any time)

*lingering* means that the leader has exited while processes of its group live on: they hold the
listeners and would go on accepting with old code, so the worker is not gone until they are.

A generation is *preparing* while its environment is read and its check runs, *starting* until its
workers have taken over,
*serving* then, *outdated* once another serves (or it failed), and *gone* with its last worker.
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

MOVES: dict[str, frozenset[str]] = {
    STARTING: frozenset({READY, DRAINING, LINGERING, KILLED, GONE}),
    READY: frozenset({DRAINING, LINGERING, KILLED, GONE}),
    DRAINING: frozenset({LINGERING, KILLED, GONE}),
    LINGERING: frozenset({KILLED, GONE}),
    KILLED: frozenset({GONE}),
    GONE: frozenset(),
}

# --- a generation's states (gone is shared)
PREPARING, SERVING, OUTDATED = "preparing", "serving", "outdated"

LIFE: dict[str, frozenset[str]] = {
    PREPARING: frozenset({STARTING, OUTDATED}),
    STARTING: frozenset({SERVING, OUTDATED}),
    SERVING: frozenset({OUTDATED}),
    OUTDATED: frozenset({GONE}),
    GONE: frozenset(),
}


class IllegalMove(Exception):
    """A state was followed by one that cannot follow it: a defect in the supervisor, never a user's
    mistake.
    """


class Worker:
    """One process of a generation, leader of its own process group. Moments are seconds on the
    supervisor's clock.

    `executed_at`: its process became its program. `took_over`: its slot's old worker was retired in
    its favour. `kill_at` is set once it leaves (draining or lingering). `left`: the processes that
    have outlived its leader, until that was said, `strays` those in groups of their own; None if
    there are none. `too_big`: the bytes it held when that was more than a worker may, else
    0; `succeeds`: the pid of such a one, if it was started for it.

    With --slow-start, of a program with processes of its own: while it comes `takers` of them take
    connections now, and there were `most` since `spread_at`; when its successor comes it `had` so
    many, and was asked to have `fewer` by that number, last at `resized_at`.
    """

    __slots__ = (
        "executed_at", "fewer", "generation", "had", "kill_at", "left", "left_asked", "most", "pid", "readiness", "ready_at", "resized_at", "retired_at",
        "retired_by", "slot", "spread_at", "started_at", "state", "strays", "succeeds", "takers", "too_big", "took_over",
    )  # fmt: skip

    def __init__(
        self, generation: int, slot: int, pid: int, readiness: str, started_at: float
    ) -> None:
        self.generation = generation
        self.slot = slot
        self.pid = pid
        self.readiness = readiness
        self.started_at = started_at
        self.executed_at: float | None = None
        self.state = STARTING
        self.ready_at: float | None = None
        self.retired_at: float | None = None
        self.retired_by = ""
        self.kill_at = float("inf")
        self.took_over = False
        self.left: tuple[int, ...] | None = None
        self.strays: tuple[int, ...] = ()
        # Whether the leader has seen to it that those are leaving, too.
        self.left_asked = False
        self.too_big = 0
        self.succeeds = 0
        self.takers = self.most = 0
        self.spread_at = float("inf")
        self.had = 0
        self.fewer = 0
        self.resized_at = float("-inf")

    def move(self, state: str) -> None:
        """Go on to `state`. Raises IllegalMove."""
        if state not in MOVES[self.state]:
            raise IllegalMove(f"worker {self.pid}: {self.state} to {state}")
        self.state = state

    @property
    def serving(self) -> bool:
        """Whether it is still expected to serve: not asked to leave, its leader alive."""
        return self.state in (STARTING, READY)

    @property
    def may_have_connections(self) -> bool:
        """Whether it is ready, or nobody has looked: its program runs and has the listeners, and
        only with readiness accept is it known that a worker takes no connections yet.
        """
        return self.ready_at is not None or (
            self.executed_at is not None and self.readiness != "accept"
        )

    def __repr__(self) -> str:
        return (
            f"<worker {self.pid} of generation {self.generation}, slot {self.slot}, {self.state}>"
        )


class Generation:
    """One numbered life of the server program. `workers` holds every worker of it that is not gone.

    `settings` are those it was begun with: the signals that its program understands are among them.
    """

    __slots__ = (
        "alone",
        "begun_at",
        "by_time",
        "changed",
        "fits",
        "held_out",
        "like",
        "number",
        "room",
        "serving_at",
        "settings",
        "state",
        "trigger",
        "why",
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
        self.settings = settings
        self.trigger = trigger
        self.changed = changed
        self.begun_at = begun_at
        self.serving_at = float("inf")
        self.state = PREPARING
        # How many of its workers fit beside what is there, and why; whether that has been looked
        # at; whether it waits until it is alone.
        self.room: int | None = None
        self.why = ""
        self.fits = self.alone = False
        # Whether time alone has made a worker of it ready; whether one that is gone was ready for
        # --min-uptime; the generation whose settings and environment it has, 0 if its own.
        self.by_time = self.held_out = False
        self.like = 0
        self.workers: list[Worker] = []

    def move(self, state: str) -> None:
        """Go on to `state`. Raises IllegalMove."""
        if state not in LIFE[self.state]:
            raise IllegalMove(f"generation {self.number}: {self.state} to {state}")
        self.state = state

    def in_slot(self, slot: int) -> Worker | None:
        """The worker that holds `slot` for this generation and has not been asked to leave."""
        for worker in self.workers:
            if worker.slot == slot and worker.serving:
                return worker
        return None

    def __repr__(self) -> str:
        return f"<generation {self.number}, {self.state}, {self.workers}>"
