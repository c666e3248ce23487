"""Where the admin listens, as whom it runs, and what the program gets of it."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
from pathlib import Path

import pytest

from tests.support import PATIENCE, ROOT, free_port, open_to_others
from tests.system.admin.asking import Admin


class Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.path)


def test_the_program_gets_none_of_it(start):
    """Its descriptors are those it has without an admin; the helper's are its own."""
    run, admin = start()
    run.wait("serving")
    assert set(json.loads(run.get("/about"))["fds"]) == {"0", "1", "2", "3"}
    os.kill(admin.pid(), signal.SIGKILL)
    run.wait("helper_exited")
    assert admin.json("/livez")[0] == 200
    run.swap(2)
    assert set(json.loads(run.get("/about"))["fds"]) == {"0", "1", "2", "3"}
    kinds = {os.readlink(f"/proc/{admin.pid()}/fd/{fd}").partition(":")[0] for fd in (3, 4, 5)}
    assert kinds == {"socket"}
    run.stop()


def test_on_a_unix_socket(sidecar, tmp_path):
    path = tmp_path / "admin.sock"
    run = sidecar("--admin", f"unix:{path},mode=0600", "--control", "none")
    admin = Admin(run)
    run.wait("serving")
    assert admin.address == str(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert admin.json("/readyz")[0] == 200
    connection = Unix(str(path))
    connection.request("GET", "/status")
    assert json.load(connection.getresponse())["state"] == "serving"
    connection.close()
    assert run.stop() == 0
    assert not path.exists()


def test_where_it_cannot_be_bound_nothing_is_started(sidecar):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        run = sidecar("--admin", f"127.0.0.1:{taken.getsockname()[1]}")
        assert run.exit() == 1
    assert any(
        "--admin 127.0.0.1:" in line and "another process listens there" in line
        for line in run.output
    )
    assert run.seen("worker_started") == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--admin", "u9100"), "it is a UDP port"),
        (("--admin", "9100,defer"), "for what workers get"),
        (("--admin", "nonsense"), "'nonsense' is no port"),
        (("--port", "127.0.0.1:9100", "--admin", "127.0.0.1:9100"), "listens where"),
    ],
)
def test_a_wrong_address_is_refused(sidecar, options, says):
    run = sidecar(*options, port=False)
    assert run.exit() == 2
    assert any(says in line for line in run.output), run.output


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@open_to_others
def test_it_is_the_workers_user_wherever_sidecar_is_installed(start, tmp_path):
    """What talks to the network is not root where the workers are not, even if that user cannot
    read sidecar's own files.
    """
    private = tmp_path / "private"
    shutil.copytree(ROOT / "sidecar", private / "sidecar")
    private.chmod(0o700)
    run, admin = start("--user", "nobody", env={"PYTHONPATH": str(private)}, cwd="/")
    run.wait("serving")
    assert run.seen("helper_exited") == []
    assert admin.json("/readyz")[0] == 200
    assert "</html>" in admin.get("/")[2]
    assert admin.get("/metrics")[0] == 200
    assert admin.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")[0] == 200
    with admin.listen() as events:
        assert next(events)["event"] == "starting"
    status = Path(f"/proc/{admin.pid()}/status").read_text()
    assert set(re.search(r"Uid:(.*)", status)[1].split()) == {"65534"}
    assert re.search(r"CapEff:\s*0+\n", status)
    run.stop()


def test_its_connections_answer_questions_only():
    """Whatever a helper that was taken over sends, PID 1 does not stop, reload or scale."""
    from sidecar.control.server import ControlSocket

    control = ControlSocket.open("none", [])
    ours, theirs = socket.socketpair()
    control.adopt(ours, ("status",))
    asked = []
    with theirs:
        theirs.sendall(b'{"command": "stop"}\n[1]\n{"command": "status", "id": 7}\n')
        control.turn(0.0, lambda request: (asked.append(request), ([{"done": 0}], None))[1])
        said = [json.loads(line) for line in theirs.recv(4096).splitlines()]
    control.close()
    assert asked == [{"command": "status", "id": 7}]
    assert [each["done"] for each in said] == [2, 2, 0]


@pytest.mark.parametrize(
    ("host", "env", "warned"),
    [
        ("", {}, True),
        ("0.0.0.0:", {}, False),
        ("127.0.0.1:", {}, False),
        ("", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
    ],
    ids=["port", "all", "loopback", "pod"],
)
def test_a_port_alone_is_warned_of_outside_of_a_container(sidecar, host, env, warned):
    port = free_port()
    run = sidecar("--admin", f"{host}{port}", env={"KUBERNETES_SERVICE_HOST": "", **env})
    run.wait("serving")
    said = [each for each in run.seen("notice") if "--admin" in each["text"]]
    assert [each["level"] for each in said] == ["warning"] * warned
    assert all(f"say --admin 127.0.0.1:{port}" in each["text"] for each in said)
    assert run.stop() == 0
