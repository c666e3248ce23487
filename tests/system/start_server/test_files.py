"""The rows of docs/start_server.md on files: where ours is meant to differ from
Perl's, both are run and each is seen to do what the table says.
"""

from __future__ import annotations

import fcntl
import os
import signal

import pytest

from tests.support import PATIENCE, until
from tests.system.start_server.side_by_side import FILES, script, touch
from tests.system.start_server.starter import Starter, shows


@shows("pid file")
def test_the_pid_file_is_locked(pair):
    for run in pair():
        run.wait_generations(1)
        with open(run.where / "pid") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        run.process.kill()
        run.process.wait(PATIENCE)
        (again := Starter(run.kind, run.where)).wait("^starting new worker", 2)
        until(
            lambda run=run, again=again: run.text("pid") == f"{again.process.pid}\n",
            "its pid in the file that was left behind",
        )
        again.clean_up()


@shows("a second instance")
def test_perls_second_instance_empties_the_pid_file(pair):
    perl, ours = pair()
    for run in (perl, ours):
        run.wait_generations(1)
    second = Starter("perl", perl.where)
    until(lambda: perl.text("pid") == "", "the empty pid file")
    assert second.process.poll() is None
    second.clean_up()
    assert ours.run(*FILES, "--", "true").returncode == 255
    assert ours.text("pid") == f"{ours.process.pid}\n"


@shows("exec of the program fails", "failed to exec PROGRAM…")
def test_perls_failed_exec_removes_the_files(pair):
    perl, ours = pair(
        "--path=app.sock", before=lambda where: script(where / "program"), program=("./program",)
    )
    for run in (perl, ours):
        run.wait_generations(1)
        (run.where / "program").unlink()
        run.signal("HUP")
        run.wait(r"failed to exec \./program")
        run.wait(r"new worker \d+ seems to have failed to start, exit status:65280$")
    assert {"pid", "status", "app.sock"} & {path.name for path in perl.where.iterdir()} == set()
    assert {"pid", "status", "app.sock"} <= {path.name for path in ours.where.iterdir()}


@shows("status file")
def test_the_order_of_the_status_file(pair):
    perl, ours = pair("--interval=0", before=touch("DEAF"))
    for run in (perl, ours):
        for generation in range(1, 11):
            until(
                lambda run=run, least=generation: len(run.lives()) >= least,
                f"life {generation}\n{run.text()}",
            )
            run.wait_generations(*range(1, generation + 1))
            if generation < 10:
                run.signal("HUP")
    order = [
        [int(line.partition(":")[0]) for line in run.text("status").splitlines()]
        for run in (perl, ours)
    ]
    assert order == [sorted(range(1, 11), key=str), [*range(1, 11)]]


@shows("status file")
def test_a_program_that_has_died_is_not_in_the_status_file(pair):
    perl, ours = pair()
    for run in (perl, ours):
        run.wait_generations(1)
        (run.where / "BREAK").write_text("for ever")
        pid = run.worker(1)
        os.kill(pid, signal.SIGKILL)
        run.wait("seems to have failed to start", 2)
        assert run.text("status") == (f"1:{pid}\n" if run.kind == "perl" else "")
