"""Performing orders: which job performs which, and what the supervisor is told of one that could not
be performed.
"""

from __future__ import annotations

from sidecar.base.exhaustive import assert_never
from sidecar.core import facts, orders
from sidecar.system.termination_log import write_termination_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.core.worker_table import WorkerTable
    from sidecar.host.delegation import Delegation
    from sidecar.host.generations import Generations
    from sidecar.host.job import Tools
    from sidecar.host.workers import WorkerProcesses

# The cause of what was prevented by a defect.
DEFECT = "a defect in sidecar; its log says where"


class Performing:
    """Performs orders. `before_prepare` is called before a generation is prepared; `gone` performs
    ForgetGeneration, `said` performs LogEvent; `leave` ends sidecar with a status.
    """

    def __init__(
        self,
        tools: Tools,
        worker_table: WorkerTable,
        generations: Generations,
        delegation: Delegation,
        workers: WorkerProcesses,
        *,
        before_prepare: Callable[[float], None],
        gone: Callable[[int, float], None],
        said: Callable[[orders.LogEvent, float], None],
        leave: Callable[[int], None],
    ) -> None:
        self._tools = tools
        self._worker_table = worker_table
        self._generations = generations
        self._delegation = delegation
        self._workers = workers
        self._before_prepare = before_prepare
        self._gone = gone
        self._said = said
        self._leave = leave

    def perform(self, order: orders.AnyOrder, now: float) -> None:
        """Perform one order; one that raises is performed again where that does no harm. The
        supervisor is owed an answer to some, whatever happens.
        """
        again = not isinstance(order, (orders.Prepare, orders.Spawn, orders.ForwardSignal))
        what = f"perform {type(order).__name__}"
        if self._tools.attempt(what, self._perform, order, now, again=again):
            return
        if isinstance(order, orders.Prepare):
            of = order.generation
            if not self._generations.checks.works_for(of) and not self._delegation.works_for(of):
                self._tools.observe(facts.PreparationFailed(of, DEFECT), now)
        elif isinstance(order, orders.Spawn):
            generation = self._worker_table.generations.get(order.generation)
            if generation is not None and generation.in_slot(order.slot) is None:
                fact = facts.SpawnFailed(order.generation, order.slot, DEFECT)
                self._tools.observe(fact, now)

    # A case for each order, and nothing else.
    def _perform(self, order: orders.AnyOrder, now: float) -> None:  # noqa: C901
        match order:
            case orders.Prepare():
                self._tools.attempt("watch where the link leads", self._before_prepare, now)
                self._generations.prepare(order, now)
            case orders.Spawn():
                self._workers.spawn(order, now)
            case orders.Retire():
                self._workers.retire(order)
            case orders.RetireGroup():
                self._workers.retire_group(order)
            case orders.Kill():
                self._workers.kill(order)
            case orders.ForwardSignal():
                self._workers.send(order.pid, order.signal)
            case orders.ForgetGeneration():
                self._gone(order.generation, now)
            case orders.LogEvent():
                self._said(order, now)
            case orders.Exit():
                self._leave(order.status)
                if order.reason:
                    write_termination_log(order.reason)
            case _:
                assert_never(order)
