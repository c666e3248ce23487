"""Changes of an envdir are told by the names of the variables."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import until
from tests.unit.watcher.watching import Watcher, asleep, kubernetes


def test_an_envdir_tells_names(start: Callable[..., Watcher], tmp_path: Path) -> None:
    envdir = tmp_path / "env"
    envdir.mkdir()
    (envdir / "A").write_text("1")
    (envdir / "B").write_text("hush")
    watcher = start(env=[str(envdir)])
    watcher.watching()
    (envdir / "A").write_text("1")  # the same
    (envdir / "B").write_text("HUSH")
    assert watcher.env() == {"event": "env", "names": ["B"], "error": ""}
    (envdir / "B").unlink()
    (envdir / "C").write_text("3")
    names = set(watcher.env()["names"])
    while names != {"B", "C"}:
        names |= set(watcher.env()["names"])
    assert "HUSH" not in json.dumps(watcher.events)
    assert "hush" not in json.dumps(watcher.events)


@pytest.mark.parametrize("new_order", [False, True])
def test_an_envdir_of_kubernetes(
    start: Callable[..., Watcher], tmp_path: Path, new_order: bool
) -> None:
    volume = tmp_path / "env"
    volume.mkdir()
    kubernetes(volume, {"A": "1", "TOKEN": "1"}, new_order)
    watcher = start(env=[str(volume)])
    watcher.watching()
    kubernetes(volume, {"A": "1", "TOKEN": "1"}, new_order)
    kubernetes(volume, {"A": "2", "TOKEN": "1"}, new_order)
    assert watcher.env()["names"] == ["A"]
    kubernetes(volume, {"A": "3", "NEW": "1"}, new_order)
    names = set()
    while names != {"A", "TOKEN", "NEW"}:
        names |= set(watcher.env()["names"])


def test_an_envdir_that_cannot_be_read_and_comes_back(
    start: Callable[..., Watcher], tmp_path: Path
) -> None:
    envdir = tmp_path / "env"
    envdir.mkdir()
    (envdir / "A").write_text("1")
    watcher = start(env=[str(envdir)])
    watcher.watching()
    os.rename(envdir, tmp_path / "away")
    bad = watcher.env()
    assert str(envdir) in bad["error"]
    os.rename(tmp_path / "away", envdir)
    assert watcher.env() == {"event": "env", "names": [], "error": ""}
    (envdir / "A").write_text("2")
    assert watcher.env()["names"] == ["A"]


def test_an_envdir_that_changed_while_nobody_watched(
    start: Callable[..., Watcher], tmp_path: Path, memory: int
) -> None:
    envdir = tmp_path / "env"
    envdir.mkdir()
    (envdir / "A").write_text("hush hush")
    (envdir / "B").write_text("1")
    watcher = start(env=[str(envdir)], memory=memory)
    watcher.watching()
    (envdir / "B").write_text("2")
    assert watcher.env()["names"] == ["B"]
    until(lambda: asleep(watcher.pid), "rest")
    watcher.kill()
    (envdir / "A").write_text("another")
    again = start(env=[str(envdir)], memory=memory)
    again.watching()
    assert again.env()["names"] == ["A"]
    content = os.pread(memory, 1 << 20, 0) + os.pread(memory, 1 << 20, 1 << 32)
    assert b"hush hush" not in content
    assert b"another" not in content
