"""Promise 2: no bad generation takes over. And promise 4 for the retries: no spin."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.support import SERVER, Load, free_port, get, read_response, until


@pytest.mark.parametrize(
    ("variable", "value", "cause"),
    [
        ("DIE", "0", "exited with status 0 before it was ready"),
        ("DIE", "3", "exited with status 3 before it was ready"),
        ("NEVER", "1", "not ready within 0.3 s (readiness accept)"),
    ],
)
def test_a_bad_generation_changes_nothing_and_its_cause_is_said(
    sidecar, tmp_path, variable, value, cause
):
    """It exits (even with 0) or never gets ready: the old one serves on, and the log says why and
    how long it took.
    """
    run = sidecar("--envdir", str(tmp_path), "--start-timeout", "300ms", "--workers", "2")
    run.wait("serving")
    with Load(run.port) as load:
        (tmp_path / variable).write_text(value)
        run.signal("HUP")
        failed = run.wait("swap_failed")
        assert failed["cause"] == cause
        assert failed["trigger"] == "signal"
        assert failed["still"] == [1]
        assert failed["lasted"] > 0
        assert failed["again"] is None
    assert load.failures == []
    assert run.get().split()[1] == "1"
    (tmp_path / variable).unlink()
    run.signal("HUP")
    run.wait("serving", generation=3, trigger="signal")
    run.alone(3)
    assert run.get().split()[1] == "3"


def test_an_envdir_that_cannot_be_read_fails_the_swap_and_keeps_the_old(sidecar, tmp_path):
    """And is named; when it can be read again a swap goes through."""
    run = sidecar("--envdir", str(tmp_path))
    run.wait("serving")
    (tmp_path / "HUGE").write_text("x" * 200_000)
    run.signal("HUP")
    assert "HUGE" in run.wait("swap_failed", generation=2)["cause"]
    assert run.get().split()[1] == "1"
    (tmp_path / "HUGE").unlink()
    run.signal("HUP")
    run.wait("serving", generation=3)


def test_a_check_that_fails_stops_the_swap_before_anything_is_started(sidecar, tmp_path):
    """--check runs with the new environment; its status is the cause."""
    run = sidecar("--envdir", str(tmp_path), "--check", "sh -c 'exit ${CHECK_STATUS:-0}'")
    run.wait("serving")
    (tmp_path / "CHECK_STATUS").write_text("4")
    run.signal("HUP")
    assert run.wait("swap_failed", generation=2)["cause"].endswith("exited with status 4")
    assert run.seen("worker_started", generation=2) == []
    assert run.get().split()[1] == "1"


def test_a_check_that_never_ends_fails_the_swap_and_is_killed(sidecar, tmp_path):
    run = sidecar(
        "--envdir",
        str(tmp_path),
        "--check",
        "sh -c 'exec sleep ${CHECK_TIME:-0}'",
        "--start-timeout",
        "1s",
    )
    run.wait("serving")
    (tmp_path / "CHECK_TIME").write_text("3600")
    run.signal("HUP")
    assert run.wait("swap_failed", generation=2)["cause"] == "the check has not ended within 1 s"
    (tmp_path / "CHECK_TIME").unlink()
    run.signal("HUP")
    run.wait("serving", generation=3)
    assert run.stop() == 0


def test_what_a_check_wrote_is_said_and_its_end_and_its_exit_may_come_together(sidecar):
    run = sidecar("--check", "sh -c 'echo all is well >&2'")
    run.wait("serving")
    for number in range(2, 22):
        run.swap(number, gone=False)
    assert [each["output"] for each in run.seen("check_output")] == ["all is well"] * 21
    assert run.stop() == 0


def test_the_last_words_of_a_check_that_failed_are_told_with_the_failure(sidecar, tmp_path):
    run = sidecar(
        "--envdir", str(tmp_path), "--check", "sh -c 'seq 100000; echo bad: $BAD; exit ${BAD:-0}'"
    )
    run.wait("serving")
    (tmp_path / "BAD").write_text("7")
    run.signal("HUP")
    failed = run.wait("swap_failed", generation=2)
    assert failed["cause"].endswith("exited with status 7")
    assert failed["output"].endswith("\n100000\nbad: 7")
    assert len(failed["output"]) < 2500
    assert run.stop() == 0


def test_a_generation_that_was_never_ready_ends_sidecar_with_its_own_status(sidecar):
    """First start: after --max-failures the program's status is sidecar's, and the pauses between
    the tries grow.
    """
    run = sidecar("--max-failures", "4", env={"DIE": "7"})
    assert run.exit() == 7
    assert len(run.seen("swap_failed")) == 4
    pauses = [each["pause"] for each in run.seen("retry_scheduled")]
    assert len(pauses) == 3
    assert pauses[0] < pauses[2]


def test_what_served_once_and_never_starts_again_ends_sidecar_with_its_status(sidecar, tmp_path):
    """So that whoever looks after the container hears of it."""
    run = sidecar("--envdir", str(tmp_path), "--max-failures", "3", "--max-backoff", "300ms")
    run.wait("serving")
    (tmp_path / "DIE").write_text("7")
    os.kill(run.workers()[0], signal.SIGKILL)
    assert run.exit() == 7
    assert run.seen("gave_up")[0]["failures"] == 3


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("#!/no/such/interpreter\n", 127, "its interpreter '/no/such/interpreter' does not exist"),
        ("no program", 126, "not a program (a script needs a #! line)"),
    ],
)
def test_a_program_that_cannot_be_run_is_said_and_ends_as_a_shell_would(
    sidecar, tmp_path, text, status, words
):
    run = sidecar("--max-failures", "1", program=(script(tmp_path, text),))
    assert run.exit() == status
    assert run.seen("swap_failed")[0]["cause"] == f"cannot run {tmp_path}/script: {words}"


def script(directory: Path, text: str) -> str:
    """An executable file."""
    path = directory / "script"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_a_program_that_is_gone_by_the_next_swap_fails_that(sidecar, tmp_path):
    """Only the start refuses what is not there."""
    program = script(tmp_path, f'#!/bin/sh\nexec {shlex.join(SERVER)} "$@"\n')
    run = sidecar(program=(program,))
    run.wait("serving")
    os.unlink(program)
    run.signal("HUP")
    assert run.wait("swap_failed")["cause"] == f"cannot run {program}: not found"
    assert run.get().startswith("hello")
    assert run.stop() == 0


def test_a_program_that_cannot_be_run_is_never_ready_however_short_the_interval(sidecar, tmp_path):
    """The interval counts from the exec; until then the process is a copy of sidecar."""
    run = sidecar(
        "--ready", "interval", "--interval", "0s", "--max-failures", "3",
        program=(script(tmp_path, "#!/no/such/interpreter\n"),),
    )  # fmt: skip
    assert run.exit() == 127
    assert run.seen("worker_ready") == run.seen("serving") == []


def test_a_ready_command_that_another_worker_answers_is_not_believed(sidecar, tmp_path):
    """Both generations have the same socket: whoever asks at the port reaches the one before."""
    port = free_port()
    asks = tmp_path / "asks"
    asks.write_text(
        f"import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}/', timeout=5).read()"
    )
    (tmp_path / "env").mkdir()
    run = sidecar(
        "--port", f"127.0.0.1:{port}", "--envdir", str(tmp_path / "env"), "--ready", "command",
        "--ready-command", f"{sys.executable} -S {asks}", "--start-timeout", "10s", port=False,
    )  # fmt: skip
    run.wait("serving")
    (tmp_path / "env" / "NEVER").write_text("1")
    run.signal("HUP")
    failed = run.wait("swap_failed", generation=2)
    assert failed["cause"] == "not ready within 10 s (readiness command)"
    assert "another worker has answered" in run.wait("notice")["text"]
    assert get(port).split()[1] == "1"
    (tmp_path / "env" / "NEVER").unlink()
    run.swap(3)
    assert get(port).split()[1] == "3"
    assert run.stop() == 0


@pytest.mark.parametrize("how", ["it fails", "a stop"])
def test_what_was_accepted_before_it_was_ready_is_answered(sidecar, tmp_path, how):
    """With --ready command a coming generation takes connections long before it is ready. When it
    is given up, it has the whole drain time for them.
    """
    go = tmp_path / "go"
    go.touch()
    run = sidecar("--ready", "command", "--ready-command", f"test -e {go}", "--workers", "2")
    run.wait("serving", generation=1)
    go.unlink()
    run.signal("HUP")
    first = run.wait("worker_started", 3)["pid"]
    second = run.wait("worker_started", 4)["pid"]
    others = [each for each in run.workers() if each != first]
    # Whoever else would accept cannot, for now: what comes is the first's.
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    until(lambda: str(first) in run.get(), f"an answer by {first}")
    with socket.create_connection(("127.0.0.1", run.port)) as slow:
        slow.sendall(b"GET /slow?3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        until(lambda: str(first) in run.get(), f"an answer by {first}")
        for pid in others:
            os.kill(pid, signal.SIGCONT)
        if how == "a stop":
            run.signal("TERM")
        else:
            os.kill(second, signal.SIGKILL)
            run.wait("swap_failed", generation=2)
        assert str(first) in read_response(slow)[1]
    assert (run.exit() if how == "a stop" else run.stop()) == 0
    assert run.seen("worker_killed") == []


def test_an_exec_that_fails_runs_no_clean_up_of_the_parent(sidecar, tmp_path):
    """Pid file, status file and unix socket outlive a generation whose program is gone (Perl's and
    Ruby's do not).
    """
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nexec {' '.join(SERVER)}\n")
    program.chmod(0o755)
    files = [tmp_path / name for name in ("pid", "status", "app.sock")]
    run = sidecar(
        "--pid-file", str(files[0]), "--status-file", str(files[1]), "--port", f"unix:{files[2]}", program=(str(program),)
    )  # fmt: skip
    run.wait("serving")
    program.unlink()
    run.signal("HUP")
    assert run.wait("swap_failed")["cause"] == f"cannot run {program}: not found"
    assert all(path.exists() for path in files)
    assert run.get().split()[1] == "1"
    assert run.stop() == 0
    assert not any(path.exists() for path in files)


def test_a_crash_loop_is_paced(sidecar):
    """A worker that dies whenever it is ready: the pauses double, the generation number goes up,
    nothing spins.
    """
    run = sidecar("--max-backoff", "2s", "--max-failures", "0", env={"CRASH": "0.01"})
    run.wait("retry_scheduled", count=4)
    pauses = [each["pause"] for each in run.seen("retry_scheduled", trigger="crash")]
    assert pauses[0] < pauses[2]
    assert pauses[1] < pauses[3]
    assert run.stop() == 0
