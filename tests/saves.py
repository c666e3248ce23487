"""How programs save: each function changes the tree that `plant` makes, as the real program does,
and returns the paths that differ.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

# A good application, and one with a syntax error, for tests/apps/server.py with TREE.
GOOD, BROKEN = "x = {}\n", "x = = {}\n"


def plant(tree: Path) -> Path:
    """A small application."""
    (tree / "pkg" / "deep").mkdir(parents=True)
    (tree / "app.py").write_text("old = 1\n")
    (tree / "pkg" / "mod.py").write_text("old = 2\n")
    (tree / "pkg" / "deep" / "leaf.py").write_text("old = 3\n")
    return tree


def run(*words: object, cwd: object = None) -> None:
    if shutil.which(str(words[0])) is None:
        pytest.skip(f"{words[0]} is not installed")
    subprocess.run(
        [str(each) for each in words],
        cwd=cwd,
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )


def archive(files: dict[str, str]) -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(text), int(time.time())
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def in_place(tree: Path) -> list[str]:
    (tree / "app.py").write_text("new = 1\n")
    return ["app.py"]


def visual_studio_code(tree: Path) -> list[str]:
    fd = os.open(tree / "app.py", os.O_WRONLY)
    os.ftruncate(fd, 0)
    os.write(fd, b"new = 1\n")
    os.fsync(fd)
    os.close(fd)
    return ["app.py"]


def jetbrains(tree: Path) -> list[str]:
    (tree / "app.py___jb_tmp___").write_text("new = 1\n")
    os.rename(tree / "app.py", tree / "app.py___jb_old___")
    os.rename(tree / "app.py___jb_tmp___", tree / "app.py")
    os.unlink(tree / "app.py___jb_old___")
    return ["app.py"]


def beside_and_replace(tree: Path) -> list[str]:
    (tree / "app.py.tmp.1234").write_text("new = 1\n")
    os.replace(tree / "app.py.tmp.1234", tree / "app.py")
    return ["app.py"]


def vim_by_renaming(tree: Path) -> list[str]:
    settings = "set nocp swapfile writebackup backupcopy=no backupskip="
    run(
        "vim", "-u", "NONE", "-es", "-c", settings, "-c", "%s/old/new/", "-c", "wq", tree / "app.py"
    )
    return ["app.py"]


def vim_in_place(tree: Path) -> list[str]:
    settings = "set nocp swapfile writebackup backupcopy=yes backupskip="
    run(
        "vim", "-u", "NONE", "-es", "-c", settings, "-c", "%s/old/new/", "-c", "wq", tree / "app.py"
    )
    return ["app.py"]


def sed(tree: Path) -> list[str]:
    run("sed", "-i", "s/old/new/", tree / "app.py", tree / "pkg/mod.py", tree / "pkg/deep/leaf.py")
    return ["app.py", "pkg/deep/leaf.py", "pkg/mod.py"]


def rsync(tree: Path) -> list[str]:
    source = tree.parent / "source"
    shutil.copytree(tree, source)
    (source / "app.py").write_text("new = 1\n")
    (source / "pkg" / "more.py").write_text("more = 1\n")
    run("rsync", "-a", "--checksum", f"{source}/", f"{tree}/")
    return ["app.py", "pkg/more.py"]


def copied_tree(tree: Path) -> list[str]:
    source = tree.parent / "source"
    (source / "a" / "b").mkdir(parents=True)
    for name in ("x.py", "a/y.py", "a/b/z.py"):
        (source / name).write_text(name)
    run("cp", "-r", source, tree / "copied")
    return ["copied/a/b/z.py", "copied/a/y.py", "copied/x.py"]


def checkout(tree: Path) -> list[str]:
    """A branch with other files is left: 200 differ."""
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", tree)
    run(*git, "checkout", "-q", "one")
    return [f"f{number:04}.py" for number in range(200)]


def prepare_checkout(tree: Path) -> None:
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", tree)
    run(*git, "init", "-q", "-b", "one")
    for text in ("one = 1\n", "two = 22\n"):
        for number in range(200):
            (tree / f"f{number:04}.py").write_text(text)
        run(*git, "add", ".")
        run(*git, "commit", "-qm", text)
        if text.startswith("one"):
            run(*git, "checkout", "-qb", "two")


def unpacked(tree: Path) -> list[str]:
    (tree.parent / "a.tar").write_bytes(
        archive({"app.py": "new = 1\n", "new/deep/file": "y", "pkg/mod.py": "new = 2\n"})
    )
    run("tar", "-xf", tree.parent / "a.tar", "-C", tree)
    return ["app.py", "new/deep/file", "pkg/mod.py"]


def put_archive(tree: Path) -> list[str]:
    """As the Docker engine does: what is there is removed first, then made anew."""
    with tarfile.open(
        fileobj=io.BytesIO(archive({"app.py": "new = 1\n", "pkg/mod.py": "new = 2\n"}))
    ) as tar:
        for member in tar:
            (tree / member.name).unlink(missing_ok=True)
            tar.extract(member, tree, filter="data") if hasattr(
                tarfile, "data_filter"
            ) else tar.extract(member, tree)
    return ["app.py", "pkg/mod.py"]


SAVES = [
    in_place, visual_studio_code, jetbrains, beside_and_replace, vim_by_renaming, vim_in_place, sed, rsync, copied_tree, checkout, unpacked,
    put_archive,
]  # fmt: skip


class AtomicWriter:
    """A ConfigMap or Secret volume, as Kubernetes writes it (pkg/volume/util/atomic_writer.go).

    `old`: the order of steps until 1.30, where the names that are new are linked before `..data`
    moves; now it is after.
    """

    def __init__(self, directory: Path, old: bool = False) -> None:
        self.directory, self.old = directory, old
        self._number = 0

    def write(self, files: dict[str, str]) -> None:
        """Make the volume hold these files."""
        self._number += 1
        place = self.directory / f"..2026_11_22_{self._number}"
        place.mkdir()
        for name, text in files.items():
            (place / name).write_text(text)
        before = os.path.realpath(self.directory / "..data") if self._number > 1 else ""
        if self.old:
            self._link(files)
        (self.directory / "..data_tmp").symlink_to(place.name)
        os.rename(self.directory / "..data_tmp", self.directory / "..data")
        if not self.old:
            self._link(files)
        for each in self.directory.iterdir():
            if not each.name.startswith("..") and each.name not in files:
                each.unlink()
        if before:
            shutil.rmtree(before)

    def _link(self, files: dict[str, str]) -> None:
        for name in files:
            if not (self.directory / name).is_symlink():
                (self.directory / name).symlink_to(f"..data/{name}")
