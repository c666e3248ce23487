"""The control socket in the loop: commands are answered with what the host knows, and do what they
ask for (control/commands.py has the commands).
"""

from __future__ import annotations

import binascii
import os
import socket
import time

from sidecar import __version__
from sidecar.control import commands
from sidecar.core import status
from sidecar.system import procfs, resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sidecar.control.server import ControlSocket
    from sidecar.core import facts
    from sidecar.core.supervisor import Supervisor
    from sidecar.host.events import Events
    from sidecar.host.in_force import InForce
    from sidecar.host.job import Tools
    from sidecar.host.listener_sets import ListenerSets
    from sidecar.host.requests import Requests
    from sidecar.host.unknown_holders import UnknownHolders
    from sidecar.system.processes import ChildProcesses


class ControlDesk:
    """The job that answers: the ControlApi of control/commands.py. `problems` are those of the settings when they
    were last read; `upgrade` does what USR2 does, or only checks whether it could be done.
    """

    def __init__(
        self,
        tools: Tools,
        control: ControlSocket,
        supervisor: Supervisor,
        processes: ChildProcesses,
        in_force: InForce,
        listeners: ListenerSets,
        events: Events,
        unknown_holders: UnknownHolders,
        requests: Requests,
        *,
        problems: Callable[[], Sequence[str]],
        upgrade: Callable[[bool], None],
    ) -> None:
        self._tools = tools
        self._control = control
        self._supervisor = supervisor
        self._processes = processes
        self._in_force = in_force
        self._listeners = listeners
        self._events = events
        self._redaction = events.redaction
        self._unknown_holders = unknown_holders
        self._requests = requests
        self._problems = problems
        self._upgrade = upgrade
        #: When sidecar was started (seconds of the monotonic clock).
        self.since = time.monotonic()

    def deadline(self) -> float:
        """When a client has waited long enough."""
        return self._control.deadline

    def on_readable(self, now: float) -> None:
        """Answer those who ask."""
        if cause := self._control.turn(now, self._answer):
            self._tools.say(
                "action_failed", {"what": "take a client at the control socket", "cause": cause}
            )

    def flush(self) -> None:
        """Send what can be sent: sidecar is about to end."""
        self._control.flush()

    def connect(self, ours: socket.socket, allowed: tuple[str, ...]) -> None:
        """A helper gets a connection, of which this is our end; it may give these commands."""
        self._control.adopt(ours, allowed)

    def _answer(self, request: object) -> tuple[list[dict[str, Any]], commands.Answer | None]:
        try:
            answer = commands.answer(request, self)
        except Exception as error:
            self._tools.note_defect("answer a command", error, time.monotonic())
            return [
                commands.final(commands.FAILED, "a defect in sidecar: its log says where")
            ], None
        replies, answer.replies = answer.replies, []
        return replies, None if answer.done else answer

    def status(self) -> dict[str, Any]:
        """Everything there is to know, as plain values; no value of a variable."""
        now, settings = time.monotonic(), self._in_force.settings
        found = {
            "version": __version__,
            "pid": os.getpid(),
            "time": time.time(),
            "age": now - self.since,
            "listeners": [each.key for each in self._listeners.current],
            "command": self._redaction.text(settings.command[0]),
            "program": self._redaction.text(status.program(settings.command)),
            "host": socket.gethostname(),
            **status.status(self._supervisor, now),
            **self._events.history.summary(),
            # Whether it is the same as before, or as elsewhere; too short to tell what it is.
            "settings": f"{binascii.crc32(repr(settings).encode('utf-8', 'backslashreplace')):08x}",
            "problems": list(self._problems()),
            "strangers": self._unknown_holders.living(),
        }
        groups = self._process_groups()
        for generation in found["generations"]:
            for worker in generation["workers"]:
                _add_usage(worker, groups)
        for last in (found["last_swap"], found["last_failure"], found["last_upgrade"]):
            if last is not None:
                last["ago"] = max(0.0, found["time"] - last["at"])
        return found

    def _process_groups(self) -> dict[int, list[int]] | None:
        """The processes of each worker, by its leader's pid; None if /proc cannot be read now."""
        try:
            return {**procfs.children_by_group(), **self._processes.orphans()}
        except OSError:
            return None

    def readiness_reasons(self) -> list[str]:
        """Why it is not ready to be sent requests; nothing, if it is."""
        return status.readiness(self._supervisor)

    def recent_events(self) -> list[dict[str, Any]]:
        """The last events, oldest first."""
        return list(self._events.history.events)

    def newest_generation(self) -> int:
        """The number of the generation begun last."""
        return self._supervisor.number

    def observe(self, fact: facts.AnyFact) -> None:
        """Let the supervisor know; what follows from it follows later in this turn."""
        self._tools.observe(fact, time.monotonic())

    def reload(self, trigger: str) -> bool:
        """What HUP does. Whether the settings file is read first."""
        return self._requests.reload(trigger)

    def signal(self, name: str) -> tuple[list[int], list[int]]:
        """Pass a signal to the workers that serve: the pids of those that have a handler for it, and
        of those that have none.
        """
        return self._requests.pass_signal(name)

    def stopping(self) -> bool:
        """Whether a stop was asked for: nothing new will be begun."""
        return self._tools.stopping()

    def upgrade(self, only_check: bool) -> None:
        """What USR2 does, or only see whether it could be done."""
        self._upgrade(only_check)


def _add_usage(worker: dict[str, Any], groups: dict[int, list[int]] | None) -> None:
    """What a worker of the status takes, and which of its processes have outlived its leader."""
    usage = resources.usage(worker["pid"], groups) if groups is not None else None
    worker["memory"], worker["cpu"] = usage or (None, None)
    processes = (groups or {}).get(worker["pid"], ())
    worker["outlived"] = [pid for pid in processes if pid != worker["pid"]]
