"""How a process ended, in words. `code` is its exit status; `signal` is the name of the signal that
killed it, such as "KILL", else "".
"""

from __future__ import annotations


def describe_exit(code: int, signal: str) -> str:
    """Such as "killed by SIGKILL" or "exited with status 1"."""
    return f"killed by SIG{signal}" if signal else f"exited with status {code}"


def exit_predicate(code: int, signal: str) -> str:
    """The same as the end of a sentence that begins with the process: "was killed by SIGKILL"."""
    return f"{'was ' if signal else ''}{describe_exit(code, signal)}"
