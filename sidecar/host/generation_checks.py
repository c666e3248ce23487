"""--check: a command that a generation has to pass before any of its workers is started."""

from __future__ import annotations

from sidecar.base.exit_text import exit_predicate
from sidecar.core import facts
from sidecar.host.tail import Tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.host.job import Job, Tools
    from sidecar.settings.table import Settings
    from sidecar.system.processes import Ended

    # Starts a check for the job, with what it writes going to that descriptor. Raises OSError.
    Run = Callable[[Settings, dict[str, str], int, Job], int]


class Check:
    """A generation's check while it runs; `tail` has the last that it wrote."""

    __slots__ = ("command", "generation", "tail")

    def __init__(self, generation: int, command: tuple[str, ...], tail: Tail) -> None:
        self.generation = generation
        self.command = command
        self.tail = tail


class GenerationChecks:
    """The job that runs them; `passed` is called with a generation that has passed, and the time."""

    def __init__(self, tools: Tools, *, run: Run, passed: Callable[[int, float], None]) -> None:
        self._tools = tools
        self._run = run
        self._passed = passed
        self._checks: dict[int, Check] = {}

    def start(
        self, generation: int, settings: Settings, environment: dict[str, str], now: float
    ) -> None:
        """Check a generation with the command of its settings, in its environment."""
        tail: Tail | None = None
        pid = 0
        try:
            tail = Tail()
            pid = self._run(settings, environment, tail.write, self)
            self._tools.collect(tail)
        except OSError as error:
            if pid:
                self._tools.abandon(pid)
            if tail is not None:
                tail.close()
            cause = f"the check could not be started: {error.strerror}"
            self._tools.observe(facts.PreparationFailed(generation, cause), now)
        else:
            self._checks[pid] = Check(generation, settings.check, tail)

    def on_exit(self, ended: Ended, now: float) -> None:
        """A check has ended."""
        check = self._checks.get(ended.pid)
        if check is None:
            return
        output = self._tools.last_words(check.tail)
        if ended.code == 0 and not ended.signal:
            if output:
                fields = {"generation": check.generation, "output": output}
                self._tools.say("check_output", fields)
            self._passed(check.generation, now)
        else:
            how = ended.start_error or exit_predicate(ended.code, ended.signal)
            cause = f"the check `{' '.join(check.command)}` {how}"
            self._tools.observe(facts.PreparationFailed(check.generation, cause, output), now)
        # Not before: should something raise, this is called again.
        self._checks.pop(ended.pid, None)

    def drop_generation(self, generation: int) -> None:
        """Nobody waits any more for a check of this generation."""
        for pid, check in list(self._checks.items()):
            if check.generation == generation:
                self._tools.last_words(self._checks.pop(pid).tail)
                self._tools.abandon(pid)

    def works_for(self, generation: int) -> bool:
        """Whether this generation is being checked."""
        return any(each.generation == generation for each in self._checks.values())
