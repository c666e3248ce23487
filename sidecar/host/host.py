"""Every job of the host: here they are made and connected, and only here one is told of another. What
a turn of the loop is made of stands here, too.
"""

from __future__ import annotations

import signal
import time

from sidecar.host.admin import make_admin
from sidecar.host.announcements import Announcements
from sidecar.host.children import Children
from sidecar.host.control_desk import ControlDesk
from sidecar.host.delegation import Delegation
from sidecar.host.generation_end import GenerationEnd
from sidecar.host.generations import Generations
from sidecar.host.helper_processes import HelperProcesses
from sidecar.host.in_force import InForce
from sidecar.host.job import Tools
from sidecar.host.last_sweep import LastSweep
from sidecar.host.launches import Launches
from sidecar.host.listener_repair import ListenerRepair
from sidecar.host.log_command import LogCommand
from sidecar.host.loop import Loop
from sidecar.host.memory_watch import MemoryRoom, MemoryWatch
from sidecar.host.performing import Performing
from sidecar.host.readiness import Readiness
from sidecar.host.requests import Requests
from sidecar.host.settings_change import SettingsChange
from sidecar.host.settings_reload import SettingsReload
from sidecar.host.signal_handling import SignalHandling
from sidecar.host.sources import Sources
from sidecar.host.status_reports import ServiceManagerReport, StatusFileReport
from sidecar.host.terminal_keys import TerminalKeys
from sidecar.host.turn import Part, due
from sidecar.host.unknown_holders import UnknownHolders
from sidecar.host.upgrading import Upgrading
from sidecar.host.watcher import Watcher
from sidecar.host.watching import Watching
from sidecar.host.workers import WorkerProcesses
from sidecar.settings.table import DEV

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sidecar.core.supervisor import Supervisor
    from sidecar.host.events import Events
    from sidecar.host.resources import Resources
    from sidecar.host.settings_reload import Change, Source
    from sidecar.host.upgrading import Started
    from sidecar.settings.table import Settings


class Host:
    """One run of sidecar. `source` is where its settings came from, `started` how it was started;
    `export_state` makes what it leaves to another version.

    Raises SidecarError or OSError if it cannot be made.
    """

    def __init__(
        self,
        events: Events,
        resources: Resources,
        supervisor: Supervisor,
        settings: Settings,
        source: Source | None,
        started: Started | None,
        export_state: Callable[[Host], dict[str, Any]],
    ) -> None:
        now = time.monotonic()
        worker_table, processes = supervisor.worker_table, resources.processes
        self.events = events
        self.resources = resources
        self.supervisor = supervisor
        self._source = source
        #: Whether `run` has been called.
        self.began = False
        self.sources = Sources()
        processes.before_report_close = self.sources.stop_listening
        self.loop = Loop(events.turn, self.sources, supervisor, events.redaction)
        self.children = Children(
            events.turn, events.say, self.loop.observe, processes, worker_table
        )
        self.tools = tools = Tools(
            say=events.say,
            observe=self.loop.observe,
            start=self.children.start,
            abandon=self.children.abandon,
            listen_to=self.sources.listen_to,
            stop_listening=self.sources.stop_listening,
            attempt=events.turn.attempt,
            note_defect=events.turn.note_defect,
            stopping=self.loop.stopping,
        )
        self.in_force = InForce(
            events.say,
            settings,
            resources.listeners,
            resources.output,
            resources.environ,
            source.remarks if source is not None else lambda _: [],
        )
        # Generations and their workers.
        self.delegation = Delegation(tools)
        self.room = MemoryRoom()
        launches = Launches(resources.place, self.children.start)
        self.generations = Generations(
            tools,
            supervisor,
            self.in_force.plan,
            resources.environ,
            resources.place,
            notify_address=lambda: self.readiness.notify.address,
            delegate=self.delegation.start,
            run_check=launches.check,
            room_for=self.room.left_for,
        )
        self.readiness = Readiness(
            tools,
            supervisor,
            processes,
            self.generations,
            launches,
            resources.credentials,
            advise=not settings.as_server_starter,
        )
        self.listener_repair = ListenerRepair(
            tools,
            listeners=lambda: resources.listeners.current,
            leaving=lambda: supervisor.stop_state.phase == "leaving",
        )
        self.workers = WorkerProcesses(
            tools,
            processes,
            self.generations,
            launches,
            self.readiness,
            out_of_memory=self.room.has_killed,
            repair_listeners=self.listener_repair.on_deadline,
        )
        self.memory_watch = MemoryWatch(tools, settings.max_memory, now, worker_table)
        # Helpers.
        self.log_command = LogCommand(
            tools, output=lambda: resources.output, environ=lambda: resources.environ
        )
        self.helpers = HelperProcesses(
            tools,
            place=lambda: resources.place,
            listens_to=self.sources.listens_to,
            stopped=processes.was_stopped,
            send=self.workers.send,
            adopt=self.children.adopt,
        )
        self.watcher = Watcher(
            tools,
            lambda: self.in_force.settings,
            resources.started_with,
            lambda: source.file if source is not None else "",
            lambda paths, now: self.settings_reload.request("watch", now, paths),
        )
        self.watching = Watching(self.watcher, self.helpers, resources.place)
        # What is asked for.
        self.settings_change = SettingsChange(
            tools,
            self.in_force,
            resources.listeners,
            self.generations,
            events.redaction,
            resources.manager,
            open_notify=self.readiness.notify.open,
            on_change=self._on_settings_change,
        )
        self.settings_reload = SettingsReload(
            tools,
            self.settings_change,
            source,
            resources.started_with,
            lambda: resources.place,
            self.delegation.start,
            self.delegation.drop,
        )
        self.upgrading = Upgrading(
            tools,
            started,
            resources.started_with,
            export_state=lambda: export_state(self),
            coming=self._coming,
            reading=self.settings_reload.under_way,
            before_exec=self.readiness.commands.interrupt,
        )
        requests = Requests(
            tools,
            worker_table,
            self.generations,
            resources.manager,
            resources.output,
            self._read_settings,
        )
        unknown_holders = UnknownHolders(events.say, processes, resources.listeners.inodes)
        self.control_desk = ControlDesk(
            tools,
            resources.control,
            supervisor,
            processes,
            self.in_force,
            resources.listeners,
            events,
            unknown_holders,
            requests,
            problems=lambda: self.settings_reload.problems,
            upgrade=self.upgrading.request,
        )
        self.terminal_keys = TerminalKeys(
            tools,
            settings.entry_point == DEV,
            hangup_ignored=resources.wakeup.dispositions[signal.SIGHUP] is signal.SIG_IGN,
        )
        self.signals = SignalHandling(
            tools,
            resources.wakeup,
            requests,
            child_ended=self.children.reap_at,
            upgrade=self.upgrading.request,
            terminal_gone=self.terminal_keys.gone,
        )
        # What is told, and what orders do.
        self.status_file_report = StatusFileReport(events.say, resources.status_file, supervisor)
        self.manager_report = ServiceManagerReport(events.say, resources.manager, supervisor)
        announcements = Announcements(
            tools,
            self.generations,
            self.listener_repair,
            self.readiness.missed_sockets,
            resources.manager,
        )
        generation_end = GenerationEnd(
            tools,
            supervisor,
            self.generations,
            self.delegation,
            self.room,
            resources.listeners,
            self.listener_repair,
            unknown_holders,
        )
        performing = Performing(
            tools,
            worker_table,
            self.generations,
            self.delegation,
            self.workers,
            before_prepare=self.watching.follow_link,
            gone=generation_end.close,
            said=announcements.say,
            leave=self._leave,
        )
        self.last_sweep = LastSweep(events.turn, self.sources, resources.wakeup)
        self.loop.perform = performing.perform
        self.loop.reap = self.children.reap_at
        self.loop.recoveries = (self.children.recover, self.helpers.recover)
        self.children.worker_ended = self.workers.on_worker_exit
        self.children.reaped = self.helpers.kill_stopped
        events.publish = resources.control.publish
        events.turn.parts = self._parts()
        self.sources.listen_to(resources.wakeup, self.signals.on_readable)
        self.sources.listen_to(resources.control, self.control_desk.on_readable)

    def run(self) -> int:
        """Run until sidecar is to end; its exit status. No process of it is left then."""
        self.began = True
        try:
            return self.loop.run()
        finally:
            self._end()

    def make_admin(self, now: float) -> None:
        """Have HTTP answered, where that is wanted."""
        for listener in self.resources.admin or ():
            helper = make_admin(
                self.tools,
                listener.sock.fileno(),
                now,
                user=self.resources.credentials,
                hosts=self.in_force.settings.admin_host,
                environment=self.resources.started_with,
                connect=self.control_desk.connect,
            )
            self.helpers.add(helper)

    def _parts(self) -> list[Part]:
        """What a turn is made of, in order. What came in is seen to first, then what is due, then
        what the supervisor says to all of it, and at last who is told.
        """
        desk, upgrading = self.control_desk, self.upgrading
        return [
            due("listen to what it had stopped listening to", self.sources),
            due("listen to NOTIFY_SOCKET", self.readiness.notify),
            due("see to the processes that have ended", self.children),
            due("repair the listeners", self.listener_repair),
            due("start the log command", self.log_command),
            due("start its helpers", self.helpers),
            due("give up reading the settings", self.settings_reload),
            due("give up what takes too long", self.delegation),
            due("look whether workers are ready", self.readiness.probes),
            due("look where workers listen", self.readiness.missed_sockets),
            due("run the ready command", self.readiness.commands),
            due("look at the workers' memory", self.memory_watch),
            Part("decide what to do", self._next_decision, self.loop.decide, always=True),
            due("write the status file", self.status_file_report, always=True),
            due("tell the service manager", self.manager_report, always=True),
            Part("answer at the control socket", desk.deadline, desk.on_readable),
            Part("upgrade", upgrading.deadline, upgrading.advance, always=True),
            due("end in time", self.loop.stop_deadline),
        ]

    def _next_decision(self) -> float:
        return self.supervisor.deadline

    def _coming(self) -> int:
        """The generation that is being started, 0 for none."""
        coming = self.supervisor.worker_table.coming
        return coming.number if coming is not None else 0

    def _read_settings(self, trigger: str, now: float) -> bool:
        """Have the settings file read; whether there is one."""
        if self._source is None or not self._source.file:
            return False
        self.settings_reload.request(trigger, now)
        return True

    def _on_settings_change(self, change: Change, now: float) -> None:
        """Other settings are in force: tell the jobs that have some of their own. Must not raise."""
        self.events.log.style = change.new.log_format
        self.memory_watch.configure(change.new.max_memory, now)
        if "port" in change.names:
            self.listener_repair.changed(now)
            self.resources.listeners.close_unused(self.generations.listeners())
        self.watching.on_change(change, now)

    def _leave(self, status: int) -> None:
        """Sidecar is to end."""
        self.loop.leave(status)
        self.tools.attempt("answer at the control socket", self.control_desk.flush)

    def _end(self) -> None:
        """The last steps; a defect in one leaves no other undone."""
        attempt, resources = self.tools.attempt, self.resources
        for helper in self.helpers:
            attempt(f"close the pipes of {helper.name}", helper.close)
        attempt(
            "end what is left",
            self.last_sweep.run,
            resources.processes,
            resources.output,
            self.events.log.release,
            self.loop.stop_deadline.over_by,
        )
        attempt("stop watching the listeners", self.listener_repair.close)
        attempt("close what the loop waits on", self.sources.close)
        attempt("let the terminal go", self.terminal_keys.close)
        attempt("close NOTIFY_SOCKET", self.readiness.notify.close)
        attempt("let the service manager go", resources.manager.close)
