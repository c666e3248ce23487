"""The start of a run, and its end: as a new process, or as the version that takes another's place."""

from __future__ import annotations

import os
import time

from sidecar import __version__
from sidecar.base.errors import StartError
from sidecar.base.refusal import describe_os_error
from sidecar.core.model import STARTING
from sidecar.core.supervisor import Supervisor
from sidecar.host.admin import open_to_all
from sidecar.host.events import Events
from sidecar.host.exported_state import export_state, import_state
from sidecar.host.host import Host
from sidecar.host.resources import Resources
from sidecar.system.jitter import random_fraction
from sidecar.system.output import let_user_open_outputs
from sidecar.upgrade import execute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sidecar.host.settings_reload import Source
    from sidecar.host.upgrading import Started
    from sidecar.settings.table import Settings

    Detach = Callable[[Callable[[], None]], None]


def run(
    settings: Settings,
    environ: Mapping[str, str],
    detach: Detach | None = None,
    source: Source | None = None,
    started: Started | None = None,
) -> int:
    """Run sidecar until it is stopped; its exit status. Raises SidecarError if it cannot start.

    `source` gives the settings again on HUP. `detach`, called once everything is bound and nothing
    is started, may go on in another process; it is given what rewrites the pid file. `started` is
    how to start it again.
    """
    host = None
    try:
        events = Events(settings, environ)
        if source is not None:
            events.redaction.add(source.redactions)
        resources = Resources(events, settings, environ)
        try:
            resources.open()
            if detach is not None:
                pid_file = resources.pid_file
                detach(pid_file.rewrite if pid_file is not None else lambda: None)
            supervisor = Supervisor(settings, time.monotonic(), random_fraction)
            host = Host(events, resources, supervisor, settings, source, started, export_state)
            _begin(host)
            return host.run()
        finally:
            resources.close()
    except OSError as error:
        if host is not None and host.began:
            raise
        raise StartError(describe_os_error(error), error.errno or 0) from None


def _begin(host: Host) -> None:
    """Begin to serve, and say with what."""
    now, resources, settings = time.monotonic(), host.resources, host.in_force.settings
    say = host.events.say
    if host.in_force.readiness == "notify":
        host.readiness.notify.open()
    if resources.output is not None:
        resources.output.redirect()
        host.events.log_to_output(settings.log_format)
        host.log_command.on_deadline(now)
    say("starting", {"version": __version__, "pid": os.getpid()})
    credentials = resources.credentials
    if credentials is not None and (why := let_user_open_outputs(credentials.uid)):
        remark = f"uid {credentials.uid} may not open /dev/stdout and /dev/stderr: {why}"
        say("notice", {"text": remark})
    if settings.config:
        say("settings_read", {"file": settings.config, "changed": []})
    resources.listeners.announce()
    if resources.control.path:
        say("control_socket_opened", {"path": resources.control.path})
    elif settings.control != "none":
        remark = (
            "no directory for a control socket can be written to; `sidecar status` has nobody to"
            " ask here"
        )
        say("notice", {"text": remark})
    host.in_force.arrange()
    host.in_force.remark()
    host.watching.begin(now)
    for admin in resources.admin or ():
        say("admin_opened", {"address": admin.key})
        if open_to_all(settings.admin, resources.started_with):
            remark = (
                f"--admin {admin.key}: whoever reaches this machine can read it; say"
                f" --admin 127.0.0.1:{admin.key} for this machine alone"
            )
            say("notice", {"text": remark})
    host.make_admin(now)


def take_over(
    state: dict[str, Any],
    environ: Mapping[str, str],
    source: Source | None = None,
    started: Started | None = None,
) -> Callable[[], int]:
    """Be the version after the one that has left this state: what goes on from here.

    Raises whatever hinders it, and can then be tried again, by another exec.
    """
    host = import_state(state, environ, source, started)

    def go_on() -> int:
        try:
            host.tools.attempt("take over", _take_over, host, state, time.monotonic())
            return host.run()
        finally:
            host.resources.close()

    return go_on


def _take_over(host: Host, state: dict[str, Any], now: float) -> None:
    """The first thing the new version does: say so, and see what has happened since."""
    fields = {
        "version": __version__,
        "before": state["version"],
        "took": now - state["at"],
        "pid": os.getpid(),
    }
    host.events.say("upgraded", fields)
    for worker in host.supervisor.worker_table.active():
        if worker.state == STARTING:
            host.readiness.add(worker.pid, worker.readiness, now)
    host.helpers.end_outdated()
    host.children.reap_at(now)


def rehearse(environ: Mapping[str, str], left: str, source: Source | None = None) -> int:
    """Prove that this version could take over from the one that has started it: make everything,
    say which version it is, and end.

    Raises SidecarError if it could not.
    """
    state = execute.read_state(left, os.getppid())
    if state is None:
        raise StartError(
            "it is sidecar itself that asks for an upgrade's check, and with its state: see"
            " `sidecar upgrade --check`"
        )
    try:
        import_state(state, environ, source)
    except (OSError, KeyError) as error:
        raise StartError(
            "the state of the running sidecar does not fit this version:"
            f" {type(error).__name__} {error}"
        ) from None
    os.write(1, f"sidecar {__version__}\n".encode())
    # As it is: what was made of the state is the parent's, and not to be closed or removed.
    os._exit(0)
