"""Processes of a worker that are not its leader: they are asked to leave with it, and seen."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading

import pytest

from tests.support import PATIENCE, ROOT, SERVER, alive, deaf, get, until

#: A shell that does not pass signals on: its program is a child of it.
SHELL = ("sh", "-c", f"{shlex.join(SERVER)}; :")


def in_flight(run, pid: int, seconds: float) -> tuple[threading.Thread, list[str]]:
    """A request that `pid` is answering."""
    tasks = f"/proc/{pid}/task"
    until(lambda: len(os.listdir(tasks)) == 1, "that it has answered all others")
    answers: list[str] = []
    request = threading.Thread(
        target=lambda: answers.append(get(run.port, f"/slow?{seconds:g}")), daemon=True
    )
    request.start()
    until(lambda: len(os.listdir(tasks)) > 1, "the request's thread")
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
    run.wait("generation_ended", generation=1)
    request.join()
    assert answers[0].startswith("hello")
    said = run.seen("leader_exited", pids=[server], signal="TERM", shell=True)
    assert len(said) == 1
    assert "start the program with `exec`" in said[0]["message"]
    assert run.seen("worker_killed") == []
    assert run.stop() == 0


def test_workers_of_a_master_that_is_killed_are_asked_to_leave(sidecar):
    """As by the kernel, for its memory: the slot is filled anew, what is in flight is finished."""
    run = sidecar("--drain-timeout", "1h", env={"FORK": "1"})
    run.wait("serving")
    master = run.workers()[0]
    request, answers = in_flight(run, child_of(master), 0.5)
    os.kill(master, signal.SIGKILL)
    run.wait("generation_ended", generation=1)
    request.join()
    assert answers[0].startswith("hello")
    assert run.seen("leader_exited", pid=master, signal="TERM", shell=False)
    run.wait("serving", generation=2)
    assert run.seen("worker_killed") == []
    assert run.stop() == 0


def test_what_does_not_leave_with_its_leader_is_killed_and_called_what_it_is(sidecar):
    run = sidecar("--drain-timeout", "300ms", program=SHELL, env={"DEAF": "1"})
    run.wait("serving")
    assert run.stop() == 0
    (said,) = run.seen("worker_killed")
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
    left = run.wait("worker_exited", generation=1)
    assert left["cause"] == "exited with status 143"
    assert run.stop() == 0
    assert run.seen("worker_died") == []


#: Starts the tests' program in a session of its own, as its child or (twice forked) as nobody's,
#: writes down its pid, and serves, too.
ESCAPES = """
import os, runpy, sys
if os.fork() == 0:
    os.setsid()
    if {twice} and os.fork():
        os._exit(0)
    with open({mark!r}, "a") as file:
        print(os.getpid(), file=file)
{wait}
sys.argv = [{app!r}]
runpy.run_path({app!r}, run_name="__main__")
"""


def escaping(tmp_path, twice: bool) -> tuple[str, ...]:
    code = ESCAPES.format(
        twice=twice,
        mark=str(tmp_path / "pids"),
        app=SERVER[-1],
        wait="else: os.wait()" if twice else "",
    )
    return (*SERVER[:-1], "-c", code)


def escaped(tmp_path) -> list[int]:
    path = tmp_path / "pids"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("twice", [False, True])
def test_what_has_left_for_a_session_of_its_own_is_retired_with_its_worker(
    sidecar, tmp_path, twice
):
    """It holds the listener, and would answer with old code beside the new generation for ever. It
    is asked to leave when the leader has gone, and finishes what it has in flight.
    """
    control = tmp_path / "control"
    run = sidecar(
        "--control", str(control), "--drain-timeout", "1h", program=escaping(tmp_path, twice)
    )
    run.wait("serving")
    until(lambda: len(escaped(tmp_path)) == 1, "the process that has left")
    (stray,) = escaped(tmp_path)
    os.kill(run.workers()[0], signal.SIGSTOP)  # so that the stray answers
    until(lambda: str(stray) in run.get(), "an answer of the stray's")
    request, answers = in_flight(run, stray, 0.5)
    (worker,) = status(control)["generations"][0]["workers"]
    assert worker["outlived"] == ([stray] if twice else [])
    os.kill(worker["pid"], signal.SIGCONT)
    run.swap(2)
    run.wait("generation_ended", generation=1)
    assert not alive(stray)
    request.join()
    assert answers[0].startswith("hello")
    (said,) = run.seen("leader_exited", pids=[stray], strays=[stray], signal="TERM")
    assert f"its process {stray}, in a session of its own, lives on" in said["message"]
    assert run.seen("worker_killed") == []
    assert run.stop() == 0


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_what_has_left_and_does_not_leave_is_killed_with_its_worker(sidecar, tmp_path, end):
    """A swap that nobody asked for, too: the worker dies, and what it left behind goes in its time."""
    program = escaping(tmp_path, True)
    run = sidecar("--drain-timeout", "500ms", program=program, env={"DEAF": "1"})
    run.wait("serving")
    until(lambda: len(escaped(tmp_path)) == 1, "the process that has left")
    stray = escaped(tmp_path)[0]
    until(lambda: deaf(stray), "that it does not leave when it is asked to")
    if end == "crash":
        os.kill(run.workers()[0], signal.SIGKILL)
        run.wait("serving", generation=2)
        run.wait("generation_ended", generation=1)
        assert not alive(stray)
        assert run.seen("worker_killed", leader=False)
    assert run.stop() == 0


def test_what_a_stray_leaves_behind_is_its_workers_too(sidecar, tmp_path):
    """A stray ends and its own child, in yet another session, becomes an orphan: still the worker's."""
    sleeps = "import os, sys, time; os.setsid(); open(sys.argv[1], 'w').write(str(os.getpid()))"
    inner = (*SERVER[:-1], "-c", f"{sleeps}; time.sleep(3600)", str(tmp_path / "inner"))
    outer = (
        *SERVER[:-1],
        "-c",
        f"{sleeps}; import subprocess; subprocess.Popen({inner!r}); time.sleep(3600)",
        str(tmp_path / "outer"),
    )
    starts = (
        f"import runpy, subprocess, sys; subprocess.Popen({outer!r}); sys.argv = [{SERVER[-1]!r}];"
        f"runpy.run_path({SERVER[-1]!r}, run_name='__main__')"
    )
    run = sidecar("--drain-timeout", "1h", program=(*SERVER[:-1], "-c", starts))
    run.wait("serving")
    until((tmp_path / "inner").exists, "the inner one")
    until(lambda: (tmp_path / "inner").read_text() and (tmp_path / "outer").read_text(), "both")
    inner, outer = (int((tmp_path / name).read_text()) for name in ("inner", "outer"))
    os.kill(run.workers()[0], signal.SIGKILL)
    run.wait("leader_exited", strays=[outer])
    run.wait("generation_ended", generation=1)
    assert not alive(outer)
    assert not alive(inner)
    assert run.seen("worker_killed") == []
    assert run.stop() == 0


def test_whose_a_process_is_is_known_after_an_upgrade_in_place(sidecar, tmp_path):
    run = sidecar("--drain-timeout", "1h", program=escaping(tmp_path, True))
    run.wait("serving")
    until(lambda: len(escaped(tmp_path)) == 1, "the process that has left")
    (stray,) = escaped(tmp_path)
    run.signal("USR2")
    run.wait("upgraded")
    run.swap(2)
    run.wait("generation_ended", generation=1)
    assert not alive(stray)
    assert run.seen("leader_exited", strays=[stray], signal="TERM")
    assert run.stop() == 0


def test_a_living_workers_orphan_is_no_stranger(sidecar, tmp_path):
    run = sidecar("--workers", "2", program=escaping(tmp_path, True))
    run.wait("serving")
    until(lambda: len(escaped(tmp_path)) == 2, "the processes that have left")
    run.swap(2)
    run.wait("generation_ended", generation=1)
    until(lambda: len(escaped(tmp_path)) == 4, "those of the next generation")
    run.swap(3)
    run.wait("generation_ended", generation=2)
    assert run.seen("notice") == []
    assert run.stop() == 0


def test_what_nobody_knows_any_more_and_holds_a_listener_is_named(sidecar, tmp_path):
    """It has left its session and its environment. It is not touched before the stop, but said."""
    sleeps = (
        "import os, sys, time; print(os.getpid(), file=open(sys.argv[1], 'w')); time.sleep(3600)"
    )
    stray = (*SERVER[:-1], "-c", sleeps, str(tmp_path / "pids"))
    code = (
        "import os\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork():\n"
        "        os._exit(0)\n"
        f"    os.execve({stray[0]!r}, {stray!r}, {{}})\n"
        "os.wait()\n"
        f"os.execv({SERVER[0]!r}, {SERVER!r})\n"
    )
    run = sidecar(program=(SERVER[0], "-S", "-c", code))
    run.wait("serving")
    until(lambda: len(escaped(tmp_path)) == 1, "the process that has left")
    (left,) = escaped(tmp_path)
    run.swap(2)
    run.wait("generation_ended", generation=1)
    assert alive(left)
    remark = run.wait("notice")["text"]
    assert f"process {left} has a listener open" in remark
    control = run.seen("control_socket_opened")[0]["path"]
    assert left in status(control)["strangers"]
    told = subprocess.run(
        [sys.executable, "-m", "sidecar", "status", "--control", control],
        capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE,
    )  # fmt: skip
    assert f"process {left} has a listener open" in told.stdout
    os.kill(left, signal.SIGKILL)
    until(lambda: left not in status(control)["strangers"], "the end of it in the status")
    run.swap(3)
    run.wait("generation_ended", generation=2)
    assert run.stop() == 0


def status(control) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "status", "--json", "--control", str(control)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE,
    )
    return json.loads(done.stdout)
