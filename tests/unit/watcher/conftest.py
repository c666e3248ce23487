"""Watchers that end with the test, and a tree for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.watcher.watching import Watcher


@pytest.fixture
def start() -> Iterator[Callable[..., Watcher]]:
    started = []

    def begin(*args: object, **config: object) -> Watcher:
        started.append(Watcher(*args, **config))
        return started[-1]

    yield begin
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small application, and beside it whatever a test needs."""
    tree = tmp_path / "tree"
    (tree / "pkg" / "deep").mkdir(parents=True)
    (tree / "app.py").write_text("old = 1\n")
    (tree / "pkg" / "mod.py").write_text("old = 2\n")
    (tree / "pkg" / "deep" / "leaf.py").write_text("old = 3\n")
    return tree


@pytest.fixture
def memory() -> Iterator[int]:
    fd = os.memfd_create("memory", 0)
    yield fd
    os.close(fd)
