"""Files in directories that somebody else may write to."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.system.safe_open import open_for_writing

STRANGER, OTHER = 4242, 4243
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make files of others")


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A directory that belongs to another user."""
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, STRANGER, STRANGER)
        yield Path(directory)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of root's alone."""
    path = tmp_path / "secret"
    path.write_text("secret")
    path.chmod(0o600)
    return path


def write(path: Path, special: bool = False) -> None:
    fd = open_for_writing(str(path), os.O_WRONLY | os.O_APPEND, 0o644, special)
    try:
        os.write(fd, b"a line")
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def hard_link(path: Path, secret: Path) -> None:
    os.link(secret, path)


def their_link(path: Path, secret: Path) -> None:
    path.symlink_to(secret)
    os.lchown(path, STRANGER, STRANGER)


def a_third_users(path: Path, secret: Path) -> None:
    path.touch()
    os.chown(path, OTHER, OTHER)


def a_pipe(path: Path, secret: Path) -> None:
    os.mkfifo(path)
    os.chown(path, STRANGER, STRANGER)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("trap", [hard_link, their_link, a_third_users, a_pipe])
def test_what_somebody_may_have_put_there_is_refused_without_waiting(
    theirs: Path, secret: Path, trap: Callable[[Path, Path], None], special: bool
) -> None:
    """So it is in a directory that everyone may write to."""
    for _ in range(2):
        trap(theirs / "log", secret)
        with pytest.raises(OSError, match=r"not only uid 0 may write to|not a regular|No such dev"):
            write(theirs / "log", special)
        (theirs / "log").unlink()
        os.chown(theirs, 0, 0)
        theirs.chmod(0o1777)
    assert secret.read_text() == "secret"


def test_what_is_as_it_seems_is_written_to(theirs: Path, tmp_path: Path) -> None:
    """A new file, ours, the directory's owner's, and where a link of root's leads to."""
    write(theirs / "new")
    write(theirs / "new")
    assert (theirs / "new").read_text() == "a linea line"
    os.chown(theirs / "new", STRANGER, STRANGER)
    write(theirs / "new")
    assert (theirs / "new").read_text() == "a line" * 3
    (theirs / "link").symlink_to(tmp_path / "elsewhere")
    write(theirs / "link")
    assert (tmp_path / "elsewhere").read_text() == "a line"
    (theirs / "device").symlink_to("/dev/null")
    write(theirs / "device", special=True)
    with pytest.raises(OSError, match="not a regular file"):
        write(theirs / "device")


def test_in_a_directory_of_ours_alone_links_lead_where_they_lead(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "link").symlink_to("file")
    write(tmp_path / "link")
    os.link(tmp_path / "file", tmp_path / "other")
    write(tmp_path / "other")
    assert (tmp_path / "file").read_text() == "a line" * 2
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"not a regular file|No such device"):
        write(tmp_path / "pipe")  # nobody reads it, and nothing is waited for
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write(tmp_path / "pipe", special=True)
    assert os.read(reading, 100) == b"a line"
    os.close(reading)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
