"""The loop of PID 1: wait, observe, reconcile, perform. One process, one thread, one blocking call.

Everything that can happen ends the one `select`: a signal (also a child's end), a notify message,
the next moment of the supervisor, the next look at a coming worker. Each turn writes down what
happened, asks the supervisor what to do until it says nothing more, and does it. The host decides
nothing; it translates between the operating system and facts and orders.

A defect is contained. A turn is made of parts, and a part that raises is said, left out for a pause
and tried again, while the others go on. Signals, ended children and orders wait in queues of the
host's; they are taken one at a time, so that an exception loses none but its own cause, and that is
tried a second time. Then the host looks whether it still knows of every child (`_look_over`).
"""

from __future__ import annotations

import binascii
import os
import signal
import socket
import time
from collections import deque

from sidecar import __version__
from sidecar.base.errors import SidecarError, StartError
from sidecar.base.refusal import refused
from sidecar.control import commands, server
from sidecar.core import facts, orders, status
from sidecar.core.model import STARTING
from sidecar.core.supervisor import Supervisor
from sidecar.host.admin import make_admin, open_to_all
from sidecar.host.children import Children
from sidecar.host.delegation import Delegation
from sidecar.host.events import Events
from sidecar.host.generation_checks import GenerationChecks
from sidecar.host.generations import Generations, Plan, as_passed
from sidecar.host.helper_processes import HelperProcesses
from sidecar.host.job import Tools
from sidecar.host.last_sweep import LastSweep
from sidecar.host.listener_repair import ListenerRepair
from sidecar.host.log_command import LogCommand
from sidecar.host.meeting import Attempt
from sidecar.host.memory_watch import MemoryRoom, MemoryWatch
from sidecar.host.missed_sockets import MissedSockets
from sidecar.host.notify_reader import NotifyReader
from sidecar.host.readiness_probes import ReadinessProbes
from sidecar.host.ready_commands import ReadyCommands
from sidecar.host.redaction import Redaction
from sidecar.host.settings_reload import SettingsReload
from sidecar.host.sources import Sources
from sidecar.host.status_reports import ServiceManagerReport, StatusFileReport
from sidecar.host.stop_deadline import StopDeadline
from sidecar.host.turn import Part, Turn
from sidecar.host.upgrading import Upgrading
from sidecar.host.watcher import Watcher
from sidecar.log.writer import Log
from sidecar.settings import profiles
from sidecar.settings.resolve import only_time
from sidecar.system import (
    accept_probe,
    child,
    processes,
    procfs,
    resources,
    terminal,
    users,
    worker_environment,
)
from sidecar.system.jitter import chance
from sidecar.system.listeners import Listeners
from sidecar.system.output import Output, let_open
from sidecar.system.pid_file import PidFile
from sidecar.system.service_manager import Manager
from sidecar.system.signals import Wakeup
from sidecar.system.sockets import inherited
from sidecar.system.status_file import StatusFile
from sidecar.system.termination_log import leave_a_reason
from sidecar.upgrade import execute
from sidecar.upgrade.state import revived_supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from sidecar.core.model import Worker
    from sidecar.host.job import Job
    from sidecar.host.settings_reload import Change, Prepared, Source
    from sidecar.host.upgrading import Started
    from sidecar.settings.table import Settings
    from sidecar.system.listeners import Listener
    from sidecar.system.sockets import LookedUp

    Detach = Callable[[Callable[[], None]], None]

# Should the wait for what happens fail itself, the loop turns this slowly (seconds).
DEFECT_PAUSE = 0.2
# Signals that end or stop no program, with a handler or without (signal(7)).
HARMLESS = ("CHLD", "CONT", "URG", "WINCH")

SHARED_MEMORY = "/dev/shm"


class Host:
    """One run of sidecar. `environ` is the environment that sidecar was started with, `source`
    where its settings came from, `started` how; `heritage` is the state of the version before that
    has become this one.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        source: Source | None = None,
        started: Started | None = None,
        heritage: dict[str, Any] | None = None,
    ) -> None:
        self.settings = settings
        self.source = source
        self.heritage = heritage
        #: Every set of listeners that some generation may still use; the last is the one for
        #: generations to come.
        self.sets: list[Listeners] = []
        self.redaction = Redaction(settings.hide)
        self.environ = worker_environment.inherited(environ)
        self.started_with = environ
        self.place = child.place(environ)
        self._leads_to: tuple[int, int] | None = None
        self._strangers: set[int] = set()
        self._said_unknown = 0
        self.turn = Turn()
        colour = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self.events = Events(self.turn, Log(settings.log_format, colour=colour), self.redaction)
        self.turn.say = self._say = self.events.say
        self.exit_status: int | None = None
        #: Something may be served from now on.
        self.began = False
        self.control: server.Control | None = None
        self.since = time.monotonic()
        self.room = MemoryRoom()
        self.admin: Listeners | None = None
        self.pid_file: PidFile | None = None
        self.terminal: terminal.Terminal | None = None
        self._in_a_terminal = False
        self.status_file = StatusFile(settings.status_file) if settings.status_file else None
        self.output: Output | None = None
        self._try, self._note_defect = self.turn.attempt, self.turn.note_defect
        #: Signals and orders that have not been seen to yet.
        self._heard: deque[str] = deque()
        self._ordered: deque[orders.AnyOrder] = deque()
        #: Whom the order that is being performed has been sent to already.
        self._sent_to = 0
        self.sources = Sources()
        self.stop_deadline = StopDeadline(
            self._say, leave=self._leave, left=lambda: self.exit_status is not None
        )
        self.children = Children(
            self.turn,
            say=self._say,
            observe=self._observe,
            processes=lambda: self.workers,
            roster=lambda: self.supervisor.roster,
            worker_ended=self._see_worker_end,
        )
        self.status_file_report = StatusFileReport(
            self._say, self.status_file, lambda: self.supervisor
        )
        self.service_manager_report = ServiceManagerReport(
            self._say, lambda: self.manager, lambda: self.supervisor
        )
        tools = Tools(
            say=self._say,
            observe=self._observe,
            start=self.children.start,
            abandon=self.children.abandon,
            listen_to=self.sources.listen_to,
            stop_listening=self.sources.stop_listening,
            attempt=self.turn.attempt,
            note_defect=self.turn.note_defect,
            stopping=self.stopping,
        )
        self.tools = tools
        self.delegation = Delegation(tools)
        self.settings_reload = SettingsReload(
            tools,
            self,
            source,
            environ,
            lambda: self.place,
            self.delegation.start,
            self.delegation.drop,
        )
        self.log_command = LogCommand(
            tools, output=lambda: self.output, environ=lambda: self.environ
        )
        self.memory_watch = MemoryWatch(
            tools, settings.max_memory, time.monotonic(), roster=lambda: self.supervisor.roster
        )
        self.notify = NotifyReader(
            tools,
            roster=lambda: self.supervisor.roster,
            uids=self._uids_of_workers,
            ready=self._saw_ready,
        )
        self.checks = GenerationChecks(tools, run=self._start_check, passed=self._prepared)
        self.listener_repair = ListenerRepair(
            tools,
            listeners=lambda: self.listeners,
            leaving=lambda: self.supervisor.ending.phase == "leaving",
        )
        self.generations = Generations(
            tools,
            plan=self._plan_of_now,
            environ=lambda: self.environ,
            place=lambda: self.place,
            roster=lambda: self.supervisor.roster,
            notify_address=lambda: self.notify.address,
            delegate=self.delegation.start,
            check=self.checks.start,
            prepared=self._prepared,
        )
        self.probes = ReadinessProbes(
            tools,
            supervisor=lambda: self.supervisor,
            inodes=self._inodes,
            ready=self._saw_ready,
            done=self._stop_looking,
        )
        self.ready_commands = ReadyCommands(
            tools,
            roster=lambda: self.supervisor.roster,
            run=self._start_ready_command,
            inodes=self._inodes,
            ready=self._saw_ready,
            done=self._stop_looking,
        )
        self.missed_sockets = MissedSockets(
            tools, roster=lambda: self.supervisor.roster, attempt=self._attempt
        )
        self.helpers = HelperProcesses(
            tools,
            place=lambda: self.place,
            listens_to=self.sources.listens_to,
            stopped=self._is_stopped,
            send=self._send,
            adopt=self.children.adopt,
        )
        self.children.reaped = self.helpers.kill_stopped
        self.watcher = Watcher(
            tools,
            self.settings_in_force,
            environ,
            lambda: source.file if source is not None else "",
            lambda paths, now: self.settings_reload.request("watch", now, paths),
        )
        self.upgrading = Upgrading(
            tools,
            started,
            environ,
            export_state=self.export_state,
            coming=self._coming,
            reading=self.settings_reload.under_way,
            before_exec=self.ready_commands.interrupt,
        )
        self.turn.parts = self._make_parts()

    def run(self, detach: Detach | None = None) -> int:
        """Run until stopped; the exit status. Raises SidecarError if it cannot start, having undone
        what it did.
        """
        if self.heritage is None:
            self.wakeup = Wakeup()
        try:
            if self.heritage is None:
                processes.seal()
                self._become_known_as()
                # Not kept: each generation reads its own. What cannot be read now is refused before
                # anything is bound.
                self.generations.read_envdir(self.settings)
                if self.settings.log_file:
                    self.output = Output(self.settings.log_file)
                if self.settings.pid_file:
                    self.pid_file = PidFile.take(self.settings.pid_file)
            try:
                if self.heritage is None:
                    self.listeners = Listeners.open(
                        self.settings.port,
                        backlog=self.settings.backlog,
                        inherited=inherited(self.started_with, os.getpid()),
                    )
                    self.sets.append(self.listeners)
                    for path in self.listeners.removed:
                        self._say("socket_removed", {"path": path})
                try:
                    if self.heritage is None:
                        if self.settings.admin is not None:
                            self.admin = Listeners.open(
                                [self.settings.admin], backlog=None, flag="--admin"
                            )
                        self.control = server.Control.open(
                            self.settings.control, server.places(self.started_with)
                        )
                        if detach is not None:
                            detach(self.pid_file.rewrite if self.pid_file else lambda: None)
                    self._serve()
                finally:
                    if self.admin is not None:
                        self.admin.close()
                    for each in self.sets:
                        each.close()
            finally:
                self.status_file_report.remove()
                if self.pid_file:
                    self.pid_file.release()
        finally:
            # Last: whoever waits for our end sees it in the end of the connection.
            if self.control is not None:
                self.control.close()
            self.wakeup.close()
        return self.exit_status or 0

    def _serve(self) -> None:
        if self.heritage is None:
            self._open_ears()
            self._begin()
        now = time.monotonic()
        self.began = True
        try:
            if self.heritage is not None:
                self._try("take over", self._take_over, self.heritage, now)
            self._try("see to what is due", self._see_to, now)
            while self.exit_status is None:
                try:
                    self._turn()
                except Exception as error:
                    self._survive(error)
        finally:
            for helper in self.helpers:
                self._try(f"close the pipes of {helper.name}", helper.close)
            self._try(
                "end what is left",
                self.last_sweep.run,
                self.workers,
                self.output,
                self.events.log.let_go,
                self.stop_deadline.over_by,
            )
            self._try("stop watching the listeners", self.listener_repair.close)
            self._try("close what the loop waits on", self.sources.close)
            if self.terminal is not None:
                self._try("let the terminal go", self.terminal.close)
            self._try("close NOTIFY_SOCKET", self.notify.close)
            self._try("let the service manager go", self.manager.close)

    def _open_ears(self) -> None:
        """Make what the loop waits on."""
        self.sources.open()
        self.last_sweep = LastSweep(self.turn, self.sources, self.wakeup)
        self.sources.listen_to(self.wakeup, self._hear)
        if self.settings.keys and os.isatty(0):
            self.terminal = terminal.Terminal()
            self.sources.listen_to(self.terminal, self._read_keys)
        self._in_a_terminal = self.settings.keys and terminal.controlling()
        if self.control is not None:
            self.sources.listen_to(self.control, self._read_control)
            self.events.publish = self.control.tell

    def _say_listening(self, each: Listener) -> None:
        fields = {
            "address": each.key,
            "kind": each.address.kind,
            "fd": each.fd,
            "name": each.name,
            "fixed": each.address.fd,
            "families": each.families,
        }
        self._say("listening", fields)

    def _open_notify(self) -> None:
        if self.readiness == "notify":
            self.notify.open()

    def _uids_of_workers(self) -> set[int]:
        """The users that a worker may have."""
        uid = os.geteuid()
        return {uid, self.credentials.uid if self.credentials else uid}

    def _make_workers(self) -> processes.Workers:
        of = self.settings.no_new_privs
        made = processes.Workers(
            self.wakeup.mask,
            self.wakeup.dispositions,
            self.credentials,
            no_new_privs=self.credentials is not None if of is None else of,
        )
        made.closing = self.sources.stop_listening
        return made

    def _become_known_as(self) -> None:
        """Find out whom the workers run as, and have their environment say so. Raises StartError."""
        self.credentials = users.credentials(self.settings.user, self.settings.group)
        self.environ = worker_environment.logged_in(self.environ, self.credentials)

    def _begin(self) -> None:
        """Make what is needed for serving, of a sidecar that has just been started."""
        now = time.monotonic()
        self.readiness = self._choose_readiness(self.settings, self.listeners)
        self.manager = Manager(self.started_with.get("NOTIFY_SOCKET", ""))
        self.workers = self._make_workers()
        self._open_notify()
        if self.output is not None:
            self.output.take()
            self.events.log.let_go()
            self.events.log = Log(self.settings.log_format)
            self.log_command.on_deadline(now)
        self._say("starting", {"version": __version__, "pid": os.getpid()})
        if self.credentials is not None and (why := let_open(self.credentials.uid)):
            remark = f"uid {self.credentials.uid} may not open /dev/stdout and /dev/stderr: {why}"
            self._say("notice", {"text": remark})
        if self.settings.config:
            self._say("settings_read", {"file": self.settings.config, "changed": []})
        for each in self.listeners:
            self._say_listening(each)
        if self.control is not None and self.control.path:
            self._say("control_socket_opened", {"path": self.control.path})
        elif self.settings.control != "none":
            self._say(
                "notice",
                {
                    "text": "no directory for a control socket can be written to; `sidecar status` has nobody to ask here"
                },
            )
        self._introduce()
        self._remark_on(self.settings)
        self.supervisor = Supervisor(self.settings, now, chance)
        self._make_watcher(now)
        for admin in self.admin or ():
            self._say("admin_opened", {"address": admin.key})
            if open_to_all(self.settings.admin, self.started_with):
                self._say(
                    "notice",
                    {
                        "text": f"--admin {admin.key}: whoever reaches this machine can read it; say --admin 127.0.0.1:{admin.key} for this machine alone"
                    },
                )
            self._make_admin(admin.sock.fileno(), now)

    # --- the upgrade in place: host/upgrading.py

    def import_state(self, state: dict[str, Any]) -> None:
        """Make everything of what the version before has left. Raises SidecarError and OSError;
        nothing outside has changed then, no signal is heard, and no descriptor of its closed: it
        can be tried again, by another exec (upgrade/takeover.py).
        """
        now = time.monotonic()
        self.wakeup = Wakeup(state["wakeup"])
        self._become_known_as()
        self.place = child.Place(*state.get("place", ()))
        self.workers = self._make_workers()
        self.workers.restore(state["workers"])
        self.sets = Listeners.restore(state["sets"])
        self.listeners = self.sets[state["listeners"]]
        self.admin = Listeners.restore(state["admin"])[0] if state["admin"] else None
        self.control = server.Control.restore(state["control"]) if state["control"] else None
        self.output = Output.restore(state["output"]) if state["output"] else None
        if self.output is not None and self.output.pid:
            self.children.adopt(self.output.pid, self.log_command)
        self.log_command.restore(state["log_command"])
        self.pid_file = PidFile(**state["pid_file"]) if state["pid_file"] else None
        if self.status_file is not None and state["status_file"]:
            self.status_file.restore(state["status_file"])
        self.manager = Manager(self.started_with.get("NOTIFY_SOCKET", ""))
        self.manager.restore(state["manager"])
        self.readiness = self._choose_readiness(self.settings, self.listeners)
        self.notify.restore(state["notify"])
        self._introduce(again=True)
        self.generations.restore(state, self.sets)
        self.settings_reload.problems = state["problems"]
        self.redaction.values = state["hide"]
        self.probes.restore(state["takers"])
        self.since, self.events.log.lost = state["since"], state["lost"]
        self.events.history = state["chronicle"]
        self.supervisor = revived_supervisor(state["supervisor"], self.settings, now, chance)
        if state["watcher"]:
            self._make_watcher(now, state["watcher"])
        for admin in self.admin or ():
            self._make_admin(admin.sock.fileno(), now)
        self.helpers.import_state(state["helpers"])
        self._open_ears()
        self.helpers.listen()
        self.notify.on_deadline(now)
        # From here on there is no way back.
        processes.seal()
        os.close(state["sealed"])
        self.wakeup.listen()

    def export_state(self) -> dict[str, Any]:
        """What `import_state` makes everything of."""
        sets, shared = (
            Listeners.dump(self.sets),
            {id(each): number for number, each in enumerate(self.sets)},
        )
        return {
            "at": time.monotonic(),
            "since": self.since,
            "lost": self.events.log.lost,
            "settings": self.settings,
            "problems": self.settings_reload.problems,
            "hide": self.redaction.values,
            "wakeup": self.wakeup.dump(),
            "workers": self.workers.dump(),
            "place": (self.place.path, self.place.linked),
            "sets": sets,
            "listeners": shared[id(self.listeners)],
            **self.generations.dump(lambda each: shared[id(each)]),
            "admin": self.admin and Listeners.dump([self.admin]),
            "control": self.control and self.control.dump(),
            "output": self.output and self.output.dump(),
            "log_command": self.log_command.dump(),
            "pid_file": self.pid_file and self.pid_file.dump(),
            "status_file": self.status_file and self.status_file.dump(),
            "manager": self.manager.dump(),
            "notify": self.notify.dump(),
            "takers": self.probes.dump(),
            "helpers": self.helpers.export_state(),
            "watcher": self.watcher.export_state(),
            "chronicle": self.events.history,
            "supervisor": self.supervisor,
        }

    def _take_over(self, state: dict[str, Any], now: float) -> None:
        """The first thing the new version does: say so, and see what has happened since."""
        self.heritage = None
        took = now - state["at"]
        self._say(
            "upgraded",
            {"version": __version__, "before": state["version"], "took": took, "pid": os.getpid()},
        )
        for worker in self.supervisor.roster.serving():
            if worker.state == STARTING:
                self._look_after(worker.pid, worker.readiness, now)
        self.helpers.end_outdated()
        self.children.reap_at(now)

    def upgrade(self, only_check: bool = False) -> None:
        """What USR2 does."""
        self.upgrading.request(only_check)

    def _coming(self) -> int:
        """The generation that is being started, 0 for none."""
        coming = self.supervisor.roster.coming
        return coming.number if coming is not None else 0

    def _introduce(self, again: bool = False) -> None:
        """Settle how the program is told its listeners: the variables, and the arguments that its
        profile adds; and, unless that was done before, say so.
        """
        passed = as_passed(self.listeners)
        self.command = self.settings.command
        row, program = profiles.found(self.command, self.settings.profile)
        if row is not None and self.settings.profile != "none":
            self.command, more = profiles.arranged(
                row, self.command, program, passed, self._homeless()
            )
            says = {
                "arguments": " ".join(more) or "none",
                "signal": self.settings.signal_on_hup,
                "handoff": list(self.settings.handoff),
            }
            if not again:
                self._say("profile_applied", {"profile": row.name, **says})

    def _homeless(self) -> bool:
        """Whether the workers have no directory for temporary files, but shared memory: Python's
        tempfile looks in these.
        """
        named = (self.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP"))
        places = (*named, "/tmp", "/var/tmp", "/usr/tmp", self.settings.dir or ".")
        writable = any(each and os.access(each, os.W_OK | os.X_OK) for each in places)
        return not writable and os.access(SHARED_MEMORY, os.W_OK | os.X_OK)

    def _remark_on(self, of: Settings) -> None:
        """Say what may be meant otherwise."""
        for remark in self.source.remarks(of) if self.source is not None else ():
            self._say("notice", {"text": remark})
        if of.ready == "auto" and self.readiness == "interval":
            self._say("notice", {"text": only_time(of.interval)})

    def _choose_readiness(self, settings: Settings, listeners: Listeners) -> str:
        wanted = settings.ready
        if settings.slow_start and not listeners.inodes():
            raise StartError(
                "--slow-start: there is no TCP or unix listener to look at; add --port, or leave it out"
            )
        if listeners.inodes() or wanted not in ("auto", "accept"):
            return "accept" if wanted == "auto" else wanted
        if wanted == "accept":
            raise StartError(
                "--ready accept: there is no TCP or unix listener to look at; add --port, or say --ready interval"
            )
        return "interval"

    # --- a turn of the loop

    def _make_parts(self) -> list[Part]:
        """What a turn is made of, in order. What came in is seen to first, then what is due, then
        what the supervisor says to all of it, and at last who is told.
        """
        never = float("inf")

        def control() -> float:
            return self.control.deadline if self.control is not None else never

        def deciding() -> float:
            return self.supervisor.deadline

        return [
            Part(
                "listen to what it had stopped listening to",
                self.sources.deadline,
                self.sources.on_deadline,
            ),
            Part("listen to NOTIFY_SOCKET", self.notify.deadline, self.notify.on_deadline),
            Part(
                "see to the processes that have ended",
                self.children.deadline,
                self.children.on_deadline,
            ),
            Part(
                "repair the listeners",
                self.listener_repair.deadline,
                self.listener_repair.on_deadline,
            ),
            Part("start the log command", self.log_command.deadline, self.log_command.on_deadline),
            Part("start its helpers", self.helpers.deadline, self.helpers.on_deadline),
            Part(
                "give up reading the settings",
                self.settings_reload.deadline,
                self.settings_reload.on_deadline,
            ),
            Part(
                "give up what takes too long", self.delegation.deadline, self.delegation.on_deadline
            ),
            Part("look whether workers are ready", self.probes.deadline, self.probes.on_deadline),
            Part(
                "look where workers listen",
                self.missed_sockets.deadline,
                self.missed_sockets.on_deadline,
            ),
            Part(
                "run the ready command",
                self.ready_commands.deadline,
                self.ready_commands.on_deadline,
            ),
            Part(
                "look at the workers' memory",
                self.memory_watch.deadline,
                self.memory_watch.on_deadline,
            ),
            Part("decide what to do", deciding, self._settle, always=True),
            Part(
                "write the status file",
                self.status_file_report.deadline,
                self.status_file_report.write,
                always=True,
            ),
            Part(
                "tell the service manager",
                self.service_manager_report.deadline,
                self.service_manager_report.send,
                always=True,
            ),
            Part("answer at the control socket", control, self._read_control),
            Part("upgrade", self.upgrading.deadline, self.upgrading.advance, always=True),
            Part("end in time", self.stop_deadline.deadline, self.stop_deadline.on_deadline),
        ]

    def _turn(self) -> None:
        """Wait until something happens, then see to it."""
        now = time.monotonic()
        ready = self.sources.wait(self.turn.deadline(now) - now)
        now = time.monotonic()
        for key in ready:
            if self.sources.has(key) and not self._try("read what has come", key.data, now):
                self.sources.pause(key, self.turn.put_off(f"read {key.fd}", now))
        self._see_to(now)

    def _see_to(self, now: float) -> None:
        """What is due, each part by itself; after a defect, what it left undone."""
        self.turn.work(now)
        if self.turn.defective:
            self.turn.defective = False
            self._try("look its processes over", self._recover, now)

    def _recover(self, now: float) -> None:
        """After a defect: what it left undone."""
        self.children.recover(now)
        self.helpers.recover(now)

    # --- defects

    def _survive(self, error: Exception) -> None:
        """The turn itself is wrong: go on holding the sockets, and see to what can be seen to.

        Raises the error again once a stop had to be over: better a rough end than none.
        """
        now = time.monotonic()
        self._note_defect("wait for what happens", error, now)
        if now >= self.stop_deadline.leave_by:
            raise error
        # Nothing else can wait now: without this pause it would spin (promise 4).
        time.sleep(DEFECT_PAUSE)
        self.children.reap_at(now)

    def _leave(self, status: int) -> None:
        """End, with that status."""
        self.exit_status = status

    def _is_stopped(self, pid: int) -> bool:
        """Whether a child was stopped (SIGSTOP)."""
        return self.workers.stopped(pid)

    def _settle(self, now: float) -> None:
        """Reconcile until there is nothing to do at this moment."""
        while True:
            while self._ordered:
                self._perform(self._ordered.popleft(), now)
            self._ordered.extend(self.supervisor.reconcile(now))
            if self.stopping():
                self._limit_stop(now, self.supervisor.ending.lame_duck)
            if not self._ordered:
                return

    def _perform(self, order: orders.AnyOrder, now: float) -> None:
        """Perform one order. The supervisor is owed an answer to some, whatever happens."""
        self._sent_to = 0
        once = isinstance(order, (orders.Prepare, orders.Spawn, orders.Pass))
        do: Callable[[orders.AnyOrder, float], None] = getattr(self, f"_do_{type(order).__name__}")
        what = f"perform {type(order).__name__}"
        if self._try(what, do, order, now, again=not once):
            return
        cause = "a defect in sidecar; its log says where"
        if isinstance(order, orders.Prepare):
            of = order.generation
            if not self.checks.works_for(of) and not self.delegation.works_for(of):
                self._observe(facts.PreparationFailed(order.generation, cause), now)
        elif isinstance(order, orders.Spawn):
            generation = self.supervisor.roster.generations.get(order.generation)
            if generation is not None and generation.in_slot(order.slot) is None:
                self._observe(facts.SpawnFailed(order.generation, order.slot, cause), now)

    def _observe(self, fact: facts.AnyFact, now: float) -> None:
        fact = self.redaction.fact(fact)
        if isinstance(fact, facts.StopAsked):
            self._limit_stop(now, fact.lame_duck)
        self.supervisor.observe(fact, now)

    def _limit_stop(self, now: float, lame_duck: bool) -> None:
        """A stop begins: from now on it is known when it is over at the latest."""
        of = self.supervisor.settings
        self.stop_deadline.begin(now, (of.lame_duck if lame_duck else 0.0) + of.drain_timeout)

    # --- observe

    def _hear(self, now: float) -> None:
        """What the signals mean (DESIGN, "Signals")."""
        # A stop first: what died in the same moment (Ctrl-C to the whole group, a container's end)
        # died of it.
        self._heard.extend(
            sorted(self.wakeup.take(), key=lambda name: name not in ("TERM", "INT", "QUIT"))
        )
        while self._heard:
            name = self._heard.popleft()
            self._try(f"act upon SIG{name}", self._act_upon, name, now, again=True)

    def _act_upon(self, name: str, now: float) -> None:
        """One signal."""
        if name == "CHLD":
            self.children.reap_at(now)
        elif name in ("TERM", "INT", "QUIT"):
            self._observe(facts.StopAsked(name, lame_duck=name == "TERM"), now)
        elif name == "HUP" and self._terminal_has_gone():
            if not self.stopping():
                self._say("terminal_closed", {})
                self._observe(facts.StopAsked(name, lame_duck=False), now)
        elif name == "HUP":
            self.reload("signal", asked=name)
        elif name in ("TTIN", "TTOU"):
            self._observe(facts.SizeChanged(1 if name == "TTIN" else -1, name), now)
        elif name == "USR2":
            self.upgrade()
        elif name == "USR1":
            self._reopen_logs()

    def _see_worker_end(self, worker: Worker, ended: processes.Ended, now: float) -> None:
        """A worker's leader has ended."""
        if not self.settings.as_server_starter:
            what = "say why a worker may have ended"
            self._try(what, self.missed_sockets.ended_early, worker, ended)
        self._try("stop looking at a worker", self._stop_looking, ended.pid)
        note = ended.note
        try:
            note = note or self._killed_for_memory(ended)
        except Exception as error:
            self._note_defect("see whether memory ran out", error, now)
        self._observe(
            facts.WorkerExited(
                ended.pid,
                ended.code,
                ended.signal,
                ended.alone,
                note,
                ended.core,
                ended.left,
                ended.reported,
                ended.strays,
            ),
            now,
        )
        self._try("repair the listeners", self.listener_repair.on_deadline, now)

    def _killed_for_memory(self, ended: processes.Ended) -> str:
        """What is to be said of a worker that somebody killed: nothing, unless the kernel has just
        done such a thing.
        """
        worker = self.supervisor.roster.find(ended.pid)
        if ended.signal != "KILL" or worker is None or not worker.serving:
            return ""
        out_of_memory = self.room.has_killed()
        return (
            "killed by SIGKILL, probably because the container has no memory left"
            if out_of_memory
            else ""
        )

    # --- the helpers: host/helper_processes.py

    def _make_watcher(self, now: float, state: dict[str, Any] | None = None) -> None:
        """The watcher that the settings of now ask for; `state` is what an earlier version has left
        of one.
        """
        helper = self.watcher.make(now, state)
        if helper is not None:
            self.helpers.add(helper)

    def _make_admin(self, listener: int, now: float) -> None:
        """Who answers HTTP."""

        def connect(ours: socket.socket, may_ask: tuple[str, ...]) -> None:
            if self.control is not None:
                self.control.adopt(ours, may_ask)

        helper = make_admin(
            self.tools,
            listener,
            now,
            user=self.credentials,
            hosts=self.settings.admin_host,
            environment=self.started_with,
            connect=connect,
        )
        self.helpers.add(helper)

    # --- the control socket: the desk of control/commands.py

    def _read_control(self, now: float) -> None:
        if self.control is not None and (cause := self.control.turn(now, self._answer)):
            self._say(
                "action_failed", {"what": "take a client at the control socket", "cause": cause}
            )

    def _answer(self, request: object) -> tuple[list[dict[str, Any]], commands.Answer | None]:
        try:
            answer = commands.answer(request, self)
        except Exception as error:
            self._note_defect("answer a command", error, time.monotonic())
            return [commands.done(commands.NO, "a defect in sidecar: its log says where")], None
        replies, answer.replies = answer.replies, []
        return replies, None if answer.done else answer

    def status(self) -> dict[str, Any]:
        """Everything there is to know, as plain values; no value of a variable."""
        now = time.monotonic()
        told = {
            "version": __version__,
            "pid": os.getpid(),
            "time": time.time(),
            "age": now - self.since,
            "listeners": [each.key for each in self.listeners],
            "command": self.redaction.text(self.settings.command[0]),
            "program": self.redaction.text(status.program(self.settings.command)),
            "host": socket.gethostname(),
            **status.status(self.supervisor, now),
            **self.events.history.report(),
            # Whether it is the same as before, or as elsewhere; too short to tell what it is.
            "settings": f"{binascii.crc32(repr(self.settings).encode('utf-8', 'backslashreplace')):08x}",
            "problems": list(self.settings_reload.problems),
            # Looked for again, as some may have ended: only where there were any.
            "strangers": [pid for pid in self.workers.unowned() if pid in self._strangers]
            if self._strangers
            else [],
        }
        try:
            groups = {**procfs.by_group(), **self.workers.strays()}
        except OSError:
            groups = None  # /proc cannot be read now: what the workers take is not known
        for generation in told["generations"]:
            for worker in generation["workers"]:
                taken = resources.usage(worker["pid"], groups) if groups is not None else None
                worker["memory"], worker["cpu"] = taken or (None, None)
                orphans = (groups or {}).get(worker["pid"], ())
                worker["outlived"] = [pid for pid in orphans if pid != worker["pid"]]
        for last in (told["last_swap"], told["last_failure"], told["last_upgrade"]):
            if last is not None:
                last["ago"] = max(0.0, told["time"] - last["at"])
        return told

    def readiness_reasons(self) -> list[str]:
        """Why it is not ready to be sent requests; nothing, if it is."""
        return status.readiness(self.supervisor)

    def past(self) -> list[dict[str, Any]]:
        """The last events, oldest first."""
        return list(self.events.history.events)

    def begun(self) -> int:
        """The number of the generation begun last."""
        return self.supervisor.number

    def observe(self, fact: facts.AnyFact) -> None:
        """Let the supervisor know; what follows from it follows later in this turn."""
        self._observe(fact, time.monotonic())

    def reload(self, trigger: str, asked: str = "") -> bool:
        """What HUP does. Whether the settings file is read first: "settings_read" or
        "reload_rejected" will then be said.
        """
        self._reopen_log()
        self.manager.swap_asked()
        if asked:
            self._say("signal_received", {"signal": asked})
        if self.source is None or not self.source.file or self.supervisor.ending.asked:
            self.observe(facts.SwapTriggered(trigger))
            return False
        self.settings_reload.request(trigger, time.monotonic())
        return True

    # --- the settings, for host/settings_reload.py

    def settings_in_force(self) -> Settings:
        """The settings of now."""
        return self.settings

    def listener_sets(self) -> list[Listeners]:
        """Every set of listeners that some generation may still use."""
        return self.sets

    def envdir_problem(self, of: Settings) -> str:
        """What is wrong with their envdir, "" if nothing is. May block."""
        return self.generations.plain_envdir(of)[2]

    def hide(self, values: Iterable[str]) -> None:
        """These values are secret from now on."""
        self.redaction.add(values)

    def mask(self, text: str) -> str:
        """The text without a secret value."""
        return self.redaction.text(text)

    def reload_refused(self) -> None:
        """There will be no swap: the service manager is told that the reload is over."""
        self.manager.refused()

    def prepare(self, change: Change, found: Mapping[str, LookedUp]) -> Prepared:
        """Make everything that new settings need and that may fail: remarks, and what puts them in
        force. `found` is what the names in their listeners mean.

        Raises SidecarError or OSError; all is as it was then.
        """
        old, new, living = change.old, change.new, list(self.sets)
        listeners = self.listeners
        remarks: list[str] = []
        if new.port != old.port:
            listeners, remarks = Listeners.changed(
                new.port, living, backlog=new.backlog, found=found
            )
        try:
            self.readiness = self._choose_readiness(new, listeners)
            self._open_notify()
        except (SidecarError, OSError):
            listeners.without(living)
            self.readiness = self._choose_readiness(old, self.listeners)
            raise
        return remarks, lambda now: self._put_in_force(change, listeners, now)

    def _put_in_force(self, change: Change, listeners: Listeners, now: float) -> None:
        """Go by settings that nothing stands against. Nothing here may fail: half of them would be
        in force.
        """
        new = change.new
        known = {id(each.held) for group in self.sets for each in group}
        for each in listeners:
            if id(each.held) not in known:
                self._say_listening(each)
        self.settings, self.events.log.style = new, new.log_format
        self.memory_watch.configure(new.max_memory, now)
        if listeners is not self.listeners:
            self.listeners = listeners
            self.listener_repair.changed(now)
            self.sets.append(listeners)
            self._close_listeners()
        if {"command", "profile", "handoff", "port"} & {*change.names}:
            self._introduce()
            self._remark_on(new)
        self._observe(facts.Configured(new), now)
        if any(name.startswith(("watch", "env")) for name in change.names):
            self._watch_anew(now)

    def _follow_the_link(self, now: float) -> None:
        """Where the link by which sidecar came into its directory leads elsewhere now, what is watched
        is there, too.
        """
        before = self._leads_to
        try:
            leads_to = os.stat(self.place.path)
        except OSError:
            return  # what is started there will say so
        self._leads_to = (leads_to.st_dev, leads_to.st_ino)
        if self.watcher.helper is not None and before not in (None, self._leads_to):
            self._watch_anew(now)

    def _watch_anew(self, now: float) -> None:
        """Another watcher, with the rules of now."""
        if self.watcher.helper is not None:
            self.helpers.remove(self.watcher.helper, now)
            self.watcher.forget()
        self._make_watcher(now)
        if self.watcher.helper is not None:
            self.helpers.on_deadline(now)

    def _close_listeners(self) -> None:
        """Close the listeners that no generation has any more, nor any will have."""
        in_use = [self.listeners, *(plan.listeners for plan in self.generations.plans.values())]
        for each in [each for each in self.sets if each not in in_use]:
            self.sets.remove(each)
            for address in each.without(self.sets):
                self._say("listener_closed", {"address": address})

    def signal(self, name: str) -> tuple[list[int], list[int]]:
        """Pass a signal to the workers that serve and have a handler for it, and open the log anew on
        USR1: the pids of those, and of those that have none.
        """
        if name == "USR1":
            self._rotated()
        ready = [worker.pid for worker in self.supervisor.roster.ready()]
        deaf = [] if name in HARMLESS else self._without_handler(ready, name)
        pids = [pid for pid in ready if pid not in deaf]
        self.observe(facts.SignalPassed(name, tuple(pids)))
        return pids, deaf

    def _without_handler(self, pids: Iterable[int], name: str) -> list[int]:
        number = signal.Signals[f"SIG{name}"]
        return [pid for pid in pids if not accept_probe.handles(pid, number)]

    def _reopen_logs(self) -> None:
        """What USR1 does: open the log anew, and let the programs do so that are known to do it on
        USR1. Others would end of it, or stop, or wait for a debugger.
        """
        self._rotated()
        able = [
            worker.pid
            for worker in self.supervisor.roster.ready()
            if (
                row := profiles.PROFILES.get(
                    self.generations.plans[worker.generation].settings.profile
                )
            )
            is not None
            and row.reopens
        ]
        deaf = self._without_handler(able, "USR1")
        to = tuple(pid for pid in able if pid not in deaf)
        self.observe(facts.SignalPassed("USR1", to))

    def _rotated(self) -> None:
        if self._reopen_log() and self.supervisor.roster.serving():
            remark = (
                f"{self.settings.log_file} is another file now, but the workers that run write on to the"
                " one before: HUP replaces them, or rotate by copying and truncating (copytruncate)"
            )
            self._say("notice", {"text": remark})

    def stopping(self) -> bool:
        """Whether a stop was asked for: nothing new will be begun."""
        return self.supervisor.ending.asked > 0

    # --- other sources

    def _read_keys(self, now: float) -> None:
        """In a terminal, line by line: Enter swaps, q stops."""
        for line in self.terminal.lines() if self.terminal is not None else ():
            if line.strip().lower() in (b"q", b"quit"):
                self._say("key_pressed", {"key": "q"})
                self._observe(facts.StopAsked("INT", lame_duck=False), now)
            else:
                self._say("key_pressed", {"key": "Enter"})
                self._observe(facts.SwapTriggered("key"), now)

    def _terminal_has_gone(self) -> bool:
        """Whether `sidecar dev` was started in a terminal that has been closed (and not by `nohup`):
        HUP says so then.
        """
        ignored = self.wakeup.dispositions[signal.SIGHUP] is signal.SIG_IGN
        return self._in_a_terminal and not ignored and not terminal.controlling()

    def _reopen_log(self) -> bool:
        """Open --log-file anew; whether it is another file than before."""
        if self.output is not None:
            try:
                return self.output.reopen()
            except StartError as error:
                self._say("action_failed", {"what": "reopen the log", "cause": str(error)})
        return False

    # --- readiness: probes, commands, and what is said of workers that miss their sockets

    def _saw_ready(self, pid: int, now: float) -> None:
        """A worker is ready. Where it listens is no question any more, and nothing wakes for it."""
        self.missed_sockets.drop(pid)
        self._observe(facts.WorkerReady(pid), now)

    def _attempt(self, worker: Worker) -> Attempt:
        plan = self.generations.plans[worker.generation]
        return Attempt(
            plan.settings.command,
            plan.settings.profile,
            plan.settings.overlap,
            as_passed(plan.listeners),
            plan.listeners.inodes(),
            self.generations.environments[worker.generation],
        )

    def _inodes(self, pid: int) -> frozenset[int]:
        """The listeners that the worker was started with."""
        worker = self.supervisor.roster.find(pid)
        return (
            self.generations.plans[worker.generation].listeners.inodes()
            if worker is not None
            else frozenset()
        )

    def _start_ready_command(self, worker: Worker, job: Job) -> int:
        """Run a worker's ready command; its pid. Raises OSError."""
        environment = {
            **self._environment(worker.generation, worker.slot, ""),
            "SIDECAR_WORKER_PID": str(worker.pid),
        }
        settings = self.generations.plans[worker.generation].settings
        return self._start_helper(settings, settings.ready_command, environment, job)

    def _stop_looking(self, pid: int) -> None:
        self.probes.drop(pid)
        self.missed_sockets.drop(pid)
        self.ready_commands.drop(pid)

    # --- perform

    def _do_Prepare(self, order: orders.Prepare, now: float) -> None:  # noqa: N802
        if self.place.linked:
            self._try("watch where the link leads", self._follow_the_link, now)
        self.generations.prepare(order, now)

    def _plan_of_now(self) -> Plan:
        """What a generation is begun with now."""
        return Plan(
            self.settings,
            self.listeners,
            self.command,
            self.readiness,
            self.output.end() if self.output is not None else None,
        )

    def _start_check(
        self, settings: Settings, environment: dict[str, str], output: int, job: Job
    ) -> int:
        """Run a generation's check, what it writes going to `output`; its pid. Raises OSError."""
        return self._start_helper(
            settings, settings.check, environment, job, [(output, 1), (output, 2)]
        )

    def _prepared(self, generation: int, now: float) -> None:
        """It can be started; with --overlap auto, say how many of its workers fit beside those that
        are there.

        Not in a slow start, which shrinks the old program while the new one grows: there are never
        two whole ones.
        """
        room, why, of = None, "", self.generations.plans[generation].settings
        there = list(self.supervisor.roster.workers())
        if there and of.overlap == "auto" and not of.slow_start:
            room, why = self.room.left_for(generation, there, self.supervisor.size)
        self._observe(facts.Prepared(generation, room, why), now)

    def _environment(self, generation: int, slot: int, workers: str) -> dict[str, str]:
        count = workers or str(self.supervisor.size)
        return worker_environment.in_slot(self.generations.environments[generation], slot, count)

    def _launch(
        self,
        settings: Settings,
        argv: tuple[str, ...],
        environment: dict[str, str],
        handoff: Iterable[tuple[int, int]] = (),
    ) -> child.Launch:
        return child.Launch(
            argv=argv,
            environment=environment,
            handoff=tuple(handoff),
            directory=settings.dir,
            umask=settings.umask,
            place=self.place,
        )

    def _start_helper(
        self,
        settings: Settings,
        argv: tuple[str, ...],
        environment: dict[str, str],
        job: Job,
        handoff: Iterable[tuple[int, int]] = (),
    ) -> int:
        """Start a check or ready command: the generation's environment, but none of its sockets."""
        public = worker_environment.without_sockets(environment)
        return self.children.start(self._launch(settings, argv, public, handoff), job)

    def _do_Spawn(self, order: orders.Spawn, now: float) -> None:  # noqa: N802
        environment = self._environment(order.generation, order.slot, str(order.workers))
        plan = self.generations.plans[order.generation]
        try:
            launch = self._launch(
                plan.settings, plan.command, environment, plan.listeners.handoff()
            )
            pid = self.workers.start(launch.replace(worker=True))
        except OSError as error:
            self._observe(
                facts.SpawnFailed(
                    order.generation, order.slot, f"no process could be made: {error.strerror}"
                ),
                now,
            )
            return
        self._observe(facts.WorkerStarted(order.generation, order.slot, pid, plan.readiness), now)
        self._try("look after a worker", self._look_after, pid, plan.readiness, now, again=True)

    def _look_after(self, pid: int, how: str, now: float) -> None:
        """Find out when a worker that has just been started is ready, where that is ours to find
        out.
        """
        try:
            report = self.workers.report(pid)
            if report >= 0:
                self.sources.listen_to(report, lambda now: self._see_executed(pid, now))
            else:  # an earlier version of sidecar has started it
                self._see_executed(pid, now)
        except OSError:  # no memory for it: as if it had been seen
            self._observe(facts.WorkerExecuted(pid), now)
        if not self.settings.as_server_starter:  # which says nothing of it
            self.missed_sockets.add(pid, now)
        if how == "accept":
            self.probes.add(pid, now)
        elif how == "command":
            self.ready_commands.add(pid, now)

    def _see_executed(self, pid: int, now: float) -> None:
        if self.workers.runs_its_program(pid):
            self._observe(facts.WorkerExecuted(pid), now)

    def _do_Retire(self, order: orders.Retire, now: float) -> None:  # noqa: N802
        self.ready_commands.leaves(order.pid)
        if self._sent_to != order.pid:  # a second signal hurries some programs
            self._send(order.pid, order.signal, self.workers.retire)
        self._stop_looking(order.pid)

    def _do_Pass(self, order: orders.Pass, now: float) -> None:  # noqa: N802
        self._send(order.pid, order.signal)

    def _send(self, pid: int, signal: str, send: Callable[[int, str], None] | None = None) -> None:
        try:
            (send or self.workers.signal)(pid, signal)
            self._sent_to = pid
        except OSError as error:
            self._say(
                "action_failed", {"what": f"send SIG{signal} to {pid}", "cause": error.strerror}
            )

    def _do_RetireGroup(self, order: orders.RetireGroup, now: float) -> None:  # noqa: N802
        try:
            self.workers.retire_group(order.pid, order.signal)
        except OSError as error:
            what = f"send SIG{order.signal} to what has outlived {order.pid}"
            self._say("action_failed", {"what": what, "cause": error.strerror})

    def _do_Kill(self, order: orders.Kill, now: float) -> None:  # noqa: N802
        try:
            self.workers.kill(order.pid)
        except OSError as error:
            self._say("action_failed", {"what": f"kill {order.pid}", "cause": error.strerror})
        self._stop_looking(order.pid)

    def _do_Close(self, order: orders.Close, now: float) -> None:  # noqa: N802
        self.checks.drop_generation(order.generation)
        self.delegation.drop_generation(order.generation)
        self.generations.forget(order.generation, self.supervisor.last_good)
        self._say("generation_ended", {"generation": order.generation})
        # Until then old and new are there at once, also when the new one serves or has failed.
        if len(self.supervisor.roster.generations) == 1:
            self.room.only_one_left()
        self._try("close listeners", self._close_listeners)
        self._try("repair the listeners", self.listener_repair.on_deadline, now)
        self._try("see who holds the listeners", self._tell_strangers)

    def _tell_strangers(self) -> None:
        """Say which process has a listener open and belongs to no generation that is known: it may
        answer with old code for as long as it lives.
        """
        inodes = {inode for each in self.sets for inode in each.inodes()}
        for pid in self.workers.unowned():
            if pid not in self._strangers and accept_probe.holds(pid, inodes):
                self._strangers.add(pid)
                remark = (
                    f"process {pid} has a listener open, and no generation is known to have it:"
                    " it may answer with old code until it ends. Sidecar ends it when it stops itself"
                )
                self._say("notice", {"text": remark})

    def _do_Say(self, order: orders.Say, now: float) -> None:  # noqa: N802
        if order.event == "serving":
            # It is not said of a door that is closed.
            self._try("repair the listeners", self.listener_repair.on_deadline, now)
            self.missed_sockets.served()
        fields = order.fields
        if order.event == "swap_failed" and (
            plan := self.generations.plans.get(fields["generation"])
        ):
            fields = {**fields, **plan.log_end}
        self._say(order.event, fields)
        self.manager.heed(order.event, order.fields)

    def _do_Exit(self, order: orders.Exit, now: float) -> None:  # noqa: N802
        self.exit_status = order.status
        if self.control is not None:
            self._try("answer at the control socket", self.control.flush)
        if order.reason:
            leave_a_reason(order.reason)


def run(
    settings: Settings,
    environ: Mapping[str, str],
    detach: Detach | None = None,
    source: Source | None = None,
    started: Started | None = None,
) -> int:
    """Run sidecar until it is stopped; its exit status. Raises SidecarError if it cannot start.

    `source` gives the settings again on HUP. `detach`, called once everything is bound and nothing
    is started, may go on in another process; it is given what rewrites the pid file. `started` is
    how to start it again.
    """
    host = None
    try:
        host = Host(settings, environ, source, started)
        return host.run(detach)
    except OSError as error:
        if host is not None and host.began:
            raise
        raise StartError(refused(error), error.errno or 0) from None


def take_over(
    state: dict[str, Any],
    environ: Mapping[str, str],
    source: Source | None = None,
    started: Started | None = None,
) -> Callable[[], int]:
    """Be the version after the one that has left this state: what goes on from here.

    Raises whatever hinders it, and can then be tried again, by another exec.
    """
    host = Host(state["settings"], environ, source, started, state)
    host.import_state(state)
    return host.run


def rehearse(environ: Mapping[str, str], left: str, source: Source | None = None) -> int:
    """Prove that this version could take over from the one that has started it: make everything,
    say which version it is, and end.

    Raises SidecarError if it could not.
    """
    state = execute.unseal(left, os.getppid())
    if state is None:
        raise StartError(
            "it is sidecar itself that asks for an upgrade's check, and with its state: see `sidecar upgrade --check`"
        )
    try:
        Host(state["settings"], environ, source, None, state).import_state(state)
    except (OSError, KeyError) as error:
        raise StartError(
            f"the state of the running sidecar does not fit this version: {type(error).__name__} {error}"
        ) from None
    os.write(1, f"sidecar {__version__}\n".encode())
    # As it is: what was made of the state is the parent's, and not to be closed or removed.
    os._exit(0)
