"""Programs that behave and misbehave: what the simulated world is drawn from.

Durations and moments are seconds; INF is never.
"""

from __future__ import annotations

import random

from sidecar.settings.table import Settings

INF = float("inf")

COMING, SERVING, OUTDATED, CLOSED = "coming", "serving", "outdated", "closed"


class Broken(AssertionError):
    """A promise was broken: which, and how."""

    def __init__(self, promise: str, how: str) -> None:
        super().__init__(f"{promise}: {how}")
        self.promise = promise
        self.how = how


class Chance:
    """The supervisor's jitter: a number in [0, 1), always the same one or a cheap sequence. Small,
    so that it can be copied.
    """

    __slots__ = ("fixed", "state")

    def __init__(self, fixed: float | None, state: int) -> None:
        self.fixed = fixed
        self.state = state

    def __call__(self) -> float:
        if self.fixed is not None:
            return self.fixed
        self.state = (self.state * 1103515245 + 12345) % 2**31
        return self.state / 2**31


class Program:
    """How one worker is going to behave. Durations in seconds; INF is never."""

    __slots__ = (
        "boot", "code", "deaf", "dies", "drain", "drain_code", "executes", "family", "forbids", "readiness", "signal", "slow_group", "spread", "stuck",
    )  # fmt: skip

    def __init__(self) -> None:
        self.readiness = "accept"
        self.executes = 0.0  # how long it takes until its process is no copy of sidecar any more
        self.boot = 0.0
        self.dies = INF
        self.code, self.signal = 1, ""
        self.deaf = False
        self.drain = 0.0
        self.drain_code = 0
        self.family = 0.0  # how long processes of its group outlive the leader
        self.stuck = 0.0  # how long it takes to die of SIGKILL
        self.slow_group = False
        self.forbids = False
        self.spread: list[
            tuple[float, int]
        ] = []  # how long after it was ready how many of its processes take connections


class Process:
    """One process the supervisor had started: what it really is, and (from `ready_at` down) what
    the supervisor was told or ordered.
    """

    __slots__ = (
        "alive", "big_at", "doomed", "ended", "executed_at", "fewer", "generation", "group_asked_at", "group_due", "had", "kill_due", "killed_at", "left_at", "most",
        "pid", "program", "readiness", "ready_at", "resized_at", "retired_at", "retired_by", "slot", "spread_at", "started_at", "taken", "takers",
    )  # fmt: skip

    def __init__(self, pid: int, generation: int, slot: int, program: Program, now: float) -> None:
        self.pid = pid
        self.generation = generation
        self.slot = slot
        self.program = program
        self.readiness = program.readiness
        self.started_at = now
        self.executed_at: float | None = None
        self.alive = True  # the leader
        self.doomed = False  # SIGKILL has been sent
        self.ended = False  # leader and group are gone
        self.ready_at: float | None = None
        self.left_at: float | None = None
        self.retired_at: float | None = None
        self.retired_by = ""
        self.killed_at: float | None = None
        self.group_due = False  # nobody has asked what has outlived its leader
        self.group_asked_at: float | None = None
        self.kill_due = INF
        self.taken = False
        self.big_at = INF  # when it was said to hold too much memory
        self.takers = 0  # its processes that take connections, were it not asked to have fewer
        self.most, self.spread_at = 0, -INF  # the most that were ever told, and since when
        self.had = 0  # how many it had when it was last counted for its successor
        self.fewer = 0  # how many it was asked to have less
        self.resized_at = -INF

    @property
    def waits_for_time(self) -> bool:
        """Time alone makes it ready: it has nothing to be late with."""
        return self.readiness == "interval" and self.executed_at is not None

    @property
    def wanted(self) -> bool:
        """Its leader lives and nobody asked it to leave."""
        return self.left_at is None and self.retired_at is None

    @property
    def may_have_connections(self) -> bool:
        """It takes connections, or nobody knows that it does not: only `accept` is seen."""
        return self.ready_at is not None or (
            self.executed_at is not None and self.readiness != "accept"
        )

    def drains_until(self, now: float, drain_timeout: float) -> float:
        """When it is to be killed at the earliest, if it was asked to leave now, or fell."""
        return now + (drain_timeout if self.may_have_connections else min(drain_timeout, 2.0))

    @property
    def ready(self) -> bool:
        """It takes connections and nobody asked it to leave."""
        return self.ready_at is not None and self.left_at is None and self.retired_at is None

    def __repr__(self) -> str:
        return f"{self.pid} (generation {self.generation}, slot {self.slot})"


class Life:
    """One generation as seen from outside."""

    __slots__ = (
        "begun_at",
        "changed",
        "failed_at",
        "fault",
        "like",
        "number",
        "prepared",
        "room",
        "serving_at",
        "settings",
        "state",
        "trigger",
    )

    def __init__(self, number: int, trigger: str, now: float, settings: Settings) -> None:
        self.settings = settings
        self.number = number
        self.trigger = trigger
        self.begun_at = now
        self.state = COMING
        self.fault = ""
        self.prepared = False
        self.like = 0
        self.room: int | None = None
        self.failed_at = INF
        self.serving_at = INF
        self.changed: list[str] = []


class Mood:
    """How much goes wrong in a schedule: the probability of each kind of trouble."""

    __slots__ = (
        "bad_code",
        "deaf",
        "die",
        "family",
        "forbid",
        "refuse",
        "slow_prepare",
        "stuck",
        "unprepared",
    )

    def __init__(self, dice: random.Random) -> None:
        level = dice.choice((0.0, 0.05, 0.2, 0.5))
        self.bad_code = dice.choice((0.0, 0.2, 0.5, 0.8))
        self.die = level
        self.deaf = dice.choice((0.0, level, 0.5))
        self.family = dice.choice((0.0, level, 0.3))
        self.stuck = dice.choice((0.0, 0.0, level))
        self.refuse = dice.choice((0.0, 0.0, level))
        self.unprepared = dice.choice((0.0, 0.0, level))
        self.slow_prepare = dice.choice((0.0, 0.3, 1.0))
        self.forbid = dice.choice((0.0, 0.0, 0.0, level))


def draw_settings(dice: random.Random) -> Settings:
    """Any settings that a user could have chosen, rather small numbers preferred."""
    pick = dice.choice
    return Settings(
        command=("program",),
        workers=pick((1, 1, 2, 2, 3, 4, 5)),
        interval=pick((0.0, 0.5, 1.0, 2.0)),
        start_timeout=pick((0.5, 2.0, 5.0, 10.0)),
        max_surge=pick((0, 0, 0, 1, 1, 2, 3)),
        kill_old_delay=pick((0.0, 0.0, 0.5, 3.0)),
        signal_on_hup=pick(("TERM", "QUIT")),
        signal_on_term=pick(("TERM", "INT")),
        drain_timeout=pick((0.0, 1.0, 5.0, 5.0, 25.0)),
        enable_auto_restart=pick((False, False, False, True)),
        auto_restart_interval=pick((1.0, 5.0, 20.0)),
        max_failures=pick((0, 1, 3, 5, 5)),
        min_uptime=pick((0.0, 1.0, 5.0, 10.0)),
        max_backoff=pick((0.0, 1.0, 5.0, 30.0)),
        lame_duck=pick((0.0, 0.0, 2.0, 10.0)),
    )
