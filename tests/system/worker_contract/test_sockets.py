"""What sidecar gives each worker (DESIGN, "A worker's contract"): descriptors and the protocols that name them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

from tests.support import APPS, ROOT, until
from tests.system.worker_contract.environment import environment


def test_every_protocol_is_there_at_once_and_names_the_same_sockets(sidecar, tmp_path):
    run = sidecar(
        "--port",
        "[::1]:0,name=six",
        "--port",
        f"unix:{tmp_path}/s",
        "--port",
        "127.0.0.1:u0",
        "--workers",
        "2",
    )
    run.wait("worker_ready", count=2)
    env = environment(run)
    listening = {each["fd"]: each["address"] for each in run.seen("listening")}
    assert env["SERVER_STARTER_PORT"] == ";".join(
        f"{address}={fd}" for fd, address in sorted(listening.items())
    )
    assert env["SERVER_STARTER_GENERATION"] == "1"
    assert env["LISTEN_FDS"] == "4"
    assert env["LISTEN_FDNAMES"].split(":")[1] == "six"
    assert env["SIDECAR_WORKERS"] == "2"
    assert env["SIDECAR_TRIGGER"] == "start"
    assert "NOTIFY_SOCKET" not in env
    assert int(env["LISTEN_PID"]) in run.workers()
    slots = {run.get().split()[2] for _ in range(200)}
    assert slots == {"0", "1"}
    run.swap(2)
    assert environment(run)["SIDECAR_TRIGGER"] == "signal"


def test_fds_are_the_standard_three_and_the_listeners_and_nothing_leaks(sidecar):
    """Not even a descriptor that sidecar itself was started with; and not after fifty swaps either."""
    leaked, other = socket.socketpair()
    os.set_inheritable(leaked.fileno(), True)
    run = sidecar("--port", "127.0.0.1:0", pass_fds=(leaked.fileno(),))
    run.wait("serving")
    held = len(os.listdir(f"/proc/{run.pid}/fd"))
    assert sorted(json.loads(run.get("/about"))["fds"], key=int)[:5] == ["0", "1", "2", "3", "4"]
    for number in range(2, 52):
        run.swap(number)
    until(lambda: len(run.workers()) == 1, "the old workers' end")
    fds = json.loads(run.get("/about"))["fds"]
    assert {name for name, target in fds.items() if not target.startswith("/proc")} == {
        "0",
        "1",
        "2",
        "3",
        "4",
    }
    assert len(os.listdir(f"/proc/{run.pid}/fd")) == held
    leaked.close()
    other.close()


def test_fixed_fds_are_where_they_were_asked_for(sidecar):
    run = sidecar("--port", "127.0.0.1:0=9", "--port", "127.0.0.1:0", port=False)
    run.wait("serving")
    assert {each["fd"] for each in run.seen("listening")} == {9, 3}
    env = environment(run)
    assert "=9;" in env["SERVER_STARTER_PORT"]
    assert "LISTEN_FDS" not in env  # systemd's protocol knows no gap


def test_sockets_from_systemd_are_taken_over(tmp_path):
    """LISTEN_FDS with LISTEN_PID: sidecar listens on what it was given, and its workers get it
    under their own pid.
    """
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        start = (
            "import os, sys; fd = int(sys.argv[1]); os.dup2(fd, 3, inheritable=True);"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='web');"
            "os.execv(sys.executable, [sys.executable, '-m', 'sidecar', 'run', '--', sys.executable, '-S', sys.argv[2]])"
        )
        command = [sys.executable, "-c", start, str(sock.fileno()), str(APPS / "server.py")]
        with subprocess.Popen(
            command, cwd=ROOT, pass_fds=[sock.fileno()], stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                for line in process.stderr:
                    if " serves after" in line:
                        break
                from tests.support import get

                assert "LISTEN_FDNAMES='web'" in get(port, "/env")
                assert f"SERVER_STARTER_PORT='127.0.0.1:{port}=3'" in get(port, "/env")
            finally:
                process.terminate()
                process.communicate()
            assert process.returncode == 0
