"""A simulated world for the supervisor: a clock, programs that behave and misbehave, and somebody
who keeps pulling triggers.

One integer makes one schedule: the settings, how every worker of every generation behaves, which
signals come when. The world performs the supervisor's orders, advances to whatever comes first (the
supervisor's deadline or its own next event), and keeps a `book`: what can be seen from outside,
written down without asking the supervisor. After every step each promise in promises.py is checked
against the book.

A schedule has three parts: *chaos*; *calm* (from then on programs are healthy and nothing is
triggered), in which the supervisor has to recover; and a stop. Often the stop comes in the middle
of the chaos.

    python -m tests.promises.world SEED     tells one schedule, line by line
    python -m tests.promises.world          runs schedules until one breaks a promise
"""

from __future__ import annotations

import copy
import heapq
import random
import sys
from collections.abc import Callable, Collection
from typing import Any

from sidecar.core import facts, orders
from sidecar.core.supervisor import Supervisor
from sidecar.settings.table import RUN, START_SERVER, Settings

INF = float("inf")
# So long (seconds) a stop waits for what was killed.
KILL_WAIT = 3.0
# Enough for: fail, retire, take over, begin, prepare, spawn, be refused, fail again, give up.
MOST_ROUNDS = 12
MOST_STEPS = 6000

STIMULI = ("HUP", "HUP", "command", "watch", "watch", "envdir", "TTIN", "TTOU", "TTOU", "USR1")

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


class World:
    """One schedule: `World(dice).run()`. Raises Broken."""

    def __init__(
        self,
        dice: random.Random,
        make: Callable[[Settings, float, Callable[[], float]], Supervisor] = Supervisor,
    ) -> None:
        from .promises import PROMISES

        self.dice = dice
        # A copy of the dice: what came later must not move the schedules that are known by their
        # number.
        others = copy.copy(dice)
        splay = others.choice((0.0, 0.0, 2.0, 10.0))
        self.growth = random.Random(copy.copy(dice).getrandbits(32))
        self.growing = self.growth.choice((0.0, 0.0, 0.0, 0.0, 0.0, 0.3, 0.6, 1.0))
        #: Dice for what came later still.
        self.spice = random.Random(copy.copy(dice).getrandbits(31))
        #: Dice for generations that time makes ready and that die soon after.
        self.soon = random.Random(copy.copy(dice).getrandbits(30))
        self.short_lived: dict[int, bool] = {}
        self.settings = draw_settings(dice).replace(
            env_splay=splay, entry_point=START_SERVER if self.spice.random() < 0.1 else RUN
        )
        #: All that were ever in force.
        self.ever = [self.settings]
        self.mood = Mood(dice)
        self.now = 0.0
        self.lag = 0.0  # how late the host has woken up, in all, since the stop was asked for
        self.sluggish = dice.random() < 0.1
        self.grid = dice.random() < 0.6
        self.heap: list[tuple[float, int, Callable[[], facts.Fact | None]]] = []
        self.count = 0
        self.steps = 0
        self.trace: list[tuple[float, object]] = []
        self.readiness = dice.choice(("accept", "accept", "notify", "interval", "command"))
        self.codes: dict[int, str] = {}
        self.fickle = self.readiness == "interval" and self.soon.random() < 0.5
        # --- the book
        self.processes: dict[int, Process] = {}
        self.generations: dict[int, Life] = {}
        self.size = self.settings.workers
        self.ttins: list[float] = []
        self.stops: list[facts.StopRequested] = []
        self.stops_seen = 0
        self.stopped_at = 0.0
        self.leave_at = INF
        self.bounded = False
        self.end_by = INF
        self.gave_up = False
        self.exit: orders.Exit | None = None
        self.just_left: Process | None = None
        self.pending = True  # a trigger has come that no generation was begun for
        self.supersedes = False
        self.due_at = 0.0  # by then the trigger has to be answered
        self.unserved: list[str] = []  # what has changed since the generation that serves was begun
        self.begun = 0
        # --- the parts
        self.calm = False
        self.calm_at = INF
        self.recovered = False
        self.recover_by = INF

        fixed, jitter = dice.choice((None, 0.0, 0.999)), dice.randrange(2**31)
        # Dice of its own: with or without slow start, a schedule is the same one for the rest.
        self.slow_dice = random.Random(jitter)
        if (
            self.readiness == "accept"
            and not self.settings.max_surge
            and self.slow_dice.random() < 0.5
        ):
            self.settings = self.settings.replace(slow_start=True)
        # And for the memory: mostly there is no limit.
        self.room_dice = random.Random(jitter + 1)
        self.tight = self.room_dice.random() < 0.3
        if self.room_dice.random() < 0.1 and not self.settings.slow_start:
            self.settings = self.settings.replace(overlap="never", max_surge=0)
        elif self.room_dice.random() < 0.1:
            self.settings = self.settings.replace(overlap="always")
        self.supervisor = make(self.settings, 0.0, Chance(fixed, jitter))
        self.promises = [promise(self) for promise in PROMISES]
        self._draw_stimuli()
        if others.random() < 0.25:
            for _ in range(others.choice((1, 1, 2, 3))):
                self._draw_settings_read(others, others.choice((3.0, 10.0, 30.0)))

    # --- drawing

    def moment(self, longest: float) -> float:
        """A duration up to `longest`; in many schedules a multiple of a quarter second, so that
        things coincide.
        """
        drawn = self.dice.random() * longest
        return round(drawn * 4) / 4 if self.grid else drawn

    def _draw_stimuli(self) -> None:
        dice = self.dice
        horizon = dice.choice((3.0, 10.0, 10.0, 30.0, 60.0))
        for _ in range(dice.choice((0, 1, 2, 4, 8))):
            at = self.moment(horizon)
            for _ in range(dice.choice((1, 1, 1, 2, 3))):
                self.at(at, self._stimulus(dice.choice(STIMULI)))
                at += dice.choice((0.0, 0.0, 0.25, 1.0))
        if dice.random() < 0.35:
            at = self.moment(horizon)
            for _ in range(dice.choice((1, 1, 2, 3))):
                self.at(at, self._stimulus(dice.choice(("TERM", "TERM", "INT"))))
                at += dice.choice((0.0, 0.0, 1.0, self.moment(10.0)))
        self.at(horizon, self._calm_down)

    def _draw_settings_read(self, dice: random.Random, horizon: float) -> None:
        """HUP, with a settings file in which some settings are others now."""
        drawn = vars(draw_settings(dice))
        some = [name for name in drawn if name != "command" and dice.random() < 0.4]

        def happen() -> facts.Fact | None:
            if self.calm:
                return None
            self.observe(facts.SettingsChanged(self.altered(drawn, some)))
            return facts.SwapTriggered("HUP", supersedes=True)

        self.at(round(dice.random() * horizon * 4) / 4, happen)

    def altered(self, drawn: dict[str, Any], some: list[str]) -> Settings:
        """The settings of now with some of those that were drawn."""
        if self.settings.slow_start:  # the two together are refused
            some = [name for name in some if name not in ("slow_start", "max_surge")]
        if self.settings.overlap == "never" and "overlap" not in some:
            some = [name for name in some if name != "max_surge"]
        return self.settings.replace(**{name: drawn[name] for name in some})

    def _stimulus(self, kind: str) -> Callable[[], facts.Fact | None]:
        def happen() -> facts.Fact | None:
            if kind == "HUP" and self.spice.random() < 0.1:
                return None if self.calm else facts.SwapTriggered("listener")
            if self.calm and not self.stops and kind in ("TERM", "INT"):
                # a straggler of the burst: the last part of the schedule asks for the stop itself
                return None
            if kind in ("TERM", "INT"):
                return facts.StopRequested(kind, lame_duck=kind == "TERM")
            if self.calm:
                return None
            if kind in ("TTIN", "TTOU"):
                if kind == "TTIN":
                    # More than ten at once are paced: tests/histories/test_max_workers.py.
                    self.ttins = [each for each in self.ttins if each > self.now - 10.0]
                    if self.size >= 7 or len(self.ttins) == 10:
                        return None
                    self.ttins.append(self.now)
                return facts.SizeChanged(1 if kind == "TTIN" else -1, kind)
            if kind == "USR1":
                return facts.SignalForwardRequested(kind, tuple(self.processes))
            many = self.spice.choice((1, 1, 1, 1, 1, 1, 1, 1, 1, 15))
            names = [f"{kind}{len(self.trace)}.{number:02}" for number in range(many)]
            changed = tuple(names) if kind in ("watch", "envdir") else ()
            return facts.SwapTriggered(kind, bool(changed), changed)

        return happen

    def _draw_program(self, generation: int) -> Program:
        dice, mood = self.dice, self.mood
        program = Program()
        program.readiness = self.readiness
        program.boot = dice.choice((0.0, 0.25, self.moment(1.0), self.moment(3.0)))
        program.drain = dice.choice((0.0, 0.25, self.moment(2.0), self.moment(8.0)))
        if self.calm:
            program.boot = min(program.boot, self.settings.start_timeout / 2)
            return program
        code = self.codes.get(generation)
        if code is None:
            bad = dice.random() < mood.bad_code
            code = self.codes[generation] = (
                dice.choice(("exits", "exits", "hangs", "dies soon", "mixed")) if bad else "good"
            )
        if code == "mixed":
            code = dice.choice(("good", "good", "exits", "hangs", "dies soon"))
        program.code, program.signal = dice.choice(
            ((0, ""), (1, ""), (7, ""), (9, "KILL"), (11, "SEGV"), (15, "TERM"))
        )
        if code == "exits":
            program.boot = INF
            program.dies = dice.choice((0.0, 0.25, self.moment(2.0)))
        elif code == "hangs":
            program.boot = INF
        elif code == "dies soon":
            program.dies = max(
                program.boot, self.settings.interval if program.readiness == "interval" else 0.0
            ) + self.moment(4.0)
        elif dice.random() < mood.die:
            program.dies = self.moment(20.0)
        program.deaf = dice.random() < mood.deaf
        if not program.deaf and dice.random() < 0.15:
            program.drain = self.moment(30.0)
        program.drain_code = dice.choice((0, 0, 1, 15))
        if dice.random() < mood.family:
            program.family = dice.choice((0.25, self.moment(4.0), INF))
        if dice.random() < mood.stuck:
            program.stuck = dice.choice((0.25, self.moment(8.0), INF))
        program.slow_group = dice.random() < 0.1
        program.forbids = program.readiness == "accept" and dice.random() < mood.forbid
        if self.fickle:
            program.dies = self._dies_soon(generation)
        return program

    def _dies_soon(self, generation: int) -> float:
        """How long a program lives where some generations die soon after time has made them ready,
        and the others do not die.
        """
        if generation not in self.short_lived:
            self.short_lived[generation] = generation > 1 and self.soon.random() < 0.6
        if not self.short_lived[generation]:
            return INF
        least = max(self.settings.min_uptime, 0.25)
        return self.settings.interval + self.soon.choice((0.0, 0.25, least * self.soon.random()))

    def _draw_spread(self, program: Program) -> None:
        """How the processes of a program come and go once the first of them takes connections."""
        dice = self.slow_dice
        after, takers = 0.0, 1
        program.spread = [(0.0, 1)]
        for _ in range(dice.choice((0, 1, 2, 3, 5))):
            after += dice.choice((0.0, 0.05, 0.25, dice.random() * 3.0))
            takers = max(0, takers + dice.choice((1, 1, 1, 2, -1)))
            program.spread.append((after, takers))

    # --- time

    def at(self, moment: float, happen: Callable[[], facts.Fact | None]) -> None:
        """Have something happen then; it may turn out to be nothing."""
        if moment < INF:
            self.count += 1
            heapq.heappush(self.heap, (moment, self.count, happen))

    def run(self) -> World:
        """From the start to the exit. Raises Broken."""
        self.turn()
        while self.exit is None:
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise Broken("No spin", f"more than {MOST_STEPS} steps")
            self.step()
        return self

    def wakes_at(self) -> float:
        """When the supervisor wants to be asked, or something happens to a worker."""
        return min(self.supervisor.deadline, self.heap[0][0] if self.heap else INF)

    def step(self) -> None:
        """Advance to whatever comes first, and see to it."""
        wake = self.wakes_at()
        if wake == INF:
            raise Broken(
                "Recovery" if not self.stops else "Stop always ends",
                f"nothing will ever happen again after {self.now:g}",
            )
        self._wake_for_nothing(wake)
        late = self.dice.choice((0.0, 0.0, 0.01, 0.25, 0.6)) if self.sluggish else 0.0
        if self.stops:
            self.lag += late
        self.now = max(self.now, wake + late)
        self._happen()
        self.turn()
        self._look_ahead()

    def _happen(self) -> None:
        """Tell the supervisor everything that has happened until now, in any order."""
        while self.heap and self.heap[0][0] <= self.now:
            batch = []
            while self.heap and self.heap[0][0] <= self.now:
                batch.append(heapq.heappop(self.heap)[2])
            if len(batch) > 1 and self.dice.random() < 0.5:
                self.dice.shuffle(batch)
            for happen in batch:
                fact = happen()
                if fact is not None:
                    self.observe(fact)

    def _wake_for_nothing(self, wake: float) -> None:
        """Sometimes wake before anything is due: nothing may come of it."""
        if self.dice.random() < 0.08:
            between = self.now + (wake - self.now) * self.dice.choice((0.1, 0.5, 0.999))
            if self.now < between < wake:
                self.now = between
                given = self.supervisor.reconcile(self.now)
                if given:
                    self.note(given)
                    raise Broken(
                        "No spin", f"nothing happened and no deadline was reached, yet: {given}"
                    )

    def _look_ahead(self) -> None:
        """Sometimes ask a copy what it would say just before its deadline (ever, if there is none)
        if nothing happened: nothing.
        """
        if self.exit is None and self.dice.random() < 0.02:
            deadline = self.supervisor.deadline
            moment = self.now + (deadline - self.now) * 0.999 if deadline < INF else self.now + 1e7
            given = copy.deepcopy(self.supervisor).reconcile(moment)
            if given and moment < deadline:
                raise Broken(
                    "No spin",
                    f"the deadline is {deadline:g}, yet at {moment:g} there is something to say: {given}",
                )

    def turn(self) -> None:
        """Reconcile and perform until there is nothing more to do, then check every promise."""
        for _ in range(MOST_ROUNDS):
            self._ripen()
            self._mirror_stop()
            given = self.supervisor.reconcile(self.now)
            if not given:
                break
            self.note(given)
            for promise in self.promises:
                promise.ordered(given)
            for order in given:
                self.perform(order)
            if self.exit is not None:
                break
        else:
            raise Broken("No spin", f"reconcile never ends; lately: {given}")
        for promise in self.promises:
            promise.settled()
        self.see_whether_recovered()

    def see_whether_recovered(self) -> None:
        """In the calm: once all is well, have somebody ask for a stop."""
        if self.calm and not self.recovered and not self.stops and not self.gave_up:
            if self.healthy():
                self.recovered = True
                for kind in ("TERM", "INT")[: self.dice.choice((1, 1, 2))]:
                    self.at(self.now + self.moment(4.0), self._final_stop(kind))
            elif self.now > self.recover_by:
                raise Broken(
                    "Recovery",
                    f"healthy programs and no trigger since {self.calm_at:g}, and still not all well at {self.now:g}",
                )

    def note(self, given: list[orders.Order]) -> None:
        """Keep for the tale."""
        self.trace += [(self.now, order) for order in given]

    # --- calm

    def _calm_down(self) -> None:
        """From now on everything is healthy, but for what hangs in the kernel."""
        self.calm = True
        self.calm_at = self.now
        for process in list(self.processes.values()):
            process.program.dies = INF
        # What is under way may have begun with others.
        names = ("start_timeout", "interval", "kill_old_delay", "drain_timeout")
        one_round = sum(max(getattr(settings, name) for settings in self.ever) for name in names)
        if self.settings.slow_start:
            # It grows, and then no more.
            one_round += max(settings.start_timeout for settings in self.ever) + 16.0
        one_swap = 4.0 + (self.size + 1) * (one_round + 12.0)
        self.recover_by = (
            self.now
            + 4 * one_swap
            + 4 * (max(s.max_backoff for s in self.ever) + 3.0)
            + self.settings.env_splay
        )

    def _final_stop(self, kind: str) -> Callable[[], facts.Fact | None]:
        return lambda: facts.StopRequested(kind, lame_duck=kind == "TERM")

    def healthy(self) -> bool:
        """The generation begun last serves, complete, and nothing else is wanted.

        A swap that was asked for and that failed is not tried again: then the one before serves,
        perhaps not alone.
        """
        last, current = self.generations.get(self.begun), self.current
        if last is None or current is None or self.coming is not None or self.pending:
            return False
        forgiven = last is not current and last.fault != "" and self.forgives(last)
        if last is not current and not forgiven:
            return False
        held = sorted(process.slot for process in self.wanted() if not self.superfluous(process))
        return held == list(range(self.size)) and all(
            process.ready
            and not process.fewer
            and (process.generation == current.number or forgiven)
            for process in self.wanted()
        )

    def forgives(self, failed: Life) -> bool:
        """Whether nobody has to try again what has failed while something served."""
        asked = failed.trigger not in ("start", "crash", "listener")
        return asked and not failed.settings.as_server_starter

    # --- the book

    def superfluous(self, process: Process, left: Collection[int] = ()) -> bool:
        """Whether it holds too much memory and another, none of those that have `left`, has been
        started in its place.
        """
        return process.big_at < INF and any(
            self.succeeds(each, process) for each in self.wanted() if each.pid not in left
        )

    def succeeds(self, process: Process, big: Process) -> bool:
        """Whether it was started in the place of one that holds too much memory, and may not fail
        any more.
        """
        coming = self.coming
        mine = coming is None or process.generation != coming.number
        return (
            mine
            and process.slot == big.slot
            and process.pid > big.pid
            and process.started_at >= big.big_at
        )

    @property
    def coming(self) -> Life | None:
        """The generation that was begun and has neither taken over nor failed."""
        return next((life for life in self.generations.values() if life.state == COMING), None)

    @property
    def current(self) -> Life | None:
        """The generation that was last said to be serving."""
        return next((life for life in self.generations.values() if life.state == SERVING), None)

    def surge(self, life: Life | None) -> int:
        """How many processes more than are wanted there may be while this generation takes over, 0
        for any number.
        """
        room = life.room if life is not None and life.settings.overlap == "auto" else None
        most = self.settings.max_surge
        return most if not room or room >= self.size else min(most or room, room)

    def alone(self, life: Life) -> bool:
        """Whether this generation may not be there at the same time as another."""
        return life.settings.overlap == "never" or (
            life.settings.overlap == "auto" and life.room == 0
        )

    def wanted(self) -> list[Process]:
        """Processes whose leader lives and that nobody asked to leave."""
        return [process for process in self.processes.values() if process.wanted]

    def ready(self) -> list[Process]:
        """Processes that take connections."""
        return [process for process in self.processes.values() if process.ready]

    def stop_signal(self, settings: Settings) -> str:
        """What asks a generation with these settings to leave for good."""
        interrupted = bool(self.stops) and self.stops[-1].signal == "INT"
        return "TERM" if interrupted and settings.as_server_starter else settings.signal_on_term

    def leaving(self) -> bool:
        """Whether a stop has come so far that nothing has to be kept any more."""
        return self.gave_up or self.now >= self.leave_at or (bool(self.stops) and not self.wanted())

    def _ripen(self) -> None:
        for process in self.processes.values():
            executed_at = INF if process.executed_at is None else process.executed_at
            if process.readiness == "interval" and process.ready_at is None and process.wanted:  # noqa: SIM102
                if self.now >= executed_at + self.settings.interval:
                    process.ready_at = self.now

    def _mirror_stop(self) -> None:
        settings = self.settings
        for _ in self.stops[self.stops_seen :]:
            if self.end_by == INF:
                lame = settings.lame_duck if self.stops[0].lame_duck and self.ready() else 0.0
                self.leave_at = self.now + lame
                self.end_by = self.leave_at + settings.drain_timeout + KILL_WAIT
                coming = self.coming
                if (
                    coming is not None
                    and lame
                    and any(each.generation != coming.number for each in self.ready())
                ):
                    coming.state = OUTDATED
            elif self.now < self.leave_at and self.wanted():
                self.leave_at = self.now
                self.end_by = self.now + settings.drain_timeout + KILL_WAIT
            else:
                self.end_by = min(self.end_by, self.now + KILL_WAIT)
                for process in self.processes.values():
                    process.kill_due = min(process.kill_due, self.now)
        self.stops_seen = len(self.stops)
        if self.stops and self.leaving() and not self.bounded:
            self.bounded = True
            for process in self.processes.values():
                process.kill_due = min(process.kill_due, self.now + settings.drain_timeout)
        if self.stops and self.leaving():
            self.leave_at = min(self.leave_at, self.now)
            for life in self.generations.values():
                if life.state in (COMING, SERVING):
                    life.state = OUTDATED

    def observe(self, fact: facts.Fact) -> None:
        """Tell the supervisor, and write it into the book."""
        self.trace.append((self.now, fact))
        match fact:
            case facts.SwapTriggered():
                due = self.now + (self.settings.env_splay if fact.trigger == "envdir" else 0.0)
                self.due_at = min(due, self.due_at) if self.pending else due
                self.pending = True
                self.supersedes |= fact.supersedes
                self.unserved += fact.changed
            case facts.SettingsChanged():
                if not self.stops and not self.gave_up:
                    if fact.settings.workers != self.settings.workers:
                        self.size = fact.settings.workers
                    self.settings = fact.settings
                    self.ever.append(fact.settings)
            case facts.StopRequested():
                if (
                    not self.stops
                    or fact.signal != self.stops[-1].signal
                    or self.now >= self.stopped_at + 0.1
                ):
                    self.stops.append(fact)
                    self.stopped_at = self.now
            case facts.SizeChanged():
                self.size = max(1, self.size + fact.by)
            case facts.ProgramExecuted():
                self.processes[fact.pid].executed_at = self.now
            case facts.WorkerReady():
                process = self.processes[fact.pid]
                if process.ready_at is None and process.wanted:
                    process.ready_at = process.spread_at = self.now
            case facts.MemoryLimitExceeded():
                self.processes[fact.pid].big_at = min(self.now, self.processes[fact.pid].big_at)
            case facts.AcceptingCountChanged():
                process = self.processes[fact.pid]
                if self.coming is not None and process.generation == self.coming.number:
                    if fact.accepting > process.most:
                        process.most, process.spread_at = fact.accepting, self.now
                elif not process.fewer:
                    process.had = fact.accepting
            case facts.ReadinessProbeUnavailable():
                self.processes[fact.pid].readiness = "interval"
            case facts.WorkerExited():
                self._left(self.processes[fact.pid], fact)
            case facts.GroupEmptied():
                self.processes.pop(fact.pid)
            case facts.SpawnFailed():
                self._fault(fact.generation, fact.cause)
            case facts.PreparationFailed():
                self._fault(fact.generation, fact.cause)
            case facts.GenerationPrepared():
                self.generations[fact.generation].prepared = True
                self.generations[fact.generation].room = fact.room
        for promise in self.promises:
            promise.fact(fact)
        self.supervisor.observe(fact, self.now)

    def _left(self, process: Process, fact: facts.WorkerExited) -> None:
        if process.retired_at is None:
            self._fault(process.generation, fact.cause)
            process.kill_due = process.drains_until(self.now, self.settings.drain_timeout)
        # One that was asked, and left by itself, has told its own.
        told = process.retired_at is not None and fact.code == 0 and not fact.strays
        process.group_due = not fact.group_empty and not told and process.killed_at is None
        self.just_left = process
        process.left_at = self.now
        if fact.group_empty:
            del self.processes[process.pid]

    def _fault(self, generation: int, cause: str) -> None:
        life = self.generations.get(generation)
        if life is not None and life.state == COMING and not life.fault:
            life.fault = cause

    # --- performing orders

    def perform(self, order: orders.Order) -> None:
        """Do it, and see what comes of it."""
        match order:
            case orders.Prepare():
                self.begun = order.generation
                own = (
                    self.generations[order.settings_from].settings
                    if order.settings_from
                    else self.settings
                )
                self.generations[order.generation] = Life(
                    order.generation, order.trigger, self.now, own
                )
                self.generations[order.generation].like = order.settings_from
                self.generations[order.generation].changed = self.unserved[:]
                self.pending = self.supersedes = False
                self._prepare(order.generation)
            case orders.Spawn():
                self._spawn(order)
            case orders.Retire():
                self._retire(self.processes[order.pid], order.signal)
            case orders.RetireGroup():
                process = self.processes[order.pid]
                process.group_due, process.group_asked_at = False, self.now
                if not process.program.deaf:
                    self.at(self.now + process.program.drain, self._emptied(process))
            case orders.Kill():
                process = self.processes[order.pid]
                process.killed_at = self.now
                process.doomed = True
                self.at(self.now + process.program.stuck, self._death(process))
            case orders.ForwardSignal():
                process = self.processes[order.pid]
                if order.signal in ("TTOU", "TTIN"):
                    process.fewer += 1 if order.signal == "TTOU" else -1
                    process.resized_at = self.now
            case orders.ForgetGeneration():
                self.generations[order.generation].state = CLOSED
            case orders.LogEvent():
                self._said(order.event, order.fields)
            case orders.Exit():
                self.exit = order

    def _said(self, event: str, fields: dict[str, Any]) -> None:
        if event == "internal_error":
            kind = "Legal moves" if fields["error"] == "IllegalMove" else "No defect"
            raise Broken(kind, "{error} at {where}".format(**fields))
        if event == "serving":
            if self.current is not None:
                self.current.state = OUTDATED
            life = self.generations[fields["generation"]]
            life.state = SERVING
            life.serving_at = self.now
            self.unserved = [each for each in self.unserved if each not in life.changed]
        elif event == "swap_failed":
            self.generations[fields["generation"]].state = OUTDATED
            self.generations[fields["generation"]].failed_at = self.now
        elif event == "swap_superseded":
            self.generations[fields["generation"]].state = OUTDATED
        elif event == "gave_up":
            self.gave_up = True
            self.bounded = True
            for process in self.processes.values():
                process.kill_due = min(process.kill_due, self.now + self.settings.drain_timeout)
            self.leave_at = min(self.leave_at, self.now)
            self.end_by = min(self.end_by, self.now + self.settings.drain_timeout + KILL_WAIT)

    def _prepare(self, generation: int) -> None:
        bad = not self.calm and self.dice.random() < self.mood.unprepared
        life = self.generations[generation]
        room = (
            self.room_dice.choice((None, 0, 0, 1, 1, 2, 3))
            if self.tight and not life.settings.slow_start
            else None
        )
        fact = (
            facts.PreparationFailed(generation, "the check failed")
            if bad
            else facts.GenerationPrepared(generation, room, "the limit")
        )
        if self.dice.random() < self.mood.slow_prepare:
            if not self.calm and self.dice.random() < 0.1:
                return  # a check that never ends
            late = (
                self.dice.random() < 0.2
            )  # an answer that comes although nobody waits for it any more
            self.at(
                self.now + self.moment(0.2 if self.calm else 3.0),
                lambda: fact if late or self.generations[generation].state == COMING else None,
            )
        else:
            self.observe(fact)

    def _spawn(self, order: orders.Spawn) -> None:
        if not self.calm and self.dice.random() < self.mood.refuse:
            self.observe(
                facts.SpawnFailed(order.generation, order.slot, "no process could be made")
            )
            return
        self.count += 1
        process = Process(
            self.count, order.generation, order.slot, self._draw_program(order.generation), self.now
        )
        self.processes[process.pid] = process
        program = process.program
        self.observe(
            facts.WorkerStarted(order.generation, order.slot, process.pid, program.readiness)
        )
        if not self.calm and self.spice.random() < 0.05:
            program.executes = self.spice.choice((0.25, self.spice.random() * 3.0, INF))
        if program.executes:
            self.at(
                self.now + program.executes,
                lambda: facts.ProgramExecuted(process.pid) if process.alive else None,
            )
        else:
            self.observe(facts.ProgramExecuted(process.pid))
        executed = self.now + program.executes
        if program.forbids:
            self.at(
                executed + self.moment(0.5),
                lambda: (
                    facts.ReadinessProbeUnavailable(process.pid, "EPERM") if process.alive else None
                ),
            )
        elif program.readiness != "interval":
            self._takes_connections(process, executed + program.boot)
        if self.settings.slow_start and not program.forbids:
            self._draw_spread(program)
            for after, takers in program.spread:
                self.at(executed + program.boot + after, self._spreads(process, takers))
        self.at(
            self.now + program.dies, self._end(process, program.code, program.signal, natural=True)
        )
        if self.growth.random() < self.growing:
            self.at(
                self.now + self.growth.choice((0.0, 0.5, 4.0, 20.0)) * self.growth.random(),
                self._grown(process),
            )

    def _takes_connections(self, process: Process, at: float) -> None:
        """It takes connections from then on, and somebody sees it."""
        self.at(at, lambda: facts.WorkerReady(process.pid) if process.alive else None)

    def _grown(self, process: Process) -> Callable[[], facts.Fact | None]:
        def happen() -> facts.Fact | None:
            # It is only looked at once it is ready.
            return (
                facts.MemoryLimitExceeded(process.pid, self.growth.randrange(1, 2**30))
                if process.ready and not self.calm
                else None
            )

        return happen

    def _spreads(self, process: Process, takers: int) -> Callable[[], facts.Fact | None]:
        """So many of its processes take connections now. The host tells so while it comes, having
        counted those it is to replace.
        """

        def happen() -> facts.Fact | None:
            process.takers = takers
            replaced = (
                self.supervisor.workers_to_shrink_for(process.pid)
                if process.alive and process.ready_at is not None
                else None
            )
            for pid in replaced or ():
                self.observe(facts.AcceptingCountChanged(pid, self.processes[pid].takers))
            return None if replaced is None else facts.AcceptingCountChanged(process.pid, takers)

        return happen

    def _retire(self, process: Process, signal: str) -> None:
        process.retired_at = self.now
        process.retired_by = signal
        booting = process.ready_at is None
        process.kill_due = process.drains_until(self.now, self.settings.drain_timeout)
        program = process.program
        if program.deaf:
            return
        if booting and self.dice.random() < 0.5:
            self.at(self.now, self._end(process, 15, signal))  # no handler installed yet
        else:
            self.at(
                self.now + program.drain,
                self._end(process, program.drain_code, signal if program.drain_code == 15 else ""),
            )

    def _end(
        self, process: Process, code: int, signal: str, *, natural: bool = False
    ) -> Callable[[], facts.Fact | None]:
        """The leader ends by itself."""

        def happen() -> facts.Fact | None:
            if not process.alive or process.doomed or (natural and process.program.dies == INF):
                return None
            process.alive = False
            family = process.program.family
            if family == 0.0:
                process.ended = True
                return facts.WorkerExited(process.pid, code, signal)
            self.at(self.now + family, self._emptied(process))
            # Of every third what lives on has left its group: nobody but sidecar asks it to leave.
            strays = (process.pid + 10_000,) if process.pid % 3 == 0 else ()
            return facts.WorkerExited(
                process.pid, code, signal, group_empty=False, remaining=strays, strays=strays
            )

        return happen

    def _emptied(self, process: Process) -> Callable[[], facts.Fact | None]:
        def happen() -> facts.Fact | None:
            if process.ended or process.doomed:
                return None
            process.ended = True
            return facts.GroupEmptied(process.pid)

        return happen

    def _death(self, process: Process) -> Callable[[], facts.Fact | None]:
        """SIGKILL has its effect."""

        def happen() -> facts.Fact | None:
            if process.ended:
                return None
            if not process.alive:
                process.ended = True
                return facts.GroupEmptied(process.pid)
            process.alive = False
            if process.program.slow_group:
                self.at(self.now + 0.1, self._death(process))
                return facts.WorkerExited(process.pid, 9, "KILL", group_empty=False)
            process.ended = True
            return facts.WorkerExited(process.pid, 9, "KILL")

        return happen

    # --- telling

    def tale(self) -> str:
        """Everything that happened, for whoever has to find out why."""
        changed = {
            name: value
            for name, value in vars(self.settings).items()
            if value != getattr(Settings(), name)
        }
        lines = [f"settings: {changed}"]
        for now, each in self.trace:
            arrow = "         →" if isinstance(each, orders.Order) else "fact"
            lines.append(f"{now:10.3f}  {arrow} {each}")
        return "\n".join(lines)


def schedule(
    seed: int, make: Callable[[Settings, float, Callable[[], float]], Supervisor] = Supervisor
) -> World:
    """Run schedule `seed`. Raises Broken (or whatever the supervisor raised), with the seed in its
    notes.
    """
    world = World(random.Random(seed), make)
    try:
        return world.run()
    except Exception as error:
        error.add_note(f"schedule {seed}; to see all of it: python -m tests.promises.world {seed}")
        raise


def main() -> int:
    """Tell one schedule, or run many."""
    if len(sys.argv) > 1:
        world = World(random.Random(int(sys.argv[1])))
        try:
            world.run()
        finally:
            print(world.tale())
        return 0
    seed = 0
    while True:
        schedule(seed)
        seed += 1
        if seed % 1000 == 0:
            print(seed, flush=True)


if __name__ == "__main__":
    sys.exit(main())
