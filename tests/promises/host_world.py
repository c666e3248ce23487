"""The simulated world with the host's jobs in it: helpers and a log command that end at any moment,
settings that are read again, ready commands, upgrades in place.

The schedule of a number is the same as without the jobs, but for what the jobs do: their dice are
others, and they have a heap of their own.

    python -m tests.promises.host_world SEED     tells one schedule, line by line
    python -m tests.promises.host_world          runs schedules until one breaks a promise
"""

from __future__ import annotations

import copy
import heapq
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from sidecar.core import facts, orders
from sidecar.policies.ready_command import ReadyCommandPolicy
from sidecar.policies.reload import ReloadPolicy
from sidecar.policies.restart import RestartPolicy
from sidecar.policies.upgrade import UpgradePolicy
from sidecar.settings.table import Settings
from sidecar.upgrade.state import from_json_value, import_supervisor, to_json_value

from .job_promises import JOB_PROMISES
from .jobs import Job, ReadyCommands, Reload, RestartedProcess, Upgrade
from .programs import INF, Broken, Process, draw_settings
from .world import World

# So long (seconds) reads, checks and waits that were under way when the calm began may go on.
LAST_JOBS = 500.0
LOG_COMMAND = "log command"


def policy_classes(**planted: type) -> Mapping[str, type]:
    """The policies by the name of their job, some of them with a fault in it."""
    return {
        "restart": RestartPolicy,
        "reload": ReloadPolicy,
        "ready_command": ReadyCommandPolicy,
        "upgrade": UpgradePolicy,
        **planted,
    }


class HostWorld(World):
    """One schedule with jobs. `policies` are those of policy_classes; with `quiet` only helpers and
    log command do something, and nobody waits for what they do.
    """

    def __init__(
        self,
        dice: random.Random,
        policies: Mapping[str, Any] | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        fate = random.Random(copy.copy(dice).getrandbits(28))
        self.fate = fate
        self.quiet = quiet
        self.policies = policies or policy_classes()
        self.job_trace: list[tuple[float, str]] = []
        #: What has happened to jobs, without the details.
        self.job_events: Counter[str] = Counter()
        self.job_heap: list[tuple[float, int, Callable[[], None]]] = []
        self.last_process = 0
        self.calm = False
        # How often a trigger has the settings file read first, and a save meets the watcher.
        self.has_file = 0.0 if quiet else fate.choice((0.0, 0.5, 1.0))
        self.unseen: list[str] = []
        trouble = fate.choice((0.0, 0.3, 0.9))
        restart = self.policies["restart"]
        self.restarted = [
            RestartedProcess(self, fate, name, policy, trouble)
            for name, policy in (
                ("watcher", restart(0.0, min_pause_s=0.1)),
                ("admin", restart(0.0, min_pause_s=0.1, runs_during_stop=True)),
                (LOG_COMMAND, restart(0.0, runs_during_stop=True)),
            )
        ]
        self.reload = Reload(self, fate, self.policies["reload"]())
        self.ready_commands = ReadyCommands(self, fate, self.policies["ready_command"]())
        self.upgrade = Upgrade(self, fate, self._upgrade_policy())
        self.job_promises = [promise(self) for promise in JOB_PROMISES]
        super().__init__(dice)
        if not quiet:
            self._draw_requests()

    def _upgrade_policy(self) -> UpgradePolicy:
        """With times short enough for a schedule."""
        policy: UpgradePolicy = self.policies["upgrade"]()
        kind = type(policy)
        policy.__class__ = type(
            kind.__name__,
            (kind,),
            {
                "__slots__": (),
                "max_wait_s": self.fate.choice((3.0, 20.0, 300.0)),
                "max_check_s": self.fate.choice((3.0, 60.0)),
            },
        )
        return policy

    def _draw_requests(self) -> None:
        """Upgrades, and reloads that come in quick succession."""
        fate = self.fate
        horizon = fate.choice((3.0, 10.0, 30.0))
        for _ in range(fate.choice((0, 0, 1, 2))):
            at = fate.random() * horizon
            for _ in range(fate.choice((1, 1, 2))):
                self.later(at, self._unless_calm(self.upgrade.request, fate.random() < 0.3))
                at += fate.choice((0.0, 0.25, 2.0))
        for _ in range(fate.choice((0, 1)) if self.has_file else 0):
            at = fate.random() * horizon
            for _ in range(fate.choice((2, 3, 5))):
                self.later(at, self._unless_calm(self._reload, "HUP", ()))
                at += fate.choice((0.0, 0.25, 1.0))

    def _unless_calm(self, ask: Callable[..., None], *args: Any) -> Callable[[], None]:
        return lambda: None if self.calm else ask(*args)

    def draw_settings(self, dice: random.Random) -> dict[str, Any]:
        """Settings that a file could ask for, by name."""
        return vars(draw_settings(dice))

    # --- what the jobs ask of the world

    def new_process(self) -> int:
        """The number of a process that no other one has."""
        self.last_process += 1
        return self.last_process

    def later(self, moment: float, happen: Callable[[], None]) -> None:
        """Have something happen to a job's process then."""
        if moment < INF:
            self.last_process += 1
            heapq.heappush(self.job_heap, (moment, self.last_process, happen))

    def happened(self, job: str, what: str, detail: Any = None) -> None:
        """Something has happened to a job: for the tale and the promises."""
        text = f"{job}: {what}" if detail is None else f"{job}: {what} {detail}"
        self.job_trace.append((self.now, text))
        self.job_events[f"{job}: {what}"] += 1
        if job == "watcher" and what == "started" and self.unseen:
            seen, self.unseen = tuple(self.unseen), []
            self._saved(seen)
        for promise in self.job_promises:
            promise.happened(job, what, detail)

    def take_over(self) -> None:
        """Another version of sidecar goes on."""
        supervisor = json.loads(json.dumps(to_json_value(self.supervisor)))
        self.supervisor = import_supervisor(
            from_json_value(supervisor), Settings(), self.now, self.supervisor.random_fraction
        )
        for each in self.restarted:
            each.taken_over(replaced=each.name != LOG_COMMAND)
        self.reload.policy = self.policies["reload"]()
        self.upgrade.policy = self._upgrade_policy()
        for worker in list(self.ready_commands.yes_from):
            self.ready_commands.drop(worker)
        self.ready_commands.policy = self.policies["ready_command"]()
        for process in self.processes.values():
            if process.wanted and process.ready_at is None and process.readiness == "command":
                self.ready_commands.add(process.pid)

    # --- what comes in

    def _stimulus(self, kind: str) -> Callable[[], facts.Fact | None]:
        happen = super()._stimulus(kind)

        def meet() -> facts.Fact | None:
            fact = happen()
            if self.quiet or self.stops or not isinstance(fact, facts.SwapTriggered):
                return fact
            if fact.trigger == "watch":
                # The world counts files by what was told, and this is not told yet.
                number = self.new_process()
                fact = fact.replace(changed=tuple(f"{each}-{number}" for each in fact.changed))
                if self.restarted[0].policy.running:
                    self._saved(fact.changed)
                else:
                    self.unseen += fact.changed
                return None
            if fact.trigger in ("HUP", "command") and self.fate.random() < self.has_file:
                self._reload(fact.trigger, fact.changed)
                return None
            return fact

        return meet

    def _reload(self, trigger: str, changed: tuple[str, ...]) -> None:
        if not self.stops:
            self.reload.request(trigger, changed)

    def _saved(self, changed: tuple[str, ...]) -> None:
        """The watcher says which files have changed; the settings file may be one of them."""
        if not self.stops and self.fate.random() < self.has_file / 2:
            self.reload.request("watch", changed)
        else:
            self.observe(facts.SwapTriggered("watch", True, changed))

    def _takes_connections(self, process: Process, at: float) -> None:
        if self.quiet or process.readiness != "command":
            super()._takes_connections(process, at)
        else:
            self.ready_commands.yes_from[process.pid] = at
            self.ready_commands.add(process.pid)

    def observe(self, fact: facts.Fact) -> None:
        if isinstance(fact, facts.WorkerExited):
            self.ready_commands.drop(fact.pid)
        super().observe(fact)

    def perform(self, order: orders.Order) -> None:
        super().perform(order)
        if isinstance(order, (orders.Retire, orders.Kill)):
            self.ready_commands.drop(order.pid)

    # --- time

    def jobs(self) -> list[Job]:
        """All that have something to do before the supervisor is asked."""
        return (
            [*self.restarted] if self.quiet else [*self.restarted, self.reload, self.ready_commands]
        )

    def jobs_wake_at(self) -> float:
        """When a job has something to do, or something happens to one of its processes."""
        moments = [job.deadline() for job in (*self.jobs(), self.upgrade)]
        return min([*moments, self.job_heap[0][0] if self.job_heap else INF])

    def step(self) -> None:
        wake = self.jobs_wake_at()
        if wake < self.wakes_at():
            self.now = max(self.now, wake)
            self.turn()
        else:
            super().step()

    def turn(self) -> None:
        while self.job_heap and self.job_heap[0][0] <= self.now:
            heapq.heappop(self.job_heap)[2]()
        for job in self.jobs():
            job.work()
        super().turn()
        if self.exit is None:
            self.upgrade.work()
            for promise in self.job_promises:
                promise.settled()
            self.see_whether_recovered()

    def _calm_down(self) -> None:
        super()._calm_down()
        self.recover_by += LAST_JOBS

    def healthy(self) -> bool:
        busy = self.reload.policy.under_way or self.upgrade.policy.on_its_way
        waiting = not self.quiet and not all(each.policy.running for each in self.restarted)
        return super().healthy() and not busy and not waiting

    # --- telling

    def tale(self) -> str:
        """Everything that happened to the jobs, too."""
        lines = [(now, f"{now:10.3f}       {text}") for now, text in self.job_trace]
        head, *rest = super().tale().split("\n")
        lines += [(now, line) for (now, _), line in zip(self.trace, rest, strict=True)]
        return "\n".join([head, *(line for _, line in sorted(lines, key=lambda each: each[0]))])


def host_schedule(seed: int, policies: Mapping[str, Any] | None = None) -> HostWorld:
    """Run schedule `seed` with jobs. Raises Broken (or whatever was raised), with the seed in its
    notes.
    """
    world = HostWorld(random.Random(seed), policies)
    try:
        world.run()
    except Exception as error:
        error.add_note(
            f"schedule {seed}; to see all of it: python -m tests.promises.host_world {seed}"
        )
        raise
    return world


def main() -> int:
    """Tell one schedule, or run many."""
    if len(sys.argv) > 1:
        world = HostWorld(random.Random(int(sys.argv[1])))
        try:
            world.run()
        except Broken:
            print(world.tale())
            raise
        print(world.tale())
        return 0
    seed = 0
    while True:
        host_schedule(seed)
        seed += 1
        if seed % 1000 == 0:
            print(seed, flush=True)


if __name__ == "__main__":
    sys.exit(main())
