"""A name server and a file server that do not answer: PID 1 waits for neither."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.faults.harness import why_not
from tests.support import PATIENCE, SERVER, Sidecar, free_port, get, marked, until

NAME = "nobody-knows-me.example"


def ask(path: Path, command: str) -> dict:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(json.dumps({"command": command}).encode() + b"\n")
        return json.loads(sock.makefile().readline())


def children(run: Sidecar) -> set[int]:
    text = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text()
    return {int(pid) for pid in text.split()}


def copies(run: Sidecar) -> set[int]:
    """Its children that run its own command line: they do some work for it."""
    own = Path(f"/proc/{run.pid}/cmdline").read_bytes()
    found = set()
    for pid in children(run):
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes() == own:
                found.add(pid)
        except OSError:
            pass
    return found


def everything_goes_on(run: Sidecar, control: Path) -> None:
    """It reaps and replaces a worker, answers, and does so while the copy waits."""
    (copy,) = copies(run)
    count = len(run.seen("worker_ready"))
    killed = run.workers()[0]
    os.kill(killed, signal.SIGKILL)
    run.wait("worker_died", pid=killed)
    run.wait("worker_ready", count + 1)
    assert ask(control, "health") == {"ready": True, "done": 0}
    assert ask(control, "status")["done"] == 0
    assert copies(run) == {copy}, "it had its answer"


@pytest.fixture
def silent(tmp_path):
    """A command that runs another one where the only name server never answers; and that server."""
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("needs root and a mount namespace of its own")
    # It can listen at port 53 alone.
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    address = f"127.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"
    server.bind((address, 53))
    server.settimeout(PATIENCE)
    (tmp_path / "resolv.conf").write_text(f"nameserver {address}\noptions timeout:30 attempts:5\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: dns\npasswd: files\ngroup: files\n")
    script = (
        f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && "
        f'mount --bind {tmp_path}/nsswitch.conf /etc/nsswitch.conf && exec "$@"'
    )
    yield ("unshare", "-m", "sh", "-c", script, "sh"), server
    server.close()


@pytest.fixture
def configured(sidecar, tmp_path):
    """A sidecar with a settings file: what it is made of, and what writes it anew."""

    def make(wrapper: tuple[str, ...] = (), more: str = "") -> tuple[Sidecar, Path, int]:
        port = free_port()
        write(port, more)
        run = sidecar(
            *("--config", f"{tmp_path}/sidecar.yml", "--control", f"{tmp_path}/control"),
            program=(), port=False, cwd=tmp_path, wrapper=wrapper,
        )  # fmt: skip
        run.wait("serving")
        run.wait("worker_ready", 2)
        return run, tmp_path / "control", port

    def write(port: int, more: str, ports: str = "") -> None:
        (tmp_path / "sidecar.yml").write_text(
            f"command: {json.dumps(list(SERVER))}\nworkers: 2\nmin-uptime: 0\n"
            f"port: [127.0.0.1:{port}{ports}]\n{more}"
        )

    make.write = write
    return make


def test_a_reload_with_a_name_holds_nothing_up_and_a_stop_does_not_wait_for_it(configured, silent):
    wrapper, server = silent
    run, control, port = configured(wrapper)
    configured.write(port, "", f", {NAME}:0")
    run.signal("HUP")
    assert NAME.split(".", maxsplit=1)[0].encode() in server.recv(4096)
    everything_goes_on(run, control)
    assert get(port).startswith("hello 1")
    assert run.seen("reload_rejected") == []
    assert run.stop() == 0


def test_a_reload_that_comes_meanwhile_is_the_one_that_counts(configured, silent):
    wrapper, server = silent
    run, _control, port = configured(wrapper)
    other = free_port()
    configured.write(port, "", f", {NAME}:0")
    run.signal("HUP")
    server.recv(4096)
    configured.write(port, "", f", 127.0.0.1:{other}")
    run.signal("HUP")
    run.alone(run.wait("serving", generation=2)["generation"])
    assert get(other).startswith("hello 2")
    assert run.seen("reload_rejected") == []
    assert copies(run) == set()
    assert run.stop() == 0


@pytest.fixture
def hung(tmp_path):
    """Makes the envdir one that takes an hour to open, for a process and its children, which not
    even SIGKILL ends; and what lets them go.
    """
    if reason := why_not():
        pytest.skip(reason)
    started: list[subprocess.Popen] = []

    def hang(pid: int) -> None:
        words = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", f"{tmp_path}/env", "-e", "trace=openat,open",
                 "-e", "inject=openat,open:delay_enter=3600000000", "-p", str(pid)]  # fmt: skip
        started.append(subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True))
        until(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text(), "strace")

    def let_go() -> None:
        for each in started:
            each.kill()
            each.wait()

    yield hang, let_go
    let_go()


def test_an_envdir_that_cannot_be_read_now_holds_nothing_up(configured, hung, tmp_path):
    (tmp_path / "env").mkdir()
    run, control, _ = configured(more=f"envdir: {tmp_path}/env\n")
    hang, let_go = hung
    hang(run.pid)
    run.signal("HUP")
    run.wait("swap_started", generation=2)
    until(lambda: copies(run), "who reads the envdir")
    everything_goes_on(run, control)
    assert run.seen("swap_failed") == []
    run.signal("TERM")
    assert run.process.wait(PATIENCE) == 0, "it does not wait for what cannot be killed"
    let_go()
    until(lambda: marked(run.mark) == [], "the end of all")
