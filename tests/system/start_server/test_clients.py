"""--restart and --stop; the log and the background."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

from tests.support import PATIENCE, alive, marked, until
from tests.system.start_server.starter import PROGRAM, shows

FILES = ("--pid-file=pid", "--status-file=status")


@shows("--restart")
def test_restart_returns_with_the_new_generation_alone(starter):
    run = starter()
    run.wait_generations(1)
    for generation in (2, 3):
        result = run.run("--restart", *FILES)
        assert (result.returncode, result.stderr) == (0, "")
        assert run.generations() == [generation]


@shows("--restart", "STATUS.failed")
def test_restart_ends_with_the_reason_when_the_new_generation_fails(starter):
    run = starter()
    run.wait_generations(1)
    for generation in (2, 4):
        (run.where / "BREAK").touch()
        result = run.run("--restart", *FILES)
        assert result.returncode == 1
        assert f"generation {generation} failed: exited with status 3" in result.stderr
        assert f"generation {generation - 1} serves on" in result.stderr
        run.wait_generations(generation + 1)  # it is tried again
        until(lambda: not (run.where / "status.failed").exists(), "the reason's end")
    assert run.stop() == 0
    assert not (run.where / "status.failed").exists()


@shows("--restart", "--restart-timeout")
def test_restart_has_a_timeout(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "DEAF").touch()
    run = starter()
    run.wait_generations(1)
    result = run.run("--restart", "--restart-timeout=2", *FILES)
    assert result.returncode == 1
    assert "not over within 2 secs" in result.stderr
    run.process.kill()


@shows("--restart")
def test_restart_says_when_nothing_is_there(starter):
    run = starter()
    run.wait_generations(1)
    run.process.kill()
    run.process.wait(PATIENCE)
    result = run.run("--restart", *FILES)
    assert (result.returncode, result.stderr) == (
        3,
        "failed to send SIGHUP to the server process:No such process\n",
    )


@shows("--stop", "stop_server (pid:N) stopping now (pid:M)...")
def test_stop_returns_when_it_has_gone(starter):
    run = starter()
    run.wait_generations(1)
    result = run.run("--stop", "--pid-file=pid")
    assert re.fullmatch(
        rf"stop_server \(pid:\d+\) stopping now \(pid:{run.process.pid}\)\.\.\.\n", result.stderr
    )
    assert result.returncode == 0
    assert marked(run.mark) in ([], [run.process.pid])
    assert run.text("status") == ""
    assert run.process.wait(PATIENCE) == 0


@shows("--stop")
def test_stop_signals_nobody_over_a_pid_file_that_was_left_behind(starter):
    run = starter()
    run.wait_generations(1)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (run.where / "left").write_text(f"{bystander.pid}\n")
        result = run.run("--stop", "--pid-file=left")
        assert (result.returncode, bystander.poll()) == (3, None)
        bystander.kill()


# --- the log
@shows("--log-file FILE")
def test_the_log_file_is_appended_to_and_opened_anew_on_hup_and_usr1(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "out").write_text("before\n")
    run = starter("--log-file=out", program=("sh", "-c", "echo a life; exec " + " ".join(PROGRAM)))
    run.wait_generations(1)
    assert re.fullmatch(r"before\nstarting new worker \d+\na life\n", run.text("out"))
    (run.where / "out").rename(run.where / "out.1")
    run.signal("HUP")
    until(lambda: "killing old workers" in run.text("out"), "the swap in the new file")
    assert "a life" in run.text("out")
    (run.where / "out").rename(run.where / "out.2")
    run.signal("USR1")
    until((run.where / "out").exists, "the new file")
    assert run.stop() == 0
    assert run.text("out").endswith("exiting\n")
    assert run.text() == f"start_server (pid:{run.process.pid}) starting now...\n"


@shows("--log-file '| COMMAND'")
def test_a_log_command_reads_everything_and_is_started_again_when_it_dies(starter):
    run = starter(
        "--log-file=| echo $$ >> loggers; exec cat >> out",
        program=("sh", "-c", "echo a life; exec " + " ".join(PROGRAM)),
    )
    run.wait_generations(1)
    until(lambda: "a life" in run.text("out"), "the first life's output")
    os.kill(int(run.text("loggers").split()[0]), signal.SIGKILL)
    until(lambda: len(run.text("loggers").split()) == 2, "the second log command")
    run.signal("HUP")
    until(lambda: "killing old workers" in run.text("out"), "the swap")
    assert run.stop() == 0
    out = run.text("out")
    assert out.count("a life") == 2
    assert out.endswith("exiting\n")
    assert not re.search(rf"worker {run.text('loggers').split()[0]}\b", out)
    assert marked(run.mark) == []


# --- the background
@shows("--daemonize")
def test_daemonize(starter):
    run = starter("--log-file=out", "--daemonize", "--path=app.sock")
    assert run.process.wait(PATIENCE) == 0
    # It returns when the pid file has the final pid.
    pid = int(run.text("pid"))
    assert pid != run.process.pid
    assert alive(pid)
    run.wait_generations(1)
    session, group = os.getsid(pid), os.getpgid(pid)
    assert session == group
    assert session not in (pid, os.getsid(0))
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.path.samefile(f"/proc/{pid}/fd/1", run.where / "out")
    # What it was started with is let go: `$(start_server --daemonize …)` reads to the end of it.
    held = {os.path.realpath(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
    assert str(run.where / "log") not in held
    assert run.run("--restart", *FILES).returncode == 0
    assert run.run("--stop", "--pid-file=pid").returncode == 0
    until(lambda: marked(run.mark) == [], "the end of everything")
    assert {path.name for path in run.where.iterdir()} == {"log", "out", "SEEN"}
    assert run.text("out").endswith("exiting\n")


def test_daemonize_says_what_hinders_it(starter):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        run = starter("--log-file=out", "--daemonize", f"--port=127.0.0.1:{taken.getsockname()[1]}")
        assert run.process.wait(PATIENCE) == 98
    assert "another process listens there" in run.text()
    assert not (run.where / "pid").exists()
