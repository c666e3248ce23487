"""The first steps of a version that has just taken another's place (upgrade/execute.py). If they
fail, they are tried again from the start, by another exec.

The workers serve meanwhile, signals stay blocked and pending, and every descriptor stays as it was
left. So each attempt finds what the first one found. This module imports little, because imports may
fail, too.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# The variables with the state's descriptor and with the number of attempts so far.
STATE_VARIABLE, ATTEMPTS_VARIABLE = "SIDECAR_UPGRADE_STATE", "SIDECAR_UPGRADE_ATTEMPTS"

# The pauses between attempts double up to the longest. The last attempt is made after about a minute.
FIRST_PAUSE_S, MAX_PAUSE_S, MAX_ATTEMPTS = 0.05, 2.0, 35

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def take_variables() -> tuple[str, int]:
    """The number of the descriptor with the state that the version before has left, "" for none, and
    how many attempts to take over there have been. Both are removed from the environment.
    """
    attempts = os.environ.pop(ATTEMPTS_VARIABLE, "")
    state = os.environ.pop(STATE_VARIABLE, "")
    return state, int(attempts) if attempts.isascii() and attempts.isdigit() else 0


def run_with_retries(
    state: str, attempts: int, take_over: Callable[[], Callable[[], int] | None]
) -> int | None:
    """Run what `take_over` returns, and return its exit status; None if it finds no state.

    If it raises, that is reported, and after a pause the same program is executed again with the
    same state. After MAX_ATTEMPTS, or when sidecar is told to stop, the exit status is 1.
    """
    try:
        go_on = take_over()
    except Exception as error:
        _exec_again(state, attempts, error)
        _write_line(f"sidecar: the new version could not take over: {_cause(error)}\n")
        return 1
    return None if go_on is None else go_on()


def _exec_again(state: str, attempts: int, error: Exception) -> None:
    """Execute the same program again after a pause. Returns if it is not to be, or cannot be."""
    pause = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0**attempts)
    if attempts == 0:
        _write_line(f"sidecar: the new version cannot take over, it tries again: {_cause(error)}\n")
    if attempts >= MAX_ATTEMPTS or signal.sigtimedwait(_STOP_SIGNALS, pause) is not None:
        return
    try:
        variables = {STATE_VARIABLE: state, ATTEMPTS_VARIABLE: str(attempts + 1)}
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **variables})
    except OSError as failure:
        _write_line(f"sidecar: {sys.executable}: {failure.strerror}\n")


def _cause(error: Exception) -> str:
    # The text of any other error may contain a secret.
    known = isinstance(error, (OSError, ImportError)) or hasattr(error, "exit_status")
    return str(error) if known else type(error).__name__


def _write_line(line: str) -> None:
    try:
        os.write(2, line.encode("utf-8", "backslashreplace"))
    except OSError:
        pass
