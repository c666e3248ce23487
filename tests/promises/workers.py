"""What becomes of the supervisor's orders: processes start, get ready, die, and leave when they are
asked to, or do not.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from sidecar.core import facts, orders

from .book import Book
from .programs import CLOSED, COMING, INF, Life, Process, Program


class Workers(Book):
    """The workers of a world. It has dice of several kinds, so that what came later does not move
    the schedules that are known by their number.
    """

    def moment(self, longest: float) -> float:
        """A duration up to `longest`; in many schedules a multiple of a quarter second, so that
        things coincide.
        """
        drawn = self.dice.random() * longest
        return round(drawn * 4) / 4 if self.grid else drawn

    def at(self, moment: float, happen: Callable[[], facts.Fact | None]) -> None:
        """Have something happen then; it may turn out to be nothing."""
        if moment < INF:
            self.count += 1
            heapq.heappush(self.heap, (moment, self.count, happen))

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
