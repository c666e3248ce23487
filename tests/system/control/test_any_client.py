"""Whatever clients of the control socket do, PID 1 goes on and the others are answered."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sidecar.control import server
from tests.support import PATIENCE, ROOT, SERVER, Load, Sidecar, alive, until
from tests.system.control.asking import ask, command, environment, status


def switches(run: Sidecar) -> int:
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{run.pid}/status").read_text().splitlines()
    )
    return int(status["voluntary_ctxt_switches"])


def test_once_everybody_has_left_it_is_never_woken_again(run):
    for words in (("status",), ("events",), ("health",), ("scale", "+1"), ("reload", "--wait")):
        assert ask(run, *words).returncode == 0
    run.wait("generation_ended", generation=1)
    until(lambda: switches(run) == (time.sleep(0.2), switches(run))[1], "the loop's rest")
    before = switches(run)
    time.sleep(2 * server.CLIENT_TIMEOUT_S / 5)
    assert switches(run) == before


def test_clients_of_every_bad_kind_at_once_hold_nothing_up(run):
    """The silent, the deaf, the flooding and the malformed, a thousand in all: requests are
    answered, swaps go on, commands too.
    """
    peers: list[socket.socket] = []

    def connect(data: bytes) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(run.control)
            sock.send(data)
        except OSError:
            pass
        peers.append(sock)

    with Load(run.port) as load:
        for number in range(200):
            connect(b"")
            connect(b'{"command": "sta')
            connect(b"\xff\0{[" * 100 + b"\n" + b"x" * 5000)
            connect(b'{"command": "status"}\n' * 2000)
            if number % 10 == 0:
                connect(b'{"command": "events", "follow": true}\n')
        done = subprocess.Popen(command(run, "health"), env=environment())
        for number in (2, 3, 4):
            run.swap(number)
        assert done.wait(PATIENCE) == 0
        before = load.answered
        until(lambda: load.answered > before + 50, "answers")
    assert load.failures == []
    for each in peers:
        each.close()
    assert status(run)["generation"] == 4
    assert run.stop() == 0


def test_a_thousand_commands_at_once_are_all_answered(run):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], min(4096, limits[1])), limits[1]))
    peers = []
    try:
        with Load(run.port) as load:
            for _ in range(1000):
                peers.append(socket.socket(socket.AF_UNIX))
                peers[-1].settimeout(PATIENCE)
                peers[-1].connect(run.control)
            for each in peers:
                each.sendall(b'{"command": "health"}\n')
            for each in peers:
                assert json.loads(each.recv(1000)) == {"ready": True, "done": 0}
                each.close()
        assert load.failures == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in peers:
            each.close()
    assert run.stop() == 0


def test_a_client_that_comes_while_it_leaves_does_not_hang(start):
    """From the stop on, clients ask without pause, until nobody answers: each is answered or
    refused.
    """
    run = start("--drain-timeout", "500ms", env={"DEAF": "1"})
    run.wait("serving")
    run.signal("TERM")
    outcomes = set()
    while alive(run.pid):
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(PATIENCE)
                sock.connect(run.control)
                sock.sendall(b'{"command": "health"}\n')
                outcomes.add("answered" if sock.recv(1000) else "hung up on")
        except TimeoutError:
            raise
        except OSError as error:
            outcomes.add(type(error).__name__)
    assert "answered" in outcomes
    assert run.exit() == 0


def test_clients_that_wait_while_it_leaves_cost_it_nothing(start, tmp_path, asking):
    """The log command takes its time to write out what it has; a client that came too late for an
    answer must not make the wait a spin.
    """
    run = start(
        "--log-file",
        f"| cat > {tmp_path}/out; while test ! -e {tmp_path}/enough; do sleep 0.05; done",
    )
    until(
        lambda: (tmp_path / "out").exists() and '"serving"' in (tmp_path / "out").read_text(),
        "generation 1",
    )
    run.signal("TERM")
    until(lambda: '"stopped"' in (tmp_path / "out").read_text(), "the last word")

    def cpu() -> int:
        return sum(
            map(int, Path(f"/proc/{run.pid}/stat").read_text().rpartition(")")[2].split()[11:13])
        )

    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(run.control)
        sock.sendall(b'{"command": "health"}\n')
        before = cpu()
        time.sleep(1.0)  # what is measured
        spent = cpu() - before
        (tmp_path / "enough").touch()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert spent < os.sysconf("SC_CLK_TCK") / 4
    assert run.exit() == 0


BROKEN = """
import sys
from sidecar.cli import main as cli
from sidecar.control import commands
from sidecar.host.control_desk import ControlDesk
def broken(*_): raise RuntimeError("a secret could be in here")
ControlDesk.status = broken
commands.EventStream.on_event = broken
sys.exit(cli.main())
"""


def test_a_defect_in_an_answer_is_said_and_hurts_nobody_else(tmp_path, asking):
    log = tmp_path / "log"
    words = [
        sys.executable,
        "-c",
        BROKEN,
        "run",
        "--port",
        "127.0.0.1:0",
        "--control",
        str(tmp_path / "control"),
        "--",
        *SERVER,
    ]
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            words, env=environment(), cwd=ROOT, stderr=stderr, stdin=subprocess.DEVNULL
        ) as process,
    ):
        try:
            process.control = str(tmp_path / "control")
            until(lambda: " serves after" in log.read_text(), "generation 1")
            done = ask(process, "status")
            assert (done.returncode, done.stderr) == (
                1,
                "sidecar status: a defect in sidecar: its log says where\n",
            )
            asking(process, "events", "--follow").line("serves")
            assert ask(process, "reload", "--wait").returncode == 0
            assert ask(process, "health").returncode == 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
    assert log.read_text().count("a defect in sidecar: RuntimeError at <string>:6") == 2
    assert "secret" not in log.read_text()
