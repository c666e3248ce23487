"""When an upgrade in place goes on: it waits for a swap to end, has the new version prove that it
can start, and then becomes it.

Pure: all moments are seconds on the caller's clock. The caller tells what has happened
(`requested`, `check_started`, `check_passed`, `failed`), asks `decide` for the next step, and
asks again at `deadline` at the latest.
"""

from __future__ import annotations

from sidecar.base.record import Record

# An upgrade waits that long for swaps to end, and its check may take that long.
MAX_WAIT_S, MAX_CHECK_S = 300.0, 60.0

IDLE, WANTED, CHECKING, PROVEN = "idle", "wanted", "checking", "proven"


class SayWaiting(Record):
    """Say that the upgrade waits for a generation to take over or to fail."""

    generation: int


class StartCheck(Record):
    """Start the new version as a child that only proves that it could take over."""


class BecomeNewVersion(Record):
    """Exec the new version."""


class FailUpgrade(Record):
    """End the upgrade, and its check if one runs; say why."""

    cause: str


Step = SayWaiting | StartCheck | BecomeNewVersion | FailUpgrade


class UpgradePolicy:
    """One upgrade at a time. Whoever asks while one is on its way is answered by that one."""

    __slots__ = ("_check_until", "_only_check", "_said_waiting", "_stage", "_wait_until")
    max_wait_s, max_check_s = MAX_WAIT_S, MAX_CHECK_S

    def __init__(self) -> None:
        self._stage = IDLE
        self._only_check = False
        self._said_waiting = False
        self._wait_until = self._check_until = float("inf")

    @property
    def on_its_way(self) -> bool:
        """Whether somebody waits for the end of an upgrade."""
        return self._stage != IDLE

    def requested(self, now: float, only_check: bool) -> None:
        """Somebody wants an upgrade, or only to know whether it could be done."""
        if self._stage == IDLE:
            self._stage, self._said_waiting = WANTED, False
            self._only_check = True
        if self._only_check:
            self._wait_until = now + self.max_wait_s
        self._only_check &= only_check

    def check_started(self, now: float) -> None:
        """The check runs."""
        self._stage, self._check_until = CHECKING, now + self.max_check_s

    def check_passed(self) -> None:
        """The check has ended: the new version can take over."""
        self._stage = IDLE if self._only_check else PROVEN

    def failed(self) -> None:
        """The upgrade is over: the check or the exec has failed."""
        self._stage = IDLE

    def deadline(self) -> float:
        """By when the stage that it is in has to be over."""
        if self._stage == IDLE:
            return float("inf")
        return self._check_until if self._stage == CHECKING else self._wait_until

    def decide(self, now: float, *, coming: int, reading: bool, stopping: bool) -> Step | None:
        """The next step, None if there is nothing to do now.

        `coming` is the number of the generation that is being started, 0 for none; `reading` says
        whether settings are being read, and `stopping` whether sidecar stops.
        """
        if self._stage == IDLE:
            return None
        if stopping:
            return FailUpgrade("sidecar is stopping")
        if self._stage == CHECKING:
            if self._check_until <= now:
                return FailUpgrade(
                    "the new version has not proved within a minute that it can start"
                )
            return None
        if (coming or reading) and not self._only_check:
            self._stage = WANTED  # what was proven was another state
            if self._wait_until <= now:
                return FailUpgrade("swaps have been going on for five minutes")
            if coming and not self._said_waiting:
                self._said_waiting = True
                return SayWaiting(coming)
            return None
        return BecomeNewVersion() if self._stage == PROVEN else StartCheck()
