"""Who is outside notices nothing: probes, the service manager, a master that is swapped slowly."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from tests.support import PATIENCE, ROOT, Notified, get, marked, until


def read(path: Path) -> bytes:
    """What is in a file, nothing if it has gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_every_probe_is_answered_and_events_go_on_at_the_admin(start):
    run = start("--admin", "127.0.0.1:0")
    port = int(run.wait("admin_opened")["address"].rpartition(":")[2])
    assert get(port, "/readyz")
    failures: list[str] = []
    answered = 0
    over = threading.Event()

    def probe() -> None:
        nonlocal answered
        while not over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            try:
                connection.request("GET", "/readyz")
                answer = connection.getresponse()
                if answer.status != 200:
                    failures.append(f"{answer.status} {answer.read()!r}")
                answered += 1
            except (OSError, http.client.HTTPException) as error:
                failures.append(repr(error))
            finally:
                connection.close()

    threads = [threading.Thread(target=probe) for _ in range(3)]
    for thread in threads:
        thread.start()
    admins = set()
    for count in range(1, 6):
        run.signal("USR2")
        run.wait("upgraded", count)
        before = answered
        until(lambda before=before: answered > before + 20 or failures, "probes")
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        admins |= {
            pid for pid in children if b"sidecar.admin" in read(Path(f"/proc/{pid}/cmdline"))
        }
    over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(admins) > 1, "another one after each"
    assert run.seen("helper_exited") == []
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        told = (json.loads(line[6:]) for line in sock.makefile("rb") if line.startswith(b"data: "))
        assert next(each["version"] for each in told if each["event"] == "upgraded")
        numbers = [next(told)["number"] for _ in range(2)]
        assert numbers[1] == numbers[0] + 1
    assert run.stop() == 0


def test_the_service_manager_hears_of_no_reload(start, tmp_path):
    with Notified(f"{tmp_path}/notify") as manager:
        run = start(env={"NOTIFY_SOCKET": manager.address})
        manager.next(READY="1")
        run.signal("USR2")
        run.wait("upgraded")
        run.swap(2)
        manager.next(RELOADING="1")
        manager.next(READY="1")
        assert run.stop() == 0
        manager.next(STOPPING="1")
        assert manager.states() == ["READY", "RELOADING", "READY", "STOPPING"]
        assert manager.senders == {run.pid}


# A master that has a process less on TTOU and one more on TTIN, and three to begin with. Later
# generations' wait at a gate of their own.
PREFORK = """
import os, signal, socket, time
generation = os.environ["SERVER_STARTER_GENERATION"]
listener = socket.socket(fileno=3)
children = []

def more(*_):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while generation != "1" and not os.path.exists(f"gate-{generation}-{len(children)}"):
            time.sleep(0.005)
        while True:
            listener.accept()[0].close()
    children.append(child)

def fewer(*_):
    child = children.pop()
    os.kill(child, 15)
    os.waitpid(child, 0)

def leave(*_):
    while children:
        fewer()
    os._exit(0)

signal.signal(signal.SIGTTIN, more)
signal.signal(signal.SIGTTOU, fewer)
signal.signal(signal.SIGTERM, leave)
for _ in range(3):
    more()
while True:
    signal.pause()
"""


def test_a_slow_start_after_it_is_as_slow_and_one_that_failed_before_it_is_taken_back(
    start, tmp_path
):
    """The second generation's program dies when it has a process: the old one gets its own again,
    in the next version's life.
    """
    run = start(
        "--slow-start",
        "--drain-timeout",
        "1s",
        "--max-backoff",
        "1s",
        program=(sys.executable, "-S", "-c", PREFORK),
    )

    def processes(pid: int) -> int:
        return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    until(lambda: processes(run.workers()[0]) == 3, "three processes")
    run.signal("USR2")
    run.wait("upgraded")
    old = run.workers()[0]
    run.signal("HUP")
    (tmp_path / "gate-2-0").touch()
    first = run.wait("worker_shrunk")
    assert (first["pid"], first["signal"], first["had"]) == (old, "TTOU", 3)
    run.signal("USR2")
    os.kill(run.wait("worker_started", generation=2)["pid"], signal.SIGKILL)
    run.wait("swap_failed", generation=2)
    run.wait("worker_shrunk", signal="TTIN")
    run.wait("upgraded", 2)
    run.signal("HUP")
    for number in range(3):
        (tmp_path / f"gate-3-{number}").touch()
        if number < 2:
            run.wait("worker_shrunk", 2 + number, signal="TTOU")
    run.wait("serving", generation=3)
    run.wait("upgraded", 2)
    run.alone(3)
    gave = [each["left"] for each in run.seen("worker_shrunk", signal="TTOU") if each["pid"] == old]
    assert gave[-1] == 1
    assert run.seen("action_failed") == []
    assert run.stop() == 0


# --- the other door
def test_start_server_with_a_log_command_and_daemonized(tmp_path):
    port_file = tmp_path / "log"
    words = [sys.executable, "-m", "sidecar.start_server"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MARK": str(tmp_path)}
    program = (sys.executable, "-S", str(ROOT / "tests/apps/starter_app.py"))
    options = (
        "--pid-file=pid",
        "--status-file=status",
        "--daemonize",
        f"--log-file=| cat >> {port_file}",
        "--interval=0",
    )
    subprocess.run(
        [*words, *options, "--", *program],
        env=environ,
        cwd=tmp_path,
        timeout=PATIENCE,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(
            lambda: (
                (tmp_path / "status").exists()
                and (tmp_path / "status").read_text().startswith("1:")
            ),
            "generation 1",
        )
        pid = int((tmp_path / "pid").read_text())
        for number in (2, 3):
            os.kill(pid, signal.SIGUSR2)
            until(
                lambda: b"SIDECAR_UPGRADE_STATE=" in Path(f"/proc/{pid}/environ").read_bytes(),
                "the upgrade",
            )
            os.kill(pid, signal.SIGHUP)
            until(
                lambda number=number: (tmp_path / "status").read_text().startswith(f"{number}:"),
                f"generation {number}",
            )
        assert int((tmp_path / "pid").read_text()) == pid
        subprocess.run(
            [*words, "--stop", "--pid-file=pid"],
            env=environ,
            cwd=tmp_path,
            timeout=PATIENCE,
            check=True,
        )
        text = port_file.read_text()
        assert text.count("starting new worker") == 3
        assert text.count("starting now") == 0
        assert text.rstrip().endswith("exiting")
    finally:
        for each in marked(str(tmp_path)):
            os.kill(each, signal.SIGKILL)
