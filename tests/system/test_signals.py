"""Signals at odd moments, and signals that mean nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.support import PATIENCE, ROOT, SERVER, until

# A stop signal in the middle of the imports, at the same place each time.
WHILE_IMPORTING = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "sidecar.cli.invocation" and os.getpid() == 1:
            os.write(2, b"importing\\n")
            os.kill(1, signal.{name})

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root, for a pid namespace"
)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_a_stop_while_pid_1_still_imports_ends_it(tmp_path, name):
    (tmp_path / "sitecustomize.py").write_text(WHILE_IMPORTING.format(name=name))
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "sidecar"]
    ended = subprocess.run(
        [*command, "run", "--port", "127.0.0.1:0", "--control", "none", "--", *SERVER],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "importing\n")


def test_signals_without_a_meaning_do_not_end_it(sidecar):
    run = sidecar()
    run.wait("serving")
    for number in (
        signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGPOLL, signal.SIGPWR, signal.SIGRTMIN, signal.SIGRTMAX,
    ):  # fmt: skip
        os.kill(run.pid, number)
    assert run.get().startswith("hello")
    run.swap(2)
    assert run.stop() == 0


def test_workers_have_them_as_sidecar_found_them(sidecar):
    """An ignored signal stays ignored across exec: a worker's own alarm would be."""
    program = (sys.executable, "-c", "import time, signal; signal.alarm(1); time.sleep(3600)")
    run = sidecar("--ready", "interval", "--interval", "100ms", program=program, port=False)
    until(lambda: run.seen("worker_died"), "its alarm")
    assert run.seen("worker_died")[0]["cause"] == "killed by SIGALRM"
    assert run.stop() == 0
