"""The promises about leaving: a stop and a drain end, and no order is given twice or to nobody."""

from __future__ import annotations

from sidecar.core import orders

from .book import KILL_WAIT
from .programs import CLOSED, COMING, INF, OUTDATED, Process
from .promise import BIT, Promise, said, was_said


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
