"""What a stop signal does before sidecar has its own handlers: it ends PID 1.

The kernel gives PID 1 no default action for signals (pid_namespaces(7)): one that comes while
modules are imported and settings are read would be lost, and `docker stop` would wait for its
SIGKILL. Nothing has been bound or started by then, so there is nothing to undo.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def end_on_stop() -> None:
    """From now on a stop signal ends this process with status 0, if it is PID 1."""
    if os.getpid() != 1:
        return
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    # Not by an exception: it could come in a place that swallows it.
    os._exit(0)
