"""Readiness `accept`: a coming worker is ready once it accepts connections, which is seen from outside.
In a slow start it is counted how many of its processes do, and how many of the worker's that it
replaces.
"""

from __future__ import annotations

import signal

from sidecar.core import facts
from sidecar.core.probe_schedule import ProbeSchedule
from sidecar.system import accept_probe, procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sidecar.core.supervisor import Supervisor
    from sidecar.host.job import Tools


class ReadinessProbes:
    """The job that looks. `supervisor` has the workers, `inodes` the listeners that one was started
    with; `ready` is told of a worker that is ready, `done` of one that is not looked at any more.
    """

    def __init__(
        self,
        tools: Tools,
        *,
        supervisor: Supervisor,
        inodes: Callable[[int], frozenset[int]],
        ready: Callable[[int, float], None],
        done: Callable[[int], None],
    ) -> None:
        self._tools = tools
        self._supervisor = supervisor
        self._inodes = inodes
        self._ready = ready
        self._done = done
        self._schedule = ProbeSchedule()
        # The processes that took connections when they were last counted, by worker.
        self._accepting_pids: dict[int, set[int]] = {}
        self._reported_pid = 0

    def export_state(self) -> tuple[Any, ...]:
        """For a later version of sidecar."""
        return self._accepting_pids, self._reported_pid

    def import_state(self, state: tuple[Any, ...]) -> None:
        """Go on with what an earlier version has exported."""
        self._accepting_pids, self._reported_pid = state

    def add(self, pid: int, now: float) -> None:
        """A worker has been started."""
        self._schedule.add(pid, now)

    def drop(self, pid: int) -> None:
        """Look at it no more: it is ready, or has gone."""
        self._schedule.drop(pid)
        self._accepting_pids.pop(pid, None)

    def deadline(self) -> float:
        """The time of the next look."""
        return self._schedule.deadline() or float("inf")

    def on_deadline(self, now: float) -> None:
        """Look at every coming worker whose look is due."""
        for pid in self._schedule.due(now):
            self._tools.attempt(f"look whether process {pid} is ready", self._probe, pid, now)

    def _probe(self, pid: int, now: float) -> None:
        """Look at one worker."""
        supervisor = self._supervisor
        worker, replaced = supervisor.worker_table.find(pid), supervisor.workers_to_shrink_for(pid)
        if worker is not None and worker.executed_at is None:
            return  # still a copy of sidecar, perhaps of another user already
        if replaced is None and (worker is None or worker.ready_at is not None):
            # Its slow start is over; what was seen of it is kept for its successor's.
            self._schedule.drop(pid)
            return
        try:
            taking = (
                accept_probe.accepts_connections(pid, self._inodes(pid))
                if replaced is None
                else self._count(pid) > 0
            )
        except accept_probe.ProbeForbidden as reason:
            if self._schedule.refused(pid):
                self._tools.observe(facts.ReadinessProbeUnavailable(pid, str(reason)), now)
                self._done(pid)
            return
        except OSError:
            return  # no descriptor left just now; there will be a next look
        for old in replaced or ():
            self._count_replaced(old, now)
        if taking:
            self._ready(pid, now)
        if taking and replaced is None:
            self._done(pid)
        if replaced is not None:
            self._tools.observe(
                facts.AcceptingCountChanged(pid, len(self._accepting_pids[pid])), now
            )

    def _count(self, pid: int) -> int:
        """How many processes of the worker take connections; raises as `accept_probe.accepting_pids`. Who
        was seen to once is believed.
        """
        before = self._accepting_pids.get(pid, ())
        self._accepting_pids[pid] = accept_probe.accepting_pids(pid, self._inodes(pid), before)
        return len(self._accepting_pids[pid])

    def _count_replaced(self, pid: int, now: float) -> None:
        """Count what is to be replaced; what cannot be counted, or cannot be asked to shrink, is
        replaced as a whole.
        """
        try:
            count = self._count(pid)
        except (accept_probe.ProbeForbidden, OSError):
            return
        if count > 1 and not procfs.handles_signals(pid, signal.SIGTTOU, signal.SIGTTIN):
            if self._reported_pid != pid:
                self._reported_pid = pid
                what = "replace its processes one by one (--slow-start)"
                cause = (
                    f"process {pid}, which sidecar started, has no handler for SIGTTOU and SIGTTIN"
                )
                self._tools.say("action_failed", {"what": what, "cause": cause})
            count = 1
        self._tools.observe(facts.AcceptingCountChanged(pid, count), now)
