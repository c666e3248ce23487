"""The status file is whole at every moment."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.system.status_file import StatusFile
from tests.unit.children import as_nobody


def test_a_status_file_is_in_numeric_order(tmp_path: Path) -> None:
    """Perl's start_server sorts 1, 10, 2."""
    path = tmp_path / "status"
    file = StatusFile(str(path))
    assert not path.exists()
    file.write([(10, 900), (2, 1000), (2, 900), (1, 5)])
    assert path.read_text() == "1:5\n2:900\n2:1000\n10:900\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    file.write([])
    assert path.read_text() == ""
    assert os.listdir(tmp_path) == ["status"]


@given(st.lists(st.tuples(st.integers(1, 1 << 40), st.integers(1, 1 << 22))))
def test_a_status_file_says_exactly_the_rows(rows: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "status"
        StatusFile(str(path)).write(iter(rows))
        assert [
            tuple(map(int, line.split(":"))) for line in path.read_text().splitlines()
        ] == sorted(rows)


def test_nothing_is_written_where_nothing_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "status"
    file = StatusFile(str(path))
    file.write([(1, 5), (2, 6)])
    before = path.stat()
    file.write([(2, 6), (1, 5)])
    assert path.stat() == before
    file.write([(2, 6)])
    assert path.read_text() == "2:6\n"


def test_a_reader_sees_one_version_or_another_never_a_part(tmp_path: Path) -> None:
    path = tmp_path / "status"
    file = StatusFile(str(path))
    file.write([(1, 1)] * 500)
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            generation = 1
            while True:
                generation += 1
                file.write([(generation, generation)] * 500)
        os._exit(1)
    seen: set[str] = set()
    readings = 0
    try:
        while readings < 2000 or len(seen) < 100:
            lines = path.read_text().splitlines(keepends=True)
            assert lines == [lines[0]] * 500
            seen.add(lines[0])
            readings += 1
    finally:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the writer failed"


def test_a_directory_that_has_become_read_only_raises_and_the_old_file_stays(shared: Path) -> None:
    """It is the writer's own directory here: who may write to it may also take that away."""
    (shared / "own").mkdir()
    (shared / "own").chmod(0o777)
    path = shared / "own" / "run" / "status"

    def write_twice() -> str:
        path.parent.mkdir()
        file = StatusFile(str(path))
        file.write([(1, 5)])
        path.parent.chmod(0o555)
        with pytest.raises(PermissionError):
            file.write([(2, 6)])
        with pytest.raises(PermissionError):
            file.remove()
        assert os.listdir(path.parent) == ["status"]
        said = path.read_text()
        path.parent.chmod(0o777)
        return said

    assert as_nobody(write_twice) == "1:5\n"


def test_a_full_disk_raises_and_the_old_file_stays(tiny: Path) -> None:
    file = StatusFile(str(tiny / "status"))
    file.write([(1, 5)])  # the only page
    for _ in range(2):
        with pytest.raises(OSError, match="No space left on device"):
            file.write([(2, 6)])
        assert (tiny / "status").read_text() == "1:5\n"
        assert os.listdir(tiny) == ["status"]
    file.remove()
    assert os.listdir(tiny) == []


def test_a_failed_write_is_made_good_by_the_next(tmp_path: Path) -> None:
    file = StatusFile(str(tmp_path / "later" / "status"))
    with pytest.raises(FileNotFoundError):
        file.write([(1, 5)])
    (tmp_path / "later").mkdir()
    file.write([(1, 5)])
    assert (tmp_path / "later" / "status").read_text() == "1:5\n"


@pytest.mark.parametrize("kind", ["file", "symlink", "fifo"])
def test_what_an_earlier_life_left_is_in_nobodys_way(tmp_path: Path, kind: str) -> None:
    """In a restarted container the pid, and so the name of the temporary file, is the same again."""
    path, left, precious = (
        tmp_path / "status",
        tmp_path / f"status.{os.getpid()}",
        tmp_path / "precious",
    )
    path.write_text("1:1\n")
    precious.write_text("precious")
    if kind == "file":
        left.write_text("2:2\n")
    elif kind == "symlink":
        left.symlink_to(precious)
    else:
        os.mkfifo(left)
    StatusFile(str(path)).write([(1, 5)])
    assert path.read_text() == "1:5\n"
    assert precious.read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["precious", "status"]


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    """Root's rename would take /dev/null or /dev/stdout away from the whole container."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    (tmp_path / "directory").mkdir()
    before = sorted((path.name, path.lstat().st_mode) for path in tmp_path.iterdir())
    for name in ("fifo", "link", "directory"):
        with pytest.raises(OSError, match="it is not a regular file"):
            StatusFile(str(tmp_path / name)).write([(1, 5)])
    assert sorted((path.name, path.lstat().st_mode) for path in tmp_path.iterdir()) == before


def test_only_what_was_written_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_text("1:1\n")
    never = StatusFile(str(path))
    never.remove()
    assert path.exists(), "it was never written by this one"
    file = StatusFile(str(path))
    file.write([(1, 5)])
    StatusFile(str(path)).write([(1, 6)])
    file.remove()
    assert path.read_text() == "1:6\n", "another has written it since"
    file.write([(1, 5)])
    file.remove()
    assert not path.exists()
    file.write([(1, 5)])
    path.unlink()
    file.remove()
