"""The watcher by itself: real trees, real programs that save, and what it tells a pipe.

That something was told once, or not at all, is seen without waiting for time to pass: afterwards a
file of its own (`end`) is written, and the next thing that is told must be that file, and nothing
besides.

The settle time is long where a sequence takes time itself, so that a slow machine does not make two
of one.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
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
from tests.support import PATIENCE, ROOT, until

VIM = "vim" if shutil.which("vim") else "vim.tiny"
LONG = 0.4
REALTIME_COARSE = 5  # linux/time.h; what the kernel stamps files with


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


# Symlinks.


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


# What is ignored.


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


# What happened while nobody watched.


def test_what_changed_since_the_program_was_started(
    start: Callable[..., Watcher], tree: Path
) -> None:
    until(
        lambda: (
            time.clock_gettime(REALTIME_COARSE)
            > (tree / "pkg" / "deep" / "leaf.py").stat().st_ctime + 0.02
        ),
        "a tick",
    )
    since = time.clock_gettime(REALTIME_COARSE)
    until(lambda: time.clock_gettime(REALTIME_COARSE) > since + 0.02, "another tick")
    in_place(tree)
    watcher = start([tree], since=since)
    watcher.watching()
    assert names(tree, watcher.changed()) == ["app.py"]
    nothing_more(watcher, tree)


def test_killed_ten_times_while_files_change_nothing_is_missed(
    start: Callable[..., Watcher], tree: Path, memory: int
) -> None:
    """Killed at once after a save, after it was told, and with saves in between; and nothing is
    told that has not changed.
    """
    written, told = set(), set()

    def write(name: str) -> None:
        (tree / "pkg" / name).write_text(f"{time.monotonic()}")
        written.add(f"pkg/{name}")

    first = start([tree], memory=memory)
    first.watching()
    watcher = first
    for number in range(10):
        write(f"a{number}.py")
        if number % 3 == 1:
            until(
                lambda watcher=watcher, name=f"a{number}.py": any(
                    name in each for each in watcher.told()
                ),
                "what was saved",
            )
        elif number % 3 == 2:
            turns = switches(watcher.pid) + number
            until(lambda watcher=watcher, turns=turns: switches(watcher.pid) > turns, "some turns")
        watcher.kill()
        told |= watcher.told()
        write(f"b{number}.py")
        write("every.py")
        watcher = start([tree], memory=memory)
    until(
        lambda: set(names(tree, list(told | watcher.told()))) >= written,
        "everything that was saved",
    )
    assert set(names(tree, list(told | watcher.told()))) == written


@pytest.mark.parametrize("seed", range(3))
def test_after_any_history_nothing_is_left_untold(
    start: Callable[..., Watcher], tree: Path, memory: int, seed: int
) -> None:
    """What was told last is kept; a second watcher reads everything anew and compares: it must find
    what is there.
    """
    dice = random.Random(seed)
    outside = tree.parent / "outside"
    outside.mkdir()
    watcher = start([tree], memory=memory)
    watcher.watching()
    for number in range(150):
        directories = [Path(each) for each, _, _ in os.walk(tree)]
        files = [Path(each) / name for each, _, found in os.walk(tree) for name in found]
        # The root itself is seldom moved: afterwards little is left.
        here, there, name = (
            dice.choice(directories[dice.random() > 0.02 :] or [tree]),
            dice.choice(directories),
            f"n{dice.randrange(6)}",
        )
        kind = dice.randrange(9)
        try:
            match kind if here != tree or dice.random() < 0.1 else kind % 3:
                case 0 | 1:
                    (here / name).write_text("x" * dice.randrange(3))
                case 2:
                    (here / name / "deep").mkdir(parents=True)
                    (here / name / "deep" / "file").write_text(f"{number}")
                case 3:
                    os.rename(here, there / name)
                case 4:
                    os.rename(here, outside / f"{number}")
                case 5:
                    os.rename(dice.choice(list(outside.iterdir())), there / name)
                case 6:
                    exchange(here, there)
                case 7:
                    (here / name).symlink_to(dice.choice([there, *files, outside]))
                case 8:
                    dice.choice(files).unlink()
        except (OSError, IndexError, pytest.skip.Exception):
            continue
        if dice.random() < 0.1:
            until(lambda: asleep(watcher.pid, 0.05), "a rest")
        tree.mkdir(exist_ok=True)
    until(
        lambda: asleep(watcher.pid, 0.5), "rest"
    )  # only a few paths are told at once: this one by itself
    (tree / "end").write_text("end")
    until(lambda: any(each.endswith("/end") for each in watcher.told()), "the last file")
    until(lambda: asleep(watcher.pid), "rest")
    watcher.kill()
    again = start([tree], memory=memory, mode="poll")
    again.watching()
    (tree / "end").write_text("another")
    assert names(tree, again.changed()) == ["end"]


def test_a_memory_that_cannot_be_read_says_so(
    start: Callable[..., Watcher], tree: Path, memory: int
) -> None:
    os.pwrite(memory, b"half a stat", 0)
    watcher = start([tree], memory=memory)
    watcher.watching()
    assert watcher.changed() == []
    nothing_more(watcher, tree)


def test_nothing_is_told_anew_after_a_restart_without_changes(
    start: Callable[..., Watcher], tree: Path, memory: int
) -> None:
    watcher = start([tree], memory=memory)
    watcher.watching()
    in_place(tree)
    watcher.changed()
    nothing_more(watcher, tree)
    until(lambda: asleep(watcher.pid), "the end of its work")
    watcher.kill()
    again = start([tree], memory=memory)
    again.watching()
    nothing_more(again, tree)


# Limits.


@pytest.mark.parametrize(("what", "left"), [("watches", 300), ("instances", 0)])
def test_without_inotify_it_polls(
    start: Callable[..., Watcher], tmp_path: Path, what: str, left: int
) -> None:
    limit = f"/proc/sys/user/max_inotify_{what}"
    probe = ["unshare", "-Ur", "sh", "-c", f"echo {left} >{limit}"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    tree = tmp_path / "tree"
    for number in range(1000):
        (tree / f"d{number}").mkdir(parents=True)
        (tree / f"d{number}" / "f").write_text("old")
    watcher = start(
        [tree],
        settle=LONG,
        prefix=("unshare", "-Ur", "sh", "-c", f'echo {left} >{limit}; exec "$@"', "-"),
    )
    event = watcher.watching()
    assert (event["mode"], event["directories"]) == ("poll", 1001)
    assert f"user.max_inotify_{what}" in event["why"]
    for number in range(0, 1000, 100):
        (tree / f"d{number}" / "f").write_text("new")
    assert names(tree, watcher.changed()) == [f"d{number}/f" for number in range(0, 1000, 100)]
    nothing_more(watcher, tree)


def test_a_storm_is_few_changes_and_little_memory(
    start: Callable[..., Watcher], tree: Path
) -> None:
    watcher = start([tree])
    watcher.watching()
    until(lambda: asleep(watcher.pid), "rest")
    before = status(watcher.pid, "VmHWM")
    for number in range(50_000):
        os.rename(tree / f"{number % 2}", tree / f"{1 - number % 2}") if number else (
            tree / "1"
        ).write_text("x")
    (tree / "app.py").write_text("the last\n")
    until(lambda: any("app.py" in each for each in watcher.told()), "the last file")
    assert len([each for each in watcher.events if each["event"] == "changed"]) <= 3
    assert status(watcher.pid, "VmHWM") - before < 20_000


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


def test_at_rest_it_wakes_up_less_than_once_a_second(
    start: Callable[..., Watcher], tree: Path
) -> None:
    envdir = tree.parent / "env"
    envdir.mkdir()
    watcher = start([tree], env=[str(envdir)])
    watcher.watching()
    until(lambda: asleep(watcher.pid), "rest")
    before, begun = switches(watcher.pid), time.monotonic()
    time.sleep(5)
    assert (switches(watcher.pid) - before) / (time.monotonic() - begun) <= 1


def test_it_ends_with_sidecar(start: Callable[..., Watcher], tree: Path) -> None:
    watcher = start([tree])
    watcher.watching()
    for name in ("INT", "HUP", "QUIT"):  # what a terminal sends to everybody
        os.kill(watcher.pid, signal.Signals[f"SIG{name}"])
    in_place(tree)
    watcher.changed()
    assert watcher.close() == 0


def test_one_that_hangs_ends_itself(start: Callable[..., Watcher], tree: Path) -> None:
    """The alarm is the kernel's: here it is sent by hand, while Python does not run."""
    watcher = start([tree])
    watcher.watching()
    os.kill(watcher.pid, signal.SIGSTOP)
    os.kill(watcher.pid, signal.SIGALRM)
    os.kill(watcher.pid, signal.SIGCONT)
    assert watcher.process.wait(PATIENCE) == -signal.SIGALRM


# Envdirs.


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
