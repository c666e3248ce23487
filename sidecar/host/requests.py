"""What signals and the commands of the control socket alike ask sidecar for."""

from __future__ import annotations

import signal
import time

from sidecar.base.errors import StartError
from sidecar.core import facts
from sidecar.settings import profiles
from sidecar.system import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sidecar.core.worker_table import WorkerTable
    from sidecar.host.generations import Generations
    from sidecar.host.job import Tools
    from sidecar.system.output import Output
    from sidecar.system.service_manager import ServiceManager

# Signals that end or stop no program, with a handler or without (signal(7)).
HARMLESS = ("CHLD", "CONT", "URG", "WINCH")


class Requests:
    """Does what is asked for. `output` is where --log-file leads, None for nowhere; `read_settings`
    has the settings file read again, for a trigger, at a moment, and returns whether there is a
    settings file.
    """

    def __init__(
        self,
        tools: Tools,
        worker_table: WorkerTable,
        generations: Generations,
        manager: ServiceManager,
        output: Output | None,
        read_settings: Callable[[str, float], bool],
    ) -> None:
        self._tools = tools
        self._worker_table = worker_table
        self._generations = generations
        self._manager = manager
        self._output = output
        self._read_settings = read_settings

    def reload(self, trigger: str, signal: str = "") -> bool:
        """What HUP does; `signal` names it if that is what came. Whether the settings file is read
        first: "settings_read" or "reload_rejected" will then be said.
        """
        self._reopen_log()
        self._manager.reload_requested()
        if signal:
            self._tools.say("signal_received", {"signal": signal})
        now = time.monotonic()
        if not self._tools.stopping() and self._read_settings(trigger, now):
            return True
        self._tools.observe(facts.SwapTriggered(trigger), now)
        return False

    def pass_signal(self, name: str) -> tuple[list[int], list[int]]:
        """Pass a signal to the workers that serve and have a handler for it, and open the log anew on
        USR1: the pids of those, and of those that have none.
        """
        if name == "USR1":
            self._rotate_log()
        ready = [worker.pid for worker in self._worker_table.ready()]
        without = [] if name in HARMLESS else _without_handler(ready, name)
        pids = [pid for pid in ready if pid not in without]
        self._tools.observe(facts.SignalForwardRequested(name, tuple(pids)), time.monotonic())
        return pids, without

    def reopen_logs(self) -> None:
        """What USR1 does: open the log anew, and let the programs do so that are known to do it on
        USR1. Others would end of it, or stop, or wait for a debugger.
        """
        self._rotate_log()
        able = []
        for worker in self._worker_table.ready():
            of = self._generations.plans[worker.generation].settings
            profile = profiles.PROFILES.get(of.profile)
            if profile is not None and profile.reopens:
                able.append(worker.pid)
        without = _without_handler(able, "USR1")
        to = tuple(pid for pid in able if pid not in without)
        self._tools.observe(facts.SignalForwardRequested("USR1", to), time.monotonic())

    def _rotate_log(self) -> None:
        """Open the log anew, and say who still writes to the one before."""
        if self._reopen_log() and self._output is not None and self._worker_table.active():
            remark = (
                f"{self._output.path} is another file now, but the workers that run write on to the"
                " one before: HUP replaces them, or rotate by copying and truncating (copytruncate)"
            )
            self._tools.say("notice", {"text": remark})

    def _reopen_log(self) -> bool:
        """Open --log-file anew; whether it is another file than before."""
        if self._output is not None:
            try:
                return self._output.reopen()
            except StartError as error:
                self._tools.say("action_failed", {"what": "reopen the log", "cause": str(error)})
        return False


def _without_handler(pids: Iterable[int], name: str) -> list[int]:
    """Those of the processes that have no handler for the signal."""
    number = signal.Signals[f"SIG{name}"]
    return [pid for pid in pids if not procfs.handles_signals(pid, number)]
