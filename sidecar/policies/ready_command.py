"""When --ready-command is run for a coming worker, again and again until it says yes.

Pure: all moments are seconds on the caller's clock. `worker` is a pid.
"""

from __future__ import annotations

# A command that says no is run again after this pause, then ever less often up to the longest one.
FIRST_PAUSE_S, MAX_PAUSE_S, PAUSE_FACTOR = 0.1, 1.0, 1.5


class _Asked:
    """What is known of one worker: whether its command runs, and when it is run next if not."""

    __slots__ = ("at", "doubted", "pause", "runs")

    def __init__(self, at: float) -> None:
        self.at = at
        self.pause = FIRST_PAUSE_S
        self.runs = self.doubted = False


class ReadyCommandPolicy:
    """All coming workers. One command at a time is run for each."""

    __slots__ = ("_workers",)

    def __init__(self) -> None:
        self._workers: dict[int, _Asked] = {}

    def __contains__(self, worker: int) -> bool:
        """Whether its command is still to be run."""
        return worker in self._workers

    def worker_started(self, worker: int, now: float) -> None:
        """A worker has been started: its command is due."""
        self._workers[worker] = _Asked(now)

    def worker_done(self, worker: int) -> None:
        """It is ready, or was asked to leave, or has ended: its command is not run any more."""
        self._workers.pop(worker, None)

    def command_started(self, worker: int) -> None:
        """Its command runs."""
        self._workers[worker].runs = True

    def command_said_no(self, worker: int, now: float) -> None:
        """Its command has ended without a yes, could not be started, or was interrupted."""
        asked = self._workers.get(worker)
        if asked is None:
            return
        asked.runs = False
        asked.at = now + asked.pause
        asked.pause = min(asked.pause * PAUSE_FACTOR, MAX_PAUSE_S)

    def command_doubted(self, worker: int, now: float) -> None:
        """Its command has said yes, but another worker has answered it."""
        if worker in self._workers:
            self._workers[worker].doubted = True
            self.command_said_no(worker, now)

    def is_doubted(self, worker: int) -> bool:
        """Whether its command has said yes and was not believed."""
        return worker in self._workers and self._workers[worker].doubted

    def deadline(self) -> float:
        """When the next command is due."""
        due = (asked.at for asked in self._workers.values() if not asked.runs)
        return min(due, default=float("inf"))

    def decide(self, now: float) -> list[int]:
        """The workers whose command has to be run now."""
        return [
            worker for worker, asked in self._workers.items() if not asked.runs and asked.at <= now
        ]
