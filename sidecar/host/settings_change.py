"""Putting other settings in force while sidecar runs: all that may fail is made first, so that a
refusal changes nothing.
"""

from __future__ import annotations

from sidecar.base.errors import SidecarError
from sidecar.core import facts
from sidecar.host.in_force import choose_readiness
from sidecar.system.listeners import Listeners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sidecar.host.generations import Generations
    from sidecar.host.in_force import InForce
    from sidecar.host.job import Tools
    from sidecar.host.listener_sets import ListenerSets
    from sidecar.host.redaction import Redaction
    from sidecar.host.settings_reload import Change, Prepared
    from sidecar.settings.table import Settings
    from sidecar.system.service_manager import ServiceManager
    from sidecar.system.socket_address import Lookup

    # Told of a change once it is in force, and when; must not raise.
    OnChange = Callable[[Change, float], None]


class SettingsChange:
    """What a reload needs of the host (settings_reload.Host). `open_notify` makes NOTIFY_SOCKET's
    socket and raises OSError; `on_change` is told of a change once it is in force.
    """

    def __init__(
        self,
        tools: Tools,
        in_force: InForce,
        listeners: ListenerSets,
        generations: Generations,
        redaction: Redaction,
        manager: ServiceManager,
        *,
        open_notify: Callable[[], None],
        on_change: OnChange,
    ) -> None:
        self._tools = tools
        self._in_force = in_force
        self._listeners = listeners
        self._generations = generations
        self._redaction = redaction
        self._manager = manager
        self._open_notify = open_notify
        self._on_change = on_change

    def settings_in_force(self) -> Settings:
        """The settings of now."""
        return self._in_force.settings

    def listener_sets(self) -> Sequence[Listeners]:
        """Every set of listeners that some generation may still use."""
        return self._listeners.sets

    def envdir_problem(self, of: Settings) -> str:
        """What is wrong with their envdir, "" if nothing is. May block."""
        return self._generations.plain_envdir(of)[2]

    def hide(self, values: Iterable[str]) -> None:
        """These values are secret from now on."""
        self._redaction.add(values)

    def mask(self, text: str) -> str:
        """The text without a secret value."""
        return self._redaction.text(text)

    def reload_refused(self) -> None:
        """There will be no swap: the service manager is told that the reload is over."""
        self._manager.reload_rejected()

    def prepare(self, change: Change, found: Mapping[str, Lookup]) -> Prepared:
        """Make everything that new settings need and that may fail: remarks, and what puts them in
        force. `found` is what the names in their listeners mean.

        Raises SidecarError or OSError; all is as it was then.
        """
        new, living = change.new, list(self._listeners.sets)
        listeners = self._listeners.current
        remarks: list[str] = []
        if new.port != change.old.port:
            listeners, remarks = Listeners.reconfigure(
                new.port, living, backlog=new.backlog, found=found
            )
        try:
            readiness = choose_readiness(new, listeners)
            if readiness == "notify":
                self._open_notify()
        except (SidecarError, OSError):
            listeners.close_unused(living)
            raise
        return remarks, lambda now: self._put_in_force(change, listeners, readiness, now)

    def _put_in_force(
        self, change: Change, listeners: Listeners, readiness: str, now: float
    ) -> None:
        """Go by settings that nothing stands against. Nothing here may fail: half of them would be
        in force.
        """
        self._listeners.replace(listeners)
        self._in_force.settings, self._in_force.readiness = change.new, readiness
        self._on_change(change, now)
        if {"command", "profile", "handoff", "port"} & {*change.names}:
            self._in_force.arrange()
            self._in_force.remark()
        self._tools.observe(facts.SettingsChanged(change.new), now)
