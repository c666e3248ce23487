"""The watcher's parts: what is ignored, what differs, what is kept. The process itself:
tests/unit/watcher.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.watch import entries, mounts, tree
from sidecar.watch.envdirs import Envdirs, EnvState
from sidecar.watch.rules import Rules, from_dockerignore
from sidecar.watch.saved_state import SavedState
from sidecar.watch.symlinks import deciding_names
from sidecar.watch.tree import Tree
from tests.saves import AtomicWriter
from tests.support import until

REALTIME_COARSE = 5  # linux/time.h; what the kernel stamps files with

# Rules.


def rules(
    root: Path, ignore: tuple[str, ...] = (), only: tuple[str, ...] = (), **files: str
) -> Rules:
    made = Rules([str(root)], ignore, only)
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("git", ".gitignore").replace(
            "docker", ".dockerignore"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        made.learn(str(path.parent), os.listdir(path.parent))
    return made


def hidden(made: Rules, name: str) -> bool:
    return made.hidden(os.path.join(made.roots[0], name.rstrip("/")), name.endswith("/"))


@pytest.mark.parametrize(
    "name",
    [
        "a/.git/",
        ".git/HEAD",
        "node_modules/x/y.js",
        "x.pyc",
        "a/__pycache__/b",
        "4913",
        "app.py~",
        ".app.py.swp",
        "..data",
        "..2026/app.py",
        "pkg/flycheck_app.py",
        "app_flymake.py",
        ".syncthing.app.py.tmp",
    ],
)
def test_names_that_are_never_code_are_ignored(tmp_path: Path, name: str) -> None:
    assert hidden(rules(tmp_path), name)


@pytest.mark.parametrize(
    "name",
    ["app.py", ".env", "a/git/x", "Dockerfile", ".hidden/x", "sedate.py", "swp", "a.gitignore"],
)
def test_other_names_are_not(tmp_path: Path, name: str) -> None:
    assert not hidden(rules(tmp_path), name)


def test_the_nearest_opinion_counts_and_the_flag_most(tmp_path: Path) -> None:
    made = rules(
        tmp_path,
        ignore=("*.c", "!back.pyc"),
        git="*.a\n*.b\n",
        sub__git="!*.a\n",
        docker="*.d\n!*.a\nsub/x\n",
    )
    assert [
        name
        for name in (
            "1.a",
            "sub/1.a",
            "1.b",
            "sub/1.b",
            "1.c",
            "1.d",
            "sub/1.d",
            "sub/x",
            "back.pyc",
            "1.pyc",
        )
        if hidden(made, name)
    ] == [
        *("1.a", "1.b", "sub/1.b", "1.c", "1.d", "sub/x", "1.pyc"),
    ]


def test_a_dockerignore_that_takes_back(tmp_path: Path) -> None:
    made = rules(tmp_path, docker="*\n!src/app\n!setup.py\n")
    assert not hidden(made, "src/app/main.py")
    assert not hidden(made, "setup.py")
    assert hidden(made, "src/other.py")
    assert hidden(made, "tests/x.py")


def test_docker_patterns_are_from_dockerignore() -> None:
    assert from_dockerignore(["# no", "", "secret", "./a/", "!b", "**/c", "/d"]) == [
        "/secret",
        "/a",
        "!/b",
        "/**/c",
        "/d",
    ]


def test_an_ignore_file_that_changes_or_goes_is_learnt(tmp_path: Path) -> None:
    made = rules(tmp_path, git="*.a\n")
    assert hidden(made, "1.a")
    assert not made.learn(str(tmp_path), [".gitignore"])
    (tmp_path / ".gitignore").write_text("*.bb\n")
    assert made.learn(str(tmp_path), [".gitignore"])
    assert (hidden(made, "1.a"), hidden(made, "1.bb")) == (False, True)
    assert made.learn(str(tmp_path), [])
    assert not hidden(made, "1.bb")


def test_only_limits_files(tmp_path: Path) -> None:
    made = rules(tmp_path, only=("*.py", "/conf/"))
    assert [
        name for name in ("a/", "a/x.py", "a/x.txt", "conf/x.txt", "x.pyc") if hidden(made, name)
    ] == ["a/x.txt", "x.pyc"]


# The tree.


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_text("1")
    (tmp_path / "a" / "b" / "two").write_text("2")
    return tmp_path


def look(watched: Tree, *dirty: Path) -> list[str]:
    """What differs, by name; then it is what was told."""
    found = watched.scan({str(each) for each in dirty} or None)
    result = watched.differences(found)
    watched.accept(found)
    watched.digest_some(1000, 1 << 20)
    return [os.path.relpath(each.path, next(iter(watched.roots))) for each in result]


def test_a_dirty_directory_is_read_alone_and_what_is_new_below_it(files: Path) -> None:
    watched = Tree([str(files)])
    assert look(watched) == ["a/b/two", "a/one"]
    (files / "a" / "one").write_text("11")
    (files / "a" / "b" / "two").write_text("22")
    assert look(watched, files / "a") == ["a/one"]
    assert look(watched, files / "a" / "b") == ["a/b/two"]
    os.rename(files / "a" / "b", files / "a" / "c")
    assert look(watched, files / "a") == ["a/b/two", "a/c/two"]
    assert look(watched) == []


def test_another_directory_of_the_same_name_is_read_whole(files: Path) -> None:
    watched = Tree([str(files)])
    look(watched)
    os.rename(files / "a", files / "old")
    (files / "a" / "b").mkdir(parents=True)
    (files / "a" / "one").write_text("1")
    (files / "a" / "b" / "two").write_text("new")
    assert look(watched, files) == ["a/b/two", "old/b/two", "old/one"]


def test_a_scan_that_is_not_accepted_leaves_no_trace(files: Path) -> None:
    watched = Tree([str(files)])
    look(watched)
    (files / "a" / "one").write_text("new")
    (files / ".gitignore").write_text("two\n")
    for _ in range(2):
        assert [
            os.path.basename(each.path)
            for each in watched.differences(watched.scan({str(files / "a")}))
        ] == ["one"]
    assert look(watched, files / "a") == ["a/one"]
    (files / "a" / "b" / "two").write_text("ignored now")
    assert look(watched) == []


def test_large_files_have_no_digest_so_touching_them_counts(files: Path) -> None:
    watched = Tree([str(files)])
    (files / "large").write_bytes(bytes(entries.MAX_DIGESTED_BYTES + 1))
    look(watched)
    (files / "large").chmod(0o600)
    assert look(watched) == []
    os.utime(files / "large")
    assert look(watched) == ["large"]


def test_the_digests_stay_within_the_budget(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_DIGESTED_BYTES", 1)
    watched = Tree([str(files)])
    look(watched)
    assert sorted(
        len(entry) for each in watched.dirs.values() for entry in each.files.values()
    ) == [32, 48]


def test_a_directory_that_may_not_be_read_has_not_changed(files: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    watched = Tree([str(files)])
    look(watched)
    (files / "a").chmod(0)
    try:
        assert look(watched) == []
    finally:
        (files / "a").chmod(0o755)


def test_what_is_kept_is_the_same_tree(files: Path) -> None:
    watched, other = Tree([str(files)]), Tree([str(files)])
    look(watched)
    (files / os.fsdecode(b"caf\xe9")).write_text("latin 1")
    look(watched)
    other.load(watched.dump())
    assert look(other) == []
    (files / "a" / "one").write_text("9")
    assert look(other) == ["a/one"]


# Places.


def test_the_trail_names_each_link_and_the_end(tmp_path: Path) -> None:
    real = tmp_path.resolve()
    (tmp_path / "x" / "rev1" / "app").mkdir(parents=True)
    (tmp_path / "x" / "now").symlink_to("rev1")
    (tmp_path / "link").symlink_to("x/../x/now/app")
    assert deciding_names(str(tmp_path / "link")) == [
        (str(real), "link"),
        (str(real / "x"), "now"),
        (str(real / "x" / "rev1"), "app"),
    ]
    assert deciding_names(str(tmp_path / "x" / "no" / "such")) == [(str(real / "x"), "no")]
    (tmp_path / "loop").symlink_to("loop")
    assert set(deciding_names(str(tmp_path / "loop"))) == {(str(real), "loop")}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("9p", True), ("fuse.sshfs", True), ("fuseblk", False), ("ext4", False), ("overlay", False)],
)
def test_file_systems_on_which_inotify_is_silent(kind: str, expected: bool) -> None:
    assert mounts.is_silent(kind) == expected


def test_the_mounts_that_count_hold_a_root_or_lie_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = os.path.realpath(tmp_path)
    table = [("/", "9p"), (root, "ext4"), (f"{root}/in", "nfs4"), (f"{root}2", "cifs")]
    monkeypatch.setattr(mounts, "mounts", lambda: table)
    assert mounts.silent_mounts(root) == [(f"{root}/in", "nfs4")]
    table[1] = (root, "virtiofs")
    assert mounts.silent_mounts(root) == [(root, "virtiofs"), (f"{root}/in", "nfs4")]


def test_this_place_is_not_blind(tmp_path: Path) -> None:
    assert mounts.silent_mounts(str(tmp_path)) == []
    assert any(point == "/" for point, _ in mounts.mounts())


# The memory.


@pytest.fixture
def fd() -> Iterator[int]:
    fd = os.memfd_create("memory", 0)
    yield fd
    os.close(fd)


def test_the_memory_gives_back_what_was_kept_last(fd: int) -> None:
    assert SavedState(fd).load() == (None, False)
    memory = SavedState(fd)
    for content in (b"one", b"", b"three" * 100_000, b"four"):
        memory.save(content)
        assert SavedState(fd).load() == (content, True)
    assert SavedState(None).load() == (None, False)


@given(old=st.binary(max_size=60), new=st.binary(max_size=60), step=st.integers(0, 200))
@settings(max_examples=300, deadline=None)
def test_a_writer_that_dies_at_any_point_leaves_one_of_the_two(
    old: bytes, new: bytes, step: int
) -> None:
    """The second keep() is replayed byte by byte, in its order, and cut off after `step` bytes."""
    fd, other = os.memfd_create("a", 0), os.memfd_create("b", 0)
    try:
        SavedState(fd).save(old)
        written: list[tuple[bytes, int]] = []
        real = os.pwrite
        second = SavedState(fd)
        second.load()
        os.pwrite = lambda to, data, at: written.append((bytes(data), at)) or real(to, data, at)
        try:
            second.save(new)
        finally:
            os.pwrite = real
        SavedState(other).save(old)
        single = [
            (data[at : at + 1], where + at) for data, where in written for at in range(len(data))
        ]
        for data, at in single[:step]:
            os.pwrite(other, data, at)
        whole, used = SavedState(other).load()
        assert used
        assert whole in (old, new)
        assert whole == new if step >= len(single) else True
    finally:
        os.close(fd)
        os.close(other)


def test_what_is_too_long_is_forgotten_not_cut(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    SavedState(fd).save(b"old")
    monkeypatch.setattr("sidecar.watch.saved_state.MAX_BYTES", 10)
    memory = SavedState(fd)
    memory.load()
    memory.save(b"x" * 11)
    assert SavedState(fd).load() == (None, True)


# Variables.


def test_a_state_names_what_differs_and_an_error_is_a_state(tmp_path: Path) -> None:
    envdir = tmp_path / "env"
    envdir.mkdir()
    (envdir / "A").write_text("1")
    (envdir / "B").write_text("")
    watched = Envdirs([str(envdir)], False, False, os.urandom(32))
    good = watched.read(EnvState("", {}))
    assert good.changed_names(EnvState("", {})) == ["A", "B"]
    (envdir / "B").write_text("x")
    assert watched.read(good).changed_names(good) == ["B"]
    (envdir / "A").write_text("x" * 200_000)
    bad = watched.read(good)
    assert "A" in bad.error
    assert bad != good
    assert bad.changed_names(good) == []
    (envdir / "A").write_text("1")
    (envdir / "B").write_text("")
    assert watched.read(bad) == good


def test_digests_tell_nothing_without_the_key(tmp_path: Path) -> None:
    (tmp_path / "A").write_text("1")
    one, other = (
        Envdirs([str(tmp_path)], False, False, os.urandom(32)).read(EnvState("", {}))
        for _ in range(2)
    )
    assert one.digests != other.digests


def moment_after(directory: Path) -> int:
    """The last moment (ns) that a file below the directory is stamped with; what is changed from
    now on has a later one.
    """
    stamp = max(os.lstat(each).st_ctime_ns for each in (directory, *directory.rglob("*")))
    until(lambda: time.clock_gettime_ns(REALTIME_COARSE) > stamp, "a tick")
    return stamp


def owned_again(volume: Path) -> None:
    """As a kubelet does it for fsGroup whenever it looks at the pod: it changes ctimes alone."""
    for path in (volume, *volume.rglob("*")):
        os.lchown(path, os.geteuid(), os.getegid())


def test_a_volume_of_kubernetes_that_is_only_chowned_has_not_changed(tmp_path: Path) -> None:
    volume = tmp_path / "env"
    volume.mkdir()
    writer = AtomicWriter(volume)
    writer.write({"A": "1", "B": "2"})
    watched = Envdirs([str(volume)], False, False, os.urandom(32))
    moment = moment_after(volume)
    owned_again(volume)
    assert os.lstat(volume / "..data").st_ctime_ns > moment
    assert watched.changed_since(moment) == (False, [])
    writer.write({"A": "1", "B": "3"})
    assert watched.changed_since(moment) == (True, ["A", "B"])


def test_a_plain_directory_has_changed_also_where_the_mtime_was_set_back(tmp_path: Path) -> None:
    (tmp_path / "A").write_text("1")
    watched = Envdirs([str(tmp_path)], False, False, os.urandom(32))
    before, moment = os.stat(tmp_path / "A"), moment_after(tmp_path)
    (tmp_path / "A").write_text("2")
    os.utime(tmp_path / "A", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert watched.changed_since(moment) == (True, ["A"])


def test_code_in_a_volume_of_kubernetes_that_is_only_chowned_has_not_changed(
    tmp_path: Path,
) -> None:
    volume = tmp_path / "code"
    volume.mkdir()
    writer = AtomicWriter(volume)
    writer.write({"app.py": "1"})
    moment = moment_after(volume)
    owned_again(volume)
    watched = Tree([str(volume)])
    watched.accept(watched.scan(None))
    assert watched.forget_since(moment) == set()
    writer.write({"app.py": "2"})
    watched = Tree([str(volume)])
    watched.accept(watched.scan(None))
    assert watched.forget_since(moment)
