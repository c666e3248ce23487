"""Every process that sidecar has started, and who is told of its end: a table pid → job. Workers are
in the worker_table instead.
"""

from __future__ import annotations

from sidecar.core import facts
from sidecar.core.model import LINGERING
from sidecar.system.processes import Ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sidecar.core.model import Worker
    from sidecar.core.worker_table import WorkerTable
    from sidecar.host.job import Job
    from sidecar.host.turn import Turn
    from sidecar.system.child import Launch
    from sidecar.system.processes import ChildProcesses

# How a process ended whose exit was lost.
LOST = "it has ended; its exit status was lost by a defect in sidecar"


class Children:
    """The job that sees to the end of processes. `processes` starts and reaps them, `worker_table` has the
    workers.
    """

    def __init__(
        self,
        turn: Turn,
        say: Callable[[str, Mapping[str, Any]], None],
        observe: Callable[[facts.AnyFact, float], None],
        processes: ChildProcesses,
        worker_table: WorkerTable,
    ) -> None:
        self._turn = turn
        self._say = say
        self._observe = observe
        self._processes = processes
        self._worker_table = worker_table
        #: Told of a worker's end.
        self.worker_ended: Callable[[Worker, Ended, float], None]
        #: Called when all that have ended were seen to.
        self.reaped: Callable[[], None]
        self._jobs: dict[int, Job] = {}
        self._reap_at = float("inf")

    def start(self, launch: Launch, job: Job) -> int:
        """Start a process; the job is told of its end. Its pid; raises OSError."""
        pid = self._processes.start(launch)
        self._jobs[pid] = job
        return pid

    def adopt(self, pid: int, job: Job) -> None:
        """The job is told of the end of a process that an earlier version of sidecar has started."""
        self._jobs[pid] = job

    def abandon(self, pid: int) -> None:
        """Kill a process that was started by `start`; nobody is told of its end."""
        self._jobs.pop(pid, None)
        self._processes.abandon(pid)

    def reap_at(self, now: float) -> None:
        """Children may have ended: reap them in this turn."""
        self._reap_at = now

    def deadline(self) -> float:
        """When to see to those that have ended."""
        return self._reap_at

    def on_deadline(self, now: float) -> None:
        """See to every child that has ended."""
        processes = self._processes
        processes.collect()
        self._reap_at = float("inf")
        while processes.ended:
            ended = processes.ended.popleft()
            what = "see to the end of a process"
            self._turn.attempt(what, self._see_end, ended, now, again=True)
        while processes.emptied:
            self._observe(facts.GroupEmptied(processes.emptied.popleft()), now)
        self.reaped()

    def _see_end(self, ended: Ended, now: float) -> None:
        """A process has ended: tell whoever waits for it."""
        worker = self._worker_table.find(ended.pid)
        if worker is not None and worker.state != LINGERING:
            self.worker_ended(worker, ended, now)
        elif (job := self._jobs.pop(ended.pid, None)) is not None:
            try:
                job.on_exit(ended, now)
            except Exception:
                self._jobs.setdefault(ended.pid, job)  # it is called again
                raise
        elif not self._processes.was_abandoned(ended.pid):
            cause = f"killed by SIG{ended.signal}" if ended.signal else f"status {ended.code}"
            self._say("orphan_reaped", {"pid": ended.pid, "cause": cause})

    def recover(self, now: float) -> None:
        """After a defect, compare the processes there are with those that somebody waits for: who
        waits for one that has gone is told so, and one that nobody waits for is killed.
        """
        processes = self._processes
        there = processes.children() | {each.pid for each in processes.ended}
        for pid in self._waited_for() - there - {0}:
            worker = self._worker_table.find(pid)
            if worker is not None and processes.group_outlives_leader(pid):
                continue  # its leader has gone, others of its group have not
            if worker is not None and worker.state == LINGERING:
                self._observe(facts.GroupEmptied(pid), now)
            else:
                self._see_end(Ended(pid, 1, "", LOST, True), now)
            self._reap_at = now
        for pid in processes.children() - self._waited_for():
            processes.abandon(pid)

    def _waited_for(self) -> set[int]:
        """Every process that sidecar has started and somebody in it waits for; 0 may be among them."""
        found = {worker.pid for worker in self._worker_table.workers()}
        found.update(self._jobs)
        found.update(self._processes.abandoned())
        return found
