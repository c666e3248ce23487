"""What sidecar gives each worker: its environment."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.system.worker_contract.environment import environment


def test_the_environment_follows_the_envdir(sidecar, tmp_path):
    """Read anew for every generation; a removed file falls back to the container's own value, or
    goes.
    """
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    (first / "GREETING").write_text("from a  \nsecond line\n")
    (first / "ONLY").write_text("here")
    (second / "GREETING").write_text("from b\n")
    (second / "HIDDEN").write_text("")
    (second / ".dot").write_text("no")
    run = sidecar(
        "--envdir", str(first), "--envdir", str(second), env={"GREETING": "own", "HIDDEN": "seen"}
    )
    run.wait("serving")
    assert "GREETING has" in run.seen("notice")[0]["text"]
    env = environment(run)
    assert env["GREETING"] == "from b"
    assert env["ONLY"] == "here"
    assert "HIDDEN" not in env
    assert ".dot" not in env
    (second / "GREETING").unlink()
    (first / "ONLY").unlink()
    (second / "HIDDEN").unlink()
    run.swap(2)
    env = environment(run)
    assert env["GREETING"] == "from a"
    assert env["HIDDEN"] == "seen"
    assert "ONLY" not in env
    (first / "GREETING").unlink()
    run.swap(3)
    assert environment(run)["GREETING"] == "own"


def test_no_value_of_an_envdir_is_ever_said(sidecar, tmp_path):
    """Promise 7: neither when all goes well nor when a swap fails because of it."""
    secret = "pa55word-do-not-say"
    (tmp_path / "TOKEN").write_text(secret + "\nand more")
    run = sidecar("--envdir", str(tmp_path))
    run.wait("serving")
    (tmp_path / "TOKEN").write_text(secret * 20000)
    run.signal("HUP")
    assert "TOKEN" in run.wait("swap_failed")["cause"]
    (tmp_path / "TOKEN").write_text(secret)
    (tmp_path / "DIE").write_text("1")
    run.signal("HUP")
    run.wait("swap_failed", count=2)
    assert run.stop() == 0
    assert secret not in str(run)


def test_what_python_adds_to_its_own_environment_is_not_passed_on(sidecar, monkeypatch):
    """LC_CTYPE, where there is no locale: another program may take it for the user's word."""
    for name in ("LANG", "LC_ALL", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    run = sidecar()
    pid = run.wait("worker_started")["pid"]
    run.wait("serving")
    assert b"LC_CTYPE=" not in Path(f"/proc/{pid}/environ").read_bytes()
    monkeypatch.setenv("LC_CTYPE", "C.UTF-8")
    run = sidecar()
    pid = run.wait("worker_started")["pid"]
    run.wait("serving")
    assert b"LC_CTYPE=C.UTF-8" in Path(f"/proc/{pid}/environ").read_bytes()


def told(pid: int) -> dict[str, str]:
    """The environment that a process was started with."""
    block = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(entry.partition("=")[::2] for entry in block.split("\0") if entry)


def test_a_worker_that_is_started_again_is_told_how_many_there_are_now(sidecar):
    run = sidecar()
    run.wait("serving")
    run.signal("TTIN")
    second = run.wait("worker_ready", count=2)
    os.kill(second["pid"], signal.SIGKILL)
    third = run.wait("worker_ready", count=3)
    for each in (second, third):
        assert each["slot"] == 1
    environ = told(third["pid"])
    assert (environ["SIDECAR_WORKER"], environ["SIDECAR_WORKERS"]) == ("1", "2")
    assert run.stop() == 0


def test_checks_and_ready_commands_have_the_environment_and_no_sockets(sidecar, tmp_path):
    """Variables that speak of descriptors would send them to somebody else's."""
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "COLOUR").write_text("blue")
    run = sidecar(
        "--envdir", str(tmp_path / "env"), "--check", f"sh -c 'env > {tmp_path}/check; ls -l /proc/self/fd >> {tmp_path}/check'",
        "--ready", "command", "--ready-command", f"sh -c 'env > {tmp_path}/ready; ls -l /proc/self/fd >> {tmp_path}/ready'",
    )  # fmt: skip
    run.wait("serving")
    for name in ("check", "ready"):
        text = (tmp_path / name).read_text()
        assert "COLOUR=blue\n" in text
        for private in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "SERVER_STARTER_PORT"):
            assert private not in text
        assert "socket:" not in text
    assert run.stop() == 0


def test_the_environment_of_a_generation_that_has_gone_is_forgotten(sidecar, tmp_path):
    """A megabyte of variables, thirty times over."""
    for number in range(10):
        (tmp_path / f"BIG{number}").write_text("x" * 100_000)

    def held() -> int:
        lines = Path(f"/proc/{run.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    run = sidecar(
        "--envdir", str(tmp_path), "--ready", "interval", "--interval", "0s", port=False, program=("sleep", "3600")
    )  # fmt: skip
    run.wait("serving")
    run.swap(2)
    before = held()
    for number in range(3, 33):
        run.swap(number)
    assert held() - before < 15_000
    assert run.stop() == 0
