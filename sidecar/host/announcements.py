"""What the supervisor says: each event is completed with what only the host knows, and the service
manager takes it, too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.core import orders
    from sidecar.host.generations import Generations
    from sidecar.host.job import Tools
    from sidecar.host.listener_repair import ListenerRepair
    from sidecar.host.missed_sockets import MissedSockets
    from sidecar.system.service_manager import ServiceManager


class Announcements:
    """Performs the order LogEvent."""

    def __init__(
        self,
        tools: Tools,
        generations: Generations,
        listener_repair: ListenerRepair,
        missed_sockets: MissedSockets,
        manager: ServiceManager,
    ) -> None:
        self._tools = tools
        self._generations = generations
        self._listener_repair = listener_repair
        self._missed_sockets = missed_sockets
        self._manager = manager

    def say(self, order: orders.LogEvent, now: float) -> None:
        """Say it."""
        fields = order.fields
        if order.event == "serving":
            # It is not said of a listener that nobody can reach.
            repair = self._listener_repair.on_deadline
            self._tools.attempt("repair the listeners", repair, now)
            self._missed_sockets.served()
        elif order.event == "swap_failed":
            plan = self._generations.plans.get(fields["generation"])
            if plan is not None:
                fields = {**fields, **plan.log_end}
        self._tools.say(order.event, fields)
        self._manager.on_event(order.event, order.fields)
