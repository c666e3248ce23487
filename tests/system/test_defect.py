"""Should sidecar itself be wrong somewhere, the service goes on, and a stop still ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.support import ROOT, SERVER, get, until

BROKEN = """
import os, sys
from sidecar import cli, host
real = host.Host._reap
def reap(self, now):
    if os.path.exists(sys.argv[1]):
        raise RuntimeError("a secret could be in here")
    real(self, now)
host.Host._reap = reap
sys.exit(cli.main(["run", "--port", "127.0.0.1:" + sys.argv[2], "--drain-timeout", "1", "--workers", "2", "--", *sys.argv[3:]]))
"""


def test_a_defect_is_said_without_its_text_and_the_workers_serve_on(tmp_path):
    from tests.support import free_port

    port, broken, log = free_port(), tmp_path / "broken", tmp_path / "log"
    with log.open("wb") as stderr, subprocess.Popen(
        [sys.executable, "-c", BROKEN, str(broken), str(port), *SERVER], cwd=ROOT, stderr=stderr, stdin=subprocess.DEVNULL
    ) as process:  # fmt: skip
        try:
            until(lambda: log.read_text().count("is ready after") == 2, "two workers")
            broken.touch()
            pids = [int(line.rpartition(" ")[2]) for line in log.read_text().splitlines() if " started, pid " in line]
            os.kill(pids[0], signal.SIGKILL)
            until(lambda: "a defect in sidecar: RuntimeError at " in log.read_text(), "the defect in the log")
            assert get(port).startswith("hello")
            broken.unlink()
            process.send_signal(signal.SIGHUP)
            until(lambda: "generation 2 serves" in log.read_text(), "a swap after the defect")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert "secret" not in log.read_text()


def test_a_stop_ends_even_if_the_loop_is_broken_for_good(tmp_path):
    from tests.support import alive, free_port

    port, broken, log = free_port(), tmp_path / "broken", tmp_path / "log"
    with log.open("wb") as stderr, subprocess.Popen(
        [sys.executable, "-c", BROKEN, str(broken), str(port), *SERVER], cwd=ROOT, stderr=stderr, stdin=subprocess.DEVNULL
    ) as process:  # fmt: skip
        try:
            until(lambda: log.read_text().count("is ready after") == 2, "two workers")
            pids = [int(line.rpartition(" ")[2]) for line in log.read_text().splitlines() if " started, pid " in line]
            broken.touch()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) != 0
            until(lambda: not any(alive(pid) for pid in pids), "the workers' end")
        finally:
            process.kill()
