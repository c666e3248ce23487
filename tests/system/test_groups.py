"""Processes of a worker that are not its leader: they are asked to leave with it, and seen."""

from __future__ import annotations

import os
import shlex
import signal
import threading

from tests.support import SERVER, get, until

#: A shell that does not pass signals on: its program is a child of it.
SHELL = ("sh", "-c", f"{shlex.join(SERVER)}; :")


def in_flight(run, pid: int, seconds: float) -> tuple[threading.Thread, list[str]]:
    """A request that `pid` is answering."""
    before = len(os.listdir(f"/proc/{pid}/task"))
    answers: list[str] = []
    request = threading.Thread(
        target=lambda: answers.append(get(run.port, f"/slow?{seconds:g}")), daemon=True
    )
    request.start()
    until(lambda: len(os.listdir(f"/proc/{pid}/task")) > before, "the request's thread")
    return request, answers


def child_of(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return int(file.read().split()[0])


def test_what_a_shell_has_started_is_asked_to_leave_when_the_shell_has_gone(sidecar):
    """The shell dies of TERM and tells nobody: its child gets the signal, and finishes what it has
    in flight.
    """
    run = sidecar("--drain-timeout", "1h", program=SHELL)
    run.wait("serving")
    server = child_of(run.workers()[0])
    request, answers = in_flight(run, server, 0.5)
    run.swap(2)
    run.wait("generation_gone", generation=1)
    request.join()
    assert answers[0].startswith("hello")
    said = run.seen("outlived", pids=[server], signal="TERM", shell=True)
    assert len(said) == 1
    assert "start the program with `exec`" in said[0]["message"]
    assert run.seen("killing") == []
    assert run.stop() == 0


def test_workers_of_a_master_that_is_killed_are_asked_to_leave(sidecar):
    """As by the kernel, for its memory: the slot is filled anew, what is in flight is finished."""
    run = sidecar("--drain-timeout", "1h", env={"FORK": "1"})
    run.wait("serving")
    master = run.workers()[0]
    request, answers = in_flight(run, child_of(master), 0.5)
    os.kill(master, signal.SIGKILL)
    run.wait("generation_gone", generation=1)
    request.join()
    assert answers[0].startswith("hello")
    assert run.seen("outlived", pid=master, signal="TERM", shell=False)
    run.wait("serving", generation=2)
    assert run.seen("killing") == []
    assert run.stop() == 0


def test_what_does_not_leave_with_its_leader_is_killed_and_called_what_it_is(sidecar):
    run = sidecar("--drain-timeout", "300ms", program=SHELL, env={"DEAF": "1"})
    run.wait("serving")
    assert run.stop() == 0
    (said,) = run.seen("killing")
    assert said["leader"] is False
    assert said["after"] >= 0.3
    assert "what has outlived worker 0" in said["message"]


def test_an_exit_status_that_stands_for_the_retire_signal_is_no_death(sidecar):
    """A JVM that was sent TERM and has left in good order exits with 143."""
    script = (
        f"trap 'kill $server; wait $server; exit 143' TERM; {shlex.join(SERVER)} & server=$!; wait"
    )
    run = sidecar(program=("sh", "-c", script))
    run.wait("serving")
    run.swap(2)
    left = run.wait("worker_left", generation=1)
    assert left["cause"] == "exited with status 143"
    assert run.stop() == 0
    assert run.seen("worker_died") == []
