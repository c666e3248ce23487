"""`sidecar health` in every state."""

from __future__ import annotations

import os
import signal

from tests.system.control.asking import ask


def test_health_in_every_state(start, tmp_path):
    def health(word: str = "--ready") -> tuple[int, str]:
        done = ask(run, "health", word)
        return done.returncode, done.stdout.strip() or done.stderr.strip()

    gate = tmp_path / "env"
    gate.mkdir()
    (gate / "BOOT").write_text("2")
    run = start(
        "--lame-duck", "1h", "--envdir", str(gate), "--max-failures", "0", "--min-uptime", "0"
    )
    run.wait("worker_started")
    assert health() == (1, "sidecar health: starting: no worker has been ready yet")
    assert health("--live") == (0, "alive")
    run.wait("serving")
    assert (health(), health("--live")) == ((0, "ready"), (0, "ready"))
    run.signal("HUP")
    run.wait("worker_started", generation=2)
    assert health() == (0, "ready"), "during a swap"
    run.wait("serving", generation=2)
    run.alone(2)
    (gate / "NEVER").write_text("1")
    for pid in run.workers():
        os.kill(pid, signal.SIGKILL)
    run.wait("worker_died", generation=2)
    assert health() == (1, "sidecar health: no worker is ready")
    assert health("--live") == (0, "alive")
    assert run.stop("INT") == 0
    assert health()[0] == 3


def test_health_in_lame_duck_says_no_while_requests_are_answered(start):
    run = start("--lame-duck", "1h")
    run.wait("serving")
    run.signal("TERM")
    run.wait("stopping")
    done = ask(run, "health")
    assert (done.returncode, done.stderr) == (1, "sidecar health: stopping: lame duck\n")
    assert run.get().startswith("hello")
    assert run.stop("INT") == 0


def test_a_sidecar_that_hangs_is_not_healthy(run):
    """Stopped, it answers nobody: the probe gives up in time of its own."""
    os.kill(run.pid, signal.SIGSTOP)
    try:
        assert ask(run, "health", "--timeout", "200ms").returncode == 4
    finally:
        os.kill(run.pid, signal.SIGCONT)
    assert ask(run, "health").returncode == 0
