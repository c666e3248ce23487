"""sidecar.worker, from inside a real worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from sidecar import worker
from tests.support import APPS, ROOT

PROGRAM = (sys.executable, str(APPS / "worker_api.py"))


def test_a_program_takes_its_sockets_and_says_when_it_is_ready(sidecar):
    run = sidecar("--port", "127.0.0.1:u0", "--ready", "notify", program=PROGRAM)
    assert run.wait("worker_ready")["by"] == "notify"
    said = json.loads(run.get())
    assert said["fds"] == [3, 4]
    assert sorted(said["ports"].values()) == [3, 4]
    assert f"127.0.0.1:{run.port}" in said["ports"]
    assert said["by_port"] == [3]
    assert said["datagram"] == [4]
    assert said["nobody"] == []
    assert said["generation"] == 1
    assert said["told"] is True
    assert said["loaded"] == ["sidecar", "sidecar.worker"]


def test_either_protocol_alone_will_do(sidecar, tmp_path):
    """Systemd's without Server::Starter's: LISTEN_PID has to be the process's own."""
    code = "import os; from sidecar.worker import listeners; os.environ.pop('SERVER_STARTER_PORT'); print([s.fileno() for s in listeners()])"
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "run", "--port", "127.0.0.1:0", "--max-failures", "1", "--", sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == "[3]\n"


def test_a_process_that_nobody_started_is_told_how_to_start(monkeypatch):
    for name in (
        "SERVER_STARTER_PORT",
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "SERVER_STARTER_GENERATION",
    ):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LookupError, match="sidecar run --port"):
        worker.server_ports()
    assert worker.listeners() == []
    assert worker.ready() is False
    assert worker.generation() == 0
    monkeypatch.setenv("SERVER_STARTER_PORT", "")
    assert worker.server_ports() == {}
