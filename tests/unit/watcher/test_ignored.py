"""What is ignored, and what is told in another way."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.watcher.watching import LONG, Watcher, names, nothing_more


def test_what_is_ignored_is_neither_watched_nor_told(
    start: Callable[..., Watcher], tree: Path
) -> None:
    for number in range(50):
        (tree / "node_modules" / f"m{number}" / "lib").mkdir(parents=True)
    (tree / ".git" / "refs").mkdir(parents=True)
    (tree / "logs").mkdir()
    (tree / "pkg" / ".gitignore").write_text("*.gen\n!kept.gen\n")
    (tree / ".dockerignore").write_text("secret\n")
    watcher = start([tree], settle=LONG, ignore=["/logs/", "*.tmp"])
    assert watcher.watching()["directories"] == 3
    for name in (
        "logs/a",
        "a.tmp",
        "pkg/a.gen",
        "secret",
        ".git/HEAD",
        "node_modules/m1/x.js",
        "pkg/secret",
        "pkg/kept.gen",
        "b.gen",
    ):
        (tree / name).write_text("new")
    assert names(tree, watcher.changed()) == ["b.gen", "pkg/kept.gen", "pkg/secret"]
    # The rules change: what they only show or hide has not changed.
    (tree / "pkg" / ".gitignore").write_text("kept.gen\n")
    nothing_more(watcher, tree)
    (tree / "pkg" / "a.gen").write_text("now it counts")
    (tree / "pkg" / "kept.gen").write_text("and this does not")
    assert names(tree, watcher.changed()) == ["pkg/a.gen"]


def test_what_sidecar_writes_itself_never_counts(start: Callable[..., Watcher], tree: Path) -> None:
    """By whatever path it was named, whatever the rules take back; its rotated logs neither."""
    (tree.parent / "shared").mkdir()
    (tree / "logs").symlink_to("../shared")
    watcher = start(
        [tree], settle=LONG, ignore=["!*"],
        own=["out.txt", str(tree / "status"), "logs/sidecar.log"], cwd=tree,
    )  # fmt: skip
    watcher.watching()
    for name in ("out.txt", "out.txt.1", "out.txt-20260131.gz", "status", "status.4711", "status.failed",
                 "status.failed.4711", "logs/sidecar.log", "logs/sidecar.log.1.gz"):  # fmt: skip
        (tree / name).write_text("written by sidecar")
    nothing_more(watcher, tree)
    for name in ("out.txt.py", "pkg/out.txt", "status_page.py", "logs/app.log"):
        (tree / name).write_text("written by others")
    assert names(tree, watcher.changed()) == [
        *("logs/app.log", "out.txt.py", "pkg/out.txt", "status_page.py")
    ]


@pytest.mark.parametrize("link", [False, True], ids=["file", "link"])
def test_a_settings_file_is_told_as_such(
    start: Callable[..., Watcher], tree: Path, link: bool
) -> None:
    real = tree / "pkg" / "production.yml" if link else tree / "sidecar.yml"
    real.write_text("workers: 1\n")
    if link:
        (tree / "sidecar.yml").symlink_to(real)
    watcher = start([tree], settle=LONG, settings="sidecar.yml", cwd=tree)
    watcher.watching()
    (tree / "app.py").write_text("new")
    assert not watcher.next()["settings"]
    real.write_text("workers: 2\n")
    assert watcher.next()["settings"]


def test_only_some_files_count(start: Callable[..., Watcher], tree: Path) -> None:
    watcher = start([tree], settle=LONG, only=["*.py", "/end"])
    watcher.watching()
    (tree / "pkg" / "notes.txt").write_text("x")
    (tree / "pkg" / "mod.py").write_text("new")
    assert names(tree, watcher.changed()) == ["pkg/mod.py"]
    nothing_more(watcher, tree)


def test_a_file_the_program_writes_again_and_again_is_named(
    start: Callable[..., Watcher], tree: Path
) -> None:
    """The program is a process below the watcher's parent, as it is below sidecar."""
    watcher = start(["."], cwd=tree, settle=0.01)
    watcher.watching()
    with subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, stdout=open(tree / "app.log", "wb")
    ) as program:
        assert watcher.changed() == ["app.log"]
        for _ in range(3):
            program.stdin.write(b"x")
            program.stdin.flush()
            assert watcher.changed() == ["app.log"]
        remark = watcher.next()
        program.stdin.close()
    assert remark["event"] == "notice"
    assert f"process {program.pid} of the program" in remark["text"]
    assert "--watch-ignore '/app.log'" in remark["text"]


def test_a_file_that_somebody_saves_again_and_again_is_named_later(
    start: Callable[..., Watcher], tree: Path
) -> None:
    watcher = start(["."], cwd=tree, settle=0.01)
    watcher.watching()
    for number in range(12):
        (tree / "app.py").write_text("x" * number)
        assert watcher.changed() == ["app.py"]
    assert "app.py has changed 12 times in a row" in watcher.next()["text"]
