"""An envdir is read as it was at one moment, whoever writes to it meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from sidecar.system import envdir
from tests.unit.envdir.directories import fill, refusal, variables


@contextlib.contextmanager
def busy(work: Callable[[], object]) -> Iterator[None]:
    """Another process does `work` again and again, as long as the block lasts."""
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the other process failed"


class Volume:
    """A Kubernetes volume, written as pkg/volume/util/atomic_writer.go does it."""

    def __init__(self, directory: Path, old_order: bool = False) -> None:
        self.directory = directory
        self.old_order = old_order
        self.serial = 0

    def write(self, payload: Mapping[str, str]) -> None:
        top = str(self.directory)
        self.serial += 1
        data = os.path.join(top, "..data")
        old = os.readlink(data) if os.path.islink(data) else None
        new = f"..2025_01_01_00_00_00.{self.serial}"
        os.mkdir(os.path.join(top, new), 0o755)
        for key, value in payload.items():
            with open(os.path.join(top, new, key), "w", encoding="utf-8") as file:
                file.write(value)
        os.symlink(new, os.path.join(top, "..data_tmp"))
        if self.old_order:
            self._add(payload)
        os.rename(os.path.join(top, "..data_tmp"), data)
        self._add(payload)
        for name in os.listdir(top):
            if not name.startswith("..") and name not in payload:
                os.unlink(os.path.join(top, name))
        if old is not None:
            shutil.rmtree(os.path.join(top, old))

    def _add(self, payload: Mapping[str, str]) -> None:
        for key in payload:
            with contextlib.suppress(FileExistsError):
                os.symlink(f"..data/{key}", self.directory / key)


@pytest.mark.parametrize("old_order", [True, False], ids=["old order", "new order"])
def test_a_kubernetes_volume_is_read_entirely_old_or_entirely_new(
    tmp_path: Path, old_order: bool
) -> None:
    """2,000 readings or more while another process replaces the volume without a pause; a key comes
    and goes each time.
    """

    def payload(serial: int) -> dict[str, str]:
        return {f"KEY{i}": str(serial) for i in range(12)} | {
            ("ODD" if serial % 2 else "EVEN"): str(serial)
        }

    volume = Volume(tmp_path, old_order)
    volume.write(payload(1))
    seen: set[int] = set()
    with busy(lambda: volume.write(payload(volume.serial + 1))):
        readings = 0
        while (
            readings < 2000 or len(seen) < 100
        ):  # the second for a machine where the other process seldom runs
            found = variables(tmp_path)
            serial = int(found["KEY0"] or 0)
            assert found == payload(serial)
            seen.add(serial)
            readings += 1


def test_a_kubernetes_volume_that_appears_is_read_empty_or_entirely(tmp_path: Path) -> None:
    """An optional ConfigMap: the directory is there, and empty, until somebody creates it."""
    payload = {f"KEY{i}": str(i) for i in range(30)}
    reader, writer = os.pipe()
    volumes = [tmp_path / str(i) for i in range(200)]
    for volume in volumes:
        volume.mkdir()

    def appear() -> None:
        Volume(volumes[int(os.read(reader, 3))]).write(payload)

    with busy(appear):
        for number, volume in enumerate(volumes):
            os.write(writer, b"%03d" % number)
            while (found := variables(volume)) != payload:
                assert found == {}
    os.close(reader)
    os.close(writer)


def test_a_kubernetes_volume_is_read_by_its_data_not_by_the_names_beside_it(tmp_path: Path) -> None:
    """A key that is new has no name there yet, a removed one still has; a sub-directory of a key
    path is passed over.
    """
    (tmp_path / "..2025").mkdir()
    fill(tmp_path / "..2025", {"NEW": b"1\n", ".one-dot": b"no"})
    (tmp_path / "..2025" / "sub").mkdir()
    (tmp_path / "..data").symlink_to("..2025")
    (tmp_path / "GONE").symlink_to("..data/GONE")
    (tmp_path / "sub").symlink_to("..data/sub")
    (tmp_path / "BESIDE").write_text("x")
    assert variables(tmp_path) == {"NEW": "1"}


@pytest.mark.parametrize(
    ("target", "reason"), [("..nothing", "No such file or directory"), ("file", "Not a directory")]
)
def test_data_that_leads_to_no_directory_is_refused(
    tmp_path: Path, target: str, reason: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "..data").symlink_to(target)
    assert refusal(tmp_path) == f"the envdir {tmp_path} cannot be read: {reason}"


def test_a_directory_behind_a_switched_symlink_is_read_entirely_old_or_entirely_new(
    tmp_path: Path,
) -> None:
    """Capistrano's way: `current` is renamed onto, what it named before is deleted."""
    current = tmp_path / "current"
    serial = 0

    def switch() -> None:
        nonlocal serial
        serial += 1
        fill(tmp_path / str(serial), {f"KEY{i}": str(serial).encode() for i in range(10)})
        (tmp_path / "new").symlink_to(str(serial))
        (tmp_path / "new").rename(current)
        shutil.rmtree(tmp_path / str(serial - 1), ignore_errors=True)

    switch()
    with busy(switch):
        for _ in range(1000):
            found = variables(current)
            assert found == {f"KEY{i}": found["KEY0"] for i in range(10)}


def test_files_that_come_and_go_are_there_or_not_and_the_others_always(tmp_path: Path) -> None:
    fill(tmp_path, {"A": b"1", "Z": b"1"})

    def come_and_go() -> None:
        for name in "KLMN":
            with open(tmp_path / name, "wb", buffering=0) as file:
                file.write(b"x")
            os.unlink(tmp_path / name)

    with busy(come_and_go):
        for _ in range(2000):
            found = variables(tmp_path)
            assert found.pop("A") == found.pop("Z") == "1"
            assert set(found) <= set("KLMN")
            assert set(found.values()) <= {"x", None}


def test_a_file_that_gets_another_name_is_found_under_one_of_them(tmp_path: Path) -> None:
    """The list of names says the old one, which has gone when it is opened: the directory is read
    again.
    """
    fill(tmp_path, {"ONE": b"x"})
    names = [str(tmp_path / "ONE"), str(tmp_path / "TWO")]

    def rename() -> None:
        os.rename(*names)
        names.reverse()
        for _ in range(300):
            os.getppid()

    seen: list[str] = []
    with busy(rename):
        while len(seen) < 2000 or len(set(seen)) < 2:
            (name,) = variables(tmp_path)
            seen.append(name)


def test_a_descriptor_is_never_left_open(tmp_path: Path) -> None:
    directory = fill(tmp_path / "env", {"A": b"1", "B": b"l1\nl2", "C": b"\0"})
    before = os.listdir("/proc/self/fd")
    envdir.read([directory])
    refusal(directory, whole=True)
    refusal(tmp_path / "missing")
    assert os.listdir("/proc/self/fd") == before
