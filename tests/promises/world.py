"""A simulated world for the supervisor: a clock, programs that behave and misbehave, and somebody
who keeps pulling triggers.

One integer makes one schedule: the settings, how every worker of every generation behaves, which
signals come when. The world performs the supervisor's orders, advances to whatever comes first (the
supervisor's deadline or its own next event), and keeps a book (book.py) of what can be seen from
outside. After every step each promise in promises.py is checked against the book.

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
from collections.abc import Callable
from typing import Any

from sidecar.core import facts
from sidecar.core.supervisor import Supervisor
from sidecar.settings.table import RUN, START_SERVER, Settings

from .book import Book
from .programs import INF, Broken, Chance, Mood, draw_settings
from .workers import Workers

# Enough for: fail, retire, take over, begin, prepare, spawn, be refused, fail again, give up.
MAX_ROUNDS = 12
MAX_STEPS = 6000

STIMULI = ("HUP", "HUP", "command", "watch", "watch", "envdir", "TTIN", "TTOU", "TTOU", "USR1")


class World(Workers):
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
        Book.__init__(self)
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

    def run(self) -> World:
        """From the start to the exit. Raises Broken."""
        self.turn()
        while self.exit is None:
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise Broken("No spin", f"more than {MAX_STEPS} steps")
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
        for _ in range(MAX_ROUNDS):
            self._mark_ready_by_time()
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
