"""The promises about what is tried again: how soon, how often, and with which settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core import facts, orders

from .programs import COMING, INF, Process
from .promise import BIT, Promise, said, was_said

if TYPE_CHECKING:
    from .world import World


class Losses(Promise):
    """Keeps count of what dies, or is never ready, without having been asked to leave."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.min_uptime = max(world.settings.min_uptime, 0.25)
        self.slots: dict[int, tuple[int, float]] = {}

    def nothing_left(self, served: float) -> None:
        """The last worker that was wanted is lost; the generation had served for so long."""

    def fact(self, fact: facts.Fact) -> None:
        """Count what fails."""
        world = self.world
        if isinstance(fact, facts.SizeChanged):
            self.slots.clear()
        elif isinstance(fact, facts.SettingsChanged):
            self.slots.clear()
            self.min_uptime = max(world.settings.min_uptime, 0.25)
        elif isinstance(fact, facts.SpawnFailed):
            self._slot_lost(fact.generation, fact.slot, 0.0)
        elif (
            isinstance(fact, facts.WorkerExited)
            and world.just_left is not None
            and world.just_left.retired_at is None
        ):
            process = world.just_left
            self._slot_lost(
                process.generation,
                process.slot,
                0.0 if process.ready_at is None else world.now - process.ready_at,
            )

    def overdue(self, order: orders.LogEvent, asked: set[int]) -> None:
        """It was said that a worker is not ready in time; it and those `asked` leave."""
        asked.add(order.fields["pid"])
        if not self.world.stops:  # a stop gives a coming generation up in the same breath
            self._slot_lost(order.fields["generation"], order.fields["slot"], 0.0, frozenset(asked))

    def _slot_lost(
        self, generation: int, slot: int, served: float, asked: frozenset[int] = frozenset()
    ) -> None:
        world = self.world
        life = world.generations[generation]
        if life.state == COMING:
            return
        failures, _ = self.slots.get(slot, (0, 0.0))
        failures = 0 if served >= self.min_uptime else failures + 1
        self.slots[slot] = (failures, world.now)
        current = world.current
        if current is not None and not [
            process for process in world.wanted() if process.pid not in asked
        ]:
            self.nothing_left(world.now - current.serving_at)


class NoSpin(Losses):
    """ "Any crash loop is paced (exponential backoff with jitter, reset after a minimum uptime). CPU
    at idle is zero."

    A generation is begun at once for a trigger, for the interval, or for a serving generation that
    had held out; anything else is an attempt that waits for at least half of its pause, and the
    pause doubles with each failure. So does a slot of the serving generation. That reconcile ends,
    that deadlines are honest, is checked by the world itself.
    """

    name = "No spin"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        settings = world.settings
        #: The longest pause that was ever allowed, and the least of the longest.
        self.longest = self.least_longest = max(settings.max_backoff, 0.25)
        self.failures = 0
        self.failed_at = -INF
        self.due = False
        self.interval_failed_at = -INF
        self.retry = False  # another attempt was said to come
        self.turns: list[float] = []  # moments from which another attempt is all right

    def fact(self, fact: facts.Fact) -> None:
        """Count what fails."""
        if isinstance(fact, facts.SettingsChanged):
            longest = max(self.world.settings.max_backoff, 0.25)
            self.longest, self.least_longest = (
                max(self.longest, longest),
                min(self.least_longest, longest),
            )
        super().fact(fact)

    def nothing_left(self, served: float) -> None:
        """It is another attempt's turn."""
        self._failed(long=served >= self.min_uptime)

    def _failed(self, *, long: bool) -> None:
        self.failures = 0 if long else self.failures + 1
        self.failed_at = self.world.now
        self.turns.append(self.failed_at + self._least_pause(self.failures))

    def _least_pause(self, failures: int) -> float:
        return min(self.least_longest, 0.25 * 2.0 ** (failures - 1)) / 2 if failures else 0.0

    def _longest_pause(self, failures: int) -> float:
        return min(self.longest, 0.25 * 2.0 ** (failures - 1)) if failures else 0.0

    def ordered(self, given: list[orders.Order]) -> None:
        """Whatever is started is started for a reason, or late enough."""
        world = self.world
        asked: set[int] = set()
        for order in given:
            if isinstance(order, orders.Retire):
                asked.add(order.pid)
                if all(process.pid in asked for process in world.wanted()):
                    self.turns.append(world.now)  # the last that was left was one too many
            elif isinstance(order, orders.LogEvent) and order.event == "worker_overdue":
                self.overdue(order, asked)
            elif isinstance(order, orders.LogEvent) and order.event == "swap_failed":
                life, current = world.generations[order.fields["generation"]], world.current
                if life.trigger == "interval":
                    self.interval_failed_at = world.now
                if (order.fields["still"] or order.fields["degraded"]) and world.forgives(life):
                    continue  # whoever asked for it asks again
                if (
                    current is not None
                    and current.serving_at > self.failed_at
                    and world.now - current.serving_at >= self.min_uptime
                ):
                    self.failures = 0
                self._failed(long=False)
            elif isinstance(order, orders.LogEvent) and order.event == "retry_scheduled":
                self.retry = True
                if order.fields["pause"] > self._longest_pause(self.failures) + BIT:
                    raise self.broken(f"too long a pause after {self.failures} failures: {order}")
            elif isinstance(order, orders.LogEvent) and order.event == "interval_due":
                current, interval = world.current, world.settings.auto_restart_interval
                if (
                    current is None
                    or world.now < current.serving_at + interval - BIT
                    or world.now < self.interval_failed_at + interval - BIT
                ):
                    raise self.broken(f"too early for an automatic restart: {order}")
                self.due = True
            elif isinstance(order, orders.Prepare):
                self._begun(order)
                self.due = self.retry = False
            elif isinstance(order, orders.Spawn):
                failures, lost_at = self.slots.get(order.slot, (0, 0.0))
                if (
                    world.now < lost_at + self._least_pause(failures) - BIT
                    and world.generations[order.generation].state != COMING
                ):
                    raise self.broken(
                        f"too early after {failures} failures, the last at {lost_at:g}: {order}"
                    )

    def _begun(self, order: orders.Prepare) -> None:
        world = self.world
        turns, self.turns = self.turns, []
        if world.pending:
            return
        if order.trigger == "interval" and self.due:
            return
        if not turns or world.now < min(turns) - BIT:
            raise self.broken(
                f"too early after {self.failures} failures, the last at {self.failed_at:g}: {order}"
            )

    def settled(self) -> None:
        """The deadline is honest, and there is none at idle."""
        world = self.world
        deadline = world.supervisor.deadline
        if world.exit is not None:
            return
        if deadline <= world.now:
            raise self.broken(f"the deadline {deadline:g} is not in the future")
        self._all_filled()
        if (
            deadline < INF
            and not world.settings.enable_auto_restart
            and not world.stops
            and not world.gave_up
        ):
            big = any(process.big_at < INF for process in world.wanted())
            idle = (
                not big
                and not self.retry
                and world.healthy()
                and all(
                    process.wanted or process.killed_at is not None
                    for process in world.processes.values()
                )
            )
            if idle:
                raise self.broken(f"all is well, and yet there is a deadline {deadline:g}")

    def _all_filled(self) -> None:
        """A slot that lost its worker is filled again after its pause, also while a check runs."""
        world, coming = self.world, self.world.coming
        prepared = coming is not None and (coming.prepared or coming.fault != "")
        if world.stops or world.gave_up or prepared or world.current is None or not world.wanted():
            return
        held = {process.slot for process in world.wanted()}
        for slot, (failures, lost_at) in self.slots.items():
            pause = self.longest if failures else 0.0
            if slot < world.size and slot not in held and world.now >= lost_at + pause:
                raise self.broken(f"slot {slot} is empty since {lost_at:g}, and is not filled")


class Persistence(Losses):
    """ "After --max-failures failures in a row with nothing serving sidecar ends, with the status
    that the last of them would have" — not before, not later.

    A failure is a generation that fails while no worker of another takes connections, and the death
    of the last worker of one that had not held out for --min-uptime. One that has held out begins
    the count anew.
    """

    name = "Max failures"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.failures = 0
        self.failed_at = -INF
        # Whether the last was one too many, by the settings of that moment.
        self.enough = False

    def fact(self, fact: facts.Fact) -> None:
        """Who reads the settings anew hopes again."""
        if isinstance(fact, facts.SettingsChanged):
            self.enough = False
        super().fact(fact)

    def nothing_left(self, served: float) -> None:
        """What served has died."""
        self._count(served)

    def _count(self, served: float) -> None:
        current = self.world.current
        if current is not None:
            self._held_out(current.serving_at)
        self.failures = 0 if served >= self.min_uptime else self.failures + 1
        self.failed_at = self.world.now
        self.enough = 0 < self.world.settings.max_failures <= self.failures

    def _held_out(self, since: float) -> None:
        if since > self.failed_at and self.world.now - since >= self.min_uptime:
            self.failures = 0

    def ordered(self, given: list[orders.Order]) -> None:
        """Count."""
        world = self.world
        asked: set[int] = set()
        for order in given:
            if isinstance(order, orders.Retire):
                asked.add(order.pid)
            elif isinstance(order, orders.LogEvent) and order.event == "worker_overdue":
                self.overdue(order, asked)
            elif isinstance(order, orders.LogEvent) and order.event == "serving":
                if world.current is not None:
                    self._held_out(world.current.serving_at)
            elif isinstance(order, orders.LogEvent) and order.event == "swap_failed":
                if not order.fields["still"] and not order.fields["degraded"]:
                    self._count(0.0)
            elif isinstance(order, orders.LogEvent) and order.event == "gave_up":
                if not 0 < world.settings.max_failures <= self.failures:
                    raise self.broken(f"given up after {self.failures} failures")
                if left := [each for each in world.wanted() if each.pid not in asked]:
                    raise self.broken(f"given up although {left} are there")
            elif isinstance(order, orders.Prepare) and self.enough:
                left = [each for each in world.wanted() if each.pid not in asked]
                if not left and not was_said(given, "swap_superseded"):
                    raise self.broken(f"tried again after {self.failures} failures")

    def settled(self) -> None:
        """It does not wait for nothing."""
        world = self.world
        if (
            self.enough
            and world.coming is None
            and not world.wanted()
            and not world.stops
            and not world.gave_up
        ):
            raise self.broken(f"still there after {self.failures} failures")


class Recycling(Promise):
    """A worker that holds too much memory makes room for another, which is ready by then: one slot
    at a time, in no swap, and where workers are too big again and again, ever more seldom: pauses
    double up to ten minutes.
    """

    name = "Recycling"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.slots: dict[int, tuple[int, float]] = {}

    def ordered(self, given: list[orders.Order]) -> None:
        """Look at each that is begun, and each that is done."""
        world = self.world
        for order in given:
            if isinstance(order, orders.LogEvent) and order.event == "recycling":
                left = {each.pid for each in given if isinstance(each, orders.Retire)}
                self._begins(order, said(given, "serving", "swap_failed", "swap_superseded"), left)
            elif isinstance(order, orders.LogEvent) and order.event == "recycled":
                process = world.processes[order.fields["pid"]]
                failures, _ = self.slots.get(process.slot, (0, 0.0))
                failures = 0 if world.now - (process.ready_at or 0.0) >= 600.0 else failures + 1
                self.slots[process.slot] = (failures, world.now)

    def _begins(self, order: orders.LogEvent, ended: list[int], left: set[int]) -> None:
        world = self.world
        big = world.processes[order.fields["pid"]]
        if big.big_at == INF or not big.ready:
            raise self.broken(f"there was no reason: {order}")
        if (
            (world.coming is not None and world.coming.number not in ended)
            or world.stops
            or world.gave_up
        ):
            raise self.broken(f"not at this moment: {order}")
        if world.pending and world.now >= world.due_at:
            raise self.broken(f"a swap is due that replaces it anyway: {order}")
        if going := [
            process
            for process in world.ready()
            if process.pid not in left and world.superfluous(process, left)
        ]:
            raise self.broken(f"{going} are being recycled, and yet: {order}")
        failures, last = self.slots.get(big.slot, (0, -INF))
        least = min(600.0, 0.25 * 2.0 ** (failures - 1)) / 2 if failures else 0.0
        if world.now < last + least - BIT:
            raise self.broken(f"too early after {failures} times, the last at {last:g}: {order}")

    def settled(self) -> None:
        """Nobody is there in vain."""
        world = self.world
        delay = world.settings.kill_old_delay + BIT
        for process in world.ready():
            for each in world.ready():
                if (
                    process.big_at < INF
                    and world.succeeds(each, process)
                    and world.now >= (each.ready_at or 0.0) + delay
                ):
                    raise self.broken(f"{each} has taken its place, and {process} is still there")


class WayBack(Promise):
    """ "When a generation dies soon after it took over by time alone, go back to the settings and
    environment of the last good one, once."

    Nobody has asked for anything else since, and what went back and held out is begun again as it
    was. "Where what was asked for has been refused, what nobody asks for is begun like what
    served", as often as it takes. Any other generation gets what there is now.
    """

    name = "Way back"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        #: The generations of which a worker was ready for min_uptime; those that time made ready.
        self.held_out: set[int] = set()
        self.by_time: set[int] = set()
        #: The last that held out, and served; a failure since the last was begun.
        self.good = 0
        self.failed = False
        #: What was asked for since what serves was begun has failed; and it is asked for again, or a
        #: listener is broken.
        self.refused = self.asked = self.listener = False

    def fact(self, fact: facts.Fact) -> None:
        """Somebody has ended: how long was it ready?"""
        if isinstance(fact, facts.SwapTriggered):
            self.listener |= fact.trigger == "listener"
            self.asked |= fact.trigger != "listener"
        if isinstance(fact, facts.WorkerExited) and self.world.just_left is not None:
            self._look_at(self.world.just_left)

    def _look_at(self, process: Process) -> None:
        moments = [each for each in (process.retired_at, process.left_at) if each is not None]
        until = min([self.world.now, *moments])
        least = max(self.world.settings.min_uptime, 0.25)
        if process.ready_at is None:
            return
        if until - process.ready_at >= least:
            self.held_out.add(process.generation)
        if process.readiness == "interval":
            self.by_time.add(process.generation)

    def _remember(self, number: int) -> None:
        for process in self.world.processes.values():
            if process.generation == number and process.left_at is None:
                self._look_at(process)
        if number in self.held_out:
            self.good = number

    def ordered(self, given: list[orders.Order]) -> None:
        """Look at each generation that is begun."""
        world = self.world
        current = world.current
        for order in given:
            if isinstance(order, orders.LogEvent) and order.event == "serving":
                if current is not None:
                    self._remember(current.number)
                current = world.generations[order.fields["generation"]]
                self.refused &= current.like > 0
            elif isinstance(order, orders.LogEvent) and order.event == "swap_failed":
                self.failed = True
                life = world.generations[order.fields["generation"]]
                asked = life.trigger not in ("start", "crash", "listener")
                if asked and not life.like and current is not None:
                    self.refused = True
                if life.like and not self.refused:
                    self.good = 0
            elif isinstance(order, orders.Prepare):
                if self.refused and current is not None and not world.settings.as_server_starter:
                    self._begun_after_a_refusal(order, current.number)
                else:
                    self._begun(order)
                self.failed = self.asked = self.listener = False
        if current is not None and not world.wanted() and world.coming is None:
            self._remember(current.number)
            if current.like and current.number not in self.held_out and not self.refused:
                self.good = 0

    def _begun_after_a_refusal(self, order: orders.Prepare, served: int) -> None:
        unasked = order.trigger in ("crash", "listener") and not self.asked
        right = (0, served) if self.listener and not self.asked else (served if unasked else 0,)
        if order.settings_from not in right:
            raise self.broken(f"what was asked for was refused, and {served} served: {order}")

    def _begun(self, order: orders.Prepare) -> None:
        world = self.world
        current = world.current
        wanted = 0
        if order.trigger == "crash" and current is not None and not world.pending:
            self._remember(current.number)
            held_out = current.number in self.held_out
            again = current.like if held_out else current.number in self.by_time
            once = held_out or not current.like
            if again and once and not world.settings.as_server_starter:
                wanted = self.good
        # An attempt that was already due for another reason is with what there is now.
        if order.settings_from != wanted and not (self.failed and order.settings_from == 0):
            raise self.broken(f"it should have gone back to generation {wanted}: {order}")
