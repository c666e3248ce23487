"""The dev loop: from a save to the first response with the new code; what is lost meanwhile; what
watching costs.

A server that reloads by itself is measured beside the same server under `sidecar run --watch`, in
turns, on the same file: `alone` is then the server's own reloader. A save is a new file renamed
over the old one, as editors do it. What is installed nowhere is left out.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.contestants import BENCH, ENVIRONMENT, PYTHON, ROOT, NotMeasured, children, free_port
from bench.figures import Figure
from bench.load import Load, lost, worst
from bench.parts import Plan
from bench.parts.rest import Usage

SETTLE = 0.05
TARGET = 25.0  # ms
BIN = ROOT / ".venv/bin"
SAVED = (BENCH / "apps/saved.py").read_text()
#: A reloader that has not served the new code by then has not seen the save.
LATEST = 6.0
RATE = 50.0
#: Behind each save, so that what a reload costs falls into its own window.
REST = 0.5


class Tree:
    """The directory that is saved into."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.number = 0
        self.save()

    def save(self) -> tuple[float, bytes]:
        """The moment just before the rename, and what is to be answered from then on."""
        self.number += 1
        version = b"%d" % self.number
        (self.place / ".app.py.swp").write_text(
            SAVED.replace('VERSION = b"0"', f"VERSION = {version!r}")
        )
        before = time.monotonic()
        os.replace(self.place / ".app.py.swp", self.place / "app.py")
        return before, version


def ask(port: int) -> bytes:
    """The body of an answer, or nothing."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2.0) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            data = b""
            while more := sock.recv(4096):
                data += more
                if data.partition(b"\r\n\r\n")[2]:
                    break
            return data.partition(b"\r\n\r\n")[2]
    except OSError:
        return b""


def answered(
    port: int, version: bytes, patience: float = LATEST, pause: float = 0.002
) -> float | None:
    """The moment of the first answer that is this version; None if it never comes."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if ask(port) == version:
            return time.monotonic()
        time.sleep(pause)
    return None


@contextlib.contextmanager
def running(words: list[object], place: Path, stdin: str = "", **extra: str) -> Iterator[int]:
    """The program, in a session of its own, of which nothing is left afterwards; its pid."""
    source = subprocess.DEVNULL
    if stdin:
        source, write = os.pipe()
        os.write(write, stdin.encode())
        os.close(write)
    environment = {
        **ENVIRONMENT,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": f"{BIN}:{ENVIRONMENT['PATH']}",
        **extra,
    }
    process = subprocess.Popen(
        [str(word) for word in words],
        cwd=place, env=environment, stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    if stdin:
        os.close(source)
    try:
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # A reloader need not take its children along.
        for pid in descendants(os.getpid()):
            with contextlib.suppress(OSError):
                if os.getsid(pid) == process.pid or pid in children(os.getpid()):
                    os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)


def descendants(pid: int) -> list[int]:
    found = []
    for each in children(pid):
        found += [each, *descendants(each)]
    return found


def sidecar(port: int, *command: object, options: tuple[str, ...] = ()) -> list[object]:
    return [
        BIN / "sidecar",
        "run",
        "--port",
        f"127.0.0.1:{port}",
        "--watch",
        ".",
        *options,
        "--",
        *command,
    ]


# --- the parts


def measure(plan: Plan) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as directory:
        place = Path(directory)
        return [
            *latency(place, plan),
            *rivals(place, plan),
            *trees(place, plan),
            *rest(place, plan),
        ]


def latency(directory: Path, plan: Plan) -> list[Figure]:
    """Save → first new response, less the server's boot, with a server that boots as fast as a
    Python can.
    """
    less = Figure(
        "dev loop",
        f"save → first new response, less boot and {SETTLE * 1000:g} ms to settle",
        "ms",
        target=("≤", TARGET),
    )
    boot = Figure("dev loop", "(the server's boot, subtracted)", "ms")
    tree = Tree(make(directory / "latency"))
    port = free_port()
    with running(sidecar(port, PYTHON, "-I", "-S", "app.py"), tree.place):
        if answered(port, b"1") is None:
            raise NotMeasured("sidecar run --watch never answered")
        time.sleep(1.0)
        for _ in range(plan.swaps):
            boot.add("alone", boots(tree))
            before, version = tree.save()
            moment = answered(port, version, pause=0.0005)
            if moment is None:
                raise NotMeasured("a save was never served")
            less.add("sidecar", (moment - before - SETTLE) * 1000)
            time.sleep(REST)
    less.less(statistics.median(boot.runs["alone"]))
    return [less, boot]


def boots(tree: Tree) -> float:
    """Milliseconds from the server's exec to its first answer, on a listener that is there already."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        port = listener.getsockname()[1]
        os.set_inheritable(listener.fileno(), True)
        before = time.monotonic()
        process = subprocess.Popen(
            [PYTHON, "-I", "-S", "app.py"],
            cwd=tree.place, env={**ENVIRONMENT, "SERVER_STARTER_PORT": f"x={listener.fileno()}"}, close_fds=False,
        )  # fmt: skip
        moment = answered(port, b"%d" % tree.number, pause=0.0)
        process.terminate()
        process.wait()
    if moment is None:
        raise NotMeasured("the server alone never answered")
    return (moment - before) * 1000


def rivals(directory: Path, plan: Plan) -> list[Figure]:
    """Each server's own reloader, and the same server under sidecar."""
    figures = []
    for name, server, own, extra in contestants():
        took = Figure("dev loop", f"{name}: save → first new response", "ms")
        failed = Figure(
            "dev loop",
            "… lost requests, a save",
            "",
            target=("≤", 0) if server else None,
            judged="sum",
        )
        longest = Figure("dev loop", "… worst latency (1 s and more: lost)", "ms")
        unseen = 0
        for who, words in (("sidecar", server), ("alone", own)):
            if not words:
                continue
            tree = Tree(make(directory / f"{name.split()[0]}-{who}"))
            port = free_port()
            command = [str(word).replace("PORT", str(port)) for word in words]
            listed = (
                "\n".join(map(str, tree.place.glob("*.py"))) + "\n" if command[0] == "entr" else ""
            )
            if who == "sidecar":
                command = sidecar(port, *command, options=("--drain-timeout", "3s"))
            with running(command, tree.place, listed, **extra):
                if answered(port, b"1", 15.0) is None:
                    raise NotMeasured(f"{name} ({who}) never answered")
                time.sleep(2.0)
                for _ in range(plan.saves):
                    with Load(port, 3.0, rate=RATE) as load:
                        time.sleep(load.begin + 0.5 - time.monotonic())
                        before, version = tree.save()
                        moment = answered(port, version, pause=0.01)
                        requests = load.end()
                    if moment is None:
                        unseen += 1
                    else:
                        took.add(who, (moment - before) * 1000)
                    failed.add(who, lost(requests))
                    longest.add(who, worst(requests) * 1000)
        if unseen:
            took.note = (
                f"{name}: {unseen} of {plan.saves} saves were not served within {LATEST:g} s"
            )
        figures += [took, failed, longest]
    return figures


def contestants() -> list[tuple[str, list[object], list[object], dict[str, str]]]:
    """Name; the server under sidecar; with its own reloader; its environment. What is not installed
    is left out.
    """
    listen = "127.0.0.1:PORT"
    everybody: list[tuple[str, list[object], list[object], dict[str, str]]] = [
        (
            "uvicorn --reload",
            ["uvicorn", "--log-level", "warning", "app:asgi"],
            ["uvicorn", "--log-level", "warning", "--port", "PORT", "--reload", "app:asgi"],
            {},
        ),
        (
            "gunicorn --reload",
            ["gunicorn", "--no-control-socket", "app:wsgi"],
            ["gunicorn", "--no-control-socket", "-b", listen, "--reload", "app:wsgi"],
            {},
        ),
        ("hypercorn --reload", ["hypercorn", "-w", "0", "app:asgi"], ["hypercorn", "-b", listen, "--reload", "app:asgi"], {}),
        ("granian --reload", [], ["granian", "--interface", "asgi", "--port", "PORT", "--reload", "app:asgi"], {}),
        (
            "Flask's reloader (stat)",
            [],
            [BIN / "python", "-c", "import sys; sys.path.insert(0, '.'); import app; from werkzeug.serving import run_simple; "
             "run_simple('127.0.0.1', PORT, app.wsgi, use_reloader=True, reloader_type='stat', threaded=True)"],
            {},
        ),
        ("entr -r uvicorn", [], ["entr", "-n", "-r", "uvicorn", "--log-level", "warning", "--port", "PORT", "app:asgi"], {}),
    ]  # fmt: skip
    found = []
    for each in everybody:
        program = str(each[2][0])
        if shutil.which(program, path=f"{BIN}:{ENVIRONMENT['PATH']}"):
            found.append(each)
        else:
            print(f"bench: dev loop: {program} is not installed: left out", file=sys.stderr)
    return found


def trees(directory: Path, plan: Plan) -> list[Figure]:
    """The watcher on trees of directories with two files each."""
    figures = []
    for count in plan.directories:
        place = directory / f"tree{count}"
        for number in range(count):
            sub = place / f"{number // 100:03}" / f"{number % 100:02}"
            sub.mkdir(parents=True, exist_ok=True)
            (sub / "a.py").write_text("a = 1\n")
            (sub / "b.py").write_text(f"b = {number}\n")
        start = Figure("dev loop", f"watching {count:,} directories: time to start", "ms")
        memory = Figure("dev loop", "… memory (VmRSS) of the watcher", "MB")
        watches = Figure("dev loop", "… inotify watches", "")
        for _ in range(plan.copies):
            config = json.dumps({"watch": [str(place)], "mode": "inotify"})
            before = time.monotonic()
            watcher = subprocess.Popen(
                [BIN / "python", "-I", "-m", "sidecar.watch"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**ENVIRONMENT, "SIDECAR_WATCHER": config},
            )
            assert watcher.stdin is not None
            assert watcher.stdout is not None
            said = json.loads(watcher.stdout.readline() or "{}")
            start.add("sidecar", (time.monotonic() - before) * 1000)
            try:
                if said.get("mode") != "inotify":
                    raise NotMeasured(
                        f"the watcher does not watch {count} directories by inotify: {said.get('why', 'it died')}"
                    )
                memory.add("sidecar", Usage.of(watcher.pid).rss_mb)
                watches.add("sidecar", armed(watcher.pid))
            finally:
                watcher.stdin.close()
                watcher.wait()
                watcher.stdout.close()
        shutil.rmtree(place)
        figures += [start, memory, watches]
    return figures


def armed(pid: int) -> int:
    """How many inotify watches the process has."""
    return sum(
        path.read_text().count("inotify wd:") for path in Path(f"/proc/{pid}/fdinfo").iterdir()
    )


def rest(directory: Path, plan: Plan) -> list[Figure]:
    """While nothing is saved."""
    waking = Figure(
        "dev loop",
        f"wake-ups of PID 1 in {plan.rest:g} s, watching code and an envdir",
        "",
        target=("≤", 0),
        judged="max",
    )
    ticking = Figure("dev loop", "… of the watcher, a second", "", target=("≤", 1), judged="max")
    cpu = Figure("dev loop", f"… CPU of the watcher in {plan.rest:g} s", "ms")
    tree = Tree(make(directory / "rest"))
    for number in range(1000):
        (tree.place / f"{number:03}").mkdir()
        (tree.place / f"{number:03}" / "a.py").write_text("a = 1\n")
    make(directory / "env")
    (directory / "env" / "A").write_text("a\n")
    port = free_port()
    options = ("--watch-env", "--envdir", str(directory / "env"))
    with running(sidecar(port, PYTHON, "-I", "-S", "app.py", options=options), tree.place) as pid:
        if answered(port, b"1") is None:
            raise NotMeasured("sidecar run --watch never answered")
        time.sleep(5.0)
        watcher = next(
            each
            for each in children(pid)
            if b"sidecar.watch" in Path(f"/proc/{each}/cmdline").read_bytes()
        )
        first, began = [Usage.of(each) for each in (pid, watcher)], time.monotonic()
        time.sleep(plan.rest)
        last, took = [Usage.of(each) for each in (pid, watcher)], time.monotonic() - began
        waking.add("sidecar", last[0].wakeups - first[0].wakeups)
        ticking.add("sidecar", (last[1].wakeups - first[1].wakeups) / took)
        cpu.add("sidecar", last[1].cpu_ms - first[1].cpu_ms)
    return [waking, ticking, cpu]


def make(place: Path) -> Path:
    place.mkdir()
    return place
