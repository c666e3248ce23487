"""The watcher by itself: real trees, real programs that save, and what it tells a pipe.

That something was told once, or not at all, is seen without waiting for time to pass: afterwards a
file of its own (`end`) is written, and the next thing that is told must be that file, and nothing
besides.

The settle time is long where a sequence takes time itself, so that a slow machine does not make two
of one.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support import PATIENCE, ROOT

LONG = 0.4


class Watcher:
    """The helper process, as PID 1 starts it, with what it has told."""

    def __init__(
        self,
        watch: list[object] = (),
        memory: int | None = None,
        prefix: tuple[str, ...] = (),
        cwd: object = None,
        **config: object,
    ):
        config = {
            "watch": [str(each) for each in watch],
            "mode": "auto",
            "env_poll": 600,
            "memory": memory,
            **config,
        }
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "sidecar.watch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=cwd,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "SIDECAR_WATCHER": json.dumps(config),
            },
            pass_fds=[] if memory is None else [memory],
        )
        self.pid = self.process.pid
        self.events: list[dict] = []
        self._taken = 0
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            assert len(line) < 4000
            with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self.events.append({"event": "end"})
            self._news.notify_all()

    def next(self) -> dict:
        """Wait for what is told next."""
        with self._news:
            if not self._news.wait_for(lambda: len(self.events) > self._taken, PATIENCE):
                raise AssertionError(f"nothing is told after {self.events}")
        self._taken += 1
        return self.events[self._taken - 1]

    def watching(self) -> dict:
        event = self.next()
        assert event["event"] == "watching", self.events
        return event

    def changed(self) -> list[str]:
        event = self.next()
        assert event["event"] == "changed", self.events
        return event["paths"]

    def env(self) -> dict:
        event = self.next()
        assert event["event"] == "env", self.events
        return event

    def told(self) -> set[str]:
        """Every path told so far."""
        return {
            path
            for each in list(self.events)
            if each["event"] == "changed"
            for path in each["paths"]
        }

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE)

    def close(self) -> int:
        """End it as sidecar's end does."""
        self.process.stdin.close()
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.process.stdout.close()
        return status


def names(tree: Path, paths: list[str]) -> list[str]:
    return [os.path.relpath(each, tree) for each in paths]


def nothing_more(watcher: Watcher, tree: Path, *also: str) -> None:
    """The next that is told is a file written now (and `also`)."""
    (tree / "end").write_text(f"{time.monotonic()}")
    assert names(tree, watcher.changed()) == sorted(["end", *also])


def exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) != 0:
        pytest.skip(f"renameat2: {os.strerror(ctypes.get_errno())}")


def kubernetes(volume: Path, files: dict[str, str], new_order: bool) -> None:
    """Kubernetes' atomic writer (pkg/volume/util/atomic_writer.go), with the order of its steps
    before and since the change.
    """
    data = volume / "..data"
    before = os.readlink(data) if data.is_symlink() else None
    stamp = volume / f"..2026_11_22_{time.monotonic_ns()}"
    stamp.mkdir()
    for name, text in files.items():
        (stamp / name).parent.mkdir(exist_ok=True)
        (stamp / name).write_text(text)

    def links() -> None:
        for name in {each.partition("/")[0] for each in files}:
            if not (volume / name).is_symlink():
                (volume / name).symlink_to(f"..data/{name}")

    if not new_order:
        links()
    (volume / "..data_tmp").symlink_to(stamp.name)
    os.rename(volume / "..data_tmp", data)
    if new_order:
        links()
    for path in volume.iterdir():
        if (
            path.is_symlink()
            and not path.name.startswith("..")
            and path.name not in {each.partition("/")[0] for each in files}
        ):
            path.unlink()
    if before:
        shutil.rmtree(volume / before)


def status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise KeyError(field)


def switches(pid: int) -> int:
    """How often its threads have gone to sleep."""
    return sum(
        int(line.split()[1])
        for each in Path(f"/proc/{pid}/task").iterdir()
        for line in (each / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt")
    )


def asleep(pid: int, long: float = 0.2) -> bool:
    """It waits, and not for a moment only."""
    before = switches(pid)
    time.sleep(long)
    return switches(pid) <= before + 1
