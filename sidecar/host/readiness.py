"""When a coming worker is ready: it is looked at, asked, or says so itself, as its generation's
settings have it. Meanwhile it is noticed if it does not use its sockets.
"""

from __future__ import annotations

import os

from sidecar.core import facts
from sidecar.host.missed_sockets import MissedSockets
from sidecar.host.notify_reader import NotifyReader
from sidecar.host.readiness_probes import ReadinessProbes
from sidecar.host.ready_commands import ReadyCommands
from sidecar.host.socket_use import WorkerStart

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core.model import Worker
    from sidecar.core.supervisor import Supervisor
    from sidecar.host.generations import Generations
    from sidecar.host.job import Job, Tools
    from sidecar.host.launches import Launches
    from sidecar.system.processes import ChildProcesses, Ended
    from sidecar.system.users import Credentials


class Readiness:
    """The jobs that find out, and who of them is to do so for which worker. `credentials` are those
    of the workers, None for sidecar's own; `advise`: say when a worker does not use its sockets.
    """

    def __init__(
        self,
        tools: Tools,
        supervisor: Supervisor,
        processes: ChildProcesses,
        generations: Generations,
        launches: Launches,
        credentials: Credentials | None,
        advise: bool,
    ) -> None:
        self._tools = tools
        self._supervisor = supervisor
        self._processes = processes
        self._generations = generations
        self._launches = launches
        self._advise = advise
        worker_table = supervisor.worker_table
        uid = os.geteuid()
        self.notify = NotifyReader(
            tools,
            worker_table=worker_table,
            uids={uid, credentials.uid if credentials is not None else uid},
            ready=self.ready,
        )
        self.probes = ReadinessProbes(
            tools,
            supervisor=supervisor,
            inodes=self._inodes,
            ready=self.ready,
            done=self.drop,
        )
        self.commands = ReadyCommands(
            tools,
            worker_table=lambda: worker_table,
            run=self._start_command,
            inodes=self._inodes,
            ready=self.ready,
            done=self.drop,
        )
        self.missed_sockets = MissedSockets(
            tools, worker_table=worker_table, started_with=self._started_with
        )

    def add(self, pid: int, how: str, now: float) -> None:
        """Find out when a worker that has just been started is ready; `how` is accept, notify,
        interval or command.
        """
        try:
            report = self._processes.exec_report_fd(pid)
            if report >= 0:
                self._tools.listen_to(report, lambda now: self._see_executed(pid, now))
            else:  # an earlier version of sidecar has started it
                self._see_executed(pid, now)
        except OSError:  # no memory for it: as if it had been seen
            self._tools.observe(facts.ProgramExecuted(pid), now)
        if self._advise:
            self.missed_sockets.add(pid, now)
        if how == "accept":
            self.probes.add(pid, now)
        elif how == "command":
            self.commands.add(pid, now)

    def ready(self, pid: int, now: float) -> None:
        """A worker is ready. Where it listens is no question any more, and nothing wakes for it."""
        self.missed_sockets.drop(pid)
        self._tools.observe(facts.WorkerReady(pid), now)

    def drop(self, pid: int) -> None:
        """Look at a worker no more: it is ready, or leaves, or has gone."""
        self.probes.drop(pid)
        self.missed_sockets.drop(pid)
        self.commands.drop(pid)

    def retire(self, pid: int) -> None:
        """A worker is asked to leave: if its ready command was not believed, say so."""
        self.commands.leaves(pid)

    def explain_exit(self, worker: Worker, ended: Ended) -> None:
        """Say what may have ended a worker before it was ready, if that is known."""
        if self._advise:
            self.missed_sockets.ended_early(worker, ended)

    def _see_executed(self, pid: int, now: float) -> None:
        if self._processes.runs_its_program(pid):
            self._tools.observe(facts.ProgramExecuted(pid), now)

    def _inodes(self, pid: int) -> frozenset[int]:
        """The listeners that the worker was started with."""
        worker = self._supervisor.worker_table.find(pid)
        if worker is None:
            return frozenset()
        return self._generations.plans[worker.generation].listeners.inodes()

    def _start_command(self, worker: Worker, job: Job) -> int:
        """Run a worker's ready command; its pid. Raises OSError."""
        environment = {
            **self._generations.environment(worker.generation, worker.slot, self._supervisor.size),
            "SIDECAR_WORKER_PID": str(worker.pid),
        }
        settings = self._generations.plans[worker.generation].settings
        return self._launches.ready_command(settings, environment, job)

    def _started_with(self, worker: Worker) -> WorkerStart:
        plan = self._generations.plans[worker.generation]
        return WorkerStart(
            plan.settings.command,
            plan.settings.profile,
            plan.settings.overlap,
            plan.passed(),
            plan.listeners.inodes(),
            self._generations.environments[worker.generation],
        )
