"""What is done once a generation is gone: what was kept for it is given up."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core.supervisor import Supervisor
    from sidecar.host.delegation import Delegation
    from sidecar.host.generations import Generations
    from sidecar.host.job import Tools
    from sidecar.host.listener_repair import ListenerRepair
    from sidecar.host.listener_sets import ListenerSets
    from sidecar.host.memory_watch import MemoryRoom
    from sidecar.host.unknown_holders import UnknownHolders


class GenerationEnd:
    """Performs the order ForgetGeneration."""

    def __init__(
        self,
        tools: Tools,
        supervisor: Supervisor,
        generations: Generations,
        delegation: Delegation,
        room: MemoryRoom,
        listeners: ListenerSets,
        listener_repair: ListenerRepair,
        unknown_holders: UnknownHolders,
    ) -> None:
        self._tools = tools
        self._supervisor = supervisor
        self._generations = generations
        self._delegation = delegation
        self._room = room
        self._listeners = listeners
        self._listener_repair = listener_repair
        self._unknown_holders = unknown_holders

    def close(self, generation: int, now: float) -> None:
        """The generation with this number is gone."""
        attempt = self._tools.attempt
        self._generations.checks.drop_generation(generation)
        self._delegation.drop_generation(generation)
        self._generations.forget(generation, self._supervisor.last_stable)
        self._tools.say("generation_ended", {"generation": generation})
        # Until then old and new are there at once, also when the new one serves or has failed.
        if len(self._supervisor.worker_table.generations) == 1:
            self._room.only_one_left()
        attempt("close listeners", self._close_listeners)
        attempt("repair the listeners", self._listener_repair.on_deadline, now)
        attempt("see who holds the listeners", self._unknown_holders.look)

    def _close_listeners(self) -> None:
        self._listeners.close_unused(self._generations.listeners())
