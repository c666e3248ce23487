"""What the tests of the rows of docs/start_server.md share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE, alive, until
from tests.system.start_server.starter import PERL, PROGRAM

FILES = ("--pid-file=pid", "--status-file=status")
OURS = (sys.executable, "-m", "sidecar.start_server")
needs_perl = pytest.mark.skipif(
    not Path(PERL).exists(), reason=f"needs {PERL} (Debian: libserver-starter-perl)"
)


def touch(*names: str):
    """A directory with these files."""

    def before(where: Path) -> None:
        for name in names:
            (where / name).touch()

    return before


def sh(script: str, then: tuple[str, ...] = PROGRAM) -> tuple[str, ...]:
    """A program that is a shell script first."""
    return ("sh", "-c", f"{script}; exec {' '.join(then)}")


def script(path: Path) -> None:
    """The program as a file of its own; it writes its arguments to `words`."""
    path.write_text(f"#!/bin/sh\necho $* > words\nexec {' '.join(PROGRAM)}\n")
    path.chmod(0o755)


def both(*words: str, cwd: Path) -> tuple[subprocess.CompletedProcess, subprocess.CompletedProcess]:
    """What each says to a command line that it does not stay for."""
    perl, ours = (
        subprocess.run(
            [*command, *words], capture_output=True, text=True, cwd=cwd, timeout=PATIENCE
        )
        for command in ([PERL], OURS)
    )
    return perl, ours


def gone(pid: int) -> None:
    until(lambda: not alive(pid), f"the end of {pid}")


def environ(pid: int) -> list[str]:
    """NAME=value of a process, as it was when it began."""
    return Path(f"/proc/{pid}/environ").read_text().split("\0")[:-1]
