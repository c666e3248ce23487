"""How a worker is found ready, or says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from sidecar.system.notify_socket import NotifySocket
from tests.support import PATIENCE, ROOT, alive, until
from tests.system.worker_contract.environment import environment


def test_readiness_by_notify_by_interval_and_by_command(sidecar, tmp_path):
    run = sidecar("--ready", "notify", env={"NOTIFY": "1"})
    assert run.wait("worker_ready")["by"] == "notify"
    run = sidecar("--ready", "notify", "--start-timeout", "300ms", "--max-failures", "1")
    assert run.wait("swap_failed")["cause"] == "not ready within 0.3 s (readiness notify)"
    run = sidecar("--ready", "interval", "--interval", "50ms")
    assert run.wait("worker_ready")["by"] == "interval"
    run = sidecar("--ready", "command", "--ready-command", f"test -e {tmp_path}/go")
    run.wait("worker_started")
    assert run.seen("worker_ready") == []
    (tmp_path / "go").touch()
    assert run.wait("worker_ready")["by"] == "command"
    assert run.stop() == 0


LINGERS = """
import os, signal, socket, struct

notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect("\\0" + os.environ["NOTIFY_SOCKET"][1:])
with socket.create_server(("127.0.0.1", 0)) as peer:
    for message in (b"READY=1", b"STATUS=again"):
        passed = [socket.create_connection(peer.getsockname()) for _ in range(5)]
        for each in passed:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
            each.setblocking(False)
            try:
                while each.send(bytes(1 << 16)):
                    pass
            except BlockingIOError:
                pass
        socket.send_fds(notify, [message], [each.fileno() for each in passed])
        for each in passed:
            each.close()
    signal.pause()
"""


def test_a_descriptor_sent_with_a_notification_does_not_hold_sidecar_up(sidecar):
    """The last close of a socket that lingers lasts an hour: nothing but the message may be left to
    wake sidecar.
    """
    run = sidecar("--ready", "notify", program=(sys.executable, "-c", LINGERS))
    assert run.wait("worker_ready")["by"] == "notify"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sidecar",
            "status",
            "--control",
            run.wait("control_socket_opened")["path"],
        ],
        cwd=ROOT,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert run.stop() == 0


FLOOD = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.connect("\\0" + sys.argv[1][1:])
    sent = 0
    while True:
        notify.send(b"READY=1")
        sent += 1
        print(sent, flush=True)
"""


def test_who_floods_the_notification_socket_holds_nobody_up(sidecar):
    """A stranger's messages are read at sidecar's pace, not at its own; a worker is heard among
    them.
    """
    run = sidecar("--ready", "notify", env={"NOTIFY": "1"})
    run.wait("serving")
    address = environment(run)["NOTIFY_SOCKET"]
    in_advance = (
        int(NotifySocket.TURN_BURST_S / NotifySocket.TURN_INTERVAL_S)
        * NotifySocket.MAX_MESSAGES_PER_TURN
    )
    with subprocess.Popen(
        [sys.executable, "-c", FLOOD, address], stdout=subprocess.PIPE, text=True
    ) as stranger:
        try:
            while int(stranger.stdout.readline()) <= in_advance:
                pass
            began = time.monotonic()
            for _ in range(500):
                stranger.stdout.readline()
            assert (
                500 / (time.monotonic() - began)
                < 2 * NotifySocket.MAX_MESSAGES_PER_TURN / NotifySocket.TURN_INTERVAL_S
            )
            run.swap(2)
        finally:
            stranger.kill()
    assert run.stop() == 0


def test_a_forked_child_that_accepts_makes_its_worker_ready(sidecar):
    run = sidecar(env={"FORK": "1"})
    assert run.wait("worker_ready")["by"] == "accept"
    assert run.get().split()[3] != str(run.workers()[0])
    assert run.stop() == 0


def test_a_ready_command_is_killed_when_its_worker_has_gone(sidecar, tmp_path):
    asked = tmp_path / "asked"
    run = sidecar(
        "--ready", "command", "--ready-command", f"sh -c 'echo $$ $SIDECAR_WORKER_PID >> {asked}; exec sleep 3600'",
        "--max-failures", "0",
    )  # fmt: skip
    until(lambda: asked.exists() and asked.read_text().endswith("\n"), "the ready command")
    command, worker = map(int, asked.read_text().split())
    os.kill(worker, signal.SIGKILL)
    run.wait("worker_died", pid=worker)
    until(lambda: not alive(command), "the ready command's end")
    assert run.stop() == 0
