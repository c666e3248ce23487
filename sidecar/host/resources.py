"""What sidecar holds from its start to its end: signals, listeners, files, the control socket, its
processes. Opened at the start, or made of what an earlier version of sidecar has left.
"""

from __future__ import annotations

import os

from sidecar.control import server
from sidecar.host.generations import read_envdir
from sidecar.host.listener_sets import ListenerSets
from sidecar.system import child, descriptors, processes, users, worker_environment
from sidecar.system.inherited_sockets import inherited
from sidecar.system.listeners import Listeners
from sidecar.system.output import Output
from sidecar.system.pid_file import PidFile
from sidecar.system.service_manager import ServiceManager
from sidecar.system.signals import SignalPipe
from sidecar.system.status_file import StatusFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sidecar.host.events import Events
    from sidecar.settings.table import Settings


class Resources:
    """All of it. `started_with` is the environment that sidecar was started with, `environ` the same
    as workers get it.

    Making one opens nothing yet. Raises StartError if the workers' user is not there.
    """

    listeners: ListenerSets
    control: server.ControlSocket
    wakeup: SignalPipe
    processes: processes.ChildProcesses
    manager: ServiceManager

    def __init__(self, events: Events, settings: Settings, environ: Mapping[str, str]) -> None:
        self._say = events.say
        self._attempt = events.turn.attempt
        self._settings = settings
        self.started_with = environ
        self.credentials = users.credentials(settings.user, settings.group)
        self.environ = worker_environment.with_login_variables(
            worker_environment.passed_on(environ), self.credentials
        )
        self.place = child.start_directory(environ)
        self.output: Output | None = None
        self.pid_file: PidFile | None = None
        self.admin: Listeners | None = None
        self.status_file = StatusFile(settings.status_file) if settings.status_file else None
        # What is done with each of them at the end, in order. Last the control socket: whoever waits
        # for the end of sidecar sees it in the end of the connection.
        self._closing: list[tuple[str, Callable[[], None]]] = []

    def open(self) -> None:
        """Open everything. Raises SidecarError and OSError, and `close` closes what was opened."""
        settings = self._settings
        descriptors.set_cloexec_on_inherited()
        self._begin(SignalPipe())
        self._closing = [("take no signals", self.wakeup.close)]
        # Not kept: each generation reads its own. What cannot be read now is refused before
        # anything is bound.
        read_envdir(settings, self.place)
        if settings.log_file:
            self.output = Output(settings.log_file)
        if settings.pid_file:
            self.pid_file = PidFile.take(settings.pid_file)
            self._closing.insert(0, ("remove the pid file", self.pid_file.release))
        first = Listeners.open(
            settings.port,
            backlog=settings.backlog,
            inherited=inherited(self.started_with, os.getpid()),
        )
        self.listeners = ListenerSets(self._say, [first], first)
        self._closing[:0] = self._closing_of_listeners()
        for path in first.removed_paths:
            self._say("socket_removed", {"path": path})
        if settings.admin is not None:
            self.admin = Listeners.open([settings.admin], backlog=None, flag="--admin")
            self._closing.insert(0, ("close the admin's listener", self.admin.close))
        self.control = server.ControlSocket.open(settings.control, server.places(self.started_with))
        self._closing.insert(-1, ("close the control socket", self.control.close))

    def import_state(self, state: dict[str, Any]) -> None:
        """Make everything of what an earlier version has exported. Raises SidecarError and OSError;
        nothing outside has changed then, no signal is heard, and no descriptor of its closed.
        """
        self._begin(SignalPipe(state["wakeup"]))
        self.place = child.StartDirectory(*state["place"])
        self.processes.import_state(state["processes"])
        sets = Listeners.from_state(state["listener_sets"])
        self.listeners = ListenerSets(self._say, sets, sets[state["listeners"]])
        self.admin = Listeners.from_state(state["admin"])[0] if state["admin"] else None
        self.control = server.ControlSocket.from_state(state["control"])
        self.output = Output.from_state(state["output"]) if state["output"] else None
        self.pid_file = PidFile(**state["pid_file"]) if state["pid_file"] else None
        if self.status_file is not None and state["status_file"]:
            self.status_file.import_state(state["status_file"])
        self.manager.import_state(state["manager"])
        self._closing = [
            *self._closing_of_listeners(),
            ("close the control socket", self.control.close),
            ("take no signals", self.wakeup.close),
        ]
        if self.pid_file is not None:
            self._closing.insert(-2, ("remove the pid file", self.pid_file.release))
        if self.admin is not None:
            self._closing.insert(0, ("close the admin's listener", self.admin.close))

    def export_state(self) -> dict[str, Any]:
        """What `import_state` makes everything of."""
        sets = self.listeners.sets
        return {
            "wakeup": self.wakeup.export_state(),
            "processes": self.processes.export_state(),
            "place": (self.place.path, self.place.via_symlink),
            "listener_sets": Listeners.export_state(sets),
            "listeners": sets.index(self.listeners.current),
            "admin": self.admin and Listeners.export_state([self.admin]),
            "control": self.control.export_state(),
            "output": self.output and self.output.export_state(),
            "pid_file": self.pid_file and self.pid_file.export_state(),
            "status_file": self.status_file and self.status_file.export_state(),
            "manager": self.manager.export_state(),
        }

    def close(self) -> None:
        """Close everything; a defect in one leaves no other undone."""
        for what, close in self._closing:
            self._attempt(what, close)

    def _closing_of_listeners(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("close the listeners", self.listeners.close),
            ("remove the status file", self._remove_status_file),
        ]

    def _remove_status_file(self) -> None:
        if self.status_file is None:
            return
        try:
            self.status_file.remove()
        except OSError as error:
            what = f"remove --status-file {self.status_file.path}"
            self._say("action_failed", {"what": what, "cause": error.strerror})

    def _begin(self, wakeup: SignalPipe) -> None:
        """Hear signals, be able to start processes, and to tell the service manager."""
        self.wakeup = wakeup
        wanted = self._settings.no_new_privs
        self.processes = processes.ChildProcesses(
            wakeup.mask,
            wakeup.dispositions,
            self.credentials,
            no_new_privs=self.credentials is not None if wanted is None else wanted,
        )
        self.manager = ServiceManager(self.started_with.get("NOTIFY_SOCKET", ""))
