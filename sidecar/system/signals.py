"""Signals, as one readable file descriptor. No decision is made in a handler.

Python's C-level handler writes a byte into a pipe (signal.set_wakeup_fd), which ends the loop's one
blocking call. The Python-level handler, which runs before the next bytecode, notes the name. The
notes are what counts, and the pipe only wakes the loop: a pipe that is full loses bytes, but never
a TERM. CHLD is noted once a turn, because it says no more the second time.

Roads not taken: signalfd would need ctypes, and an extra set of blocked signals to give back to each
child; sigwait would need a second thread.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

# The signals that sidecar acts upon. Not WINCH, which a terminal sends whenever its window changes:
# the workers have no terminal, and nginx and others take it for "no worker processes any more". Not
# CONT: the workers are not stopped when sidecar is.
HANDLED = ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "TTIN", "TTOU", "CHLD")

# Python ignores these two from its first moment on, so what they were before is not known; every
# program expects the default.
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)

# Signals that must keep their default: they say what a program did wrong, or stop it for a while.
_KEPT = (
    "SEGV", "BUS", "FPE", "ILL", "TRAP", "ABRT", "SYS", "KILL", "STOP", "TSTP", "URG", "PIPE", "XFSZ", "XCPU",
)  # fmt: skip


def without_meaning() -> list[int]:
    """The signals that mean nothing to sidecar and would end it if it is not PID 1: ALRM, PROF, POLL,
    the real-time signals …
    """
    named = {signal.Signals[f"SIG{name}"].value for name in (*HANDLED, *_KEPT)}
    return sorted(int(number) for number in signal.valid_signals() if number not in named)


class SignalPipe:
    """Receives sidecar's signals. Make it once, early: what arrives before is lost (for PID 1) or
    ends the process (for any other).
    """

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        """`state` is what an earlier version of sidecar has exported. All signals are blocked then,
        and what came meanwhile is delivered once `unblock` is called.
        """
        self._noted: list[str] = []
        self._names = {signal.Signals[f"SIG{name}"].value: name for name in HANDLED}
        #: The mask that sidecar was started with, and that a worker starts with.
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        #: The dispositions that sidecar has changed, as they were before: a worker gets these.
        self.dispositions: dict[int, signal.Handlers] = dict.fromkeys(
            IGNORED_BY_PYTHON, signal.SIG_DFL
        )
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._names:
            before = signal.signal(number, self._note)
            self.dispositions[number] = (
                signal.SIG_IGN if before is signal.SIG_IGN else signal.SIG_DFL
            )
        for number in without_meaning():
            if signal.getsignal(number) is signal.SIG_DFL:
                self.dispositions[number] = signal.SIG_DFL
                signal.signal(number, signal.SIG_IGN)
        if state is not None:
            self.mask = set(state["mask"])
            # A signal that the version before had not touched is as it was.
            self.dispositions.update(
                (number, signal.Handlers(value)) for number, value in state["dispositions"].items()
            )
            self._noted += state["noted"]
            if self._noted:
                os.write(self._write, b"x")
        else:
            self.unblock()

    def unblock(self) -> None:
        """Receive the signals from now on, also those that were blocked when sidecar was started:
        nobody means to make it deaf.
        """
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask.difference(self._names))

    def export_state(self) -> dict[str, Any]:
        """Its state for a later version of sidecar. Block all signals before: one that comes after
        this would be lost.
        """
        return {
            "mask": sorted(map(int, self.mask)),
            "dispositions": {
                int(number): int(value) for number, value in self.dispositions.items()
            },
            "noted": self._noted,
        }

    def _note(self, number: int, _frame: FrameType | None) -> None:
        name = self._names[number]
        if name != "CHLD" or name not in self._noted:
            self._noted.append(name)

    def fileno(self) -> int:
        """For select: readable when a signal has come."""
        return self._read

    def take(self) -> list[str]:
        """The names (HUP, TERM …) of the signals that came since the last call, in order."""
        try:
            while os.read(self._read, 4096):
                pass
        except OSError:  # it is empty (EAGAIN); the notes are what counts
            pass
        noted, self._noted = self._noted, []
        return noted

    def close(self) -> None:
        """Receive no more. The signals are ignored from now on: one that comes while the interpreter
        ends must not become the exit status.
        """
        for number in self._names:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)
