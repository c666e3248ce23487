"""The command of `--log-file "| command"`: it is started again whenever it has ended, after a pause
that grows. What is written meanwhile waits in the pipe.
"""

from __future__ import annotations

from sidecar.base.exit_text import describe_exit
from sidecar.policies.restart import RestartPolicy
from sidecar.system.child import Launch
from sidecar.system.jitter import random_fraction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.host.job import Tools
    from sidecar.system.output import Output
    from sidecar.system.processes import Ended


class LogCommand:
    """The job that keeps it running, also while sidecar stops. `output` is what it reads from, None
    if the output goes elsewhere; `environ` is the environment that it gets.
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
        self._restart = RestartPolicy(float("inf"), runs_during_stop=True)

    def export_state(self) -> RestartPolicy:
        """What a later version of sidecar goes on with."""
        return self._restart

    def import_state(self, state: RestartPolicy) -> None:
        """Go on with what an earlier version has exported."""
        self._restart = state

    def deadline(self) -> float:
        """When it has to be started."""
        return self._restart.deadline(self._tools.stopping())

    def on_deadline(self, now: float) -> None:
        """Start it, if there is one."""
        output = self._output()
        if output is None or not output.command:
            return
        argv = ("sh", "-c", output.command)
        try:
            launch = Launch(argv, self._environ(), output.handoff())
            output.pid = self._tools.start(launch, self)
        except OSError:
            self._restart.ended(now, random_fraction())
        else:
            self._restart.started(now)

    def on_exit(self, ended: Ended, now: float) -> None:
        """It has ended: another is started, perhaps after a pause."""
        output = self._output()
        if output is not None:
            output.pid = 0
        pause = self._restart.ended(now, random_fraction())
        cause = describe_exit(ended.code, ended.signal)
        self._tools.say("log_command_exited", {"pid": ended.pid, "cause": cause, "pause": pause})
