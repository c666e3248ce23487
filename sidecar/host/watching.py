"""The watcher that the settings ask for: another one takes its place when they have changed, or when
the link by which sidecar came into its directory leads elsewhere.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sidecar.host.helper_processes import HelperProcesses
    from sidecar.host.settings_reload import Change
    from sidecar.host.watcher import Watcher
    from sidecar.system.child import StartDirectory


class Watching:
    """The job that keeps it. `place` is the directory that sidecar was started in."""

    def __init__(self, watcher: Watcher, helpers: HelperProcesses, place: StartDirectory) -> None:
        self._watcher = watcher
        self._helpers = helpers
        self._place = place
        # The directory that the link led to: its device and inode.
        self._leads_to: tuple[int, int] | None = None

    def begin(self, now: float, state: dict[str, Any] | None = None) -> None:
        """Have the watcher that the settings of now ask for; `state` is what an earlier version of
        sidecar has left of one.
        """
        helper = self._watcher.make(now, state)
        if helper is not None:
            self._helpers.add(helper)

    def on_change(self, change: Change, now: float) -> None:
        """Other settings are in force."""
        if any(name.startswith(("watch", "env")) for name in change.names):
            self._replace(now)

    def follow_link(self, now: float) -> None:
        """Where the link leads elsewhere now, watch what is there."""
        if not self._place.via_symlink:
            return
        before = self._leads_to
        try:
            leads_to = os.stat(self._place.path)
        except OSError:
            return  # what is started there will say so
        self._leads_to = (leads_to.st_dev, leads_to.st_ino)
        if self._watcher.helper is not None and before not in (None, self._leads_to):
            self._replace(now)

    def _replace(self, now: float) -> None:
        """Another watcher, with the rules of now."""
        if self._watcher.helper is not None:
            self._helpers.remove(self._watcher.helper, now)
            self._watcher.forget()
        self.begin(now)
        if self._watcher.helper is not None:
            self._helpers.on_deadline(now)
