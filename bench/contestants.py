"""Who is measured: sidecar, start_server, and nobody (`Alone`: the bench itself does by hand what a
supervisor is for).

Each has the same four verbs: start, swap, stop, and `events.wait` for what its workers tell.
Everything is started by posix_spawn, in a session of its own, and ended by its pid; whatever is
left below the bench at the end is found, killed and reported.
"""

import ctypes
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).parent
ROOT = BENCH.parent
PYTHON = os.path.realpath(sys.executable)
SERVER = (PYTHON, "-I", "-S", str(BENCH / "apps" / "server.py"))
START_SERVER = "/usr/bin/start_server"

# Nothing of the caller's environment: PYTHONDONTWRITEBYTECODE alone would make every start compile
# sidecar anew.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}

#: Runs a command as PID 1 of a pid namespace of its own, which ends with it.
UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--")

PATIENCE = 20.0
_PR_SET_CHILD_SUBREAPER = 36


class NotMeasured(Exception):
    """Something could not be measured; the text says what and why."""


@dataclass
class Event:
    name: str
    pid: int
    moment: float


class Events:
    """What the workers of one contestant tell on their stdout."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe2(os.O_CLOEXEC)
        self.seen: list[Event] = []
        self._rest = b""

    def wait(self, name: str, *, pid: int = 0, after: float = 0.0) -> Event:
        """The first event of that name (of that process, later than that), which may have come
        already.
        """
        until = time.monotonic() + PATIENCE
        while True:
            for event in self.seen:
                if event.name == name and pid in (0, event.pid) and event.moment > after:
                    return event
            if not select.select([self.read], [], [], max(0.0, until - time.monotonic()))[0]:
                raise NotMeasured(f"no server said {name!r} within {PATIENCE:g} s")
            *lines, self._rest = (self._rest + os.read(self.read, 65536)).split(b"\n")
            self.seen += [
                Event(word.decode(), int(number), float(moment))
                for word, number, moment in map(bytes.split, lines)
            ]

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


@dataclass
class Swap:
    """The moments of one swap: asked, the new server's first line, it takes connections, the old
    one is told, it is gone.
    """

    asked: float
    main: float
    listening: float
    term: float
    gone: float


class Contestant:
    """One supervisor with one worker of SERVER. `inside` is a command that runs the whole of it,
    such as unshare.
    """

    name = ""
    #: How long (seconds) it has to be left alone before a HUP is heard at once.
    settles = 0.3

    def __init__(self, *words: str, workers: int = 1, inside: tuple[str, ...] = ()) -> None:
        self.server = (*SERVER, *words)
        self.workers = workers
        self.inside = inside
        self.port = free_port()
        self.events = Events()
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by __exit__)
        self.pid = 0
        self.worker = 0

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.events.close()
        self.errors.close()

    def command(self) -> tuple[str, ...]:
        raise NotImplementedError

    def start(self) -> float:
        """Start it; the moment just before its exec."""
        before = time.monotonic()
        self.pid = self.spawn((*self.inside, *self.command()))
        return before

    def spawn(self, argv: tuple[str, ...], listener: int | None = None, **extra: str) -> int:
        actions = [
            (os.POSIX_SPAWN_DUP2, self.events.write, 1),
            (os.POSIX_SPAWN_DUP2, self.errors.fileno(), 2),
        ]
        if listener is not None:
            actions.append((os.POSIX_SPAWN_DUP2, listener, 3))
        defaults = [signal.SIGPIPE, signal.SIGXFSZ]
        return os.posix_spawnp(
            argv[0],
            argv,
            {**ENVIRONMENT, **extra},
            file_actions=actions,
            setsid=True,
            setsigdef=defaults,
        )

    def serve(self) -> None:
        """Start it, and return once it serves and is at rest."""
        before = self.start()
        self.settle(before)

    def settle(self, before: float) -> None:
        self.worker = self.events.wait("listening", after=before).pid
        time.sleep(self.settles)

    def swap(self) -> Swap:
        """Swap generations, and return when the old one has gone."""
        old = self.worker
        with Gone(old) as gone:
            asked = time.monotonic()
            os.kill(self.pid, signal.SIGHUP)
            left = gone.wait()
        main = self.events.wait("main", after=asked)
        self.worker = main.pid
        listening = self.events.wait("listening", pid=main.pid)
        return Swap(
            asked, main.moment, listening.moment, self.events.wait("term", pid=old).moment, left
        )

    def stop(self) -> None:
        if self.pid:
            end(self.pid)
            self.pid = 0

    def complaints(self) -> str:
        """The end of what it wrote to stderr."""
        size = os.fstat(self.errors.fileno()).st_size
        return os.pread(self.errors.fileno(), 1500, max(0, size - 1500)).decode(errors="replace")


class Sidecar(Contestant):
    name = "sidecar"
    program: tuple[str, ...] = (str(ROOT / ".venv/bin/sidecar"),)

    def command(self) -> tuple[str, ...]:
        return (
            *self.program,
            "run",
            "--port",
            f"127.0.0.1:{self.port}",
            "--workers",
            str(self.workers),
            "--",
            *self.server,
        )


class Module(Sidecar):
    """`python -m sidecar` instead of the console script."""

    program = (str(ROOT / ".venv/bin/python"), "-m", "sidecar")


class StartServer(Contestant):
    """With its default --interval 1: the old generation is told to leave when the new one has lived
    for a second.
    """

    name = "start_server"
    settles = 1.3

    def command(self) -> tuple[str, ...]:
        return (START_SERVER, f"--port=127.0.0.1:{self.port}", "--interval=1", "--", *self.server)


class Alone(Contestant):
    """No supervisor. The bench holds the listener, and swaps by hand with perfect knowledge: the
    floor of what is possible.
    """

    name = "alone"

    def __enter__(self):
        self.listener: socket.socket | None = None
        self._beside: list[int] = []
        self.generation = 0
        return self

    def command(self) -> tuple[str, ...]:
        return self.server

    def start(self) -> float:
        """Start the server, which binds for itself."""
        before = time.monotonic()
        self.pid = self.spawn((*self.inside, *self.command()), BENCH_PORT=str(self.port))
        return before

    def start_held(self) -> float:
        """Start a server on the bench's listener; the moment just before its exec."""
        if self.listener is None:
            self.listener = socket.create_server(("127.0.0.1", self.port), backlog=socket.SOMAXCONN)
        before = time.monotonic()
        self.generation += 1
        given = {
            "SERVER_STARTER_PORT": f"127.0.0.1:{self.port}=3",
            "SERVER_STARTER_GENERATION": str(self.generation),
        }
        self.pid = self.spawn(self.server, self.listener.fileno(), **given)
        return before

    def serve(self) -> None:
        self.settle(self.start_held())

    def swap(self) -> Swap:
        old = self.pid
        with Gone(old) as gone:
            asked = self.start_held()
            listening = self.events.wait("listening", pid=self.pid)
            os.kill(old, signal.SIGTERM)
            left = gone.wait()
            os.waitpid(old, 0)
        main = self.events.wait("main", pid=self.pid)
        return Swap(
            asked, main.moment, listening.moment, self.events.wait("term", pid=old).moment, left
        )

    def start_beside(self) -> float:
        """Start a server beside the one that serves, which stays the one that is stopped; the
        moment before.
        """
        serving = self.pid
        before = self.start_held()
        self._beside.append(self.pid)
        self.pid = serving
        return before

    def boot(self) -> tuple[float, float]:
        """Seconds from exec to the server's first line, and to the moment it takes connections; it
        is stopped again.
        """
        before = self.start_held()
        ready = self.events.wait("listening", pid=self.pid)
        line = self.events.wait("main", pid=self.pid)
        self.stop()
        return line.moment - before, ready.moment - before

    def __exit__(self, *_: object) -> None:
        for pid in self._beside:
            end(pid)
        super().__exit__()
        if self.listener is not None:
            self.listener.close()


class Gone:
    """Waits until a process that need not be our child has exited, by a pidfd: no polling, the
    moment is exact.
    """

    def __init__(self, pid: int) -> None:
        self.fd = os.pidfd_open(pid)
        self.pid = pid

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def wait(self) -> float:
        if not select.select([self.fd], [], [], PATIENCE)[0]:
            raise NotMeasured(f"process {self.pid} was still there after {PATIENCE:g} s")
        return time.monotonic()


def end(pid: int) -> None:
    """Stop a child of ours by its pid (or what it has started, if it is an `unshare`): TERM, and
    KILL if that does not help.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        with Gone(pid) as gone:
            os.kill(inner(pid), number)
            if select.select([gone.fd], [], [], PATIENCE)[0]:
                break
    os.waitpid(pid, 0)


def inner(pid: int) -> int:
    """What an `unshare --fork` has started; any other process itself."""
    is_unshare = Path(f"/proc/{pid}/comm").read_text() == "unshare\n"
    return (children(pid) or [pid])[0] if is_unshare else pid


def cpu(pid: int) -> float:
    """The milliseconds of CPU that a process has used, to the nanosecond (its main thread: none of
    the contestants has another).
    """
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def adopt() -> None:
    """Become the parent of what the contestants leave behind, so that it is found."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def leftovers() -> list[str]:
    """Kill and reap every process that is left below the bench; what they were."""
    left = []
    while found := children(os.getpid()):
        for pid in found:
            words = (
                Path(f"/proc/{pid}/cmdline")
                .read_bytes()
                .replace(b"\0", b" ")
                .decode(errors="replace")
                .strip()
            )
            left.append(f"{pid} {words or '(zombie)'}")
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return left


def free_port() -> int:
    """A port that nobody has, below those that the kernel gives to clients."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def may_unshare() -> bool:
    """Whether a pid namespace can be made here."""
    return (
        bool(shutil.which("unshare"))
        and subprocess.run([*UNSHARE, "true"], stderr=subprocess.DEVNULL, check=False).returncode
        == 0
    )


def install_start_server() -> str:
    """Make sure that Debian's start_server is here; what is wrong if it cannot be had, or an empty
    text.
    """
    if os.access(START_SERVER, os.X_OK):
        return ""
    how = "apt-get install libserver-starter-perl"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"{START_SERVER} is missing, to compare with; get it by: {how}"
    command = [
        "apt-get",
        "install",
        "-y",
        "-qq",
        "--no-install-recommends",
        "libserver-starter-perl",
    ]
    for step in (command, ["apt-get", "update", "-qq"], command):
        subprocess.run(
            step,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        if os.access(START_SERVER, os.X_OK):
            return ""
    return f"{START_SERVER} is missing and could not be installed; get it by: {how}"
