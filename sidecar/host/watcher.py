"""The watcher as PID 1 knows it: what it is given, and what follows from the events it writes.

watch/__main__.py is the process itself.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from sidecar.base.printable import limit_names
from sidecar.base.record import Descriptor
from sidecar.core import facts
from sidecar.host import helpers
from sidecar.settings.types import envdir_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sidecar.host.job import Tools
    from sidecar.settings.table import Settings

# The descriptor at which it finds the memory that it shares with the one before it.
MEMORY_FD = 3

# The events that it may write.
ALLOWED_EVENTS: dict[str, helpers.Shape] = {
    "watching": {
        "roots": helpers.texts,
        "directories": helpers.number,
        "mode": helpers.text,
        "why": helpers.text,
    },
    "changed": {"paths": helpers.texts, "count": helpers.number, "settings": helpers.flag},
    "env": {"names": helpers.texts, "error": helpers.text},
    "notice": helpers.NOTICE,
}

# The clock of files' times (time.h): what is written after a moment of this clock never looks older
# than that moment. The module `time` has no name for it.
CLOCK_REALTIME_COARSE = 5


class Watcher:
    """The watcher and what outlives its process: the descriptor of the memory in which it keeps what
    it has seen (-1: not made yet), and since when files are watched (seconds of the wall clock).

    `in_force` gives the settings of now, `settings_file` the path of their file ("": there is none).
    `settings_changed` is called with the paths and the time if that file is among what has changed.
    """

    def __init__(
        self,
        tools: Tools,
        in_force: Callable[[], Settings],
        environment: Mapping[str, str],
        settings_file: Callable[[], str],
        settings_changed: Callable[[tuple[str, ...], float], None],
    ) -> None:
        self._tools = tools
        self._in_force = in_force
        self._environment = environment
        self._settings_file = settings_file
        self._settings_changed = settings_changed
        self._memory = -1
        self._since = 0.0
        #: None while nothing is watched.
        self.helper: helpers.Helper | None = None

    def make(self, now: float, state: dict[str, Any] | None = None) -> helpers.Helper | None:
        """The watcher that the settings ask for, None if they ask for none; `state` is what an
        earlier version has exported.
        """
        of = self._in_force()
        if not (of.watch or of.watch_env):
            return None
        import json  # noqa: PLC0415  (only who watches pays for it)

        for path in of.watch:
            if not state and not os.path.exists(path):
                remark = f"--watch {path}: there is no such directory or file yet"
                self._tools.say("notice", {"text": remark})
        # PID 1 keeps what the watcher has seen: the next one finds what changed in between.
        if state:
            self._memory, self._since = state["memory"], state["began"]
        else:
            self._memory = -1
            self._since = time.clock_gettime(CLOCK_REALTIME_COARSE)
        config = {
            "watch": of.watch, "ignore": of.watch_ignore, "only": of.watch_only, "settle": of.watch_settle, "mode": of.watch_mode,
            "env": of.envdir if of.watch_env else (), "env_whole": of.envdir_format == "whole", "env_lenient": of.as_server_starter,
            "env_poll": of.env_poll, "since": self._since, "memory": MEMORY_FD,
            "own": written_by_sidecar(of), "settings": self._settings_file(),
        }  # fmt: skip
        self.helper = helpers.Helper(
            "the watcher",
            helpers.module("sidecar.watch"),
            now,
            environment={
                **helpers.environment(self._environment),
                "SIDECAR_WATCHER": json.dumps(config),
            },
            make_fds=self._make_fds,
            allowed_events=ALLOWED_EVENTS,
            on_event=self.on_event,
        )
        return self.helper

    def forget(self) -> None:
        """Watch nothing any more."""
        self.helper = None
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def export_state(self) -> dict[str, Any] | None:
        """What a later version of sidecar goes on with; None while nothing is watched."""
        if self.helper is None:
            return None
        return {"memory": Descriptor(self._memory), "began": self._since}

    def _make_fds(self) -> helpers.Handoff:
        # Made at the first start: if it cannot be made, that start has failed, and another follows.
        if self._memory < 0:
            self._memory = helpers.move_fd_above(self._make_memory())
        return [(self._memory, MEMORY_FD)]

    def _make_memory(self) -> int:
        """The descriptor of the memory in which the watcher keeps what it has seen. Raises OSError."""
        try:
            return os.memfd_create("sidecar-watch", os.MFD_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EACCES):
                raise
            cause = f"memfd_create: {error.strerror}"
            self._tools.say(
                "action_failed", {"what": "keep what the watcher has seen", "cause": cause}
            )
            return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def on_event(self, event: dict[str, Any], now: float) -> None:
        """Act upon one event that it has written."""
        match event["event"]:
            case "watching":
                self._on_watching(event)
            case "changed":
                self._on_files_changed(event, now)
            case "env":
                self._on_environment_changed(event, now)
            case "notice":
                self._tools.say("notice", {"text": event["text"]})

    def _on_watching(self, event: dict[str, Any]) -> None:
        of = self._in_force()
        envdirs = [envdir_parts(each)[0] for each in of.envdir if of.watch_env]
        roots = [*event["roots"], *envdirs]
        fields = {"roots": roots, "directories": event["directories"], "mode": event["mode"]}
        self._tools.say("watching", fields)
        if event["why"]:
            self._tools.say("notice", {"text": event["why"]})

    def _on_files_changed(self, event: dict[str, Any], now: float) -> None:
        paths = limit_names(event["paths"])
        self._tools.say("files_changed", {"paths": paths, "count": event["count"]})
        if event["settings"] and not self._tools.stopping():
            self._settings_changed(paths, now)
        else:
            self._tools.observe(facts.SwapTriggered("watch", supersedes=True, changed=paths), now)

    def _on_environment_changed(self, event: dict[str, Any], now: float) -> None:
        if event["error"]:
            self._tools.say("environment_unreadable", {"cause": event["error"]})
            return
        names = limit_names(event["names"])
        self._tools.say("environment_changed", {"names": names})
        self._tools.observe(facts.SwapTriggered("envdir", supersedes=True, changed=names), now)


def written_by_sidecar(settings: Settings) -> list[str]:
    """The files that sidecar writes itself, also what its output was redirected to."""
    log = "" if settings.log_file.lstrip().startswith("|") else settings.log_file
    found = [each for each in (settings.pid_file, settings.status_file, log) if each]
    for fd in (1, 2):
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return found
