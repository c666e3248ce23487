"""Coming workers that do not take their sockets (host/socket_use.py): looks at them, and says what they
did instead and what to do about it.
"""

from __future__ import annotations

from sidecar.core.model import STARTING
from sidecar.host.socket_use import LONGEST_BY_TIME_S, SocketUse
from sidecar.system import accept_probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.core.model import Worker
    from sidecar.core.worker_table import WorkerTable
    from sidecar.host.job import Tools
    from sidecar.host.socket_use import WorkerStart
    from sidecar.system.processes import Ended


class MissedSockets:
    """The job that looks. `worker_table` has the workers; `started_with` is what one was started with."""

    def __init__(
        self,
        tools: Tools,
        *,
        worker_table: WorkerTable,
        started_with: Callable[[Worker], WorkerStart],
    ) -> None:
        self._tools = tools
        self._worker_table = worker_table
        self._started_with = started_with
        self._use = SocketUse()

    def add(self, pid: int, now: float) -> None:
        """A worker has been started."""
        self._use.add(pid, now)

    def drop(self, pid: int) -> None:
        """Look at it no more."""
        self._use.drop(pid)

    def served(self) -> None:
        """A generation serves: what is said of the next one is news again."""
        self._use.served()

    def deadline(self) -> float:
        """The time of the next look."""
        return self._use.deadline()

    def on_deadline(self, now: float) -> None:
        """Say where a coming worker listens by itself, if it does and not on sidecar's sockets."""
        for pid in self._use.due(now):
            worker = self._worker_table.find(pid)
            if worker is None or not worker.active:
                self._use.drop(pid)
                continue
            try:
                if self._is_over(worker, now):
                    self._use.drop(pid)
                elif worker.executed_at is not None:
                    self._say(worker, self._use.look(pid, self._started_with(worker)))
            except (accept_probe.ProbeForbidden, OSError):
                continue

    def _is_over(self, worker: Worker, now: float) -> bool:
        """Whether it is known to have met its sockets. What is ready by time alone is not."""
        return worker.ready_at is not None and (
            worker.readiness != "interval"
            or self._use.age(worker.pid, now) > LONGEST_BY_TIME_S
            or accept_probe.accepts_connections(worker.pid, self._started_with(worker).ours)
        )

    def ended_early(self, worker: Worker, ended: Ended) -> None:
        """Say what may have ended a worker that had not taken connections, if that is known."""
        if not worker.active or worker.state != STARTING:
            return
        if ended.code and not ended.signal and not ended.start_error:
            others = [each.pid for each in self._worker_table.ready()]
            self._say(worker, self._use.ended(self._started_with(worker), others, ended.code))

    def _say(self, worker: Worker, found: tuple[str, str] | None) -> None:
        if found is not None:
            self._tools.say(
                "socket_unused",
                {
                    "generation": worker.generation,
                    "slot": worker.slot,
                    "pid": worker.pid,
                    "what": found[0],
                    "advice": found[1],
                },
            )
