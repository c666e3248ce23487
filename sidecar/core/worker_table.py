"""Every generation and worker that is not gone, and the questions that are asked about them."""

from __future__ import annotations

from sidecar.core.model import (
    DRAINING,
    GONE,
    LINGERING,
    OUTDATED,
    PREPARING,
    READY,
    SERVING,
    STARTING,
    Generation,
    Worker,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class WorkerTable:
    """The generations by number, oldest first, with their workers. At most one generation is coming
    (preparing or starting), and at most one is serving.
    """

    def __init__(self) -> None:
        self.generations: dict[int, Generation] = {}

    # --- generations

    @property
    def coming(self) -> Generation | None:
        """The generation that is to take over."""
        return next(
            (each for each in self.generations.values() if each.state in (PREPARING, STARTING)),
            None,
        )

    @property
    def current(self) -> Generation | None:
        """The generation that serves, or is meant to: its workers may all have died."""
        return next((each for each in self.generations.values() if each.state == SERVING), None)

    def finished(self) -> list[Generation]:
        """The outdated generations that have no worker left."""
        return [
            each
            for each in self.generations.values()
            if each.state == OUTDATED and not each.workers
        ]

    # --- workers

    def workers(self) -> Iterator[Worker]:
        """Every worker that is not gone, oldest generation first."""
        for each in self.generations.values():
            yield from each.workers

    def find(self, pid: int) -> Worker | None:
        """The worker whose leader is process `pid`."""
        return next((worker for worker in self.workers() if worker.pid == pid), None)

    def active(self) -> list[Worker]:
        """The workers that are starting or ready."""
        return [worker for worker in self.workers() if worker.active]

    def ready(self) -> list[Worker]:
        """The workers that accept connections and were not asked to leave."""
        return [worker for worker in self.workers() if worker.state == READY]

    def leaving(self) -> list[Worker]:
        """The workers that are to exit and were not killed yet."""
        return [worker for worker in self.workers() if worker.state in (DRAINING, LINGERING)]

    def leaving_never_ready(self) -> list[Worker]:
        """Those of the leaving workers that were never ready."""
        return [worker for worker in self.leaving() if worker.ready_at is None]

    def others_in_slot(self, slot: int, generation: Generation) -> list[Worker]:
        """The active workers in `slot` that are not of `generation`."""
        return [
            worker
            for worker in self.active()
            if worker.slot == slot and worker.generation != generation.number
        ]

    def ready_outside(self, generation: Generation) -> bool:
        """Whether a worker of another generation is ready."""
        return any(worker.generation != generation.number for worker in self.ready())

    def remove(self, worker: Worker) -> None:
        """Every process of the worker has ended: it is gone."""
        worker.move(GONE)
        self.generations[worker.generation].workers.remove(worker)
