"""What the tests of the control socket share: commands that ask a real sidecar."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.support import PATIENCE, ROOT, Sidecar


def environment(**more: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")},
        "PYTHONPATH": str(ROOT),
        **more,
    }


def command(run: Sidecar, *words: str) -> list[str]:
    """The command line that asks `run`."""
    return [sys.executable, "-m", "sidecar", words[0], "--control", run.control, *words[1:]]


def ask(run: Sidecar, *words: str) -> subprocess.CompletedProcess[str]:
    """Do a command, and wait for its end."""
    return subprocess.run(
        command(run, *words), env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )


def status(run: Sidecar) -> dict:
    done = ask(run, "status", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Asking:
    """A command under way: its lines as they come."""

    def __init__(self, run: Sidecar, *words: str, **popen: object) -> None:
        self.process = subprocess.Popen(command(run, *words), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        **popen)  # fmt: skip

    def line(self, word: str) -> str:
        """Read up to a line with this word in it."""
        for line in self.process.stdout:
            if word in line:
                return line
        raise AssertionError(f"never: {word!r}; {self.process.stderr.read()}")

    def end(self) -> tuple[int, str, str]:
        # Not communicate(): it knows nothing of what `line` has left in the buffer.
        out, err = self.process.stdout.read(), self.process.stderr.read()
        self.process.wait(PATIENCE)
        return self.process.returncode, out, err
