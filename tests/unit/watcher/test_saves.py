"""A save is told once, whichever program saves, and nothing else is."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.saves import (
    beside_and_replace,
    copied_tree,
    in_place,
    jetbrains,
    rsync,
    run,
    sed,
    visual_studio_code,
)
from tests.support import until
from tests.unit.watcher.watching import LONG, Watcher, exchange, names, nothing_more, switches

VIM = "vim" if shutil.which("vim") else "vim.tiny"


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size, info.mtime = len(text), int(time.time())
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


# How a file is saved: each function saves, and returns the paths that must be told.
def outside_and_replace(tree: Path) -> list[str]:
    (tree.parent / "draft").write_text("new = 1\n")
    os.replace(tree.parent / "draft", tree / "pkg" / "mod.py")
    return ["pkg/mod.py"]


def vim_by_renaming(tree: Path) -> list[str]:
    settings = "set nocp swapfile writebackup backupcopy=no backupskip="
    run(VIM, "-u", "NONE", "-es", "-c", settings, "-c", "%s/old/new/", "-c", "wq", tree / "app.py")
    return ["app.py"]


def vim_in_place(tree: Path) -> list[str]:
    settings = "set nocp swapfile writebackup backupcopy=yes backupskip="
    run(VIM, "-u", "NONE", "-es", "-c", settings, "-c", "%s/old/new/", "-c", "wq", tree / "app.py")
    return ["app.py"]


def unpacked(tree: Path) -> list[str]:
    (tree.parent / "a.tar").write_bytes(archive(app_py="x", new__deep__file="y", pkg__mod="z"))
    run("tar", "-xf", tree.parent / "a.tar", "-C", tree)
    return ["app_py", "new/deep/file", "pkg/mod"]


def put_archive(tree: Path) -> list[str]:
    """As the Docker engine does: what is there is removed first, then made anew."""
    with tarfile.open(
        fileobj=io.BytesIO(archive(**{"app.py": "new = 1\n", "pkg__mod.py": "new = 2\n"}))
    ) as tar:
        for member in tar:
            (tree / member.name).unlink(missing_ok=True)
            tar.extract(member, tree, filter="data") if hasattr(
                tarfile, "data_filter"
            ) else tar.extract(member, tree)
    return ["app.py", "pkg/mod.py"]


def directories_and_files_at_once(tree: Path) -> list[str]:
    (tree / "a" / "b" / "c" / "d").mkdir(parents=True)
    (tree / "a" / "b" / "c" / "d" / "e.py").write_text("e")
    (tree / "a" / "f.py").write_text("f")
    return ["a/b/c/d/e.py", "a/f.py"]


def moved_in(tree: Path) -> list[str]:
    outside = tree.parent / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub" / "new.py").write_text("new")
    os.rename(outside, tree / "inside")
    return ["inside/sub/new.py"]


def moved_out(tree: Path) -> list[str]:
    os.rename(tree / "pkg", tree.parent / "gone")
    return ["pkg/deep/leaf.py", "pkg/mod.py"]


def removed(tree: Path) -> list[str]:
    (tree / "app.py").unlink()
    return ["app.py"]


def renamed_inside(tree: Path) -> list[str]:
    os.rename(tree / "pkg", tree / "package")
    return ["package/deep/leaf.py", "package/mod.py", "pkg/deep/leaf.py", "pkg/mod.py"]


def exchanged_directories(tree: Path) -> list[str]:
    shutil.copytree(tree / "pkg", tree.parent / "other")
    (tree.parent / "other" / "deep" / "leaf.py").write_text("new = 3\n")
    exchange(tree / "pkg", tree.parent / "other")
    return ["pkg/deep/leaf.py"]


def exchanged_root(tree: Path) -> list[str]:
    shutil.copytree(tree, tree.parent / "other")
    (tree.parent / "other" / "pkg" / "mod.py").write_text("new = 2\n")
    exchange(tree, tree.parent / "other")
    return ["pkg/mod.py"]


def removed_and_made_again(tree: Path) -> list[str]:
    shutil.copytree(tree, tree.parent / "kept")
    shutil.rmtree(tree)
    shutil.copytree(tree.parent / "kept", tree)
    (tree / "app.py").write_text("new = 1\n")
    return ["app.py"]


def behind_a_link(tree: Path) -> list[str]:
    (tree.parent / "elsewhere" / "far.py").write_text("new")
    return ["link/far.py"]


def linked_file(tree: Path) -> list[str]:
    (tree.parent / "elsewhere" / "one.py").write_text("new")
    return ["one.py"]


SAVES = [
    in_place,
    visual_studio_code,
    beside_and_replace,
    outside_and_replace,
    jetbrains,
    vim_by_renaming,
    vim_in_place,
    sed,
    rsync,
    copied_tree,
    unpacked,
    put_archive,
    directories_and_files_at_once,
    moved_in,
    moved_out,
    removed,
    renamed_inside,
    exchanged_directories,
    exchanged_root,
    removed_and_made_again,
    behind_a_link,
    linked_file,
]
POLLED = [
    in_place,
    jetbrains,
    rsync,
    moved_in,
    exchanged_root,
    removed_and_made_again,
    linked_file,
]  # the comparison is the same for all


@pytest.mark.parametrize(
    ("save", "mode"), [*((each, "inotify") for each in SAVES), *((each, "poll") for each in POLLED)]
)
def test_a_save_is_told_once(
    start: Callable[..., Watcher], tree: Path, save: Callable[[Path], list[str]], mode: str
) -> None:
    """And what was saved is still watched afterwards."""
    elsewhere = tree.parent / "elsewhere"
    if save in (behind_a_link, linked_file):
        elsewhere.mkdir()
        (elsewhere / "far.py").write_text("old")
        (elsewhere / "one.py").write_text("old")
        (tree / ("link" if save is behind_a_link else "one.py")).symlink_to(
            elsewhere / ("" if save is behind_a_link else "one.py")
        )
    watcher = start([tree], mode=mode, settle=LONG)
    assert watcher.watching()["mode"] == mode
    expected = save(tree)
    assert names(tree, watcher.changed()) == expected
    again = [each for each in expected if (tree / each).exists()][-1:]
    for name in again:
        (tree / name).write_text("and again\n")
    nothing_more(watcher, tree, *again)
    assert watcher.close() == 0


@pytest.mark.parametrize("mode", ["inotify", "poll"])
def test_what_leaves_the_content_alone_is_not_told(
    start: Callable[..., Watcher], tree: Path, mode: str
) -> None:
    (tree / "__pycache__").mkdir()
    watcher = start([tree], mode=mode, settle=LONG)
    watcher.watching()
    app = tree / "app.py"
    os.utime(app)  # touch
    (tree / "pkg" / "mod.py").write_text("old = 2\n")  # saved as it was
    (tree / "pkg" / "deep" / "leaf.py").chmod(0o755)
    (tree / ".app.py.swp").write_text("an editor's")
    (tree / "draft.txt").write_text("an editor's")
    (tree / "draft.txt").unlink()
    (tree / "__pycache__" / "app.pyc").write_text("ignored")
    (tree / "new" / "and" / "empty").mkdir(parents=True)
    os.link(app, tree.parent / "a second link")
    shutil.copy2(app, tree / "same")
    os.replace(tree / "same", app)
    app.read_text()
    nothing_more(watcher, tree)


def test_a_checkout_of_many_files_is_one_change(start: Callable[..., Watcher], tree: Path) -> None:
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", tree)
    run(*git, "init", "-q", "-b", "one")
    for number in range(1000):
        (tree / f"f{number:04}.py").write_text("one\n")
    run(*git, "add", ".")
    run(*git, "commit", "-qm", "one")
    run(*git, "checkout", "-qb", "two")
    for number in range(1000):
        (tree / f"f{number:04}.py").write_text("two!\n")
    run(*git, "commit", "-qam", "two")
    watcher = start([tree], settle=LONG)
    watcher.watching()
    run(*git, "checkout", "-q", "one")
    event = watcher.next()
    assert (event["event"], event["count"], len(event["paths"])) == ("changed", 1000, 20)
    assert names(tree, event["paths"][:2]) == ["f0000.py", "f0001.py"]
    nothing_more(watcher, tree)


def test_no_file_is_read_between_truncating_and_writing(
    start: Callable[..., Watcher], tree: Path
) -> None:
    """The settle time is far shorter than the writer's pause, which ends when the watcher has had
    its turn.
    """
    watcher = start([tree], settle=0.01)
    watcher.watching()
    with open(tree / "app.py", "w") as file:
        before = switches(watcher.pid)
        until(lambda: switches(watcher.pid) >= before + 10, "ten turns of the watcher")
        file.write("new = 1\n")
    assert names(tree, watcher.changed()) == ["app.py"]
    nothing_more(watcher, tree)


def test_a_file_that_is_never_closed_is_told_all_the_same(
    start: Callable[..., Watcher], tree: Path
) -> None:
    watcher = start([tree])
    watcher.watching()
    with open(tree / "app.log", "w") as file:
        file.write("a line\n")
        file.flush()
        assert names(tree, watcher.changed()) == ["app.log"]
