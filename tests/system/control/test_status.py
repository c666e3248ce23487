"""`sidecar status`: what it shows, as text, as JSON and again and again."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import socket
import subprocess
import sys
from pathlib import Path

from tests.support import PATIENCE, ROOT, SERVER, marked, until
from tests.system.control.asking import ask, command, environment, status


def test_status_shows_generations_workers_the_last_swap_and_the_last_failure(run):
    text = ask(run, "status").stdout
    assert f"pid {run.pid}" in text
    assert f"listening on 127.0.0.1:{run.port}" in text
    rows = [line.split() for line in text.splitlines() if " ready " in line]
    assert {row[-7] if row[0] == "1" and "serving" in row else row[1] for row in rows} == {
        str(pid) for pid in run.workers()
    }
    assert all(line.endswith("MiB") for line in text.splitlines() if " ready " in line)
    assert "last swap" in text
    assert "last failure" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_status_json_is_one_object_that_agrees_with_the_log(run):
    run.swap(2)
    told = status(run)
    assert (told["state"], told["ready"], told["generation"], told["workers"], told["pid"]) == (
        "serving",
        True,
        2,
        2,
        run.pid,
    )
    assert [worker["pid"] for worker in told["generations"][0]["workers"]] == run.workers()
    assert all(1 << 20 < worker["memory"] < 1 << 30 for worker in told["generations"][0]["workers"])
    assert [(life["generation"], life["outcome"]) for life in told["timeline"]] == [
        (1, "served"),
        (2, "serving"),
    ]
    assert abs(told["last_swap"]["took"] - run.seen("serving", generation=2)[0]["took"]) < 1e-5
    assert told["swaps"] == [
        {"trigger": "signal", "outcome": "served", "count": 1},
        {"trigger": "start", "outcome": "served", "count": 1},
    ]


def test_a_failed_swap_is_in_status_with_its_cause_and_the_state_stays_serving(start, tmp_path):
    envdir = tmp_path / "env"
    envdir.mkdir()
    run = start("--envdir", str(envdir))
    run.wait("serving")
    (envdir / "DIE").write_text("3")
    done = ask(run, "reload", "--wait")
    assert done.returncode == 1
    assert "exited with status 3" in done.stderr
    told = status(run)
    # It tries again by itself, now or soon.
    assert told["state"] in ("serving", "swapping")
    assert (told["ready"], told["generation"]) == (True, 1)
    assert told["last_failure"]["generation"] >= 2
    assert "exited with status 3" in told["last_failure"]["cause"]
    assert "exited with status 3" in ask(run, "status").stdout
    assert ask(run, "health").returncode == 0


def test_a_reload_that_failed_shows_the_end_of_the_log_file(tmp_path):
    """What was written since the generation was begun, by whoever writes there; not before."""
    log, control = tmp_path / "log", str(tmp_path / "control")
    bad = tmp_path / "bad"
    script = f"""echo begins {"x" * 100}; test -e {bad} || exec {shlex.join(SERVER)}
        for n in $(seq 30); do echo line $n; done; printf "Error: no \\033[31mtable\\n" >&2; exit 3"""
    words = ["run", "--port", "127.0.0.1:0", "--control", control, "--log-file", str(log)]
    command = [sys.executable, "-m", "sidecar", *words, "--", "sh", "-c", script]
    mark = f"{os.getpid()}-{tmp_path}"
    environ = {**environment(), "MARK": mark}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL) as process:
        try:
            until(lambda: log.exists() and "serves after" in log.read_text(), "it serves")
            bad.touch()
            ask = [sys.executable, "-m", "sidecar", "reload", "--wait", "--control", control]
            done = subprocess.run(ask, cwd=ROOT, env=environ, capture_output=True, text=True)
            assert done.returncode == 1
            told = [line for line in done.stderr.splitlines() if line.startswith("  ")]
            assert 10 < len(told) <= 20
            assert "  line 30" in told
            assert "  line 1" not in told
            assert [each for each in told if "Error: no" in each and "\033" not in each]
            assert not [each for each in told if "serves after" in each]
        finally:
            process.terminate()
            process.wait(PATIENCE)
    until(lambda: marked(mark) == [], "the end of all of it")


def test_a_reload_that_failed_without_a_log_file_says_where_the_output_is(start, tmp_path):
    env = tmp_path / "env"
    env.mkdir()
    run = start("--envdir", str(env))
    run.wait("serving")
    (env / "DIE").write_text("3")
    done = ask(run, "reload", "--wait")
    assert done.returncode == 1
    assert "sidecar reload: there is no --log-file: what the new workers wrote is" in done.stderr
    assert run.stop() == 0


def test_what_changed_in_the_envdir_is_named_whatever_began_the_swap(start, tmp_path):
    """By name, and against what serves."""
    env = tmp_path / "env"
    env.mkdir()
    (env / "GONE").write_text("x")
    run = start("--envdir", str(env))
    run.wait("serving")
    ask(run, "reload", "--wait")
    assert run.seen("environment_changed") == []
    (env / "GONE").unlink()
    (env / "NEW").write_text("hunter2")
    assert ask(run, "reload", "--wait").returncode == 0
    (told,) = run.seen("environment_changed")
    assert told["names"] == ["GONE", "NEW"]
    assert "hunter2" not in str(told)
    assert run.stop() == 0


def worked(pid: int) -> int:
    """How long a process has been on a processor (nanoseconds)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def test_status_with_many_workers_costs_no_more_than_in_proportion(start):
    """A hundred times the workers, and no more than two hundred times the work of PID 1 (its time on
    a processor, whoever else is busy): nothing in it is quadratic.
    """
    program = (sys.executable, "-S", "-c", "import signal; signal.pause()")
    took = {}
    for workers in (2, 200):
        run = start(
            "--workers",
            str(workers),
            "--ready",
            "interval",
            "--interval",
            "0",
            program=program,
            port=False,
        )
        run.wait("serving")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(run.control)
            reader = sock.makefile("rb")
            times = []
            for _ in range(9):
                before = worked(run.pid)
                sock.sendall(b'{"command": "status"}\n')
                told = json.loads(reader.readline())
                times.append(worked(run.pid) - before)
            assert sum(len(each["workers"]) for each in told["generations"]) == workers
            took[workers] = sorted(times)[len(times) // 2]
        assert run.stop() == 0
    assert took[200] < 200 * took[2]


def test_watch_shows_it_again_and_again_in_place_until_ctrl_c(run):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, command(run, "status", "--watch"), environment())
    try:
        shown = b""
        while shown.count(b"\x1b[H\x1b[J") < 2:
            shown += os.read(terminal, 4096)
        assert b"generation" in shown.lower()
        os.write(terminal, b"\x03")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
        while select.select([terminal], [], [], 0)[0]:
            try:
                shown += os.read(terminal, 4096)
            except OSError:
                break
        assert b"Traceback" not in shown
    finally:
        os.close(terminal)


def test_watch_ends_when_sidecar_does(run, asking):
    watching = asking(run, "status", "--watch")
    watching.line("last swap")
    assert run.stop() == 0
    returned, _, err = watching.end()
    assert returned == 3
    assert "sidecar has left" in err
