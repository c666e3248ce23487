"""Upgrade in place: another version, the same pid, the same workers, the same listeners, and nobody
outside notices.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support import (
    PATIENCE,
    ROOT,
    SERVER,
    Load,
    Notified,
    Sidecar,
    alive,
    free_port,
    get,
    marked,
    read_response,
    until,
)


class Installed:
    """A directory with a version of the package, which another one can replace."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.package = where / "sidecar"
        shutil.copytree(
            ROOT / "sidecar", self.package, ignore=shutil.ignore_patterns("__pycache__")
        )

    def change(self, name: str, old: str, new: str) -> None:
        """Put a file in the place of one, with other text; the interpreter compares times and
        sizes.
        """
        path = self.package / name
        text = path.read_text()
        assert text.count(old) == 1
        path.with_suffix(".new").write_text(text.replace(old, new))
        path.with_suffix(".new").rename(path)
        shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)

    def version(self, number: str) -> None:
        init = self.package / "__init__.py"
        init.write_text(
            re.sub(r'__version__ = ".*"', f'__version__ = "{number}"', init.read_text())
        )
        shutil.rmtree(self.package / "__pycache__", ignore_errors=True)


@pytest.fixture
def installed(tmp_path) -> Installed:
    return Installed(tmp_path / "site")


@pytest.fixture
def start(sidecar, installed, tmp_path):
    """Start the sidecar that is installed there, with a control socket of its own."""

    def make(*options: str, **more: object) -> Sidecar:
        environ = {"PYTHONPATH": str(installed.where), **more.pop("env", {})}
        run = sidecar(
            "--control", str(tmp_path / "control"), *options, env=environ, cwd=tmp_path, **more
        )
        run.wait("serving")
        run.wait(
            "worker_ready",
            int(options[options.index("--workers") + 1]) if "--workers" in options else 1,
        )
        return run

    return make


def ask(tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "SIDECAR_CONTROL": str(tmp_path / "control")}
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def status(tmp_path: Path) -> dict:
    return json.loads(ask(tmp_path, "status", "--json").stdout)


def about(run: Sidecar) -> dict:
    return json.loads(run.get("/about"))


# --- what is kept


def test_a_hundred_upgrades_under_load_lose_nothing_and_change_nothing(start, installed, tmp_path):
    run = start("--workers", "2", "--ready", "accept")
    workers = run.workers()
    before = Path(f"/proc/{run.pid}/stat").read_text().rpartition(")")[2].split()[19]
    with Load(run.port) as load:
        for count in range(1, 101):
            if count % 25 == 0:
                installed.version(f"9.{count}")
            run.signal("USR2")
            run.wait("upgraded", count)
        assert run.workers() == workers
        answered = load.answered
        run.swap(2)
        until(lambda: load.answered > answered, "answers of the new generation")
    assert load.failures == []
    assert run.seen("upgraded")[-1]["version"] == "9.100"
    assert run.seen("upgrade_failed") == []
    assert run.process.poll() is None
    assert Path(f"/proc/{run.pid}/stat").read_text().rpartition(")")[2].split()[19] == before, (
        "another process"
    )
    told = status(tmp_path)
    assert (told["version"], told["upgrades"], told["last_upgrade"]["before"]) == (
        "9.100",
        100,
        "9.75",
    )
    assert told["generation"] == 2
    assert run.stop() == 0


def test_no_descriptor_is_lost_and_none_is_left_over(start):
    run = start("--workers", "2", "--pid-file", "pid", "--status-file", "status", "--watch", "site")

    def descriptors() -> list[str]:
        return sorted(
            os.readlink(f"/proc/{run.pid}/fd/{name}").partition(":")[0]
            for name in os.listdir(f"/proc/{run.pid}/fd")
        )

    run.wait("watching")
    first = descriptors()
    for count in (1, 2, 3):
        run.signal("USR2")
        run.wait("watching", 1 + count)
        until(lambda: descriptors() == first, f"{first}, there are {descriptors()}")
    assert about(run)["now"].keys() >= {"0", "1", "2", "3"}
    run.swap(2)
    mine = about(run)
    assert [
        fd
        for fd in mine["fds"]
        if int(fd) > 2 and "socket" not in mine["fds"][fd] and "/proc/" not in mine["fds"][fd]
    ] == []
    assert int(mine["blocked"], 16) == 0
    assert "SIDECAR_HERITAGE" not in run.get("/env")
    assert run.stop() == 0


def test_history_numbers_clocks_and_size_go_on(start, tmp_path):
    run = start("--enable-auto-restart", "--auto-restart-interval", "1h")
    run.swap(2)
    run.signal("TTIN")
    run.wait("worker_ready", generation=2, slot=1)
    before = status(tmp_path)
    run.signal("USR2")
    run.wait("upgraded")
    after = status(tmp_path)
    assert after["timeline"] == before["timeline"]
    assert after["swaps"] == before["swaps"]
    assert after["workers"] == 2
    assert after["next_restart_in"] < before["next_restart_in"]
    assert after["age"] > before["age"]
    pids = [
        [worker["pid"] for each in told["generations"] for worker in each["workers"]]
        for told in (before, after)
    ]
    assert pids[0] == pids[1]
    events = [json.loads(line) for line in ask(tmp_path, "events", "--json").stdout.splitlines()][
        :-1
    ]
    assert [each["number"] for each in events] == list(range(1, len(events) + 1))
    assert events[0]["event"] == "starting"
    run.swap(3)
    assert run.stop() == 0


def test_the_pid_files_lock_the_status_file_and_a_unix_listener_are_held_on(start, tmp_path):
    path = tmp_path / "app.sock"
    run = start("--port", f"unix:{path}", "--pid-file", "pid", "--status-file", "status")
    rows = f"1:{run.workers()[0]}\n"
    until(lambda: (tmp_path / "status").read_text() == rows, "the status file")
    inode = path.stat().st_ino
    run.signal("USR2")
    run.wait("upgraded")
    assert (tmp_path / "pid").read_text() == f"{run.pid}\n"
    with open(tmp_path / "pid") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert (tmp_path / "status").read_text() == rows
    assert path.stat().st_ino == inode
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert read_response(sock)
    assert run.stop() == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["site"]


def test_a_slot_that_has_to_wait_waits_on(start):
    """The pause after a crash is not forgotten: nothing is started at once by the new version, and
    all the same in the end.
    """
    run = start("--max-backoff", "2s", "--workers", "2")
    for _ in range(3):
        pid = [each["pid"] for each in run.seen("worker_ready", slot=1)][-1]
        count = len(run.seen("worker_ready", slot=1))
        os.kill(pid, signal.SIGKILL)
        run.wait("worker_ready", count + 1, slot=1)
    pid = run.seen("worker_ready", slot=1)[-1]["pid"]
    os.kill(pid, signal.SIGKILL)
    run.wait("worker_died", pid=pid)
    run.signal("USR2")
    run.wait("upgraded")
    run.wait("worker_ready", 5, slot=1)
    names = [each["event"] for each in run.events]
    assert names.index("upgraded") < len(names) - 1 - names[::-1].index("worker_started")
    assert run.stop() == 0


def test_a_worker_that_is_still_starting_is_found_ready_by_the_new_version(start, tmp_path):
    (tmp_path / "go").touch()
    run = start("--workers", "2", "--ready", "command", "--ready-command", f"test -e {tmp_path}/go")
    (tmp_path / "go").unlink()
    pid = run.seen("worker_ready", slot=1)[-1]["pid"]
    os.kill(pid, signal.SIGKILL)
    started = run.wait("worker_started", 3)
    run.signal("USR2")
    run.wait("upgraded")
    (tmp_path / "go").touch()
    run.wait("worker_ready", pid=started["pid"])
    assert run.stop() == 0


def test_notify_goes_on_under_the_address_that_the_workers_know(start):
    run = start("--ready", "notify", env={"NOTIFY": "1"})
    run.signal("USR2")
    run.wait("upgraded")
    pid = run.workers()[0]
    os.kill(pid, signal.SIGKILL)
    run.wait("worker_ready", 2)
    assert run.swap(2)
    assert run.stop() == 0


# --- with a settings file


class Configured:
    """A sidecar that takes its settings from a file."""

    def __init__(self, start, tmp_path: Path, text: str, *options: str, **keywords: object) -> None:
        self.file = tmp_path / "sidecar.yml"
        self.write(text)
        self.run = start("--config", str(self.file), *options, program=(), port=False, **keywords)

    def write(self, text: str) -> None:
        self.file.with_suffix(".new").write_text(f"command: {json.dumps(list(SERVER))}\n{text}")
        self.file.with_suffix(".new").rename(self.file)

    def reload(self, text: str, number: int) -> None:
        self.write(text)
        self.run.signal("HUP")
        self.run.wait("serving", generation=number)

    def upgrade(self) -> None:
        self.run.signal("USR2")
        self.run.wait("upgraded", 1 + len(self.run.seen("upgraded")))


@pytest.fixture
def configured(start, tmp_path):
    return lambda text, *options, **keywords: Configured(
        start, tmp_path, text, *options, **keywords
    )


def refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def sockets(run: Sidecar) -> list[str]:
    links = [f"/proc/{run.pid}/fd/{fd}" for fd in os.listdir(f"/proc/{run.pid}/fd")]
    return [
        each
        for each in (os.readlink(link) for link in links if os.path.lexists(link))
        if each.startswith("socket:")
    ]


def test_each_generation_keeps_its_listeners_and_what_two_share_stays_one_socket(
    configured, tmp_path
):
    """The first generation ignores TERM: it drains with a listener that the reload has removed, the
    second one has another.
    """
    gone, both, new = free_port(), free_port(), free_port()
    path = tmp_path / "gone.sock"
    it = configured(
        f"port: [127.0.0.1:{gone}, 127.0.0.1:{both}, 'unix:{path}']\ndrain-timeout: 1h\nworkers: 2\n",
        env={"DEAF": "1"},
    )
    it.run.wait("worker_ready", 2)
    old = it.run.workers()
    it.reload(
        f"port: [127.0.0.1:{both}, '127.0.0.1:{new},name=fresh']\ndrain-timeout: 1h\nmin-uptime: 0\nworkers: 2\n",
        2,
    )
    before = len(sockets(it.run))
    for _ in range(2):
        it.upgrade()
        assert len(sockets(it.run)) == before
        assert get(gone).startswith("hello 1")
        assert get(new).startswith("hello 2")
    # One that is started again gets the listeners that its generation began with.
    os.kill(it.run.seen("worker_ready", generation=2)[-1]["pid"], signal.SIGKILL)
    it.run.wait("worker_ready", 3, generation=2)
    os.kill(it.run.seen("worker_ready", generation=2)[0]["pid"], signal.SIGKILL)
    it.run.wait("worker_ready", 4, generation=2)
    environment = get(new, "/env")
    assert f"'127.0.0.1:{both}=3;127.0.0.1:{new}=4'" in environment
    assert "fresh" in environment
    assert it.run.seen("listener_closed") == []
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    it.run.wait("listener_closed", 2)
    assert {each["address"] for each in it.run.seen("listener_closed")} == {
        f"127.0.0.1:{gone}",
        str(path),
    }
    assert refused(gone)
    assert not path.exists()
    assert get(both).startswith("hello 2")
    it.run.signal("TERM")
    it.run.wait("stopping")
    for pid in it.run.workers():
        os.kill(pid, signal.SIGKILL)
    assert it.run.exit() == 0


def test_the_settings_in_force_stay_in_force_whatever_the_file_says_by_now(configured, tmp_path):
    port = free_port()
    it = configured(f"port: 127.0.0.1:{port}\nmin-uptime: 3s\n")
    it.write(f"port: 127.0.0.1:{port}\nworkers: none\n")
    it.run.signal("HUP")
    it.run.wait("reload_rejected")
    before = status(tmp_path)
    assert before["problems"]
    it.upgrade()
    after = status(tmp_path)
    assert [after[name] for name in ("settings", "problems", "workers")] == [
        before[name] for name in ("settings", "problems", "workers")
    ]
    it.file.unlink()
    it.upgrade()
    it.run.signal("HUP")
    it.run.wait("reload_rejected", 2)
    it.write(f"port: 127.0.0.1:{port}\nworkers: 2\n")
    it.upgrade()
    assert status(tmp_path)["workers"] == 1
    it.run.signal("HUP")
    it.run.wait("serving", generation=2)
    assert status(tmp_path)["workers"] == 2
    assert it.run.seen("upgrade_failed") == []
    assert it.run.stop() == 0


def test_an_upgrade_waits_for_the_settings_that_are_being_read(configured):
    port = free_port()
    it = configured(f"port: 127.0.0.1:{port}\n")
    it.write(f"port: 127.0.0.1:{port}\nworkers: 2\n")
    it.run.signal("HUP")
    it.run.wait("signal_received")
    it.upgrade()
    names = [each["event"] for each in it.run.events]
    assert (
        names.index("upgrading")
        > len(names) - 1 - names[::-1].index("serving")
        > names.index("scaled")
    )
    assert it.run.stop() == 0


def test_what_is_hidden_stays_hidden(configured, tmp_path):
    """A value that was filled in from the environment, by the settings of a generation that has
    failed, too.
    """
    port = free_port()
    secret = "s3cr3t-of-the-file"
    it = configured(f"port: 127.0.0.1:{port}\n", env={"TOKEN": secret})
    it.write(f"port: 127.0.0.1:{port}\ncheck: [sh, -c, 'exit 3', '${{TOKEN}}']\nmax-backoff: 1h\n")
    it.run.signal("HUP")
    it.run.wait("swap_failed")
    it.upgrade()
    it.run.signal("HUP")
    it.run.wait("swap_failed", 2)
    assert secret not in str(it.run)
    assert secret not in json.dumps(status(tmp_path))
    assert it.run.stop() == 0


# --- with what a sidecar may have besides


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


# --- at a bad moment


def test_an_old_worker_goes_on_draining_and_is_killed_in_time(start):
    run = start("--drain-timeout", "3s", env={"DEAF": "1"})
    old = run.workers()[0]
    run.signal("HUP")
    run.wait("serving", generation=2)
    run.signal("USR2")
    run.wait("upgraded")
    assert alive(old)
    run.wait("worker_killed", pid=old)
    run.wait("worker_exited", pid=old)
    names = [each["event"] for each in run.events]
    assert names.index("upgraded") < names.index("worker_killed")
    run.wait("generation_ended", generation=1)
    run.signal("TERM")
    assert run.stop("TERM") == 0


def test_an_upgrade_waits_for_the_swap_that_is_going_on(start, tmp_path):
    (tmp_path / "env").mkdir()
    run = start("--envdir", "env")
    (tmp_path / "env" / "BOOT").write_text("1")
    run.signal("HUP")
    run.wait("worker_started", generation=2)
    run.signal("USR2")
    run.wait("upgrade_waiting", generation=2)
    run.wait("upgraded")
    names = [
        each["event"]
        for each in run.events
        if each.get("generation") == 2 or each["event"] in ("upgrade_waiting", "upgraded")
    ]
    assert names.index("upgrade_waiting") < names.index("serving") < names.index("upgraded")
    assert run.stop() == 0


def test_a_worker_that_dies_meanwhile_is_reaped_and_replaced(start):
    """Its end comes between the two versions: the first one is stopped when it happens, and killed
    signals stay pending.
    """
    run = start("--workers", "3", "--min-uptime", "0")
    for count in range(1, 16):
        pid = run.workers()[count % 3]
        run.signal("USR2")
        run.wait("upgrading", count)
        os.kill(pid, signal.SIGKILL)
        run.wait("upgraded", count)
        run.wait("worker_died", pid=pid)
        run.wait("worker_ready", 3 + count)
    assert len(run.workers()) == 3
    assert run.stop() == 0


def test_a_hup_at_that_moment_is_not_lost(start):
    run = start()
    for count in range(1, 16):
        run.signal("USR2")
        if count % 2:
            run.wait("upgrading", count)
        run.signal("HUP")
        run.wait("upgraded", count)
        run.wait("serving", generation=1 + count)
    run.alone(16)
    assert run.stop() == 0


@pytest.mark.parametrize("after", ["", "upgrade_checked", "upgrading", "upgraded"])
def test_a_term_right_after_it_stops_all(start, after):
    run = start("--workers", "2")
    run.signal("USR2")
    if after:
        run.wait(after)
    assert run.stop() == 0
    assert len(run.seen("worker_exited")) == 2


def test_connections_to_the_control_socket_survive_it(start, tmp_path):
    run = start()
    lines: list[str] = []
    follower = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "events", "--follow", "--json", "--control", str(tmp_path / "control")],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    reader = threading.Thread(target=lambda: lines.extend(follower.stdout))
    reader.start()
    with socket.socket(socket.AF_UNIX) as half:
        half.connect(str(tmp_path / "control"))
        half.sendall(b'{"command":"hea')
        answer = ask(tmp_path, "upgrade")
        assert answer.returncode == 0, answer
        assert "has taken over from" in answer.stdout
        half.sendall(b'lth"}\n')
        assert json.loads(half.makefile().readline()) == {"ready": True, "done": 0}
    assert run.stop() == 0
    assert follower.wait(PATIENCE) == 0
    reader.join(PATIENCE)
    names = [json.loads(line).get("event") for line in lines]
    assert names[-2] == "stopped"
    assert "upgraded" in names


def test_the_watcher_misses_nothing(start, tmp_path):
    (tmp_path / "code").mkdir()
    run = start("--watch", "code")
    run.wait("watching")
    for count in range(1, 6):
        run.signal("USR2")
        run.wait("upgrading", count)
        (tmp_path / "code" / f"a{count}.py").write_text("1")
        run.wait("serving", generation=1 + count)
        assert "helper_exited" not in [each["event"] for each in run.events]
    assert run.stop() == 0


# --- a new version that is none


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("host/control_desk.py", "import binascii\n", "import binascii, nothing_of_that_name\n", "No module named 'nothing_of_that_name'"),
        ("host/control_desk.py", "import binascii\n", "import binascii, (\n", "is damaged (invalid syntax)"),
        ("upgrade/state.py", "FORMAT = 1\n", "FORMAT = 7\n", "keeps its state in format 1, this version reads 7"),
        ("core/supervisor.py", "        self._delay_logged_for = 0\n", "", "Supervisor._delay_logged_for in its state, which this version does not know"),
        ("host/resources.py", "        self._begin(Wakeup(state", "        os.abort()\n        self._begin(Wakeup(state", "SIGABRT"),
    ],
)  # fmt: skip
def test_it_is_refused_with_its_last_words_and_serving_goes_on(
    start, installed, tmp_path, name, old, new, said
):
    run = start()
    workers = run.workers()
    installed.change(name, old, new)
    with Load(run.port) as load:
        answer = ask(tmp_path, "upgrade")
        assert answer.returncode == 1
        assert said in answer.stderr
        failed = run.wait("upgrade_failed")
        assert said in failed["cause"]
    assert load.failures == []
    assert run.workers() == workers
    run.swap(2)
    assert run.seen("upgraded") == []
    assert run.stop() == 0


def test_a_version_that_knows_nothing_of_upgrades_refuses_to_check(start, installed):
    """A downgrade: the option comes first, so the version does not take it for a start."""
    run = start()
    installed.change("cli/main.py", 'words[0].startswith("--upgrade-check=")', "False")
    run.signal("USR2")
    assert "status 2" in run.wait("upgrade_failed")["cause"]
    assert run.stop() == 0


def test_a_check_that_never_ends_holds_nothing_up_and_a_stop_ends_it(start, installed, tmp_path):
    run = start()
    installed.change(
        "host/resources.py",
        "        self._begin(Wakeup(state",
        "        __import__('time').sleep(3600)\n        self._begin(Wakeup(state",
    )
    run.signal("USR2")
    until(lambda: checks(run), "the check")
    run.swap(2)
    assert run.stop() == 0
    assert "sidecar is stopping" in run.seen("upgrade_failed")[0]["cause"]


def checks(run: Sidecar) -> list[int]:
    """The processes of its own that prove something to it."""
    return [
        pid
        for pid in marked(run.mark)
        if b"--upgrade-check" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def test_check_only_says_whether_it_could(start, installed, tmp_path):
    run = start()
    installed.version("9.9")
    answer = ask(tmp_path, "upgrade", "--check")
    assert (answer.returncode, "sidecar 9.9 has proved" in answer.stdout) == (0, True)
    installed.change("host/control_desk.py", "import binascii\n", "import binascii, (\n")
    assert ask(tmp_path, "upgrade", "--check").returncode == 1
    assert run.seen("upgraded") == []
    assert run.stop() == 0


def test_a_variable_from_outside_means_nothing(sidecar):
    """Nor does it go on to the workers."""
    run = sidecar(env={"SIDECAR_HERITAGE": "1"})
    run.wait("serving")
    assert "SIDECAR_HERITAGE" not in run.get("/env")
    assert run.stop() == 0


def test_the_check_is_not_for_people(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "--upgrade-check=1", "run", "--", "true"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "sidecar upgrade --check" in done.stderr


def test_no_file_ever_holds_the_state(start, tmp_path):
    """A secret of the envdir is in the memfd alone, and that is gone when the new version runs."""
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "TOKEN").write_text("s3cr3t-of-the-envdir")
    run = start("--envdir", "env", "--workers", "2")
    run.signal("USR2")
    run.wait("upgraded")
    assert "s3cr3t-of-the-envdir" not in str(run)
    assert not [
        name
        for name in os.listdir(f"/proc/{run.pid}/fd")
        if "heritage" in os.readlink(f"/proc/{run.pid}/fd/{name}")
    ]
    (tmp_path / "env" / "TOKEN").unlink()
    first, second = run.workers()
    os.kill(first, signal.SIGKILL)
    run.wait("worker_ready", 3)
    os.kill(second, signal.SIGKILL)
    run.wait("worker_died", 2)
    assert "s3cr3t-of-the-envdir" in run.get("/env"), "the generation keeps its environment"
    assert run.stop() == 0


# --- what fails after the exec

LAST_STEP = "    # From here on there is no way back.\n"


def failing(installed: Installed, where: Path) -> None:
    """The next version's last step fails until there is a file `go`, but not in the check."""
    installed.change(
        "host/exported_state.py",
        LAST_STEP,
        f"    if started and not os.path.exists('{where}/go'):\n"
        f"        os.close(os.open('{where}/tried', os.O_CREAT | os.O_WRONLY))\n"
        "        raise OSError(23, 'Too many open files in system')\n" + LAST_STEP,
    )


def test_it_is_tried_again_and_nothing_that_came_meanwhile_is_lost(start, installed, tmp_path):
    run = start("--workers", "2", "--watch", "site/none", "--pid-file", "pid")
    run.wait("watching")
    failing(installed, tmp_path)
    before = len(os.listdir(f"/proc/{run.pid}/fd"))
    with Load(run.port) as load:
        run.signal("USR2")
        until((tmp_path / "tried").exists, "the first attempt")
        (tmp_path / "tried").unlink()
        until((tmp_path / "tried").exists, "another attempt")
        killed = run.workers()[0]
        os.kill(killed, signal.SIGKILL)
        run.signal("HUP")
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(tmp_path / "control"))
            asking.sendall(b'{"command":"health"}\n')
            (tmp_path / "tried").unlink()
            until((tmp_path / "tried").exists, "another attempt")
            (tmp_path / "go").touch()
            assert run.wait("upgraded")["pid"] == run.pid
            assert json.loads(asking.makefile().readline())["done"] in (0, 1)
        run.wait("worker_died", pid=killed)
        run.wait("serving", generation=2)
        run.alone(2)
    # One that was killed may have had a request.
    assert len(load.failures) <= 4
    assert [line for line in run.output if "tries again" in line] == [
        "sidecar: the new version cannot take over, it tries again: [Errno 23] Too many open files in system"
    ]
    assert "SIDECAR_HERITAGE" not in run.get("/env")
    run.wait("watching", 2)
    until(lambda: len(os.listdir(f"/proc/{run.pid}/fd")) == before, f"{before} descriptors")
    assert run.stop() == 0


def test_a_stop_ends_the_attempts(start, installed, tmp_path):
    run = start()
    failing(installed, tmp_path)
    run.signal("USR2")
    until((tmp_path / "tried").exists, "the first attempt")
    assert run.get().startswith("hello 1"), "it serves"
    run.signal("TERM")
    assert run.process.wait(PATIENCE) == 1
    until(lambda: marked(run.mark) == [], "the end of all")
    assert "could not take over: [Errno 23]" in str(run)


def test_a_state_that_cannot_be_read_is_no_reason_to_start_anew(start, installed, tmp_path):
    run = start("--pid-file", "pid")
    installed.change(
        "upgrade/execute.py",
        "        writer = state",
        "        if pid == os.getpid():\n            raise ValueError\n        writer = state",
    )
    run.signal("USR2")
    until(lambda: "tries again" in str(run), "the first attempt")
    assert "the state of the running sidecar cannot be read" in str(run)
    assert run.get().startswith("hello 1"), "it serves"
    run.signal("TERM")
    assert run.process.wait(PATIENCE) == 1
    until(lambda: marked(run.mark) == [], "the end of all")
    assert len(run.seen("starting")) == 1
    assert "held by" not in str(run)


def test_without_room_for_an_interpreter_there_is_no_exec(start, tmp_path):
    """Descriptors for the check and for the state are there, but few more."""
    run = start()
    free = max(int(name) for name in os.listdir(f"/proc/{run.pid}/fd")) + 12
    subprocess.run(["prlimit", "--pid", str(run.pid), f"--nofile={free}:1024"], check=True)
    run.signal("USR2")
    assert "Too many open files" in run.wait("upgrade_failed")["cause"]
    run.swap(2)
    subprocess.run(["prlimit", "--pid", str(run.pid), "--nofile=1024:1024"], check=True)
    run.signal("USR2")
    run.wait("upgraded")
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
                lambda: b"SIDECAR_HERITAGE=" in Path(f"/proc/{pid}/environ").read_bytes(),
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
