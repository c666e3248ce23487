"""An upgrade while something else is going on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from tests.support import PATIENCE, ROOT, alive
from tests.system.upgrade.installed import ask


def test_an_old_worker_goes_on_draining_and_is_killed_in_time(start):
    run = start("--drain-timeout", "3s", env={"DEAF": "1"})
    old = run.workers()[0]
    run.signal("HUP")
    run.wait("serving", generation=2)
    run.signal("USR2")
    run.wait("upgraded")
    assert alive(old)
    run.wait("worker_killed", pid=old)
    run.wait("worker_exited", pid=old)
    names = [each["event"] for each in run.events]
    assert names.index("upgraded") < names.index("worker_killed")
    run.wait("generation_ended", generation=1)
    run.signal("TERM")
    assert run.stop("TERM") == 0


def test_an_upgrade_waits_for_the_swap_that_is_going_on(start, tmp_path):
    (tmp_path / "env").mkdir()
    run = start("--envdir", "env")
    (tmp_path / "env" / "BOOT").write_text("1")
    run.signal("HUP")
    run.wait("worker_started", generation=2)
    run.signal("USR2")
    run.wait("upgrade_waiting", generation=2)
    run.wait("upgraded")
    names = [
        each["event"]
        for each in run.events
        if each.get("generation") == 2 or each["event"] in ("upgrade_waiting", "upgraded")
    ]
    assert names.index("upgrade_waiting") < names.index("serving") < names.index("upgraded")
    assert run.stop() == 0


def test_a_worker_that_dies_meanwhile_is_reaped_and_replaced(start):
    """Its end comes between the two versions: the first one is stopped when it happens, and killed
    signals stay pending.
    """
    run = start("--workers", "3", "--min-uptime", "0")
    for count in range(1, 16):
        pid = run.workers()[count % 3]
        run.signal("USR2")
        run.wait("upgrading", count)
        os.kill(pid, signal.SIGKILL)
        run.wait("upgraded", count)
        run.wait("worker_died", pid=pid)
        run.wait("worker_ready", 3 + count)
    assert len(run.workers()) == 3
    assert run.stop() == 0


def test_a_hup_at_that_moment_is_not_lost(start):
    run = start()
    for count in range(1, 16):
        run.signal("USR2")
        if count % 2:
            run.wait("upgrading", count)
        run.signal("HUP")
        run.wait("upgraded", count)
        run.wait("serving", generation=1 + count)
    run.alone(16)
    assert run.stop() == 0


@pytest.mark.parametrize("after", ["", "upgrade_checked", "upgrading", "upgraded"])
def test_a_term_right_after_it_stops_all(start, after):
    run = start("--workers", "2")
    run.signal("USR2")
    if after:
        run.wait(after)
    assert run.stop() == 0
    assert len(run.seen("worker_exited")) == 2


def test_connections_to_the_control_socket_survive_it(start, tmp_path):
    run = start()
    lines: list[str] = []
    follower = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "events", "--follow", "--json", "--control", str(tmp_path / "control")],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    reader = threading.Thread(target=lambda: lines.extend(follower.stdout))
    reader.start()
    with socket.socket(socket.AF_UNIX) as half:
        half.connect(str(tmp_path / "control"))
        half.sendall(b'{"command":"hea')
        answer = ask(tmp_path, "upgrade")
        assert answer.returncode == 0, answer
        assert "has taken over from" in answer.stdout
        half.sendall(b'lth"}\n')
        assert json.loads(half.makefile().readline()) == {"ready": True, "done": 0}
    assert run.stop() == 0
    assert follower.wait(PATIENCE) == 0
    reader.join(PATIENCE)
    names = [json.loads(line).get("event") for line in lines]
    assert names[-2] == "stopped"
    assert "upgraded" in names


def test_the_watcher_misses_nothing(start, tmp_path):
    (tmp_path / "code").mkdir()
    run = start("--watch", "code")
    run.wait("watching")
    for count in range(1, 6):
        run.signal("USR2")
        run.wait("upgrading", count)
        (tmp_path / "code" / f"a{count}.py").write_text("1")
        run.wait("serving", generation=1 + count)
        assert "helper_exited" not in [each["event"] for each in run.events]
    assert run.stop() == 0
