"""The rows of docs/start_server.md on the background, --restart and --stop: where ours is meant to differ from
Perl's, both are run and each is seen to do what the table says.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

from tests.support import PATIENCE, marked
from tests.system.start_server.side_by_side import FILES, both, gone, needs_perl
from tests.system.start_server.starter import pattern, shows


@shows("--daemonize", "--stop", "--restart")
def test_daemonize_restart_and_stop_as_perls(pair):
    for run in pair("--daemonize", "--log-file=out", "--path=app.sock"):
        assert run.process.wait(PATIENCE) == 0
        run.wait_generations(1)
        pid = int(run.text("pid"))
        assert os.getsid(pid) not in (pid, os.getsid(0))
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        result = run.run("--restart", *FILES)
        assert (result.returncode, result.stderr) == (0, "")
        assert run.generations() == [2]
        result = run.run("--stop", "--pid-file=pid")
        assert result.returncode == 0
        assert re.match(pattern("stop_server (pid:N) stopping now (pid:M)..."), result.stderr)
        gone(pid)
        assert {path.name for path in run.where.iterdir()} == {"log", "out", "SEEN"}
        assert marked(run.mark) == []


@shows("--restart")
def test_restart_returns_as_soon_as_the_swap_is_over(pair):
    shortest = {}
    for run in pair("--interval=0"):
        run.wait_generations(1)
        took = []
        for generation in (2, 3, 4):
            since = time.monotonic()
            assert run.run("--restart", *FILES).returncode == 0
            took.append(time.monotonic() - since)
            assert run.generations() == [generation]
        shortest[run.kind] = min(took)
    # Perl's sleeps a second before it looks again.
    assert shortest["ours"] < shortest["perl"], shortest


@shows("--restart", "STATUS.failed")
def test_restart_while_no_program_is_up(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "BREAK").write_text("for ever")
    run = starter()
    run.wait("^new worker .* failed to start", 2)
    result = run.run("--restart", *FILES)
    assert result.returncode == 1
    assert re.match(r"generation \d+ failed: exited with status 3.*; none serves\n", result.stderr)
    (run.where / "BREAK").unlink()
    result = run.run("--restart", *FILES)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(run.generations()) == 1


@shows("--restart")
def test_restart_signals_nobody_whose_number_is_in_a_pid_file_left_behind(pair):
    """Only the lock says that the number is still the server's. Perl's does not look at it."""
    for run in pair():
        run.wait_generations(1)
        with subprocess.Popen(["sleep", "600"]) as bystander:
            (run.where / "left").write_text(f"{bystander.pid}\n")
            words = [*run.words, "--restart", "--pid-file=left", "--status-file=status"]
            with subprocess.Popen(
                words, cwd=run.where, env=run.environ, stderr=subprocess.PIPE, text=True
            ) as restart:
                if run.kind == "perl":
                    assert bystander.wait(PATIENCE) == -signal.SIGHUP
                    restart.kill()  # it waits for ever for a swap that does not come
                else:
                    assert "No such process" in restart.communicate(timeout=PATIENCE)[1]
                    assert restart.returncode == 3
                    bystander.kill()
                    assert bystander.wait(PATIENCE) == -signal.SIGKILL
        assert run.generations() == [1]


@shows("--stop")
def test_perls_stop_signals_whoever_has_the_number_by_now(pair):
    for run in pair():
        run.wait_generations(1)
        with subprocess.Popen(["sleep", "600"]) as bystander:
            (run.where / "left").write_text(f"{bystander.pid}\n")
            status = run.run("--stop", "--pid-file=left").returncode
            assert status == (0 if run.kind == "perl" else 3)
            if run.kind == "perl":
                assert bystander.wait(PATIENCE) == -signal.SIGTERM
            else:
                assert bystander.poll() is None
            bystander.kill()


@shows("--help, --version")
@needs_perl
def test_help_and_version(tmp_path):
    perl, ours = both("--help", cwd=tmp_path)
    assert (perl.returncode, ours.returncode) == (0, 0)
    options = {*re.findall(r"^ +(--[a-z-]+)", perl.stdout, re.MULTILINE)} | {
        *re.findall(r"(--[a-z-]+)", perl.stdout)
    }
    assert options - {"--"} <= {*re.findall(r"--[a-z-]+", ours.stdout)}
    perl, ours = both("--version", cwd=tmp_path)
    assert re.fullmatch(re.escape(perl.stdout.strip()) + r" \(sidecar \S+\)\n", ours.stdout)
