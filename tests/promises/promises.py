"""The promises, each as something that watches a world and raises Broken when it is not kept.

A promise looks at every fact as it is told (`fact`), at each list of orders before it is performed
(`ordered`), and at the whole once reconcile has no more to say (`settled`). It knows the world's
book, never the supervisor's own state, except where it says so.
"""

from __future__ import annotations

from sidecar.core import facts, orders

from .world import CLOSED, COMING, INF, OUTDATED, Broken, Process, World

# What the sum of floating-point moments may be off by.
BIT = 1e-6
# So long (seconds) a stop, and room for others, waits for what was killed.
KILL_WAIT = 3.0


class Promise:
    """Something that is to hold always."""

    name = ""

    def __init__(self, world: World) -> None:
        self.world = world

    def broken(self, how: str) -> Broken:
        """The error to raise."""
        return Broken(self.name, f"at {self.world.now:g} {how}")

    def fact(self, fact: facts.Fact) -> None:
        """A fact is being told; it is in the book already."""

    def ordered(self, given: list[orders.Order]) -> None:
        """These orders were given; nothing of them is in the book yet."""

    def settled(self) -> None:
        """There is nothing more to do for now."""


def said(given: list[orders.Order], *wanted: str) -> list[int]:
    """The generations of which one of these things was said."""
    return [
        order.fields["generation"]
        for order in given
        if isinstance(order, orders.LogEvent) and order.event in wanted
    ]


def was_said(given: list[orders.Order], event: str) -> bool:
    """Whether this was said at all."""
    return any(isinstance(order, orders.LogEvent) and order.event == event for order in given)


class Continuity(Promise):
    """ "Once a worker was ready … a swap never retires the last ready worker before its replacement
    is ready."

    Nor does anything else but a stop. In a swap a ready worker leaves only for a worker of its slot
    that has been ready for kill_old_delay, and without max_surge not before the new generation is
    complete.
    """

    name = "Continuity"

    def ordered(self, given: list[orders.Order]) -> None:
        """Look at every ready worker that is asked to leave."""
        world = self.world
        self._hold_ground()
        leaving = {order.pid for order in given if isinstance(order, (orders.Retire, orders.Kill))}
        if not leaving:
            return
        ready = world.ready()
        yielding = self._yielding(given)
        left = [
            process for process in ready if process.pid in leaving and process.pid not in yielding
        ]
        stay = [process for process in ready if process.pid not in leaving]
        if not left or world.leaving() or was_said(given, "gave_up"):
            return
        if not stay and not yielding:
            raise self.broken(f"the last ready workers {left} are told to leave")
        given_up = {*said(given, "swap_failed", "swap_superseded"), *self._lame_duck_gave_up()}
        # Who is recycled leaves for another of its own generation: that says nothing of a coming one.
        recycled = {
            order.fields["pid"]
            for order in given
            if isinstance(order, orders.LogEvent) and order.event == "recycled"
        }
        delay = world.settings.kill_old_delay - BIT
        for process in left:
            if process.pid in recycled and any(
                world.succeeds(each, process) and world.now >= (each.ready_at or 0.0) + delay
                for each in stay
            ):
                continue
            replacements = [
                each
                for each in stay
                if each.slot == process.slot and each.generation > process.generation
            ]
            if (
                any(self._took_over(each, stay) for each in replacements)
                or process.slot >= world.size
            ):
                continue
            if process.generation in given_up and not process.taken:
                continue
            raise self.broken(f"{process} is told to leave and nobody has taken its place")
        coming = world.coming
        unsure = (
            all(self._may_fail(each, coming.number) for each in stay)
            if coming is not None and not yielding
            else False
        )
        if unsure and coming is not None and coming.number not in said(given, "serving"):
            raise self.broken(
                f"{left} are told to leave, and {stay}, which may still fail, are all there is"
            )

    def _yielding(self, given: list[orders.Order]) -> set[int]:
        """Who leaves to make room: only for a generation that is prepared and has none beside them,
        and it is said.
        """
        pids: set[int] = set()
        for order in given:
            if isinstance(order, orders.LogEvent) and order.event == "overlap_skipped":
                life = self.world.generations[order.fields["generation"]]
                if (
                    not self.world.alone(life)
                    or not life.prepared
                    or life.fault
                    or life.state != COMING
                ):
                    raise self.broken(f"there is no need to make room: {order}")
                pids |= set(order.fields["pids"])
        return pids

    def _may_fail(self, process: Process, coming: int) -> bool:
        return process.generation == coming and not process.taken

    def settled(self) -> None:
        """Nothing more to look at, but see who has taken over meanwhile."""
        self._hold_ground()

    def _hold_ground(self) -> None:
        """In a rolling swap a worker whose slot nobody else held takes over without a word."""
        world = self.world
        coming = world.coming
        if coming is None or coming.fault or not world.surge(coming):
            return
        mine = [process for process in world.wanted() if process.generation == coming.number]
        if all(
            each.ready_at is not None and world.now >= each.ready_at + world.settings.kill_old_delay
            for each in mine
        ):
            for each in mine:
                each.taken = True

    def _took_over(self, process: Process, stay: list[Process]) -> bool:
        world = self.world
        settings = world.settings
        surge = world.surge(world.generations[process.generation])
        mine = [each for each in stay if each.generation == process.generation]
        complete = {each.slot for each in mine} >= set(range(world.size))
        long_enough = all(
            world.now >= (each.ready_at or 0.0) + settings.kill_old_delay - BIT for each in mine
        )
        if long_enough and (complete or surge):
            for each in mine:
                each.taken = True
            return True
        return False

    def _lame_duck_gave_up(self) -> set[int]:
        """Generations a stop has given up: nothing is said of it."""
        return (
            {life.number for life in self.world.generations.values() if life.state == OUTDATED}
            if self.world.stops
            else set()
        )


class NoBadGeneration(Promise):
    """"A generation that exits, never gets ready in time or fails its check is killed; the serving
    one is untouched; the failure is said with its cause (…, what triggered it)." """  # fmt: skip

    name = "No bad generation takes over"

    def ordered(self, given: list[orders.Order]) -> None:
        """Look at what is said of generations."""
        world = self.world
        self._overdue()
        for number in said(given, "serving"):
            mine = [process for process in world.ready() if process.generation == number]
            others = [process for process in world.ready() if process.generation != number]
            life = world.generations[number]
            if life.state != COMING:
                raise self.broken(f"generation {number} serves although it is {life.state}")
            if not mine:
                raise self.broken(f"generation {number} serves without a ready worker")
            if others and life.fault:
                raise self.broken(
                    f"generation {number} serves although it failed ({life.fault}) and {others} are there"
                )
            if others and {process.slot for process in mine} < set(range(world.size)):
                raise self.broken(
                    f"generation {number} serves incomplete although {others} are there"
                )
            if others and any(
                world.now < (process.ready_at or 0.0) + world.settings.kill_old_delay - BIT
                for process in mine
            ):
                raise self.broken(f"generation {number} serves within kill_old_delay")
        for order in given:
            if isinstance(order, orders.LogEvent) and order.event == "swap_failed":
                life = world.generations[order.fields["generation"]]
                if not life.fault:
                    raise self.broken(f"generation {life.number} failed for no reason: {order}")
                if not order.fields["cause"] or order.fields["trigger"] != life.trigger:
                    raise self.broken(f"the failure is not told properly: {order}")
                self._untouched(given, life.number)

    def _untouched(self, given: list[orders.Order], failed: int) -> None:
        world = self.world
        for order in given:
            if isinstance(order, orders.Retire):
                process = world.processes[order.pid]
                trimmed = process.slot >= world.size
                trimmed |= world.superfluous(process)
                if (
                    process.ready
                    and process.generation != failed
                    and not (trimmed or world.leaving() or was_said(given, "gave_up"))
                ):
                    raise self.broken(f"generation {failed} failed, and {process} is told to leave")

    def _overdue(self) -> None:
        world = self.world
        coming = world.coming
        if (
            coming is not None
            and not coming.prepared
            and world.now >= coming.begun_at + world.settings.start_timeout
        ):
            world._fault(coming.number, "its preparation is overdue")
        for process in world.wanted():
            if process.ready_at is None and not process.waits_for_time:  # noqa: SIM102
                if world.now >= process.started_at + world.settings.start_timeout:
                    world._fault(process.generation, "overdue")

    def settled(self) -> None:
        """What has failed has been given up, with every worker it had."""
        world = self.world
        coming, current = world.coming, world.current
        if world.leaving():
            return
        if coming is not None and coming.fault:
            raise self.broken(
                f"generation {coming.number} failed ({coming.fault}) and is still coming"
            )
        for process in world.wanted():
            number = process.generation
            if process.ready_at is None and not process.waits_for_time:  # noqa: SIM102
                if world.now >= process.started_at + world.settings.start_timeout:
                    raise self.broken(
                        f"{process} has not got ready in time and is not told to leave"
                    )
            if (coming is not None and number == coming.number) or (
                current is not None and number == current.number
            ):
                continue
            if process.taken and (current is None or number > current.number):
                continue
            raise self.broken(
                f"{process} belongs to no generation that is wanted, and is not told to leave"
            )


class StopEnds(Promise):
    """"After SIGTERM: lame duck, drain, kill, exit — inside a bound known in advance. A second
    SIGTERM shortens it. No process outlives sidecar." """  # fmt: skip

    name = "Stop always ends"

    def ordered(self, given: list[orders.Order]) -> None:
        """Nothing new begins any more; the end is an end."""
        world = self.world
        for order in given:
            if isinstance(order, orders.Prepare) and world.stops:
                raise self.broken(f"a stop was asked for, and yet: {order}")
            if isinstance(order, orders.Spawn) and world.leaving():
                raise self.broken(f"everything leaves, and yet: {order}")
            serving = [
                *said(given, "serving"),
                world.current.number if world.current is not None else 0,
            ]
            if isinstance(order, orders.Spawn) and world.stops and order.generation not in serving:
                raise self.broken(f"a stop was asked for, and yet: {order}")
            if isinstance(order, orders.Exit):
                self._exit(order, given)

    def _exit(self, order: orders.Exit, given: list[orders.Order]) -> None:
        world = self.world
        gave_up = world.gave_up or was_said(given, "gave_up")
        if not world.stops and not gave_up:
            raise self.broken("sidecar ends although nobody asked for it")
        if bool(order.status) != gave_up or bool(order.reason) != gave_up:
            raise self.broken(f"the status is wrong: {order}")
        for process in world.processes.values():
            if process.killed_at is None:
                raise self.broken(f"sidecar ends, and {process} has not been killed")
            if world.now < process.killed_at and process.program.stuck < KILL_WAIT:
                raise self.broken(f"sidecar ends without waiting for {process}")

    def settled(self) -> None:
        """It is not too late, and everybody has been told."""
        world = self.world
        if world.exit is not None:
            return
        if world.now > world.end_by + world.lag + BIT:
            raise self.broken(f"it should have ended by {world.end_by:g}")
        if (world.stops or world.gave_up) and world.leaving() and world.wanted():
            raise self.broken(f"nobody told {world.wanted()} to leave")
        if world.end_by < INF and not world.processes and world.leaving():
            raise self.broken("nothing is left and sidecar does not end")
        if world.stops and world.supervisor.pending_swap is not None:
            raise self.broken(
                f"it is stopping, and tells of a swap: {world.supervisor.pending_swap}"
            )


class DrainEnds(Promise):
    """ "Old workers drain at most --drain-timeout, then kill"; a lingering group has the rest of it,
    and is asked to leave at once where its leader cannot have done that; who was not ready yet has
    2 s, but the whole time if it can have had connections all the same.
    """

    name = "Drain ends"

    def ordered(self, given: list[orders.Order]) -> None:
        """Nobody is killed too early."""
        world = self.world
        asked = {order.pid for order in given if isinstance(order, orders.Retire)}
        for order in given:
            if isinstance(order, orders.Kill):
                process = world.processes[order.pid]
                now_asked = order.pid in asked or was_said(given, "gave_up")
                at_once = now_asked and (
                    world.settings.drain_timeout == 0.0 or len(world.stops) > 1
                )
                if world.now < process.kill_due - BIT and not at_once:
                    raise self.broken(f"{process} is killed, before {process.kill_due:g}")

    def settled(self) -> None:
        """Nobody stays too long, and nobody is left unasked."""
        world = self.world
        for process in world.processes.values():
            if process.group_due and world.exit is None:
                raise self.broken(f"what has outlived {process} was not asked to leave")
            if process.killed_at is None and world.now >= process.kill_due + BIT:
                raise self.broken(f"{process} should have been killed at {process.kill_due:g}")


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


class LatestWins(Promise):
    """"Triggers that arrive during a swap coalesce into at most one more swap; a generation still
    starting when the code changes again is given up for a fresh one." And never three: those given
    up are gone (or killed) before another is begun. """  # fmt: skip

    name = "Latest wins"

    def ordered(self, given: list[orders.Order]) -> None:
        """Look at each generation that is begun or given up."""
        world = self.world
        superseded = said(given, "swap_superseded")
        for number in superseded:
            life = world.generations[number]
            if life.state != COMING or not world.supersedes:
                raise self.broken(f"generation {number} is given up though nothing has changed")
            if any(
                process.taken and process.generation == number and process.slot < world.size
                for process in world.wanted()
            ):
                raise self.broken(
                    f"generation {number} is given up though it has taken over already"
                )
        killed = {order.pid for order in given if isinstance(order, orders.Kill)}
        for order in given:
            if not isinstance(order, orders.Prepare):
                continue
            served = [
                name
                for number in said(given, "serving")
                for name in world.generations[number].changed
            ]
            changed = [name for name in world.unserved if name not in served]
            if sorted(order.changed) != sorted(changed[-20:]):
                raise self.broken(f"{changed} has changed, and {order.changed} is told")
            coming = world.coming
            ended = {*superseded, *said(given, "swap_failed", "serving")}
            if coming is not None and coming.number not in ended:
                raise self.broken(
                    f"generation {order.generation} is begun although generation {coming.number} is coming"
                )
            for process in world.processes.values():
                unborn = process.ready_at is None and (
                    not process.wanted or process.generation in superseded
                )
                asked = [each for each in (process.retired_at, process.left_at) if each is not None]
                if process.may_have_connections and asked and world.now >= min(asked) + 2.0 - BIT:
                    continue  # it may be answering still, and nobody waits longer for it
                if unborn and process.killed_at is None and process.pid not in killed:
                    raise self.broken(
                        f"generation {order.generation} is begun although {process}, which never served, is still there"
                    )

    def settled(self) -> None:
        """What the code has changed under is not coming any more, and no trigger waits for long."""
        world = self.world
        coming = world.coming
        if coming is None and world.pending and world.now >= world.due_at + BIT:
            self._not_waiting()
        if coming is None or not world.supersedes or world.stops or world.now < world.due_at:
            return
        if not any(
            process.taken for process in world.wanted() if process.generation == coming.number
        ):
            raise self.broken(
                f"generation {coming.number} is still coming although the code has changed again"
            )

    def _not_waiting(self) -> None:
        """What was given up before it was ready is waited for, for 2 seconds at the most."""
        world = self.world
        if world.stops or world.gave_up or world.exit is not None:
            return
        for process in world.processes.values():
            asked = [each for each in (process.retired_at, process.left_at) if each is not None]
            if process.ready_at is None and asked and world.now < min(asked) + 2.0 + BIT:
                return
        raise self.broken(f"a swap is wanted since {world.due_at:g}, and nobody is in its way")


class Surge(Promise):
    """ "With --max-surge 1 a 32-worker generation is replaced one by one, at the memory of one extra
    worker."
    """

    name = "Max surge"

    def ordered(self, given: list[orders.Order]) -> None:
        """Count the processes."""
        world = self.world
        spawns = [order for order in given if isinstance(order, orders.Spawn)]
        surge = world.surge(world.generations[spawns[0].generation]) if spawns else 0
        asked = {order.pid for order in given if isinstance(order, orders.Retire)}
        if not surge or not spawns:
            return
        if all(
            process.generation == spawns[0].generation or process.pid in asked
            for process in world.wanted()
        ):
            return  # nobody else serves: being there comes before being small
        coming = world.generations[spawns[0].generation].state == COMING and not said(
            given, "serving"
        )
        there = [
            each
            for each in world.processes.values()
            if each.killed_at is None or world.now < each.kill_due + KILL_WAIT - BIT
        ]
        if coming and len(there) + len(spawns) > world.size + surge:
            raise self.broken(
                f"{len(there)} processes are there, and {len(spawns)} more are started"
            )

    def settled(self) -> None:
        """Who has taken over holds the slot alone, also where another was being started in it."""
        world, coming = self.world, self.world.coming
        if coming is None or world.leaving():
            return
        for new in world.wanted():
            for old in world.wanted():
                if (
                    new.taken
                    and new.generation == coming.number
                    and old.generation < new.generation
                    and old.slot == new.slot
                ):
                    raise self.broken(f"{new} has taken over, and {old} has not been told to leave")


class Overlap(Promise):
    """ "--overlap never", and auto where not one worker more fits: a new generation is not there
    together with an old one.
    """

    name = "Overlap"

    def ordered(self, given: list[orders.Order]) -> None:
        """Who is there when one is started?"""
        world = self.world
        for order in given:
            if not isinstance(order, orders.Spawn):
                continue
            life = world.generations[order.generation]
            others = [
                each for each in world.processes.values() if each.generation != order.generation
            ]
            others = [
                each
                for each in others
                if each.killed_at is None or world.now < each.kill_due + KILL_WAIT - BIT
            ]
            if life.state == COMING and not said(given, "serving") and world.alone(life) and others:
                raise self.broken(f"{order} although {others} are there")


class SlowStart(Promise):
    """With --slow-start an old worker has a process less for each new one, and never the last; "a
    generation that fails" leaves it with all it had.
    """

    name = "Slow start"

    def ordered(self, given: list[orders.Order]) -> None:
        """Look at each TTOU and TTIN, and at what is retired."""
        world = self.world
        for order in given:
            if isinstance(order, orders.ForwardSignal) and order.signal in ("TTOU", "TTIN"):
                process = world.processes[order.pid]
                successor = self._successor(process, given)
                if world.now < process.resized_at + 0.1 - BIT:
                    raise self.broken(f"two signals at once may be one: {order}")
                if order.signal == "TTIN" and process.fewer == 0:
                    raise self.broken(f"it has all it had: {order}")
                if order.signal == "TTOU" and process.fewer + 1 >= process.had:
                    raise self.broken(f"its last process is asked to leave: {order}")
                if order.signal == "TTOU" and (
                    successor is None or process.fewer + 1 > successor.takers
                ):
                    raise self.broken(
                        f"fewer than {process.had} would be left: {order}, {successor}"
                    )
            if isinstance(order, orders.LogEvent) and order.event == "serving":
                self._complete(order.fields["generation"])

    def _successor(self, process: Process, given: list[orders.Order]) -> Process | None:
        """Whoever is about to replace it, and takes connections."""
        coming = self.world.coming
        if coming is None or coming.number in said(
            given, "swap_failed", "swap_superseded", "serving"
        ):
            return None
        mine = [
            each
            for each in self.world.ready()
            if each.generation == coming.number and each.slot == process.slot
        ]
        return mine[0] if mine else None

    def _complete(self, number: int) -> None:
        world = self.world
        others = [process for process in world.ready() if process.generation != number]
        for process in world.ready():
            if process.generation == number and process.readiness == "accept":
                had = max((other.had for other in others if other.slot == process.slot), default=0)
                waited = world.now >= process.spread_at + world.settings.start_timeout - BIT
                if process.most < had and not waited:
                    raise self.broken(
                        f"{process} with {process.most} processes takes over from {had}"
                    )

    def settled(self) -> None:
        """Nobody has fewer processes for the sake of a successor that is not there."""
        world = self.world
        if world.leaving():
            return
        for process in world.ready():
            successor = self._successor(process, [])
            if (
                process.fewer
                and world.now >= process.resized_at + 0.1 + BIT
                and process.fewer > (successor.takers if successor else 0)
            ):
                raise self.broken(f"{process} has {process.fewer} processes fewer for {successor}")


class Orderly(Promise):
    """Every order makes sense: a worker is signalled once and killed once, only one that is there;
    a slot is filled once; a generation is closed once, after its last worker; nothing follows Exit.
    "Every process is reaped": the supervisor knows exactly the processes that are there (this one
    looks into its worker_table). """  # fmt: skip

    name = "Orderly"

    def ordered(self, given: list[orders.Order]) -> None:
        """One after the other."""
        world = self.world
        if any(isinstance(order, orders.Exit) for order in given[:-1]):
            raise self.broken("something follows Exit")
        retired: set[int] = set()
        killed: set[int] = set()
        filled: set[int] = set()
        for order in given:
            match order:
                case orders.Retire():
                    process = world.processes.get(order.pid)
                    if process is None or process.left_at is not None:
                        raise self.broken(f"nobody is there to be asked: {order}")
                    if process.retired_at is not None or order.pid in retired:
                        raise self.broken(f"it was asked already: {order}")
                    own = world.generations[process.generation].settings
                    if (
                        world.leaving()
                        and process.ready
                        and order.signal != world.stop_signal(own)
                        and self._served_last(process)
                    ):
                        raise self.broken(f"not the signal for a stop: {order}")
                    if (
                        not world.stops
                        and not was_said(given, "gave_up")
                        and order.signal != own.signal_on_hup
                    ):
                        raise self.broken(f"not the signal for a swap: {order}")
                    retired.add(order.pid)
                case orders.RetireGroup():
                    process = world.processes.get(order.pid)
                    if process is None or not process.group_due:
                        raise self.broken(f"nobody is there to be asked, or was already: {order}")
                    own = world.generations[process.generation].settings
                    if order.signal not in (own.signal_on_hup, world.stop_signal(own)):
                        raise self.broken(f"not a signal to leave: {order}")
                case orders.Kill():
                    process = world.processes.get(order.pid)
                    if process is None:
                        raise self.broken(f"nobody is there to be killed: {order}")
                    if process.killed_at is not None or order.pid in killed:
                        raise self.broken(f"it was killed already: {order}")
                    if (
                        process.retired_at is None
                        and process.left_at is None
                        and order.pid not in retired
                    ):
                        raise self.broken(f"it was not asked first: {order}")
                    killed.add(order.pid)
                case orders.Spawn():
                    self._spawn(order, retired, filled)
                    filled.add(order.slot)
                case orders.ForwardSignal():
                    process = world.processes.get(order.pid)
                    if process is None or not process.ready:
                        raise self.broken(f"it is not serving: {order}")
                case orders.Prepare():
                    if order.generation != world.begun + 1:
                        raise self.broken(f"generations are numbered one by one: {order}")
                case orders.ForgetGeneration():
                    life = world.generations[order.generation]
                    if life.state == CLOSED:
                        raise self.broken(f"closed twice: {order}")
                    if any(
                        process.generation == order.generation
                        for process in world.processes.values()
                    ):
                        raise self.broken(f"it has workers left: {order}")

    def _served_last(self, process: Process) -> bool:
        lives = [life for life in self.world.generations.values() if life.serving_at < INF]
        return (
            bool(lives)
            and process.generation
            == max(lives, key=lambda life: (life.serving_at, life.number)).number
        )

    def _spawn(self, order: orders.Spawn, retired: set[int], filled: set[int]) -> None:
        world = self.world
        life = world.generations.get(order.generation)
        if life is None or life.state not in (COMING, "serving"):
            raise self.broken(f"of a generation that is not wanted: {order}")
        if not 0 <= order.slot < world.size or order.slot in filled:
            raise self.broken(f"there is no such slot: {order}")
        if order.workers != world.size:
            raise self.broken(f"there are to be {world.size} workers: {order}")
        for process in world.wanted():
            if (
                process.slot == order.slot
                and process.generation == order.generation
                and process.pid not in retired
                and process.big_at == INF
            ):
                raise self.broken(f"{process} is there: {order}")

    def settled(self) -> None:
        """The supervisor and the world agree on who is there; whatever is gone is closed."""
        world = self.world
        supervisor = world.supervisor
        known = {worker.pid for worker in supervisor.worker_table.workers()}
        if known != world.processes.keys():
            raise self.broken(
                f"the supervisor knows {sorted(known)}, there are {sorted(world.processes)}"
            )
        if {pid for _, pid in supervisor.status_rows()} != {
            each.pid for each in world.processes.values() if each.ready_at is not None
        }:
            raise self.broken("the status file would be wrong")
        if supervisor.size != world.size:
            raise self.broken("the size is wrong")
        populated = {process.generation for process in world.processes.values()}
        for life in world.generations.values():
            if life.state == OUTDATED and life.number not in populated:
                raise self.broken(f"generation {life.number} is gone and not closed")


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


PROMISES: list[type[Promise]] = [
    Orderly, Continuity, NoBadGeneration, StopEnds, DrainEnds, NoSpin, LatestWins, Surge, Overlap, Persistence, SlowStart, Recycling, WayBack,
]  # fmt: skip
