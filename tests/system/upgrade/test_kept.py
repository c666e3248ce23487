"""An upgrade in place keeps the pid, the workers, the listeners and all that is counted."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.support import Load, Sidecar, read_response, until
from tests.system.upgrade.installed import ask, status


def about(run: Sidecar) -> dict:
    return json.loads(run.get("/about"))


def test_a_hundred_upgrades_under_load_lose_nothing_and_change_nothing(start, installed, tmp_path):
    run = start("--workers", "2", "--ready", "accept")
    workers = run.workers()
    before = Path(f"/proc/{run.pid}/stat").read_text().rpartition(")")[2].split()[19]
    with Load(run.port) as load:
        for count in range(1, 101):
            if count % 25 == 0:
                installed.version(f"9.{count}")
            run.signal("USR2")
            run.wait("upgraded", count)
        assert run.workers() == workers
        answered = load.answered
        run.swap(2)
        until(lambda: load.answered > answered, "answers of the new generation")
    assert load.failures == []
    assert run.seen("upgraded")[-1]["version"] == "9.100"
    assert run.seen("upgrade_failed") == []
    assert run.process.poll() is None
    assert Path(f"/proc/{run.pid}/stat").read_text().rpartition(")")[2].split()[19] == before, (
        "another process"
    )
    told = status(tmp_path)
    assert (told["version"], told["upgrades"], told["last_upgrade"]["before"]) == (
        "9.100",
        100,
        "9.75",
    )
    assert told["generation"] == 2
    assert run.stop() == 0


def test_no_descriptor_is_lost_and_none_is_left_over(start):
    run = start("--workers", "2", "--pid-file", "pid", "--status-file", "status", "--watch", "site")

    def descriptors() -> list[str]:
        return sorted(
            os.readlink(f"/proc/{run.pid}/fd/{name}").partition(":")[0]
            for name in os.listdir(f"/proc/{run.pid}/fd")
        )

    run.wait("watching")
    first = descriptors()
    for count in (1, 2, 3):
        run.signal("USR2")
        run.wait("watching", 1 + count)
        until(lambda: descriptors() == first, f"{first}, there are {descriptors()}")
    assert about(run)["now"].keys() >= {"0", "1", "2", "3"}
    run.swap(2)
    mine = about(run)
    assert [
        fd
        for fd in mine["fds"]
        if int(fd) > 2 and "socket" not in mine["fds"][fd] and "/proc/" not in mine["fds"][fd]
    ] == []
    assert int(mine["blocked"], 16) == 0
    assert "SIDECAR_UPGRADE_STATE" not in run.get("/env")
    assert run.stop() == 0


def test_history_numbers_clocks_and_size_go_on(start, tmp_path):
    run = start("--enable-auto-restart", "--auto-restart-interval", "1h")
    run.swap(2)
    run.signal("TTIN")
    run.wait("worker_ready", generation=2, slot=1)
    before = status(tmp_path)
    run.signal("USR2")
    run.wait("upgraded")
    after = status(tmp_path)
    assert after["timeline"] == before["timeline"]
    assert after["swaps"] == before["swaps"]
    assert after["workers"] == 2
    assert after["next_restart_in"] < before["next_restart_in"]
    assert after["age"] > before["age"]
    pids = [
        [worker["pid"] for each in told["generations"] for worker in each["workers"]]
        for told in (before, after)
    ]
    assert pids[0] == pids[1]
    events = [json.loads(line) for line in ask(tmp_path, "events", "--json").stdout.splitlines()][
        :-1
    ]
    assert [each["number"] for each in events] == list(range(1, len(events) + 1))
    assert events[0]["event"] == "starting"
    run.swap(3)
    assert run.stop() == 0


def test_the_pid_files_lock_the_status_file_and_a_unix_listener_are_held_on(start, tmp_path):
    path = tmp_path / "app.sock"
    run = start("--port", f"unix:{path}", "--pid-file", "pid", "--status-file", "status")
    rows = f"1:{run.workers()[0]}\n"
    until(lambda: (tmp_path / "status").read_text() == rows, "the status file")
    inode = path.stat().st_ino
    run.signal("USR2")
    run.wait("upgraded")
    assert (tmp_path / "pid").read_text() == f"{run.pid}\n"
    with open(tmp_path / "pid") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert (tmp_path / "status").read_text() == rows
    assert path.stat().st_ino == inode
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert read_response(sock)
    assert run.stop() == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["site"]


def test_a_slot_that_has_to_wait_waits_on(start):
    """The pause after a crash is not forgotten: nothing is started at once by the new version, and
    all the same in the end.
    """
    run = start("--max-backoff", "2s", "--workers", "2")
    for _ in range(3):
        pid = [each["pid"] for each in run.seen("worker_ready", slot=1)][-1]
        count = len(run.seen("worker_ready", slot=1))
        os.kill(pid, signal.SIGKILL)
        run.wait("worker_ready", count + 1, slot=1)
    pid = run.seen("worker_ready", slot=1)[-1]["pid"]
    os.kill(pid, signal.SIGKILL)
    run.wait("worker_died", pid=pid)
    run.signal("USR2")
    run.wait("upgraded")
    run.wait("worker_ready", 5, slot=1)
    names = [each["event"] for each in run.events]
    assert names.index("upgraded") < len(names) - 1 - names[::-1].index("worker_started")
    assert run.stop() == 0


def test_a_worker_that_is_still_starting_is_found_ready_by_the_new_version(start, tmp_path):
    (tmp_path / "go").touch()
    run = start("--workers", "2", "--ready", "command", "--ready-command", f"test -e {tmp_path}/go")
    (tmp_path / "go").unlink()
    pid = run.seen("worker_ready", slot=1)[-1]["pid"]
    os.kill(pid, signal.SIGKILL)
    started = run.wait("worker_started", 3)
    run.signal("USR2")
    run.wait("upgraded")
    (tmp_path / "go").touch()
    run.wait("worker_ready", pid=started["pid"])
    assert run.stop() == 0


def test_notify_goes_on_under_the_address_that_the_workers_know(start):
    run = start("--ready", "notify", env={"NOTIFY": "1"})
    run.signal("USR2")
    run.wait("upgraded")
    pid = run.workers()[0]
    os.kill(pid, signal.SIGKILL)
    run.wait("worker_ready", 2)
    assert run.swap(2)
    assert run.stop() == 0
