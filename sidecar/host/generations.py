"""What each generation was begun with, and how one is prepared: its envdir is read, its environment
made, its check passed.
"""

from __future__ import annotations

import os
import time

from sidecar.base.errors import EnvdirError, SettingsError
from sidecar.base.printable import limit_names
from sidecar.core import facts
from sidecar.host.generation_checks import GenerationChecks
from sidecar.settings import protocols
from sidecar.settings.resolve import start_server_timing
from sidecar.system import envdir, worker_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from sidecar.core import orders
    from sidecar.core.model import Worker
    from sidecar.core.supervisor import Supervisor
    from sidecar.host.generation_checks import Run
    from sidecar.host.job import Tools
    from sidecar.settings.table import Settings
    from sidecar.system.child import StartDirectory
    from sidecar.system.listeners import Listeners

    # Variables, remarks, and why there are none.
    PlainReading = tuple[dict[str, str | None], list[str], str]
    # Work that may block, whom to give what came of it, when it is asked for, and for which
    # generation. Raises OSError.
    Delegate = Callable[[Callable[[], Any], Callable[[Any, str], None], float, int], int]

# The variables by which sidecar tells a generation what it is.
GENERATION_VARIABLES = ("SERVER_STARTER_GENERATION", "SIDECAR_TRIGGER", "SIDECAR_CHANGED")
# The settings that a generation has of its own for as long as it lives; of the others those of now
# hold.
GENERATION_SETTINGS = (
    "command",
    "envdir",
    "envdir_format",
    "dir",
    "umask",
    "profile",
    "handoff",
    "ready",
    "ready_command",
    "check",
    "overlap",
    "signal_on_hup",
    "signal_on_term",
)


class Plan:
    """What a generation was begun with, and its workers are started with for as long as it lives."""

    __slots__ = ("command", "listeners", "log_end", "readiness", "settings")

    def __init__(
        self,
        settings: Settings,
        listeners: Listeners,
        command: tuple[str, ...],
        readiness: str,
        log_end: dict[str, Any] | None = None,
    ) -> None:
        self.settings = settings
        self.listeners = listeners
        self.command = command
        self.readiness = readiness
        #: Where the log file ended when it was begun (Output.log_file_end).
        self.log_end = log_end or {}

    def passed(self) -> list[protocols.Passed]:
        """The listeners as its workers get them."""
        return as_passed(self.listeners)

    def listener_variables(self) -> dict[str, str]:
        """The variables that tell its workers of their listeners."""
        return protocols.handed(
            self.listeners.environment(),
            self.settings.handoff,
            self.passed(),
            os.getpid(),
        )

    def export_state(self) -> dict[str, Any]:
        """All of it but the listeners, for a later version of sidecar."""
        return {
            "settings": self.settings,
            "command": self.command,
            "readiness": self.readiness,
            "log_end": self.log_end,
        }


class KeptPlan:
    """What a generation that is gone was begun with and had in its environment, for one that goes
    back to it. In memory only: there are secrets in it.
    """

    __slots__ = ("command", "environment", "generation", "readiness", "settings")

    def __init__(
        self,
        generation: int,
        settings: Settings,
        command: tuple[str, ...],
        readiness: str,
        environment: dict[str, str],
    ) -> None:
        self.generation = generation
        self.settings = settings
        self.command = command
        self.readiness = readiness
        self.environment = environment

    def export_state(self) -> dict[str, Any]:
        """All of it, for a later version of sidecar: KeptPlan(**it)."""
        return {name: getattr(self, name) for name in self.__slots__}


class Generations:
    """The job that prepares them, and keeps what they were begun with. `plan` is what one is begun
    with now, `environ` sidecar's own environment as workers get it, `place` the directory that
    relative names start from; `notify_address` is what NOTIFY_SOCKET says, "" for nothing.

    `delegate` has work done that may block; `run_check` runs a generation's check; `room_for` says
    how many of a generation's workers fit into the memory beside those that are there, and why.
    """

    def __init__(
        self,
        tools: Tools,
        supervisor: Supervisor,
        plan: Callable[[], Plan],
        environ: Mapping[str, str],
        place: StartDirectory,
        *,
        notify_address: Callable[[], str],
        delegate: Delegate,
        run_check: Run,
        room_for: Callable[[int, Iterable[Worker], int], tuple[int | None, str]],
    ) -> None:
        self._tools = tools
        self._supervisor = supervisor
        self._worker_table = supervisor.worker_table
        self._plan = plan
        self._environ = environ
        self._place = place
        self._notify_address = notify_address
        self._delegate = delegate
        self._room_for = room_for
        self.checks = GenerationChecks(tools, run=run_check, passed=self._prepared)
        self.plans: dict[int, Plan] = {}
        self.environments: dict[int, dict[str, str]] = {}
        #: Of the last generation that has held out, once it is gone.
        self.kept: KeptPlan | None = None

    def export_state(self, listeners: Callable[[Listeners], int]) -> dict[str, Any]:
        """For a later version of sidecar; `listeners` is the number of a set of listeners there."""
        return {
            "plans": {
                number: {**plan.export_state(), "listeners": listeners(plan.listeners)}
                for number, plan in self.plans.items()
            },
            "environments": self.environments,
            "kept": self.kept and self.kept.export_state(),
        }

    def import_state(self, state: dict[str, Any], sets: Sequence[Listeners]) -> None:
        """Go on with what an earlier version has exported, among other things."""
        self.plans = {
            number: Plan(**{**plan, "listeners": sets[plan["listeners"]]})
            for number, plan in state["plans"].items()
        }
        self.environments = state["environments"]
        if state.get("kept"):
            self.kept = KeptPlan(**state["kept"])

    def listeners(self) -> list[Listeners]:
        """Those that some generation still has."""
        return [plan.listeners for plan in self.plans.values()]

    def environment(self, generation: int, slot: int, workers: int) -> dict[str, str]:
        """What the worker in a slot gets, one of so many."""
        return worker_environment.with_slot(self.environments[generation], slot, str(workers))

    def plain_envdir(self, settings: Settings) -> PlainReading:
        """The envdir's variables as plain values, which another process can write, or why they cannot
        be read. May block.
        """
        try:
            reading = read_envdir(settings, self._place)
        except EnvdirError as error:
            return {}, [], str(error)
        return reading.variables, reading.remarks, ""

    def prepare(self, order: orders.Prepare, now: float) -> None:
        """Begin with a generation: the supervisor hears whether it can be started."""
        if order.settings_from and (kept := self._kept_plan(order.settings_from)) is not None:
            self._revert(order, kept, now)
            return
        plan = self.plans[order.generation] = self._plan()
        settings = plan.settings
        if not settings.envdir:
            self._make_environment(order, envdir.Reading({}, []), now)
            return

        def done(answer: PlainReading | None, cause: str) -> None:
            then = time.monotonic()
            if answer is not None:
                variables, remarks, cause = answer
            else:
                variables, remarks = {}, []
                cause = f"--envdir {', '.join(settings.envdir)}: it could not be read: {cause}"
            if cause:
                self._tools.observe(facts.PreparationFailed(order.generation, cause), then)
            else:
                self._make_environment(order, envdir.Reading(variables, remarks), then)

        try:
            self._delegate(lambda: self.plain_envdir(settings), done, now, order.generation)
        except OSError as error:
            done(None, error.strerror or str(error))

    def _prepared(self, generation: int, now: float) -> None:
        """A generation can be started; with --overlap auto, say how many of its workers fit beside
        those that are there.

        Not in a slow start, which shrinks the old program while the new one grows: there are never
        two whole ones.
        """
        room, why, of = None, "", self.plans[generation].settings
        there = list(self._worker_table.workers())
        if there and of.overlap == "auto" and not of.slow_start:
            room, why = self._room_for(generation, there, self._supervisor.size)
        self._tools.observe(facts.GenerationPrepared(generation, room, why), now)

    def forget(self, generation: int, last_good: int) -> None:
        """A generation is gone; what the last good one had is kept."""
        if generation == last_good:
            self.kept = self._kept_plan(last_good)
        elif self.kept is not None and self.kept.generation != last_good:
            self.kept = None
        self.environments.pop(generation, None)
        self.plans.pop(generation, None)

    def _kept_plan(self, generation: int) -> KeptPlan | None:
        """Settings, command and environment of a generation that is here, or that was kept."""
        if self.kept is not None and self.kept.generation == generation:
            return self.kept
        plan, environment = self.plans.get(generation), self.environments.get(generation)
        if plan is None or environment is None:
            return None
        return KeptPlan(generation, plan.settings, plan.command, plan.readiness, environment)

    def _revert(self, order: orders.Prepare, kept: KeptPlan, now: float) -> None:
        """Prepare a generation as the last that has held out was, and say how that differs from
        what has died.
        """
        settings, of_now = kept.settings, self._plan()
        # Its listeners are those of now, at the same addresses; or its own, if it is still there.
        listeners = (
            self.plans[order.settings_from].listeners if order.rejected else of_now.listeners
        )
        plan = self.plans[order.generation] = Plan(
            settings, listeners, kept.command, kept.readiness, of_now.log_end
        )
        environment = {**kept.environment}
        environment.pop("SIDECAR_CHANGED", None)
        if order.rejected:
            numbers = {
                "generation": order.generation,
                "like": order.settings_from,
                "failed": order.rejected,
            }
            self._tools.say("kept_previous", numbers)
            self._complete_environment(order, environment, now)
            return
        died = self._worker_table.current
        number = died.number if died is not None else 0
        had = self.environments.get(number, {})
        own = {*plan.listener_variables(), *GENERATION_VARIABLES}
        fields = {
            "generation": order.generation,
            "like": order.settings_from,
            "failed": number,
            "settings": [
                name.replace("_", "-")
                for name in GENERATION_SETTINGS
                if getattr(settings, name) != getattr(of_now.settings, name)
            ],
            "variables": limit_names(
                sorted(
                    name
                    for name in {*had, *environment} - own
                    if had.get(name) != environment.get(name)
                )
            ),
        }
        self._tools.say("reverted", fields)
        self._complete_environment(order, environment, now)

    def _make_environment(self, order: orders.Prepare, reading: envdir.Reading, now: float) -> None:
        """Make the environment of a generation that is being prepared."""
        for remark in reading.remarks:
            self._tools.say("notice", {"text": remark})
        environment = envdir.apply(self._environ, reading)
        self._say_what_changed(order, environment)
        if self.plans[order.generation].settings.as_server_starter:
            try:
                self._tools.observe(facts.TimingChanged(**start_server_timing(environment)), now)
            except SettingsError as error:
                what = "take the pace of restarts from the environment"
                self._tools.say("action_failed", {"what": what, "cause": "; ".join(error.problems)})
        self._complete_environment(order, environment, now)

    def _say_what_changed(self, order: orders.Prepare, environment: Mapping[str, str]) -> None:
        """Name the variables that the generation that serves has otherwise, unless the watcher has
        named them. Start_server's log stays that of Server::Starter.
        """
        current, plan = self._worker_table.current, self.plans[order.generation]
        before = self.environments.get(current.number) if current is not None else None
        if before is None or order.trigger == "envdir" or plan.settings.as_server_starter:
            return
        own = {*plan.listener_variables(), *GENERATION_VARIABLES, "NOTIFY_SOCKET"}
        names = sorted(
            name
            for name in {*before, *environment} - own
            if before.get(name) != environment.get(name)
        )
        if names:
            self._tools.say("environment_changed", {"names": limit_names(names)})

    def _complete_environment(
        self, order: orders.Prepare, environment: dict[str, str], now: float
    ) -> None:
        """Add the variables that sidecar itself sets; then run --check."""
        plan = self.plans[order.generation]
        environment.update(plan.listener_variables())
        environment["SERVER_STARTER_GENERATION"] = str(order.generation)
        environment["SIDECAR_TRIGGER"] = order.trigger
        if order.changed:
            environment["SIDECAR_CHANGED"] = "\n".join(order.changed)
        if address := self._notify_address():
            environment["NOTIFY_SOCKET"] = address
        self.environments[order.generation] = environment
        if plan.settings.check:
            self.checks.start(order.generation, plan.settings, environment, now)
        else:
            self._prepared(order.generation, now)


def read_envdir(settings: Settings, place: StartDirectory) -> envdir.Reading:
    """The variables that the settings' envdir holds now; relative names start from `place`. Raises
    EnvdirError. May take as long as a file server does.
    """
    # Where the link leads now by which sidecar came into its directory, like the program itself.
    start = place.path if place.via_symlink else ""
    return envdir.read(
        [os.path.join(start, each) for each in settings.envdir],
        settings.envdir_format == "whole",
        settings.as_server_starter,
    )


def as_passed(listeners: Listeners) -> list[protocols.Passed]:
    """The listeners as workers get them."""
    return [
        protocols.Passed(each.key, each.worker_fd, each.sock.family.name, each.address.stream)
        for each in listeners
    ]
