"""The promises about a swap: who takes over, when, and who is there meanwhile."""

from __future__ import annotations

from sidecar.core import orders

from .book import KILL_WAIT
from .programs import COMING, OUTDATED, Process
from .promise import BIT, Promise, said, was_said


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
