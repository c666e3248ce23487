"""What is watched: links, Kubernetes volumes, and roots that are not there yet."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.saves import in_place
from tests.unit.watcher.watching import LONG, Watcher, kubernetes, names, nothing_more


def test_a_root_that_is_a_swapped_symlink(start: Callable[..., Watcher], tmp_path: Path) -> None:
    """As git-sync does."""
    for number in (1, 2):
        (tmp_path / f"rev{number}" / "pkg").mkdir(parents=True)
        (tmp_path / f"rev{number}" / "app.py").write_text(f"{number}")
        (tmp_path / f"rev{number}" / "pkg" / "same.py").write_text("same")
    root = tmp_path / "current"
    root.symlink_to("rev1")
    watcher = start([root], settle=LONG)
    watcher.watching()
    (tmp_path / "next").symlink_to("rev2")
    os.replace(tmp_path / "next", root)
    assert names(root, watcher.changed()) == ["app.py"]
    nothing_more(watcher, root)
    (tmp_path / "rev2" / "pkg" / "same.py").write_text("differs")
    assert names(root, watcher.changed()) == ["pkg/same.py"]
    shutil.rmtree(tmp_path / "rev1")
    nothing_more(watcher, root)


@pytest.mark.parametrize("new_order", [False, True])
def test_a_kubernetes_volume_of_code(
    start: Callable[..., Watcher], tmp_path: Path, new_order: bool
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    kubernetes(
        volume, {"app.py": "1", "same.py": "same", "sub/deep.py": "1", "gone.py": "1"}, new_order
    )
    watcher = start([volume], settle=LONG)
    watcher.watching()
    kubernetes(
        volume, {"app.py": "2", "same.py": "same", "sub/deep.py": "2", "new.py": "2"}, new_order
    )
    assert names(volume, watcher.changed()) == ["app.py", "gone.py", "new.py", "sub/deep.py"]
    kubernetes(
        volume, {"app.py": "2", "same.py": "same", "sub/deep.py": "2", "new.py": "2"}, new_order
    )
    nothing_more(watcher, volume)
    kubernetes(
        volume, {"app.py": "2", "same.py": "same", "sub/deep.py": "3", "new.py": "2"}, new_order
    )
    assert names(volume, watcher.changed()) == ["sub/deep.py"]


def test_links_in_a_circle_end(start: Callable[..., Watcher], tree: Path) -> None:
    (tree / "pkg" / "up").symlink_to("..")
    (tree / "pkg" / "self").symlink_to("self")
    (tree / "pkg" / "here").symlink_to(".")
    other = tree.parent / "other"
    other.mkdir()
    (other / "back").symlink_to(other)
    (tree / "out").symlink_to(other)
    watcher = start([tree], settle=LONG)
    assert watcher.watching()["directories"] <= 5
    in_place(tree)
    assert names(tree, watcher.changed()) == ["app.py"]


# Roots that are not there; paths as they were given.
def test_a_root_that_does_not_exist_yet(start: Callable[..., Watcher], tmp_path: Path) -> None:
    root = tmp_path / "not" / "yet"
    watcher = start([root], settle=LONG)
    assert watcher.watching()["directories"] == 0
    root.mkdir(parents=True)
    (root / "app.py").write_text("here")
    assert names(root, watcher.changed()) == ["app.py"]
    nothing_more(watcher, root)


def test_paths_are_told_as_the_root_was_given(start: Callable[..., Watcher], tree: Path) -> None:
    watcher = start(["."], cwd=tree, settle=LONG)
    watcher.watching()
    in_place(tree)
    (tree / "pkg" / "mod.py").write_text("new")
    assert watcher.changed() == ["app.py", "pkg/mod.py"]


@pytest.mark.parametrize("mode", ["inotify", "poll"])
@pytest.mark.parametrize("link", [False, True], ids=["file", "link"])
def test_a_root_that_is_a_file(
    start: Callable[..., Watcher], tree: Path, mode: str, link: bool
) -> None:
    """However it is saved, gone or back; its neighbours do not count."""
    root = tree / "app.py"
    if link:
        root = tree.parent / "link.py"
        root.symlink_to(tree / "app.py")
    watcher = start([root, tree / "pkg"], settle=LONG, mode=mode)
    watcher.watching()
    (tree / "app.py").write_text("in place")
    assert watcher.changed() == [str(root)]
    (tree / "draft").write_text("replaced")
    (tree / "draft").replace(tree / "app.py")
    assert watcher.changed() == [str(root)]
    (tree / "neighbour.py").write_text("new")
    (tree / "app.py").unlink()
    assert watcher.changed() == [str(root)]
    (tree / "app.py").write_text("back")
    assert watcher.changed() == [str(root)]
    (tree / "pkg" / "mod.py").write_text("the end")
    assert watcher.changed() == [str(tree / "pkg" / "mod.py")]


def test_a_root_that_is_a_file_only_later(start: Callable[..., Watcher], tree: Path) -> None:
    watcher = start([tree / "later.py"], settle=LONG)
    watcher.watching()
    (tree / "neighbour.py").write_text("new")
    (tree / "later.py").write_text("new")
    assert names(tree, watcher.changed()) == ["later.py"]


def test_a_file_that_is_named_and_lies_in_a_root_is_one_change(
    start: Callable[..., Watcher], tree: Path
) -> None:
    watcher = start([tree, tree / "app.py"], settle=LONG)
    watcher.watching()
    in_place(tree)
    event = watcher.next()
    assert (names(tree, event["paths"]), event["count"]) == (["app.py"], 1)


def test_file_systems_without_files_are_not_entered(
    start: Callable[..., Watcher], tree: Path
) -> None:
    """Neither as a root, nor below one, nor behind a link, nor mounted while it is watched."""
    (tree / "threads").symlink_to("/proc/self/task")
    for name in ("proc", "later"):
        (tree / name).mkdir()
    unshare = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")
    script = 'mount -t proc proc "$0/proc" && echo mounted >&2 && exec "$@"'
    if subprocess.run([*unshare, "sh", "-c", script, str(tree), "true"], check=False).returncode:
        pytest.skip("no mount in a user namespace here")
    prefix = (*unshare, "sh", "-c", script, str(tree))
    watcher = start([tree, "/proc", "/sys/kernel"], settle=LONG, mode="poll", prefix=prefix)
    assert watcher.watching()["directories"] == 4  # the tree, later, pkg, pkg/deep
    said = [watcher.next()["text"], watcher.next()["text"]]
    assert ["/proc is a proc file system" in said[0], "/sys/kernel is a" in said[1]] == [True, True]
    nothing_more(watcher, tree)


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("app.py", "x = 1\nif x:\n    breakpoint()\n", 3),
        ("app.py", "import pdb; pdb.set_trace()\n", 1),
        ("app.rb", "x = 1\nbinding.irb\n", 2),
        ("app.py", "# breakpoint()\nbreakpoints = 1\n", 0),
        ("app.txt", "breakpoint()\n", 0),
    ],
)
def test_a_breakpoint_that_is_saved_is_said_once(
    start: Callable[..., Watcher], tree: Path, name: str, text: str, line: int
) -> None:
    watcher = start([tree], settle=LONG)
    watcher.watching()
    for number in range(2):
        (tree / name).write_text(text + "\n" * number)
        assert watcher.changed()
        if line and not number:
            assert f"{name}:{line} stops in a debugger" in watcher.next()["text"]
    nothing_more(watcher, tree)
