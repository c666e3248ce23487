"""The workers' processes: they are started, sent signals, and their end is observed."""

from __future__ import annotations

from sidecar.core import facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.core import orders
    from sidecar.core.model import Worker
    from sidecar.host.generations import Generations
    from sidecar.host.job import Tools
    from sidecar.host.launches import Launches
    from sidecar.host.readiness import Readiness
    from sidecar.system.processes import ChildProcesses, Ended

OUT_OF_MEMORY = "killed by SIGKILL, probably because the container has no memory left"


class WorkerProcesses:
    """The job that performs the orders about workers. `out_of_memory` says whether the kernel has
    just killed a process for want of memory; `repair_listeners` is called when a worker has ended.
    """

    def __init__(
        self,
        tools: Tools,
        processes: ChildProcesses,
        generations: Generations,
        launches: Launches,
        readiness: Readiness,
        *,
        out_of_memory: Callable[[], bool],
        repair_listeners: Callable[[float], None],
    ) -> None:
        self._tools = tools
        self._processes = processes
        self._generations = generations
        self._launches = launches
        self._readiness = readiness
        self._out_of_memory = out_of_memory
        self._repair_listeners = repair_listeners
        # The order whose signal has been sent: should it be performed again, it is not sent again.
        self._sent: orders.AnyOrder | None = None

    def spawn(self, order: orders.Spawn, now: float) -> None:
        """Start a worker."""
        plan = self._generations.plans[order.generation]
        environment = self._generations.environment(order.generation, order.slot, order.workers)
        try:
            pid = self._processes.start(self._launches.worker(plan, environment))
        except OSError as error:
            cause = f"no process could be made: {error.strerror}"
            self._tools.observe(facts.SpawnFailed(order.generation, order.slot, cause), now)
            return
        fact = facts.WorkerStarted(order.generation, order.slot, pid, plan.readiness)
        self._tools.observe(fact, now)
        add = self._readiness.add
        self._tools.attempt("look after a worker", add, pid, plan.readiness, now, again=True)

    def retire(self, order: orders.Retire) -> None:
        """Ask a worker to leave."""
        self._readiness.retire(order.pid)
        if self._sent is not order:  # a second signal hurries some programs
            try:
                self._processes.retire(order.pid, order.signal)
                self._sent = order
            except OSError as error:
                self._cannot(f"send SIG{order.signal} to {order.pid}", error)
        self._readiness.drop(order.pid)

    def retire_group(self, order: orders.RetireGroup) -> None:
        """Ask what has outlived a worker's leader to leave."""
        try:
            self._processes.retire_group(order.pid, order.signal)
        except OSError as error:
            self._cannot(f"send SIG{order.signal} to what has outlived {order.pid}", error)

    def kill(self, order: orders.Kill) -> None:
        """Kill a worker's whole group."""
        try:
            self._processes.kill(order.pid)
        except OSError as error:
            self._cannot(f"kill {order.pid}", error)
        self._readiness.drop(order.pid)

    def send(self, pid: int, signal: str) -> None:
        """Send a signal to one process. What fails is said."""
        try:
            self._processes.signal(pid, signal)
        except OSError as error:
            self._cannot(f"send SIG{signal} to {pid}", error)

    def on_worker_exit(self, worker: Worker, ended: Ended, now: float) -> None:
        """A worker's leader has ended."""
        what = "say why a worker may have ended"
        self._tools.attempt(what, self._readiness.explain_exit, worker, ended)
        self._tools.attempt("stop looking at a worker", self._readiness.drop, ended.pid)
        note = ended.start_error
        try:
            note = note or self._killed_for_memory(worker, ended)
        except Exception as error:
            self._tools.note_defect("see whether memory ran out", error, now)
        fact = facts.WorkerExited(
            ended.pid,
            ended.code,
            ended.signal,
            ended.group_empty,
            note,
            ended.core_dumped,
            ended.left_pids,
            ended.reported_signal,
            ended.strays,
        )
        self._tools.observe(fact, now)
        self._tools.attempt("repair the listeners", self._repair_listeners, now)

    def _killed_for_memory(self, worker: Worker, ended: Ended) -> str:
        """What is to be said of a worker that somebody killed: nothing, unless the kernel has just
        done such a thing.
        """
        if ended.signal != "KILL" or not worker.active or not self._out_of_memory():
            return ""
        return OUT_OF_MEMORY

    def _cannot(self, what: str, error: OSError) -> None:
        self._tools.say("action_failed", {"what": what, "cause": error.strerror})
