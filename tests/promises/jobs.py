"""The host's jobs in the simulated world: processes that end, hang, answer no or cannot be started,
and the policies (sidecar/policies) that decide what follows.

A job has a deadline like the supervisor's, and does its `work` in every turn. What happens to its
processes is drawn from dice of the jobs' own. It tells the promises in job_promises.py everything
that happens (`World.happened`), in words.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.core import facts
from sidecar.policies.ready_command import ReadyCommandPolicy
from sidecar.policies.reload import (
    DropLookUp,
    DropReader,
    ParseAnswer,
    PutInForce,
    RefuseReload,
    ReloadPolicy,
    StartReader,
)
from sidecar.policies.restart import RestartPolicy
from sidecar.policies.upgrade import (
    BecomeNewVersion,
    FailUpgrade,
    SayWaiting,
    StartCheck,
    UpgradePolicy,
)
from sidecar.upgrade.state import from_json_value, to_json_value

from .programs import INF

if TYPE_CHECKING:
    from .host_world import HostWorld


class Job:
    """One job. `fate` are its dice."""

    def __init__(self, world: HostWorld, fate: random.Random) -> None:
        self.world = world
        self.fate = fate

    def draw(self, *choices: float) -> float:
        """How long something takes: one of these, up to the last if that is drawn."""
        drawn = self.fate.choice(choices)
        return drawn * self.fate.random() if drawn == choices[-1] else drawn

    def goes_wrong(self, often: float) -> bool:
        """Whether something goes wrong now; nothing does in the calm."""
        return not self.world.calm and self.fate.random() < often

    def deadline(self) -> float:
        """When there is something to do by itself."""
        raise NotImplementedError

    def work(self) -> None:
        """Do what there is to do now."""


class RestartedProcess(Job):
    """A process that has to run all the time: a helper, or the log command."""

    def __init__(
        self,
        world: HostWorld,
        fate: random.Random,
        name: str,
        policy: RestartPolicy,
        trouble: float,
    ) -> None:
        super().__init__(world, fate)
        self.name = name
        self.policy = policy
        self.trouble = trouble
        self.process = 0

    def deadline(self) -> float:
        return self.policy.deadline(bool(self.world.stops))

    def work(self) -> None:
        if self.deadline() <= self.world.now:
            self.start()

    def start(self) -> None:
        """Try to start it."""
        world = self.world
        if self.goes_wrong(self.trouble / 2):
            pause = self.policy.ended(world.now, self.fate.random())
            world.happened(self.name, "not started", pause)
            return
        self.policy.started(world.now)
        world.happened(self.name, "started")
        self.process = world.new_process()
        if self.goes_wrong(self.trouble):
            self._ends_after(self.draw(0.0, 0.0, 0.25, 9.9, 10.0, 15.0))

    def _ends_after(self, time: float) -> None:
        process = self.process

        def end() -> None:
            if process == self.process:
                self.process = 0
                pause = self.policy.ended(self.world.now, self.fate.random())
                self.world.happened(self.name, "ended", pause)

        self.world.later(self.world.now + time, end)

    def taken_over(self, *, replaced: bool) -> None:
        """Another version goes on with it, and replaces a helper."""
        if type(self.policy) is RestartPolicy:
            self.policy = from_json_value(json.loads(json.dumps(to_json_value(self.policy))))
        if replaced:
            self.policy.taken_over()
            if self.process:
                self.world.happened(self.name, "outdated")
                self._ends_after(self.draw(0.0, 0.0, 0.5))


class Reload(Job):
    """The settings file is read again."""

    def __init__(self, world: HostWorld, fate: random.Random, policy: ReloadPolicy) -> None:
        super().__init__(world, fate)
        self.policy = policy
        self.trouble = fate.choice((0.0, 0.1, 0.4))
        self.slow = fate.choice((0.25, 3.0, 8.0))
        self.often_looked_up = fate.choice((0.0, 0.5))
        self.process = 0

    def request(self, trigger: str, changed: tuple[str, ...]) -> None:
        """Somebody wants them to be read."""
        self.world.happened("reload", "requested", (trigger, changed))
        self.policy.requested(trigger, changed)
        self._advance()

    def deadline(self) -> float:
        return self.policy.deadline()

    def work(self) -> None:
        if self.deadline() <= self.world.now:
            self._advance()

    def _advance(self) -> None:
        world = self.world
        for step in self.policy.decide(world.now, stopping=bool(world.stops)):
            world.happened("reload", type(step).__name__, step)
            match step:
                case StartReader():
                    self._start_reader()
                case DropReader():
                    self.process = 0
                    self.policy.reader_ended("took too long")
                    self._advance()
                case ParseAnswer():
                    self._parse()
                case DropLookUp():
                    self.process = 0
                case PutInForce():
                    self._put_in_force(step)
                case RefuseReload():
                    pass

    def _start_reader(self) -> None:
        if self.goes_wrong(self.trouble / 4):
            self.world.happened("reload", "reader not started")
            self.policy.reader_not_started("could not be started", self.world.now)
            return
        cause = "failed" if self.goes_wrong(self.trouble) else ""
        self._ends_after("reader ended", cause, self.policy.reader_ended)

    def _parse(self) -> None:
        if self.goes_wrong(self.trouble / 2):
            self.world.happened("reload", "RefuseReload", RefuseReload("wrong settings"))
            self.policy.finished()
        elif self.fate.random() < self.often_looked_up:
            self.world.happened("reload", "look-up started")
            self.policy.look_up_started()
            cause = "no such name" if self.goes_wrong(self.trouble) else ""
            # The job that looks up has a deadline of its own.
            self._ends_after("look-up ended", cause, self.policy.look_up_ended, hangs=20.0)
        else:
            self.policy.look_up_ended()
            self._advance()

    def _ends_after(
        self, what: str, cause: str, tell: Callable[[str], None], hangs: float = INF
    ) -> None:
        """A process takes its time, or for ever."""
        process = self.process = self.world.new_process()
        takes = hangs if self.goes_wrong(self.trouble / 4) else self.draw(0.0, 0.25, self.slow)

        def end() -> None:
            if process == self.process:
                self.process = 0
                self.world.happened("reload", what)
                tell(cause or ("took too long" if takes == hangs else ""))
                self._advance()

        self.world.later(self.world.now + takes, end)

    def _put_in_force(self, step: PutInForce) -> None:
        world = self.world
        if not world.calm and self.fate.random() < 0.5:
            drawn = world.draw_settings(self.fate)
            some = [name for name in drawn if name != "command" and self.fate.random() < 0.3]
            world.observe(facts.SettingsChanged(world.altered(drawn, some)))
        world.observe(facts.SwapTriggered(step.trigger, step.supersedes, step.changed))


class ReadyCommands(Job):
    """--ready-command is run for coming workers."""

    def __init__(self, world: HostWorld, fate: random.Random, policy: ReadyCommandPolicy) -> None:
        super().__init__(world, fate)
        self.policy = policy
        self.trouble = fate.choice((0.0, 0.1, 0.4))
        self.commands: dict[int, int] = {}
        #: From when on the answer for a worker is yes.
        self.yes_from: dict[int, float] = {}

    def add(self, worker: int) -> None:
        """A worker has been started."""
        self.world.happened("ready command", "worker started", worker)
        self.policy.worker_started(worker, self.world.now)

    def drop(self, worker: int) -> None:
        """It is ready, asked to leave, or gone."""
        if worker in self.policy:
            self.world.happened("ready command", "worker done", worker)
        self.policy.worker_done(worker)
        self.commands.pop(worker, None)

    def interrupt(self) -> None:
        """Before an exec: the next version runs them anew."""
        for worker in list(self.commands):
            del self.commands[worker]
            self.world.happened("ready command", "ended", worker)
            self.policy.command_said_no(worker, self.world.now)

    def deadline(self) -> float:
        return self.policy.deadline()

    def work(self) -> None:
        world = self.world
        for worker in self.policy.decide(world.now):
            if worker not in world.processes or not world.processes[worker].wanted:
                self.drop(worker)
                continue
            world.happened("ready command", "started", worker)
            if self.goes_wrong(self.trouble / 2):
                world.happened("ready command", "ended", worker)
                self.policy.command_said_no(worker, world.now)
                continue
            self.policy.command_started(worker)
            command = self.commands[worker] = world.new_process()
            takes = self.draw(0.0, 0.0, 0.05, 2.0)
            if world.calm:
                takes = 0.0
            elif self.goes_wrong(self.trouble / 4):
                takes = INF
            answer = self._answers(worker, command)
            if takes:
                world.later(world.now + takes, answer)
            else:
                answer()

    def _answers(self, worker: int, command: int) -> Callable[[], None]:
        yes = self.world.now >= self.yes_from.get(worker, INF) and not self.goes_wrong(self.trouble)

        def answer() -> None:
            if self.commands.get(worker) != command:
                return
            del self.commands[worker]
            self.world.happened("ready command", "ended", worker)
            if yes and self.goes_wrong(self.trouble / 2):
                self.policy.command_doubted(worker, self.world.now)
            elif yes:
                self.world.observe(facts.WorkerReady(worker))
                self.drop(worker)
            else:
                self.policy.command_said_no(worker, self.world.now)

        return answer


class Upgrade(Job):
    """The upgrade in place: the supervisor and the helpers' policies are written down and made anew."""

    def __init__(self, world: HostWorld, fate: random.Random, policy: UpgradePolicy) -> None:
        super().__init__(world, fate)
        self.policy = policy
        self.trouble = fate.choice((0.0, 0.2, 0.5))
        self.slow = fate.choice((0.5, 5.0, 20.0))
        self.check = 0

    def request(self, only_check: bool) -> None:
        """Somebody wants it."""
        self.world.happened("upgrade", "requested", only_check)
        self.policy.requested(self.world.now, only_check)

    def deadline(self) -> float:
        return self.policy.deadline()

    def work(self) -> None:
        world = self.world
        coming = world.coming
        step = self.policy.decide(
            world.now,
            coming=coming.number if coming is not None else 0,
            reading=world.reload.policy.under_way,
            stopping=bool(world.stops),
        )
        if step is None:
            return
        world.happened("upgrade", type(step).__name__, step)
        match step:
            case SayWaiting():
                pass
            case StartCheck():
                self._start_check()
            case BecomeNewVersion():
                self._become()
            case FailUpgrade():
                self._fail()

    def _fail(self) -> None:
        self.check = 0
        self.policy.failed()
        self.world.happened("upgrade", "over")

    def _start_check(self) -> None:
        if self.goes_wrong(self.trouble / 4):
            self._fail()
            return
        self.policy.check_started(self.world.now)
        check = self.check = self.world.new_process()
        takes = INF if self.goes_wrong(self.trouble / 4) else self.draw(0.0, 0.25, self.slow)
        passes = not self.goes_wrong(self.trouble)

        def end() -> None:
            if check != self.check:
                return
            self.check = 0
            self.world.happened("upgrade", "check passed" if passes else "check failed")
            if passes:
                self.policy.check_passed()
                if not self.policy.on_its_way:
                    self.world.happened("upgrade", "over")
            else:
                self._fail()

        self.world.later(self.world.now + takes, end)

    def _become(self) -> None:
        world = self.world
        world.ready_commands.interrupt()
        if self.goes_wrong(self.trouble):
            self._fail()
            return
        world.happened("upgrade", "over")
        world.take_over()
