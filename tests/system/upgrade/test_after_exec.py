"""What fails after the exec is tried again, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

from tests.support import PATIENCE, Load, marked, until
from tests.system.upgrade.installed import Installed

LAST_STEP = "    # From here on there is no way back.\n"


def failing(installed: Installed, where: Path) -> None:
    """The next version's last step fails until there is a file `go`, but not in the check."""
    installed.change(
        "host/exported_state.py",
        LAST_STEP,
        f"    if started and not os.path.exists('{where}/go'):\n"
        f"        os.close(os.open('{where}/tried', os.O_CREAT | os.O_WRONLY))\n"
        "        raise OSError(23, 'Too many open files in system')\n" + LAST_STEP,
    )


def test_it_is_tried_again_and_nothing_that_came_meanwhile_is_lost(start, installed, tmp_path):
    run = start("--workers", "2", "--watch", "site/none", "--pid-file", "pid")
    run.wait("watching")
    failing(installed, tmp_path)
    before = len(os.listdir(f"/proc/{run.pid}/fd"))
    with Load(run.port) as load:
        run.signal("USR2")
        until((tmp_path / "tried").exists, "the first attempt")
        (tmp_path / "tried").unlink()
        until((tmp_path / "tried").exists, "another attempt")
        killed = run.workers()[0]
        os.kill(killed, signal.SIGKILL)
        run.signal("HUP")
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(tmp_path / "control"))
            asking.sendall(b'{"command":"health"}\n')
            (tmp_path / "tried").unlink()
            until((tmp_path / "tried").exists, "another attempt")
            (tmp_path / "go").touch()
            assert run.wait("upgraded")["pid"] == run.pid
            assert json.loads(asking.makefile().readline())["done"] in (0, 1)
        run.wait("worker_died", pid=killed)
        run.wait("serving", generation=2)
        run.alone(2)
    # One that was killed may have had a request.
    assert len(load.failures) <= 4
    assert [line for line in run.output if "tries again" in line] == [
        "sidecar: the new version cannot take over, it tries again: [Errno 23] Too many open files in system"
    ]
    assert "SIDECAR_UPGRADE_STATE" not in run.get("/env")
    run.wait("watching", 2)
    until(lambda: len(os.listdir(f"/proc/{run.pid}/fd")) == before, f"{before} descriptors")
    assert run.stop() == 0


def test_a_stop_ends_the_attempts(start, installed, tmp_path):
    run = start()
    failing(installed, tmp_path)
    run.signal("USR2")
    until((tmp_path / "tried").exists, "the first attempt")
    assert run.get().startswith("hello 1"), "it serves"
    run.signal("TERM")
    assert run.process.wait(PATIENCE) == 1
    until(lambda: marked(run.mark) == [], "the end of all")
    assert "could not take over: [Errno 23]" in str(run)


def test_a_state_that_cannot_be_read_is_no_reason_to_start_anew(start, installed, tmp_path):
    run = start("--pid-file", "pid")
    installed.change(
        "upgrade/execute.py",
        "        writer = state",
        "        if pid == os.getpid():\n            raise ValueError\n        writer = state",
    )
    run.signal("USR2")
    until(lambda: "tries again" in str(run), "the first attempt")
    assert "the state of the running sidecar cannot be read" in str(run)
    assert run.get().startswith("hello 1"), "it serves"
    run.signal("TERM")
    assert run.process.wait(PATIENCE) == 1
    until(lambda: marked(run.mark) == [], "the end of all")
    assert len(run.seen("starting")) == 1
    assert "held by" not in str(run)


def test_without_room_for_an_interpreter_there_is_no_exec(start, tmp_path):
    """Descriptors for the check and for the state are there, but few more."""
    run = start()
    free = max(int(name) for name in os.listdir(f"/proc/{run.pid}/fd")) + 12
    subprocess.run(["prlimit", "--pid", str(run.pid), f"--nofile={free}:1024"], check=True)
    run.signal("USR2")
    assert "Too many open files" in run.wait("upgrade_failed")["cause"]
    run.swap(2)
    subprocess.run(["prlimit", "--pid", str(run.pid), "--nofile=1024:1024"], check=True)
    run.signal("USR2")
    run.wait("upgraded")
    assert run.stop() == 0
