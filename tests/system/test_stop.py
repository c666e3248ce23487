"""Promise 3: stop always ends. Promise 6: every process is reaped."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support import ROOT, SERVER, alive, get, until


@pytest.mark.parametrize("name", ["TERM", "INT", "QUIT"])
def test_a_stop_finishes_what_is_in_flight_and_ends_with_status_0(sidecar, name):
    run = sidecar()
    run.wait("serving")
    answers: list[str] = []
    request = threading.Thread(target=lambda: answers.append(get(run.port, "/slow?0.5")))
    request.start()
    until(
        lambda: len(os.listdir(f"/proc/{run.workers()[0]}/task")) > 1,
        "the request's thread in the worker",
    )
    assert run.stop(name) == 0
    request.join()
    assert answers
    assert answers[0].startswith("hello")


def test_what_is_deaf_to_the_signal_is_killed_after_the_drain_timeout(sidecar):
    run = sidecar("--drain-timeout", "300ms", env={"DEAF": "1"})
    run.wait("serving")
    assert run.stop() == 0
    assert run.seen("worker_killed")
    assert run.seen("stopped")[0]["status"] == 0


def test_a_second_stop_signal_skips_the_waiting(sidecar):
    """Without it, this stop would take an hour."""
    run = sidecar("--drain-timeout", "1h", env={"DEAF": "1"})
    run.wait("serving")
    run.signal("TERM")
    run.wait("stopping")
    # Not once: one that follows within a tenth of a second is taken for the same.
    until(
        lambda: (run.process.poll() is None and run.signal("TERM"), run.process.poll() is not None)[
            1
        ],
        "the end",
    )
    assert run.exit() == 0
    assert run.seen("worker_killed")


def test_lame_duck_serves_on_and_a_second_signal_ends_it(sidecar):
    """--lame-duck: TERM leaves the workers alone at first; new connections are answered."""
    run = sidecar("--lame-duck", "1h")
    run.wait("serving")
    run.signal("TERM")
    run.wait("stopping", lame_duck=3600.0)
    assert run.get().startswith("hello")
    assert run.seen("worker_exited") == []
    assert run.stop("INT") == 0


def test_an_int_knows_no_lame_duck(sidecar):
    run = sidecar("--lame-duck", "1h")
    run.wait("serving")
    assert run.stop("INT") == 0


def test_a_stop_in_a_crash_loop_starts_nothing_more(sidecar):
    run = sidecar("--max-failures", "0", env={"DIE": "1"})
    run.wait("retry_scheduled", count=2)
    started = len(run.seen("worker_started"))
    assert run.stop() == 0
    assert len(run.seen("worker_started")) <= started + 1


def test_a_stop_of_the_whole_group_never_restarts_a_worker(sidecar):
    """TERM to everybody at once (a terminal, `timeout`): the workers' ends are part of the stop."""
    for _ in range(5):
        run = sidecar("--workers", "3", "--min-uptime", "0")
        run.wait("worker_ready", count=3)
        for pid in [run.pid, *run.workers()]:
            os.kill(pid, signal.SIGTERM)
        assert run.exit() == 0
        assert len(run.seen("worker_started")) == 3


def test_what_the_leader_left_behind_in_its_group_is_killed_after_the_rest_of_the_drain_time(
    sidecar,
):
    """A process that would go on accepting with old code does not survive the generation."""
    run = sidecar("--drain-timeout", "500ms", env={"LINGER": "1"})
    run.wait("serving")
    run.swap(2, gone=False)
    leader = run.seen("worker_started", generation=1)[0]["pid"]
    run.wait("worker_exited", pid=leader)
    run.wait("worker_killed", pid=leader)
    assert run.stop() == 0


def test_a_daemon_started_by_a_worker_is_adopted_reaped_and_does_not_outlive_sidecar(
    sidecar, tmp_path
):
    """sidecar is a subreaper where it is not PID 1, and says nothing about it."""
    run = sidecar(env={"DAEMON": str(tmp_path / "daemon")})
    run.wait("serving")
    until((tmp_path / "daemon").exists, "the daemon's pid")
    until((tmp_path / "daemon").read_text, "the daemon's pid")
    daemon = int((tmp_path / "daemon").read_text())
    assert f"PPid:\t{run.pid}\n" in open(f"/proc/{daemon}/status").read()
    os.kill(daemon, signal.SIGKILL)
    assert run.wait("orphan_reaped", pid=daemon)
    assert run.seen("worker_died") == []
    run.swap(2)
    until(
        lambda: (tmp_path / "daemon").read_text() not in ("", str(daemon)),
        "the second daemon's pid",
    )
    second = int((tmp_path / "daemon").read_text())
    assert alive(second)
    assert run.stop() == 0
    assert not alive(second)


def test_sidecar_killed_outright_takes_its_workers_along(sidecar):
    """Nobody can answer SIGKILL; the kernel tells the workers (PR_SET_PDEATHSIG)."""
    run = sidecar("--workers", "2")
    run.wait("worker_ready", count=2)
    workers = run.workers()
    os.kill(run.pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in workers), "the workers' end")


def test_ctrl_c_in_a_terminal_stops_once_and_cleanly(tmp_path):
    """The terminal's INT goes to sidecar alone: its workers are in groups of their own, and do not
    read the terminal.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv(
            sys.executable,
            [
                sys.executable,
                "-m",
                "sidecar",
                "run",
                "--port",
                "127.0.0.1:0",
                "--workers",
                "2",
                "--",
                *SERVER,
            ],
        )
    shown = b""
    try:
        while b" serves " not in shown:
            shown += os.read(terminal, 4096)
        os.write(terminal, b"\x03")
        try:
            while True:
                more = os.read(terminal, 4096)
                if not more:
                    break
                shown += more
        except OSError:
            pass
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(terminal)
    assert shown.count(b"stopping on SIGINT") == 1
    assert b"Traceback" not in shown
    assert shown.count(b"started, pid") == 2


def test_a_reader_of_the_log_that_has_stopped_reading_stops_nothing(tmp_path):
    """Stderr is a full pipe: PID 1 neither blocks nor dies; swaps and the stop go on."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    status = tmp_path / "status"
    command = [
        sys.executable,
        "-m",
        "sidecar",
        "run",
        "--port",
        "127.0.0.1:0",
        "--status-file",
        str(status),
        "--",
        *SERVER,
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=write, stdin=subprocess.DEVNULL) as process:
        try:
            until(lambda: status.exists() and status.read_text().startswith("1:"), "generation 1")
            process.send_signal(signal.SIGHUP)
            until(lambda: status.read_text().startswith("2:"), "generation 2")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            os.close(read)
            os.close(write)


def test_what_is_due_in_years_keeps_nobody_from_stopping(sidecar):
    """The system itself waits for 24 days at most."""
    run = sidecar("--enable-auto-restart", "--auto-restart-interval", "5000d")
    run.wait("serving")
    run.swap(2)
    assert run.stop() == 0


def test_who_ends_in_the_same_moment_as_a_stop_is_asked_for_ended_because_of_it(sidecar):
    """Ctrl-C to a whole group, the end of a container: nobody is started again for that."""
    run = sidecar()
    run.wait("serving")
    worker = run.workers()[0]
    run.signal("STOP")
    until(lambda: Path(f"/proc/{run.pid}/stat").read_text().split()[2] == "T", "sidecar's halt")
    os.kill(worker, signal.SIGKILL)
    until(lambda: not alive(worker), "the worker's end")
    run.signal("HUP")
    run.signal("TERM")
    run.signal("CONT")
    assert run.exit() == 0
    assert run.seen("worker_died")[0]["role"] == "stopping"
    assert len(run.seen("swap_started")) == 1
