"""The first steps of a version that has just taken another's place (upgrade/execute.py): what fails in them
is not the end of everything, but tried again, from the start, by another exec.

The workers serve meanwhile, signals stay blocked and pending, and every descriptor that was left
stays as it was left. So each attempt finds what the first one found. Imports little: whatever is
needed before it can help may fail, too.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Which descriptor holds the state, and how many attempts there have been.
VARIABLE, ATTEMPTS = "SIDECAR_HERITAGE", "SIDECAR_HERITAGE_ATTEMPTS"

# The pauses between attempts double up to the longest (seconds): the last attempt is made after
# about a minute.
FIRST_PAUSE, LONGEST_PAUSE, MOST = 0.05, 2.0, 35

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def left() -> tuple[str, int]:
    """What the version before has left, "" for nothing, and which attempt to go on from it this is,
    from 0. Both are taken out of the environment.
    """
    count = os.environ.pop(ATTEMPTS, "")
    text = os.environ.pop(VARIABLE, "")
    return text, int(count) if count.isascii() and count.isdigit() else 0


def attempt(text: str, count: int, take_over: Callable[[], Callable[[], int] | None]) -> int | None:
    """Run what `take_over` gives, its exit status; None if it finds that nothing was left.

    What it raises is said, and the same program executed again, with the same state, after a pause.
    Once that was done often enough, or sidecar is asked to stop, that is the end: status 1.
    """
    try:
        go_on = take_over()
    except Exception as error:
        _again(text, count, error)
        _say(f"sidecar: the new version could not take over: {_cause(error)}\n")
        return 1
    return None if go_on is None else go_on()


def _again(text: str, count: int, error: Exception) -> None:
    """Execute the same program anew. Returns if it is not to be, or cannot."""
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**count)
    if count == 0:
        _say(f"sidecar: the new version cannot take over, it tries again: {_cause(error)}\n")
    if count >= MOST or signal.sigtimedwait(_STOPS, pause) is not None:
        return
    try:
        environment = {**os.environ, VARIABLE: text, ATTEMPTS: str(count + 1)}
        os.execve(sys.executable, sys.orig_argv, environment)
    except OSError as failure:
        _say(f"sidecar: {sys.executable}: {failure.strerror}\n")


def _cause(error: Exception) -> str:
    # Any other error's text may hold anything.
    known = isinstance(error, (OSError, ImportError)) or hasattr(error, "exit_status")
    return str(error) if known else type(error).__name__


def _say(line: str) -> None:
    try:
        os.write(2, line.encode("utf-8", "backslashreplace"))
    except OSError:
        pass
