"""Each old bug of Perl's that is gone."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.support import PATIENCE, alive, free_port, marked, until
from tests.system.start_server.scenarios import hup
from tests.system.start_server.starter import PROGRAM, shows


def test_a_deleted_variable_goes(starter, tmp_path):
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "FOO").write_text("at the start\n")
    run = starter(f"--envdir={tmp_path}/env")
    run.wait_generations(1)
    (tmp_path / "env" / "FOO").unlink()
    hup(run)
    assert [life["environ"].get("FOO") for life in run.lives()] == ["at the start", None]


def test_an_envdir_that_is_not_there_yet_is_empty(starter, tmp_path):
    run = starter("--envdir=later")
    run.wait_generations(1)
    (run.where / "later").mkdir()
    (run.where / "later" / "FOO").write_text("x\n")
    hup(run)
    assert [life["environ"].get("FOO") for life in run.lives()] == [None, "x"]


@shows("exec of the program fails", "failed to exec PROGRAM…")
def test_a_failed_exec_removes_nothing(starter, tmp_path):
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nexec {' '.join(PROGRAM)}\n")
    program.chmod(0o755)
    run = starter("--path=app.sock", program=(str(program),))
    run.wait_generations(1)
    worker = run.worker(1)
    program.unlink()
    run.signal("HUP")
    run.wait(r"^failed to exec .*program: not found$")
    run.wait(r"^new worker \d+ seems to have failed to start, exit status:65280$")
    assert {"pid", "status", "app.sock"} <= {path.name for path in run.where.iterdir()}
    assert run.worker(1) == worker
    assert alive(worker)
    assert run.stop() == 0


@shows("--port …=FD")
@pytest.mark.parametrize("fd", [3, 4, 5, 6, 7, 8, 9, 10, 11])
def test_a_port_may_have_any_number_whichever_the_socket_had(starter, fd):
    port = free_port()
    run = starter("--interval=0", f"--port=127.0.0.1:{port}={fd}")
    until(lambda: run.lives() and "listeners" in run.lives()[0], "the first life")
    assert run.lives()[0]["listeners"] == [
        [f"127.0.0.1:{port}", "SOCK_STREAM", f"('127.0.0.1', {port})"]
    ]
    run.wait(f"^socket is duplicated to file descriptor {fd}$")


@shows("during that delay")
def test_term_interrupts_the_kill_delay(starter):
    run = starter("--kill-old-delay=3600")
    run.wait_generations(1)
    run.signal("HUP")
    run.wait("^sleeping 3600 secs before killing old workers$")
    assert run.stop() == 0
    assert run.lines()[-1] == "exiting"
    assert "killing old workers" not in run.lines()


@shows("during that delay")
def test_a_new_worker_that_dies_in_the_kill_delay_leaves_the_old_one_alone(starter):
    run = starter("--kill-old-delay=3600")
    run.wait_generations(1)
    old = run.worker(1)
    run.signal("HUP")
    run.wait_generations(1, 2)
    os.kill(run.worker(2), signal.SIGKILL)
    run.wait(r"^new worker \d+ seems to have failed to start, exit status:9$")
    run.wait_generations(1, 3)
    assert run.worker(1) == old
    assert alive(old)


@shows("TERM in a crash loop")
def test_term_in_a_crash_loop_stops_at_once_without_another_spawn(starter):
    run = starter(program=("false",))
    run.wait(r"^new worker \d+ seems to have failed to start, exit status:256$", 3)
    assert run.stop() == 0
    lines = run.lines()
    assert not [
        line
        for line in lines[lines.index("received TERM, sending TERM to all workers:") :]
        if "starting" in line
    ]


@shows("HUP")
def test_queued_hups_coalesce(starter):
    run = starter()
    run.wait_generations(1)
    for _ in range(9):
        run.signal("HUP")
    run.wait(r"^old worker \d+ died")
    until(lambda: len(run.generations()) == 1, "one generation")
    run.signal("HUP")  # whatever was queued has begun before what this brings about
    last = run.generations()[0]
    until(lambda: run.generations() and run.generations()[0] > last, "the next")
    assert run.stop() == 0
    assert run.text().count("starting new worker") <= 4


@shows("TERM, INT to the whole group")
@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_what_goes_to_the_whole_group_never_respawns_first(starter, name):
    run = starter()
    run.wait_generations(1)
    os.kill(run.process.pid, signal.SIGSTOP)
    os.kill(run.worker(1), signal.Signals[f"SIG{name}"])
    until(lambda: not alive(run.lives()[0]["pid"]), "the worker's end")
    run.signal(name)
    run.signal("CONT")
    assert run.process.wait(PATIENCE) == 0
    assert run.text().count("starting new worker") == 1


@shows("QUIT", "USR2")
def test_quit_and_usr2_do_not_orphan_workers(starter):
    run = starter()
    run.wait_generations(1)
    worker = run.worker(1)
    run.signal("USR2")
    until(
        lambda: b"SIDECAR_UPGRADE_STATE=" in Path(f"/proc/{run.process.pid}/environ").read_bytes(),
        "the upgrade",
    )
    run.signal("HUP")
    run.wait_generations(2)
    run.wait(rf"^old worker {worker} died")
    assert run.stop("QUIT") == 0
    assert marked(run.mark) == []


@shows("a second instance")
def test_a_second_instance_leaves_the_pid_file_alone(starter):
    run = starter()
    run.wait_generations(1)
    second = run.run("--pid-file=pid", "--status-file=status", "--", "true")
    assert second.returncode == 255
    assert f"held by process {run.process.pid}" in second.stderr
    assert run.text("pid") == f"{run.process.pid}\n"
    assert run.generations() == [1]
    assert run.run("--stop", "--pid-file=pid").returncode == 0
    assert run.process.wait(PATIENCE) == 0


@shows("--drain-timeout")
def test_a_stop_has_an_end(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "DEAF").touch()
    run = starter("--drain-timeout=0.5")
    run.wait_generations(1)
    assert run.stop() == 0
    assert re.search(r"^worker \d+ died, status:9$", run.text(), re.MULTILINE)


@shows("old programs that do not leave")
def test_stuck_old_workers_do_not_pile_up(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "DEAF").touch()
    run = starter("--drain-timeout=0.5")
    run.wait_generations(1)
    run.signal("HUP")
    run.wait_generations(2)
    run.wait(r"^old worker \d+ died, status:9$")


@shows("adopted orphans (PID 1)")
def test_adopted_orphans_are_not_called_workers(starter):
    run = starter(
        program=("sh", "-c", "(setsid sh -c 'echo $$ > orphan' &) ; exec " + " ".join(PROGRAM))
    )
    hup(run)
    orphan = int(run.text("orphan"))
    assert run.stop() == 0
    assert not re.search(rf"\b{orphan}\b", run.text())
