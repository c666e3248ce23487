"""The book of the simulated world: what can be seen from outside, written down without asking the
supervisor. The promises judge by it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sidecar.core import facts, orders
from sidecar.settings.table import Settings

from .programs import COMING, INF, OUTDATED, SERVING, Broken, Life, Process

# So long (seconds) a stop waits for what was killed.
KILL_WAIT = 3.0


class Book:
    """What has been told and ordered so far. A world has, besides, `now`, `settings`, `ever` (all
    settings that were in force), `supervisor`, `promises` and `trace`.
    """

    def __init__(self) -> None:
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

    def _mark_ready_by_time(self) -> None:
        for process in self.processes.values():
            executed_at = INF if process.executed_at is None else process.executed_at
            if process.readiness == "interval" and process.ready_at is None and process.wanted:  # noqa: SIM102
                if self.now >= executed_at + self.settings.interval:
                    process.ready_at = self.now

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

    def note(self, given: list[orders.Order]) -> None:
        """Keep for the tale."""
        self.trace += [(self.now, order) for order in given]

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
