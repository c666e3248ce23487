"""How watchdog is best used: `python -m bench.watching [--runs N]`.

The head of sidecar/watch/inotify.py says what was decided, with the figures of this script. Each
way runs in a process of its own, on the same tree, one after the other in each run:

    own loop        as sidecar does it: watchdog's InotifyFD, read in the loop that waits for all
                    else
    emitter         an EventEmitter of our own, which watches the same directories, and BaseObserver
    stock           watchdog's Observer, recursive, with an event filter

Measured is the way to the loop that would decide something: of each event that thread is told.
"""
# Each way runs in a process of its own and imports there what it needs.
# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import collections
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DIRECTORIES = 1000
SAVES = 200
STORM_FILES = 10_000
OVERFLOW_FILES = 20_000
REST_S = 5.0
LIMIT = 300  # watches, in the test of the limit
PAUSE_S = 0.01  # between two looks at the queue during a burst, as sidecar/watch/watcher.py has it


# --- the ways


class OwnLoop:
    """sidecar.watch.inotify."""

    def __init__(self, root: str) -> None:
        from sidecar.watch.inotify import Inotify

        self._inotify = Inotify()
        self.fd = self._inotify.fd
        self.directories = 0
        for each, _, _ in os.walk(root):
            self._inotify.watch(each)
            self.directories += 1

    def read(self) -> list[tuple[bool, str]]:
        """(whether events were lost, the name) of what has happened."""
        return [(each.overflow, each.name) for each in self._inotify.read()]


class _Threads:
    """What both ways with watchdog's threads have in common: a handler that wakes the loop."""

    directories = -1

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._events: collections.deque[tuple[bool, str]] = collections.deque()

    def dispatch(self, event: object) -> None:
        """Called by watchdog's dispatcher thread."""
        path = getattr(event, "dest_path", "") or getattr(event, "src_path", "")
        self._events.append((path == "overflow", os.path.basename(path)))
        os.eventfd_write(self.fd, 1)

    def read(self) -> list[tuple[bool, str]]:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        return [self._events.popleft() for _ in range(len(self._events))]


class Emitter(_Threads):
    """An EventEmitter of our own and BaseObserver."""

    def __init__(self, root: str) -> None:
        super().__init__()
        from watchdog.events import FileModifiedEvent
        from watchdog.observers.api import BaseObserver, EventEmitter
        from watchdog.observers.inotify_c import CallbackId, InotifyFD, Mask

        from sidecar.watch import inotify

        way = self

        class Directories(EventEmitter):
            def on_thread_start(self) -> None:
                self._fd = InotifyFD()
                self._paths = {}
                mask = Mask(inotify._NAMES | inotify._CONTENT | inotify._FLAGS)
                for each, _, _ in os.walk(root):
                    wd = self._fd.add_callback(os.fsencode(each), mask, way, CallbackId(0))
                    self._paths[wd] = each
                way.directories = len(self._paths)

            def queue_events(self, timeout: float) -> None:
                for event in self._fd.read_events():
                    if event.is_queue_overflow:
                        self.queue_event(FileModifiedEvent("overflow"))
                    elif (path := self._paths.get(event.wd)) is not None:
                        name = os.fsdecode(event.name)
                        self.queue_event(FileModifiedEvent(os.path.join(path, name)))

        self._observer = BaseObserver(Directories)
        self._observer.schedule(self, root)
        self._observer.start()


class Stock(_Threads):
    """watchdog's Observer."""

    def __init__(self, root: str) -> None:
        super().__init__()
        from watchdog import events
        from watchdog.observers.inotify import InotifyObserver

        kinds = ("Created", "Modified", "Moved", "Deleted")
        wanted = [
            getattr(events, f"{what}{kind}Event") for what in ("File", "Dir") for kind in kinds
        ]
        self._observer = InotifyObserver()
        self._observer.schedule(
            self, root, recursive=True, event_filter=[*wanted, events.FileClosedEvent]
        )
        self._observer.start()


WAYS = {"own loop": OwnLoop, "emitter": Emitter, "stock": Stock}


# --- the watching process


def usage() -> dict[str, float]:
    """CPU in ms and context switches of all threads of this process, and how many those are."""
    switches = 0
    tasks = os.listdir("/proc/self/task")
    for task in tasks:
        status = Path(f"/proc/self/task/{task}/status").read_text()
        switches += sum(
            int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line
        )
    return {"cpu": time.process_time() * 1000, "switches": switches, "threads": len(tasks)}


def watch(name: str, root: str) -> None:
    """Watch, and answer each line of standard input with what has been seen since the last."""
    rss = resident()
    before = time.monotonic()
    try:
        way = WAYS[name](root)
    except Exception as error:
        print(json.dumps({"error": repr(error)}), flush=True)
        return
    started = {
        "start": (time.monotonic() - before) * 1000,
        "rss": resident() - rss,
        "directories": way.directories,
    }
    print(json.dumps(started), flush=True)
    waiting, pause = select.poll(), select.poll()
    for fd in (0, way.fd):
        waiting.register(fd, select.POLLIN)
    pause.register(0, select.POLLIN)
    seen: dict[str, float] = {}
    count = overflows = 0
    last = usage()
    burst = False
    while True:
        ready = {
            fd for fd, _ in (pause if burst else waiting).poll(PAUSE_S * 1000 if burst else None)
        }
        events = way.read()
        now = time.monotonic()
        for lost, each in events:
            count += 1
            overflows += lost
            seen.setdefault(each, now)
        burst = bool(events)
        if 0 in ready:
            line = os.read(0, 4096).decode()
            if not line:
                return
            present = usage()
            answer = {
                "seen": seen,
                "count": count,
                "overflows": overflows,
                "threads": present["threads"],
                "cpu": present["cpu"] - last["cpu"],
                "switches": present["switches"] - last["switches"],
            }
            print(json.dumps(answer), flush=True)
            seen, count, overflows, last = {}, 0, 0, usage()


def resident() -> float:
    """Memory of this process in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


# --- the measuring process


class Watching:
    """One process that watches."""

    def __init__(self, way: str, root: Path, *prefix: str) -> None:
        command = [*prefix, sys.executable, "-m", "bench.watching", "--watch", way, str(root)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self._out = self._process.stdout
        self.started = json.loads(self._out.readline() or '{"error": "it ended"}')

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def report(self) -> dict:
        assert self._process.stdin is not None
        self._process.stdin.write(b"report\n")
        self._process.stdin.flush()
        return json.loads(self._out.readline())

    def quiet(self) -> dict:
        """A report when nothing more comes; the counts of all until then."""
        total = self.report()
        while True:
            time.sleep(0.6)
            more = self.report()
            for name in ("count", "overflows", "cpu", "switches"):
                total[name] += more[name]
            total["seen"] |= more["seen"]
            if not more["count"]:
                return total

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out.close()


def save(path: Path, text: str) -> float:
    """As editors do it; the moment before."""
    other = path.with_name(f".{path.name}.tmp")
    other.write_text(text)
    before = time.monotonic()
    os.replace(other, path)
    return before


def measure(way: str, root: Path, figures: dict[str, list[float]]) -> None:
    """One run of everything for one way."""
    with Watching(way, root) as watching:
        for name in ("start", "rss"):
            figures[name].append(watching.started[name])
        time.sleep(0.5)
        watching.report()
        time.sleep(REST_S)
        figures["threads"].append(watching.report()["threads"])
        time.sleep(REST_S)
        resting = watching.report()
        figures["wake-ups at rest"].append(resting["switches"] - 1)  # the report itself
        moments = {}
        for number in range(SAVES):
            path = root / f"{number:03}" / f"new{number}.py"
            moments[path.name] = save(path, str(number))
            time.sleep(0.02)
        seen = watching.quiet()["seen"]
        latencies = [
            (seen[name] - moment) * 1000 for name, moment in moments.items() if name in seen
        ]
        figures["latency"].append(statistics.median(latencies))
        figures["latency max"].append(max(latencies))
        figures["saves missed"].append(SAVES - len(latencies))
        begin = time.monotonic()
        names = set()
        for number in range(STORM_FILES // 2):  # git unlinks and writes; editors rename
            path = root / f"{number % DIRECTORIES:03}" / f"storm{number}.py"
            path.write_text("x")
            other = path.with_name(f"moved{number}.py")
            save(other, "y")
            names |= {path.name, other.name}
        end = time.monotonic()
        figures["storm took"].append((end - begin) * 1000)
        storm = watching.quiet()
        figures["storm cpu"].append(storm["cpu"])
        figures["storm switches"].append(storm["switches"])
        figures["storm missed"].append(len(names - storm["seen"].keys()))
        figures["storm overflows"].append(storm["overflows"])
        last = max(storm["seen"].values())
        figures["storm told after"].append((last - end) * 1000)
        watching.signal(signal.SIGSTOP)
        for number in range(OVERFLOW_FILES):
            (root / f"{number % DIRECTORIES:03}" / "flood.py").write_text(str(number))
        watching.signal(signal.SIGCONT)
        overflow = watching.quiet()
        figures["overflows told"].append(overflow["overflows"])
        save(root / "000" / "probe.py", "1")
        figures["probe seen after overflow"].append("probe.py" in watching.quiet()["seen"])
    limit = (
        "unshare", "-r", "sh", "-c",
        f'echo {LIMIT} > /proc/sys/user/max_inotify_watches && exec "$@"', "sh",
    )  # fmt: skip
    with Watching(way, root, *limit) as watching:
        figures["told at the watch limit"].append("error" in watching.started)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.watching")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--watch", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.watch:
        watch(*chosen.watch)
        return 0
    figures = {way: collections.defaultdict(list) for way in WAYS}
    for _ in range(chosen.runs):
        for way in WAYS:
            with tempfile.TemporaryDirectory(prefix="sidecar-bench-", dir="/dev/shm") as directory:
                root = Path(directory)  # in memory: a disk would be measured too
                for number in range(DIRECTORIES):
                    (root / f"{number:03}").mkdir()
                    (root / f"{number:03}" / "a.py").write_text("a")
                measure(way, root, figures[way])
    print(f"load {os.getloadavg()[0]:.1f}, {chosen.runs} runs; median (least to most)")
    for name in next(iter(figures.values())):
        cells = []
        for way in WAYS:
            runs = [float(each) for each in figures[way][name]]
            cells.append(f"{statistics.median(runs):10.2f} ({min(runs):.2f} to {max(runs):.2f})")
        print(f"{name:28}" + "".join(f"{cell:34}" for cell in cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
