"""Should sidecar itself be wrong somewhere, the service goes on, and a stop still ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import ROOT, SERVER, alive, free_port, get, marked, until

BROKEN = """
import os, sys
from sidecar.cli import main as cli
from sidecar.host.children import Children
real = Children.on_deadline
def reap(self, now):
    if os.path.exists(sys.argv[1]):
        raise RuntimeError("a secret could be in here")
    real(self, now)
Children.on_deadline = reap
sys.exit(cli.main(["run", "--port", "127.0.0.1:" + sys.argv[2], "--drain-timeout", "1", "--workers", "2", "--", *sys.argv[3:]]))
"""


@pytest.fixture
def broken(tmp_path) -> Iterator[tuple[subprocess.Popen, Callable[[], str], int, list[int]]]:
    """A sidecar whose reaping raises while the file `broken` is there: (process, its log, port, the
    workers' pids).
    """
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-c", BROKEN, str(tmp_path / "broken"), str(port), *SERVER]
    with (
        log.open("wb") as stderr,
        subprocess.Popen(command, cwd=ROOT, stderr=stderr, stdin=subprocess.DEVNULL) as process,
    ):
        try:
            until(lambda: log.read_text().count("is ready after") == 2, "two workers")
            pids = [
                int(line.rpartition(" ")[2])
                for line in log.read_text().splitlines()
                if " started, pid " in line
            ]
            yield process, log.read_text, port, pids
        finally:
            process.kill()


def test_a_defect_is_said_without_its_text_and_the_workers_serve_on(broken, tmp_path):
    process, log, port, pids = broken
    (tmp_path / "broken").touch()
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: "a defect in sidecar: RuntimeError at " in log(), "the defect in the log")
    assert get(port).startswith("hello")
    (tmp_path / "broken").unlink()
    # Nothing else happens now that would wake sidecar: what it failed to see to, it sees to again
    # by itself.
    until(lambda: log().count("is ready after") == 3, "another worker in the place of the dead one")
    process.send_signal(signal.SIGHUP)
    until(lambda: "generation 2 serves" in log(), "a swap after the defect")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert "secret" not in log()


def test_a_stop_ends_even_if_the_loop_is_broken_for_good(broken, tmp_path):
    process, log, _, pids = broken
    (tmp_path / "broken").touch()
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert "a defect in sidecar: RuntimeError at " in log()
    assert "Traceback" not in log()
    until(lambda: not any(alive(pid) for pid in pids), "the workers' end")


SIGNALS_FIRST = """
import selectors
real = selectors.EpollSelector.select
selectors.EpollSelector.select = lambda self, timeout=None: sorted(real(self, timeout), key=lambda found: found[0].fd)
"""


def test_what_was_closed_earlier_in_a_turn_is_not_read(sidecar, tmp_path):
    """A watcher's end and its last word come in one turn. Seen in the order that the kernel seldom
    gives, the end closes what the word would be read from.
    """
    (tmp_path / "sitecustomize.py").write_text(SIGNALS_FIRST)
    (tmp_path / "code").mkdir()
    run = sidecar("--watch", str(tmp_path / "code"), env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    run.wait("watching")
    run.wait("serving")
    watcher = next(
        pid
        for pid in marked(run.mark)
        if b"sidecar.watch" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    run.signal("STOP")
    os.kill(watcher, signal.SIGKILL)
    until(lambda: not alive(watcher), "its end")
    run.signal("CONT")
    run.wait("watching", 2)
    assert run.stop() == 0
    assert run.seen("internal_error") == []
