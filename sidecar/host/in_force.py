"""The settings in force, and what follows from them for the generations to come: how the program is
started, and how its workers are known to be ready.
"""

from __future__ import annotations

import os

from sidecar.base.errors import StartError
from sidecar.host.generations import Plan, as_passed
from sidecar.settings import profiles
from sidecar.settings.resolve import no_listener_to_probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sidecar.host.listener_sets import ListenerSets
    from sidecar.settings.table import Settings
    from sidecar.system.listeners import Listeners
    from sidecar.system.output import Output

SHARED_MEMORY = "/dev/shm"


class InForce:
    """The settings in force. `environ` is the environment that workers get, but for what is a
    generation's own; `remarks` names settings that are perhaps a mistake.

    Raises StartError if these settings and these listeners do not go together.
    """

    def __init__(
        self,
        say: Callable[[str, Mapping[str, Any]], None],
        settings: Settings,
        listeners: ListenerSets,
        output: Output | None,
        environ: Mapping[str, str],
        remarks: Callable[[Settings], list[str]],
    ) -> None:
        self._say = say
        self._listeners = listeners
        self._output = output
        self._environ = environ
        self._remarks = remarks
        self.settings = settings
        #: How its workers are known to be ready.
        self.readiness = choose_readiness(settings, listeners.current)
        #: How the program is started: the settings' command, with what its profile adds.
        self.command = settings.command
        self.arrange(quiet=True)

    def plan(self) -> Plan:
        """What a generation is begun with now."""
        return Plan(
            self.settings,
            self._listeners.current,
            self.command,
            self.readiness,
            self._output.log_file_end() if self._output is not None else None,
        )

    def arrange(self, quiet: bool = False) -> None:
        """Find out with which arguments the program is told its listeners: its profile adds them.
        Say so, unless `quiet`.
        """
        settings = self.settings
        self.command = settings.command
        row, program = profiles.find(self.command, settings.profile)
        if row is None or settings.profile == "none":
            return
        passed = as_passed(self._listeners.current)
        self.command, more = profiles.with_arguments(
            row, self.command, program, passed, self._has_only_shared_memory()
        )
        if not quiet:
            fields = {
                "profile": row.name,
                "arguments": " ".join(more) or "none",
                "signal": settings.signal_on_hup,
                "handoff": list(settings.handoff),
            }
            self._say("profile_applied", fields)

    def remark(self) -> None:
        """Warn of settings that are perhaps a mistake."""
        for remark in self._remarks(self.settings):
            self._say("notice", {"text": remark})
        if self.settings.ready == "auto" and self.readiness == "interval":
            self._say("notice", {"text": no_listener_to_probe(self.settings.interval)})

    def _has_only_shared_memory(self) -> bool:
        """Whether the workers have no directory for temporary files, but shared memory: Python's
        tempfile looks in these.
        """
        named = (self._environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP"))
        directories = (*named, "/tmp", "/var/tmp", "/usr/tmp", self.settings.dir or ".")
        writable = any(each and os.access(each, os.W_OK | os.X_OK) for each in directories)
        return not writable and os.access(SHARED_MEMORY, os.W_OK | os.X_OK)


def choose_readiness(settings: Settings, listeners: Listeners) -> str:
    """How workers with these settings and listeners are known to be ready: accept, notify, interval
    or command. Raises StartError if they do not go together.
    """
    wanted, inodes = settings.ready, listeners.inodes()
    missing = "there is no TCP or unix listener to look at; add --port, or"
    if settings.slow_start and not inodes:
        raise StartError(f"--slow-start: {missing} leave it out")
    if inodes or wanted not in ("auto", "accept"):
        return "accept" if wanted == "auto" else wanted
    if wanted == "accept":
        raise StartError(f"--ready accept: {missing} say --ready interval")
    return "interval"
