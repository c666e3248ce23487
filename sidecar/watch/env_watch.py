"""Watches the envdirs: when they are read again, and whether the environment is another one then."""

from __future__ import annotations

import os

from sidecar.watch.burst import Burst
from sidecar.watch.envdirs import Envdirs, EnvState
from sidecar.watch.output import send
from sidecar.watch.scanner import ENVDIRS
from sidecar.watch.symlinks import deciding_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.watch.inotify import Inotify

SETTLE_S, LONGEST_S = 0.05, 2.0
READ_INTERVAL_BLIND_S = 2.0  # where inotify is not used


class EnvWatch:
    """The envdirs and what was last reported of them. `interval_s` is between two readings that
    nothing causes.
    """

    def __init__(self, envdirs: Envdirs, interval_s: float) -> None:
        self._envdirs = envdirs
        self._interval_s = interval_s
        self.state = EnvState("", {})
        self.burst = Burst()
        self._identity: object = None
        self._next_reading = 0.0

    @property
    def used(self) -> bool:
        """Whether there are envdirs."""
        return bool(self._envdirs.directories)

    @property
    def key(self) -> bytes:
        """The secret key of the digests."""
        return self._envdirs.key

    def restore(self, key: bytes, state: EnvState) -> None:
        """Take over what another watcher has reported."""
        self._envdirs.key, self.state = key, state

    def deadline(self) -> float | None:
        """When to read, None if nothing has happened."""
        return self.burst.deadline(SETTLE_S, LONGEST_S)

    def watch(self, inotify: Inotify) -> None:
        """Watch what decides what is read. Raises inotify.LimitReached."""
        try:
            for path in self._envdirs.deciding_paths():
                for directory, name in deciding_names(path):
                    inotify.watch_name(directory, name, ENVDIRS)
            for each in self._envdirs.directories:
                for path in (each, os.path.join(each, "..data")):
                    if os.path.isdir(path):
                        inotify.watch(os.path.abspath(path), ENVDIRS)
        except OSError:
            return  # what cannot be watched is read now and then

    def read(self) -> None:
        """Read the envdirs into `state`."""
        self.state = self._envdirs.read(self.state)

    def remember_identity(self) -> None:
        """From now on, another identity of a directory causes a reading."""
        self._identity = self._envdirs.identity()

    def schedule(self, now: float, blind: bool) -> None:
        """Set the next reading; `blind` means that inotify is not used."""
        self._next_reading = now + (
            min(self._interval_s, READ_INTERVAL_BLIND_S) if blind else self._interval_s
        )

    def on_tick(self, now: float) -> None:
        """Begin a burst if a reading is due, or a directory is another one."""
        if not self.used or self.burst.first is not None:
            return
        if now >= self._next_reading:
            self.burst.note(now - SETTLE_S)
        elif self._envdirs.identity() != self._identity:
            self.burst.note(now)

    def changed_since(self, since_ns: int) -> tuple[bool, list[str]]:
        """Whether something has changed after this wall-clock time, and which variables."""
        return self._envdirs.changed_since(since_ns) if since_ns else (False, [])

    def send(self, names: list[str]) -> None:
        """Report that these variables are others. Raises OSError."""
        send("env", names=names, error=self.state.error)
