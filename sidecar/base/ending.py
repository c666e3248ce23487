"""How a process ended, in words."""

from __future__ import annotations


def how_it_ended(code: int, signal: str) -> str:
    """Of a process that exited with status `code`, or was killed by `signal` (a name such as "KILL",
    else "").
    """
    return f"killed by SIG{signal}" if signal else f"exited with status {code}"


def what_it_did(code: int, signal: str) -> str:
    """The same as the end of a sentence that begins with the process."""
    return f"{'was ' if signal else ''}{how_it_ended(code, signal)}"
