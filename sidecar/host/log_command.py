"""The command of `--log-file "| command"`: it is started again whenever it has ended, after a pause
that grows. What is written meanwhile waits in the pipe.
"""

from __future__ import annotations

from sidecar.base.ending import how_it_ended
from sidecar.core.backoff import Backoff
from sidecar.system.child import Launch
from sidecar.system.jitter import chance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sidecar.host.job import Tools
    from sidecar.system.output import Output
    from sidecar.system.processes import Ended

# One that lived shorter is started again after a pause, at most the longest (seconds).
MIN_UPTIME, LONGEST_PAUSE = 10.0, 5.0


class LogCommand:
    """The job that keeps it running. `output` is what it reads from, None if it goes elsewhere;
    `environ` is the environment that it gets.
    """

    def __init__(
        self,
        tools: Tools,
        *,
        output: Callable[[], Output | None],
        environ: Callable[[], Mapping[str, str]],
    ) -> None:
        self._tools = tools
        self._output = output
        self._environ = environ
        self._pace = Backoff(MIN_UPTIME, LONGEST_PAUSE)
        self._start_at = float("inf")
        self._since = 0.0

    def dump(self) -> tuple[Any, ...]:
        """For a later version of sidecar."""
        return self._pace, self._start_at, self._since

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go on with what an earlier version has dumped."""
        self._pace, self._start_at, self._since = state

    def deadline(self) -> float:
        """When it is to be started."""
        return self._start_at

    def on_deadline(self, now: float) -> None:
        """Start it, if there is one."""
        self._start_at = float("inf")
        output = self._output()
        if output is None or not output.command:
            return
        argv = ("sh", "-c", output.command)
        try:
            launch = Launch(argv, self._environ(), output.handoff())
            output.pid = self._tools.start(launch, self)
            self._since = now
        except OSError:
            self._start_at = self._pace.failed(now, 0.0, chance())

    def on_exit(self, ended: Ended, now: float) -> None:
        """It has ended: another is started, perhaps after a pause."""
        output = self._output()
        if output is not None:
            output.pid = 0
        self._start_at = self._pace.failed(now, now - self._since, chance())
        cause = how_it_ended(ended.code, ended.signal)
        told = {"pid": ended.pid, "cause": cause, "pause": self._start_at - now}
        self._tools.say("log_command_exited", told)
