"""The state that is handed on in an upgrade in place: what of the host is exported and imported.
upgrade/state.py makes plain data of it.
"""

from __future__ import annotations

import os
import time

from sidecar.host.events import Events
from sidecar.host.host import Host
from sidecar.host.resources import Resources
from sidecar.system import descriptors
from sidecar.system.jitter import random_fraction
from sidecar.upgrade.state import import_supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sidecar.host.settings_reload import Source
    from sidecar.host.upgrading import Started


def export_state(host: Host) -> dict[str, Any]:
    """What `import_state` makes a host of."""
    sets = host.resources.listeners.sets
    return {
        **host.resources.export_state(),
        **host.generations.export_state(sets.index),
        "at": time.monotonic(),
        "since": host.control_desk.since,
        "lost": host.events.log.lost,
        "history": host.events.history,
        "settings": host.in_force.settings,
        "problems": host.settings_reload.problems,
        "hide": host.events.redaction.values,
        "log_command": host.log_command.export_state(),
        "notify": host.readiness.notify.export_state(),
        "probes": host.readiness.probes.export_state(),
        "helpers": host.helpers.export_state(),
        "watcher": host.watcher.export_state(),
        "supervisor": host.supervisor,
    }


def import_state(
    state: dict[str, Any],
    environ: Mapping[str, str],
    source: Source | None = None,
    started: Started | None = None,
) -> Host:
    """A host that goes on from what an earlier version has exported. Raises SidecarError and
    OSError; nothing outside has changed then, no signal is heard, and no descriptor of its closed:
    it can be tried again, by another exec (upgrade/takeover.py).
    """
    now, settings = time.monotonic(), state["settings"]
    events = Events(settings, environ)
    events.redaction.values = state["hide"]
    events.history, events.log.lost = state["history"], state["lost"]
    resources = Resources(events, settings, environ)
    resources.import_state(state)
    supervisor = import_supervisor(state["supervisor"], settings, now, random_fraction)
    host = Host(events, resources, supervisor, settings, source, started, export_state)
    host.control_desk.since = state["since"]
    host.generations.import_state(state, resources.listeners.sets)
    host.settings_reload.problems = state["problems"]
    host.log_command.import_state(state["log_command"])
    if resources.output is not None and resources.output.pid:
        host.children.adopt(resources.output.pid, host.log_command)
    host.readiness.notify.import_state(state["notify"])
    host.readiness.notify.on_deadline(now)
    host.readiness.probes.import_state(state["probes"])
    if state["watcher"]:
        host.watching.begin(now, state["watcher"])
    host.make_admin(now)
    host.helpers.import_state(state["helpers"])
    host.helpers.listen()
    # From here on there is no way back.
    descriptors.set_cloexec_on_inherited()
    os.close(state["sealed"])
    resources.wakeup.unblock()
    return host
