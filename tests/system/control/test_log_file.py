"""--log-file: a file, a pipe or a command; opened anew on USR1."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support import PATIENCE, SERVER, until
from tests.system.control.asking import ask


# --- --log-file
@pytest.mark.parametrize("how", ["USR1", "HUP", "signal USR1"])
def test_the_log_file_is_opened_anew(start, tmp_path, how):
    """For who rotates it: by USR1, by HUP, and by the command, where there is no `kill`. The output
    of the workers goes there too.
    """
    log = tmp_path / "log"
    log.write_text("before\n")
    run = start(
        "--log-file",
        str(log),
        program=("sh", "-c", "echo a worker speaks; exec " + " ".join(SERVER)),
    )
    until(lambda: '"serving"' in log.read_text(), "generation 1 in the file")
    assert log.read_text().startswith("before\n")
    assert "a worker speaks\n" in log.read_text()
    log.rename(tmp_path / "log.1")
    if how == "signal USR1":
        assert ask(run, "signal", "USR1").returncode == 0
    else:
        run.signal(how)
    until(log.exists, "the new file")
    os.kill(run.pid, signal.SIGTTIN)
    until(lambda: '"scaled"' in log.read_text(), "the next event in the new file")
    assert '"scaled"' not in (tmp_path / "log.1").read_text()
    assert run.stop() == 0
    assert '"stopped"' in log.read_text()
    assert run.events == []


def test_a_log_file_may_be_rotated_by_copying_and_truncating(start, tmp_path):
    """logrotate's copytruncate: who writes need not be told, for everything is appended."""
    log = tmp_path / "log"
    run = start("--log-file", str(log))
    until(lambda: log.exists() and '"serving"' in log.read_text(), "generation 1 in the file")
    os.truncate(log, 0)
    assert ask(run, "signal", "USR1").returncode == 0
    until(lambda: "USR1" in log.read_text(), "what the worker has to say")
    assert ask(run, "scale", "2").returncode == 0
    until(lambda: '"scaled"' in log.read_text(), "sidecar's next line")
    assert "\0" not in log.read_text()
    assert '"serving"' not in log.read_text()
    assert "another file now" not in log.read_text()
    assert run.stop() == 0


def test_a_log_file_that_was_renamed_goes_on_being_the_workers_and_that_is_said(start, tmp_path):
    log = tmp_path / "log"
    run = start("--log-file", str(log))
    until(lambda: log.exists() and '"serving"' in log.read_text(), "generation 1 in the file")
    log.rename(tmp_path / "log.1")
    run.signal("USR1")
    until(lambda: log.exists() and "another file now" in log.read_text(), "the remark")
    log.rename(tmp_path / "log.2")
    run.signal("HUP")
    until(lambda: log.exists() and '"serving"' in log.read_text(), "generation 2 in the file")
    assert "another file now" not in log.read_text()
    assert run.stop() == 0


def test_a_log_file_that_cannot_be_opened_anew_is_said_in_the_old_one(start, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    run = start("--log-file", str(place / "log"))
    until(
        lambda: (place / "log").exists() and '"serving"' in (place / "log").read_text(),
        "generation 1 in the file",
    )
    place.rename(tmp_path / "other")
    run.signal("USR1")
    until(
        lambda: "cannot reopen the log" in (tmp_path / "other" / "log").read_text(), "the complaint"
    )
    assert run.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and a directory of somebody else")
@pytest.mark.parametrize("trap", [os.symlink, os.link, lambda _, path: os.mkfifo(path)])
def test_a_log_file_exchanged_by_the_workers_user_is_not_opened_anew(start, tmp_path, trap):
    """A link would have root append to any file, a pipe hold it up for ever: the old file stays."""
    place, secret = tmp_path / "place", tmp_path / "secret"
    place.mkdir()
    os.chown(place, 4242, 4242)
    secret.touch(0o600)
    log = place / "log"
    run = start("--log-file", str(log))
    until(lambda: log.exists() and '"serving"' in log.read_text(), "generation 1 in the file")
    log.rename(place / "log.1")
    trap(secret, log)
    if log.is_symlink():
        os.lchown(log, 4242, 4242)
    run.signal("USR1")
    until(lambda: "cannot reopen the log" in (place / "log.1").read_text(), "the complaint")
    assert run.stop() == 0
    assert '"stopped"' in (place / "log.1").read_text()
    assert secret.read_text() == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and a directory of somebody else")
def test_a_pid_file_that_is_a_link_of_the_workers_user_is_refused(start, tmp_path):
    place, secret = tmp_path / "place", tmp_path / "secret"
    place.mkdir()
    os.chown(place, 4242, 4242)
    secret.write_text("secret")
    (place / "pid").symlink_to(secret)
    os.lchown(place / "pid", 4242, 4242)
    run = start("--pid-file", str(place / "pid"))
    assert run.process.wait(PATIENCE) == 1
    until(lambda: any("it is a symbolic link" in line for line in run.output), "the refusal")
    assert secret.read_text() == "secret"


def test_a_log_file_that_is_a_pipe_stays_that_pipe(start, tmp_path):
    """Opening it anew could wait for a reader for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    run = start("--log-file", str(pipe))
    until(lambda: os.path.exists(run.control), "its start")
    os.set_blocking(reading, True)
    said = ""
    with open(reading) as file:
        while '"serving"' not in said:
            said += file.readline()
        pipe.unlink()
        assert ask(run, "signal", "USR1").returncode == 0
        assert run.stop() == 0
        said += file.read()
    assert '"stopped"' in said
    assert "cannot reopen" not in said


def test_a_log_file_that_cannot_be_opened_is_refused(start):
    run = start("--log-file", "/nonexistent/log")
    assert run.process.wait(PATIENCE) == 1
    until(lambda: any("/nonexistent/log" in line for line in run.output), "the refusal")


def test_the_output_may_go_to_a_command(start, tmp_path):
    run = start("--log-file", f"| cat > {tmp_path}/out")
    until(
        lambda: (tmp_path / "out").exists() and '"serving"' in (tmp_path / "out").read_text(),
        "the log in the command's hands",
    )
    assert run.stop() == 0
    assert '"stopped"' in (tmp_path / "out").read_text()
