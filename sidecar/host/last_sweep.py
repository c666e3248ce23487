"""The end of sidecar: no process outlives it."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.host.sources import Sources
    from sidecar.host.turn import Turn
    from sidecar.system.output import Output
    from sidecar.system.processes import ChildProcesses
    from sidecar.system.signals import SignalPipe

# What does not die of SIGKILL within this time (seconds) is left to the system.
LAST_WAIT_S = 1.0
# The log command has this long (seconds) to write out what it has read.
LOG_COMMAND_TIMEOUT_S = 5.0
# The least time (seconds) in which what was killed is waited for.
MIN_WAIT_S = 0.2
# Descriptors that are kept for the very end, where there may be no others left: what is still there
# is found by reading /proc.
SPARE_DESCRIPTORS = 3


class LastSweep:
    """Kills what is left (adopted orphans, mostly), and waits for its end. Nothing here may keep
    the rest from being done. Raises OSError where there are no descriptors to keep for it.
    """

    def __init__(self, turn: Turn, sources: Sources, wakeup: SignalPipe) -> None:
        self._turn = turn
        self._sources = sources
        self._wakeup = wakeup
        self._spare = [
            os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(SPARE_DESCRIPTORS)
        ]

    def run(
        self,
        workers: ChildProcesses,
        output: Output | None,
        let_go_of_output: Callable[[], None],
        over_by: float,
    ) -> None:
        """Kill everything but the log command, let that one end of itself (`let_go_of_output`
        closes what it reads from), then kill it, too; over at that moment. When PID 1 leaves, the
        kernel does it.
        """
        for fd in self._spare:
            os.close(fd)
        self._spare = []
        log_command = output.pid if output is not None else 0
        if os.getpid() == 1 and not log_command:
            return
        # Only children's ends are waited for now: whoever else has something to say would end each
        # wait at once.
        self._sources.only(self._wakeup)
        until = min(over_by, time.monotonic() + LOG_COMMAND_TIMEOUT_S) - MIN_WAIT_S
        self._sweep(workers, min(until, time.monotonic() + LAST_WAIT_S), log_command)
        if output is not None:
            self._turn.attempt("let go of its output", let_go_of_output)
            self._turn.attempt("give its output back", output.restore_descriptors)
        if log_command:
            while log_command not in self._reaped(workers, 0.05) and time.monotonic() < until:
                pass
            self._sweep(workers, until)

    def _sweep(self, workers: ChildProcesses, until: float, spared: int = 0) -> None:
        """Kill what is left, and wait for its end until that moment, and at least a moment."""
        until = max(until, time.monotonic() + MIN_WAIT_S)
        while workers.kill_leftovers(spared) and time.monotonic() < until:
            self._reaped(workers, 0.05)

    def _reaped(self, workers: ChildProcesses, wait: float) -> list[int]:
        """Wait for a child's end, and say whose it was."""
        try:
            self._sources.wait(wait)
            self._wakeup.take()
        except Exception as error:
            self._turn.note_defect("wait for the end of processes", error, time.monotonic())
            time.sleep(wait)
        return [each.pid for each in workers.reap()[0]]
