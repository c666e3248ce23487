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


class Roster:
    """The generations by number, oldest first. At most one is coming (preparing or starting) and
    one is serving.
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

    def gone(self) -> list[Generation]:
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
        """The worker led by process `pid`."""
        return next((worker for worker in self.workers() if worker.pid == pid), None)

    def serving(self) -> list[Worker]:
        """The workers that have not been asked to leave and whose leader lives."""
        return [worker for worker in self.workers() if worker.serving]

    def ready(self) -> list[Worker]:
        """The workers that take connections and have not been asked to leave."""
        return [worker for worker in self.workers() if worker.state == READY]

    def leaving(self) -> list[Worker]:
        """The workers whose end has a deadline that has not passed yet."""
        return [worker for worker in self.workers() if worker.state in (DRAINING, LINGERING)]

    def stillborn(self) -> list[Worker]:
        """The workers that were told to leave, or fell, before they were ever ready, and may still
        be taking memory.
        """
        return [worker for worker in self.leaving() if worker.ready_at is None]

    def older_in_slot(self, slot: int, than: Generation) -> list[Worker]:
        """The workers of other generations that serve in `slot`."""
        return [
            worker
            for worker in self.serving()
            if worker.slot == slot and worker.generation != than.number
        ]

    def ready_outside(self, generation: Generation) -> bool:
        """Whether some worker of another generation takes connections."""
        return any(worker.generation != generation.number for worker in self.ready())

    def remove(self, worker: Worker) -> None:
        """The worker is gone."""
        worker.move(GONE)
        self.generations[worker.generation].workers.remove(worker)
