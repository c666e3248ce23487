"""What sidecar tells the service manager that started it (sd_notify(3)); the test is the manager."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sidecar.core.supervisor import Supervisor
from sidecar.settings.resolve import resolve
from sidecar.system.service_manager import ServiceManager
from tests.support import PATIENCE, ROOT, SERVER, Notified, alive, free_port

# A program whose second generation fails.
SECOND_FAILS = (
    "sh",
    "-c",
    'test "$SERVER_STARTER_GENERATION" != 2 || exit 3; exec "$0" "$@"',
    *SERVER,
)


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    with Notified(
        f"{tmp_path}/notify"
        if request.param == "path"
        else f"@sidecar-test-{os.getpid()}-{time.monotonic_ns()}"
    ) as manager:
        yield manager


def test_it_is_told_of_the_start_each_reload_and_the_stop(sidecar, manager):
    before = time.monotonic_ns() // 1000
    run = sidecar("--workers", "2", env={"NOTIFY_SOCKET": manager.address})
    manager.next(READY="1")
    assert run.wait("serving")["generation"] == 1
    manager.next(STATUS="generation 1 serves, 2 of 2 workers ready")

    sent = time.monotonic_ns() // 1000
    run.signal("HUP")
    began = int(manager.next(RELOADING="1")["MONOTONIC_USEC"])
    assert before < sent <= began <= time.monotonic_ns() // 1000
    manager.next(READY="1")
    manager.next(STATUS="generation 2 serves, 2 of 2 workers ready")
    assert run.wait("serving", generation=2)["trigger"] == "signal"

    run.signal("TERM")
    manager.next(STOPPING="1")
    assert run.exit() == 0
    assert manager.states() == ["READY", "RELOADING", "READY", "STOPPING"]
    assert manager.senders == {run.pid}


def test_a_reload_that_failed_has_ended_and_the_next_is_another(sidecar, manager):
    run = sidecar(env={"NOTIFY_SOCKET": manager.address}, program=SECOND_FAILS)
    manager.next(READY="1")
    run.signal("HUP")
    manager.next(RELOADING="1")
    manager.next(READY="1")
    manager.next(
        STATUS="generation 1 serves, 1 of 1 workers ready; generation 2 failed: exited with status 3 before it was ready"
    )
    run.signal("HUP")
    manager.next(RELOADING="1")
    run.wait("serving", generation=3)
    manager.next(READY="1")
    manager.next(STATUS="generation 3 serves, 1 of 1 workers ready")
    assert run.stop() == 0
    manager.next(STOPPING="1")
    assert manager.states() == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]


def test_a_cause_is_one_printable_line_to_it(sidecar, manager, tmp_path):
    """Another line would be an assignment of its own, and `systemctl status` is read on a terminal."""
    check = "test $SIDECAR_TRIGGER != signal # \nSTOPPING=1\x1b[2J"
    script = tmp_path / "check"
    script.write_text(f"#!/bin/sh\n{check.partition(chr(10))[0]}\n")
    script.chmod(0o755)
    run = sidecar("--check", f"{script} '{check}'", env={"NOTIFY_SOCKET": manager.address})
    manager.next(READY="1")
    run.signal("HUP")
    run.wait("swap_failed")
    told = manager.next(RELOADING="1")
    while "failed" not in told.get("STATUS", ""):
        told = manager.next()
    assert "STOPPING=1\\x1b[2J" in told["STATUS"]
    assert "STOPPING" not in told
    run.stop()


def test_what_nobody_asked_for_is_no_reload(sidecar, manager):
    run = sidecar(env={"NOTIFY_SOCKET": manager.address})
    manager.next(READY="1")
    os.kill(run.wait("worker_ready")["pid"], signal.SIGKILL)
    run.wait("serving", generation=2, trigger="crash")
    assert run.stop() == 0
    manager.next(STOPPING="1")
    assert manager.states() == ["READY", "STOPPING"]


def test_a_hup_during_a_reload_is_another_reload(sidecar, manager):
    run = sidecar("--check", "sleep 0.3", env={"NOTIFY_SOCKET": manager.address})
    manager.next(READY="1")
    run.signal("HUP")
    first = manager.next(RELOADING="1")
    run.signal("HUP")
    run.wait("signal_received", 2)
    second = manager.next(RELOADING="1")
    manager.next(READY="1")
    assert int(first["MONOTONIC_USEC"]) < int(second["MONOTONIC_USEC"])
    assert run.stop() == 0
    manager.next(STOPPING="1")
    assert manager.states() == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]


def test_giving_up_is_a_stop(sidecar, manager):
    run = sidecar("--max-failures", "1", env={"NOTIFY_SOCKET": manager.address}, program=("false",))
    manager.next(STOPPING="1")
    assert run.exit() == 1
    assert manager.states() == ["STOPPING"]


def test_one_that_does_not_read_stops_nothing_and_is_told_later(sidecar, manager):
    where = "\0" + manager.address[1:] if manager.address[0] == "@" else manager.address
    # A sender's own buffer may be full first: the manager's queue is when a new sender finds no
    # room at all.
    room = True
    while room:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
            contextlib.suppress(BlockingIOError),
        ):
            other.setblocking(False)
            room = False
            while other.sendto(b"NOISE=1", where):
                room = True
    run = sidecar(env={"NOTIFY_SOCKET": manager.address})
    run.wait("serving")
    run.swap(2)
    assert run.seen("action_failed") == []
    manager.next(READY="1")  # nothing but the pause brings this
    assert run.stop() == 0
    manager.next(STOPPING="1")
    assert [each for each in manager.states() if each != "NOISE"] == [
        "READY",
        "RELOADING",
        "READY",
        "STOPPING",
    ]


def test_the_pause_before_one_that_does_not_read_has_a_limit(tmp_path):
    """A manager that sleeps for an hour is told within a minute of its waking."""
    address = str(tmp_path / "notify")
    with Notified(address), contextlib.closing(ServiceManager(address)) as manager:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while other.sendto(b"NOISE=1", address):
                    pass
        supervisor = Supervisor(resolve([], {}, ["program"]).settings, 0.0, lambda: 0.5)
        manager.on_event("stopping", {})
        now, pauses = 0.0, []
        for _ in range(40):
            assert manager.send(supervisor, now) == ""
            pauses.append(round(manager.retry_at - now, 6))
            now = manager.retry_at
        assert pauses == sorted(pauses)
        assert pauses[0] < 1
        assert pauses[-1] == pauses[-2] == 60


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ("/nowhere/notify", "No such file or directory"),
        ("vsock:2:1", "it has to be a path, or @ and an abstract name"),
    ],
)
def test_one_that_is_not_there_is_said_once_and_ignored(sidecar, address, cause):
    run = sidecar(env={"NOTIFY_SOCKET": address})
    run.wait("serving")
    run.swap(2)
    assert run.stop() == 0
    (said,) = run.seen("action_failed")
    assert (said["what"], said["cause"]) == (
        f"tell the service manager at NOTIFY_SOCKET={address}",
        cause,
    )


@pytest.mark.parametrize("ready", ["accept", "notify"])
def test_the_programs_know_nothing_of_it(sidecar, manager, ready):
    """With --ready notify they have a socket of sidecar's own; the listener is the one that they
    have in common.
    """
    env = {"NOTIFY_SOCKET": manager.address, "NOTIFY": "1" if ready == "notify" else ""}
    run = sidecar("--ready", ready, env=env)
    pid = run.wait("serving")["pids"][0]
    told = [
        line.partition("=")[2]
        for line in run.get("/env").splitlines()
        if line.startswith("NOTIFY_SOCKET=")
    ]
    assert len(told) == (ready == "notify")
    assert manager.address not in told
    assert len(sockets(run.pid) & sockets(pid)) == 1
    assert run.stop() == 0


def sockets(pid: int) -> set[str]:
    links = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir() if int(each.name) > 2}
    return {each for each in links if each.startswith("socket:")}


def test_the_other_door_tells_it_too(manager):
    words = [
        sys.executable,
        "-m",
        "sidecar.start_server",
        f"--port=127.0.0.1:{free_port()}",
        "--interval=0",
        "--",
        *SERVER,
    ]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": manager.address}
    run = subprocess.Popen(words, env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        manager.next(READY="1")
        run.send_signal(signal.SIGHUP)
        manager.next(RELOADING="1")
        manager.next(READY="1")
        run.send_signal(signal.SIGTERM)
        manager.next(STOPPING="1")
        assert run.wait(PATIENCE) == 0
        assert manager.states() == ["READY", "RELOADING", "READY", "STOPPING"]
    finally:
        if alive(run.pid):
            run.kill()
        run.wait(PATIENCE)
