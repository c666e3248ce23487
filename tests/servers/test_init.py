"""The init pages of docs/recipes: each file of examples/recipes with the real thing that reads it,
started, swapped under load and stopped.

systemd itself does not run here (it wants to be PID 1): its own tools check the units and open the
sockets, and the test stands for the rest of it: it reads NOTIFY_SOCKET, and runs what ExecStart and
ExecReload say.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import PATIENCE, ROOT, Load, Notified, alive, free_port, get, marked, until

pytestmark = pytest.mark.servers

FILES = ROOT / "examples" / "recipes"


def tool(name: str) -> str:
    """Where the program is; skips where it is not installed."""
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
    )
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


class Machine:
    """A place for one recipe: its own /srv/hello, /run/hello, /var/log and port, and the processes
    that came of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.mark = f"{os.getpid()}-{id(self)}"
        self.environ = {**os.environ, "MARK": self.mark, "GUNICORN_CMD_ARGS": ""}
        self.started: list[subprocess.Popen] = []
        self.app = folder / "srv/hello/examples/hello/app.py"
        for name in ("srv/hello", "run/hello", "var/log"):
            (folder / name).mkdir(parents=True)
        shutil.copytree(
            ROOT / "examples",
            folder / "srv/hello/examples",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        (folder / "srv/hello/.venv").symlink_to(Path(sys.executable).parent.parent)

    def own(self, text: str) -> str:
        text = re.sub(r"(?<![\w.])/(srv/hello|run/hello|var/log)", rf"{self.folder}/\1", text)
        return re.sub(r"(?<!\d)8080(?!\d)", f"127.0.0.1:{self.port}", text)

    def file(self, name: str, to: str = "") -> Path:
        """A file of the recipe with the paths and the port of this place."""
        path = self.folder / (to or name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.own((FILES / name).read_text()))
        path.chmod((FILES / name).stat().st_mode)
        return path

    def start(self, *words: str, **popen: object) -> subprocess.Popen:
        popen = {"env": self.environ, "stdin": subprocess.DEVNULL, "cwd": self.folder, **popen}
        self.started.append(subprocess.Popen(words, **popen))
        return self.started[-1]

    def run(self, *words: str | Path, **keywords: object) -> subprocess.CompletedProcess:
        keywords = {
            "env": self.environ,
            "stdin": subprocess.DEVNULL,
            "capture_output": True,
            "text": True,
            "timeout": PATIENCE,
            **keywords,
        }
        return subprocess.run([str(word) for word in words], **keywords)

    def generation(self) -> int:
        """Who answers; 0 while nobody does."""
        try:
            return int(re.search(r"generation (\d+)", get(self.port))[1])
        except OSError:
            return 0

    def swap_under_load(self, ask: Callable[[], object]) -> None:
        """Ask for a swap and see it through; no request may fail."""
        before = self.generation()
        old = int(re.search(r"worker (\d+)", get(self.port))[1])
        with Load(self.port) as load:
            ask()
            until(lambda: self.generation() > before and not alive(old), "the swap")
            answered = load.answered
            until(lambda: load.answered > answered + 50, "more answers")
        assert load.failures == []

    def nothing_left(self, *but: int) -> None:
        until(lambda: set(marked(self.mark)) <= set(but), "the last process's end")

    def clean_up(self) -> None:
        for _ in range(20):  # what one supervises it starts again
            for pid in marked(self.mark):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        for each in self.started:
            each.wait(PATIENCE)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.clean_up()


# --- systemd


class Unit:
    """hello.service and hello.socket as systemd would use them: ExecStart with the socket and
    NOTIFY_SOCKET, ExecReload.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.activate = tool("systemd-socket-activate")
        self.text = machine.file("hello.service").read_text().replace("\\\n", " ")
        self.listen = re.search(
            r"^ListenStream=(.*)", machine.file("hello.socket").read_text(), re.MULTILINE
        )[1]

    def words(self, directive: str) -> list[str]:
        return shlex.split(re.search(rf"^{directive}=(.*)", self.text, re.MULTILINE)[1])

    def start(self, manager: Notified) -> subprocess.Popen:
        passed = [
            "-EMARK",
            "-EGUNICORN_CMD_ARGS",
            f"-ENOTIFY_SOCKET={manager.address}",
            f"-l{self.listen}",
        ]
        popen = {"stderr": subprocess.DEVNULL, "cwd": self.machine.folder / "srv/hello"}
        run = self.machine.start(self.activate, *passed, *self.words("ExecStart"), **popen)
        # The first connection starts the service, and waits in the queue until it serves.
        until(self.knock, "the socket")
        return run

    def knock(self) -> bool:
        try:
            return bool(get(self.machine.port))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True

    def reload(self) -> subprocess.CompletedProcess:
        return self.machine.run(*self.words("ExecReload"))


def test_systemd_finds_nothing_wrong_with_the_units(machine):
    verify = tool("systemd-analyze")
    machine.file("hello.service")
    machine.file("hello.socket")
    done = machine.run(
        verify,
        "verify",
        "--recursive-errors=no",
        "--man=no",
        "hello.socket",
        "hello.service",
        cwd=machine.folder,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    # It would have said so otherwise.
    (machine.folder / "hello.service").write_text(
        (machine.folder / "hello.service").read_text().replace("KillMode=mixed", "KillMode=no")
    )
    done = machine.run(
        verify, "verify", "--recursive-errors=no", "--man=no", "hello.service", cwd=machine.folder
    )
    assert "hello.service:15: Failed to parse kill mode" in done.stdout + done.stderr


def test_the_unit_is_started_reloaded_and_stopped(machine):
    unit = Unit(machine)
    with Notified(f"{machine.folder}/notify") as manager:
        run = unit.start(manager)
        manager.next(READY="1")
        assert machine.generation() == 1
        machine.swap_under_load(lambda: unit.reload().check_returncode())
        manager.next(RELOADING="1")
        manager.next(READY="1")

        machine.app.write_text("oops")
        failed = unit.reload()
        assert failed.returncode == 1
        assert "generation 3 failed" in failed.stderr
        assert machine.generation() == 2
        manager.next(RELOADING="1")
        manager.next(READY="1")
        assert "generation 3 failed: " in manager.next()["STATUS"]

        run.terminate()  # KillMode=mixed: sidecar alone is told
        manager.next(STOPPING="1")
        assert run.wait(PATIENCE) == 0
        assert manager.states() == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]
        assert manager.senders == {run.pid}
    machine.nothing_left()
    assert list((machine.folder / "run/hello").iterdir()) == []


ENVIRONMENT = (
    "import os, sys; print(*[name + '=' + os.environ[name] for name in ('LISTEN_FDS', 'LISTEN_FDNAMES', 'SERVER_STARTER_PORT')],"
    " os.environ['LISTEN_PID'] == str(os.getpid()), file=open(sys.argv[1], 'w')); os.replace(sys.argv[1], sys.argv[2]);"
    " import signal; signal.pause()"
)


def test_sockets_keep_their_names_and_those_that_no_port_asks_for_are_passed_on_too(machine):
    unit = Unit(machine)
    other, bound = free_port(), free_port()
    path = f"{machine.folder}/app.sock"
    program = [sys.executable, "-c", ENVIRONMENT, f"{machine.folder}/new", f"{machine.folder}/seen"]
    # One more port than sockets, and two more sockets than ports.
    ports = ["--port", f"127.0.0.1:{bound}", "--port", unit.listen]
    words = [
        *unit.words("ExecStart")[:1],
        "run",
        *ports,
        "--ready",
        "interval",
        "--interval",
        "0",
        "--",
        *program,
    ]
    with Notified(f"{machine.folder}/notify") as manager:
        run = machine.start(
            unit.activate, f"-ENOTIFY_SOCKET={manager.address}", "-EMARK", f"-l{path}", f"-l127.0.0.1:{other}", f"-l{unit.listen}",
            "--fdname=app:more:web", *words, stderr=subprocess.DEVNULL, cwd=ROOT,
        )  # fmt: skip
        until(
            lambda: (machine.folder / "app.sock").exists() and reaches(machine.port), "the socket"
        )
        manager.next(READY="1")
        until((machine.folder / "seen").exists, "what the program saw")
        assert (machine.folder / "seen").read_text().split() == [
            "LISTEN_FDS=4", f"LISTEN_FDNAMES={bound}:web:app:more",
            f"SERVER_STARTER_PORT=127.0.0.1:{bound}=3;127.0.0.1:{machine.port}=4;{path}=5;127.0.0.1:{other}=6", "True",
        ]  # fmt: skip
        run.terminate()
        assert run.wait(PATIENCE) == 0
    machine.nothing_left()
    assert (machine.folder / "app.sock").exists()  # systemd's, and so is its end


def test_a_socket_that_cannot_be_passed_on_is_refused(machine):
    unit = Unit(machine)
    run = machine.start(
        unit.activate,
        "--seqpacket",
        f"-l{machine.folder}/seq",
        *unit.words("ExecStart"),
        stderr=subprocess.PIPE,
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        until(lambda: sock.connect_ex(f"{machine.folder}/seq") == 0, "the socket")
        said = run.stderr.read().decode()
        assert run.wait(PATIENCE) != 0
    run.stderr.close()
    assert (
        "LISTEN_FDS: file descriptor 3 of 1: it is neither a TCP, a UDP nor a unix stream socket"
        in said
    )


def reaches(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


# --- SysV


def test_the_init_script(machine):
    tool("flock")
    script = machine.file("hello.init")
    status_file = machine.folder / "run/hello/status"
    assert machine.run(script, "status").returncode == 3
    assert machine.run(script, "stop").returncode == 0  # LSB: it does not run, so all is well
    started = machine.run(script, "start")
    assert (started.returncode, started.stderr.count("starting now")) == (0, 1)
    assert machine.generation() == 1
    pid = (machine.folder / "run/hello/pid").read_text()
    again = machine.run(script, "start")
    assert (again.returncode, again.stderr) == (0, "")
    assert (machine.folder / "run/hello/pid").read_text() == pid
    assert (
        machine.run(script, "status").stdout
        == f"hello runs, generation:pid {status_file.read_text().strip()} \n"
    )

    machine.swap_under_load(lambda: machine.run(script, "reload").check_returncode())
    good = machine.app.read_text()
    machine.app.write_text("oops")
    failed = machine.run(script, "reload")
    assert failed.returncode == 1
    assert "failed" in failed.stderr
    assert machine.generation() == 2
    machine.app.write_text(good)

    assert machine.run(script, "restart").returncode == 0
    assert (machine.folder / "run/hello/pid").read_text() != pid
    os.kill(int((machine.folder / "run/hello/pid").read_text()), signal.SIGKILL)
    machine.nothing_left()
    dead = machine.run(script, "status")
    assert (dead.returncode, "has died" in dead.stdout) == (1, True)
    assert machine.run(script, "start").returncode == 0
    assert machine.generation() == 1
    assert machine.run(script, "stop").returncode == 0
    machine.nothing_left()
    assert machine.run(script, "status").returncode == 3
    assert machine.run(script, "restat").returncode == 2


# --- runit and daemontools


def test_runit(machine):
    runsv, sv = tool("runsv"), tool("sv")
    machine.file("hello.run", "sv/hello/run")
    service = machine.folder / "sv/hello"
    log = open(machine.folder / "log", "w")
    supervisor = machine.start(runsv, str(service), stdout=log)
    log.close()
    until(lambda: machine.generation() == 1, "generation 1")
    assert machine.run(sv, "status", service).stdout.startswith("run: ")
    machine.swap_under_load(lambda: machine.run(sv, "hup", service).check_returncode())
    machine.run(sv, "term", service)  # and runsv starts it again
    until(lambda: machine.generation() == 1, "the next run")
    assert machine.run(sv, "-w", "30", "stop", service).returncode == 0
    machine.nothing_left(supervisor.pid)
    assert machine.run(sv, "start", service).returncode == 0
    until(lambda: machine.generation() == 1, "the run after")
    assert machine.run(sv, "-w", "30", "shutdown", service).returncode == 0
    assert supervisor.wait(PATIENCE) == 0
    machine.nothing_left()
    assert "generation 2 serves" in (machine.folder / "log").read_text()


def test_daemontools(machine):
    supervise, svc, svstat = tool("supervise"), tool("svc"), tool("svstat")
    machine.file("hello.run", "service/hello/run")
    service = machine.folder / "service/hello"
    log = open(machine.folder / "log", "w")
    supervisor = machine.start(supervise, str(service), stdout=log)
    log.close()
    until(lambda: machine.generation() == 1, "generation 1")
    assert ": up " in machine.run(svstat, service).stdout
    machine.swap_under_load(lambda: machine.run(svc, "-h", service).check_returncode())
    machine.run(svc, "-t", service)  # and supervise starts it again
    until(lambda: machine.generation() == 1, "the next run")
    machine.run(svc, "-d", service)
    until(lambda: ": down " in machine.run(svstat, service).stdout, "down")
    machine.nothing_left(supervisor.pid)
    machine.run(svc, "-u", service)
    until(lambda: machine.generation() == 1, "the run after")
    machine.run(svc, "-dx", service)
    assert supervisor.wait(PATIENCE) == 0
    machine.nothing_left()


# --- supervisord


def test_supervisord(machine):
    supervisord, supervisorctl = tool("supervisord"), tool("supervisorctl")
    config = machine.folder / "supervisord.conf"
    program = machine.file("supervisord.conf").read_text()
    control = f"{machine.folder}/s"
    config.write_text(
        f"[unix_http_server]\nfile={control}\n[supervisorctl]\nserverurl=unix://{control}\n"
        f"[supervisord]\nlogfile={machine.folder}/supervisord.log\npidfile={machine.folder}/supervisord.pid\n"
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
        + program
    )

    def ctl(*words: str) -> subprocess.CompletedProcess:
        return machine.run(supervisorctl, "-c", config, *words)

    main = machine.start(
        supervisord, "-n", "-c", str(config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: "RUNNING" in ctl("status").stdout, "RUNNING")
    until(lambda: machine.generation() == 1, "generation 1")
    machine.swap_under_load(lambda: ctl("signal", "HUP", "hello").check_returncode())
    assert ctl("stop", "hello").returncode == 0
    assert "STOPPED" in ctl("status").stdout
    machine.nothing_left(main.pid)
    assert ctl("start", "hello").returncode == 0
    until(lambda: machine.generation() == 1, "the run after")
    ctl("shutdown")
    assert main.wait(PATIENCE) == 0
    machine.nothing_left()
    log = (machine.folder / "var/log/hello.log").read_text()
    assert "generation 2 serves" in log
    assert log.count("stopped, status 0") == 2
