"""The pid file is one sidecar's at a time, and stale ones are in nobody's way."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.base import errors
from sidecar.base.errors import StartError
from sidecar.system.pid_file import PidFile
from tests.unit.children import as_nobody, in_child, started

ROOT = str(Path(errors.__file__).parents[1])


# What the tests are made with.


def refusal(path: Path | str) -> str:
    with pytest.raises(StartError) as refused:
        PidFile.take(str(path))
    return str(refused.value)


@contextlib.contextmanager
def sidecar(path: Path | str) -> Iterator[subprocess.Popen[str]]:
    """Another process, of another program start, that holds the pid file until its stdin says
    something.
    """
    source = (
        "import sys; from sidecar.system.pid_file import PidFile; file = PidFile.take(sys.argv[1]); print('taken', flush=True); "
        "sys.stdin.read(1) and file.release(); print('released', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", source, str(path)],
        env={"PYTHONPATH": ROOT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "taken\n"
            yield process
        finally:
            process.kill()


def leave(process: subprocess.Popen[str]) -> None:
    assert process.communicate("x")[0] == "released\n"


def test_a_pid_file_says_the_pid_and_goes_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile.take(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert not os.get_inheritable(file.fd)
    file.release()
    assert not path.exists()
    file.release()  # a second time does nothing


@pytest.mark.parametrize(
    "content",
    ["1\n", "99999999999999999999\n", "", "no pid", f"{os.getpid()}\n"],
    ids=["1", "long", "empty", "text", "ours"],
)
def test_a_stale_pid_file_is_taken_over(tmp_path: Path, content: str) -> None:
    """Also one that says our own pid: in a restarted container it is the same number again."""
    path = tmp_path / "pid"
    path.write_text(content)
    PidFile.take(str(path))
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_second_sidecar_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with sidecar(path) as first:
        before = path.stat()
        text = refusal(path)
        assert (
            text
            == f"the pid file {path} is held by process {first.pid}; stop that first, or give another --pid-file"
        )
        assert path.read_text() == f"{first.pid}\n"
        assert path.stat().st_mtime_ns == before.st_mtime_ns
        leave(first)
    assert not path.exists()
    PidFile.take(str(path))


@pytest.mark.parametrize("content", ["", "what?\n", "é\n"])
def test_a_held_pid_file_that_says_no_pid_is_refused_all_the_same(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "pid"
    with sidecar(path):
        path.write_text(content)
        assert f"the pid file {path} is held by another process;" in refusal(path)
        assert path.read_text() == content


def test_a_killed_sidecar_leaves_a_file_that_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with sidecar(path) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert path.read_text() == f"{first.pid}\n"
        PidFile.take(str(path)).release()
    assert not path.exists()


def test_a_program_started_by_the_holder_does_not_keep_the_file(tmp_path: Path) -> None:
    """A worker that outlives a killed sidecar must not hold its pid file."""
    path = str(tmp_path / "pid")
    file = PidFile.take(path)
    with subprocess.Popen(
        ["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, close_fds=False
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(b"x")
        assert worker.stdout.read(1) == b"x"  # it is the program now, no longer our fork
        os.close(file.fd)  # as the kernel does when its holder is killed
        PidFile.take(path).release()
        worker.kill()


def test_after_daemonizing_the_child_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("1234567890123\n")
    file = PidFile.take(str(path))

    def daemon() -> str:
        file.rewrite()
        return f"{os.getpid()}\n"

    pid = in_child(daemon)
    assert path.read_text() == pid
    file.release()
    assert path.read_text() == pid, "only who the file says removes it"


def test_a_forked_child_does_not_remove_its_parents_file(tmp_path: Path) -> None:
    """In Perl and Ruby a child whose exec fails does."""
    path = tmp_path / "pid"
    file = PidFile.take(str(path))

    def release() -> str:
        file.release()
        return "released"

    assert in_child(release) == "released"
    assert path.read_text() == f"{os.getpid()}\n"
    assert "is held by process" in in_child(lambda: refusal(path))
    file.release()
    assert not path.exists()


def test_a_file_handed_on_across_exec_is_still_held_and_released(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(str(path), PidFile.take(str(path)).fd)
    assert "is held by process" in refusal(path)
    file.release()
    assert not path.exists()


def test_a_removed_pid_file_is_anothers_and_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile.take(str(path))
    path.unlink()
    with sidecar(path) as second:
        file.release()
        assert path.read_text() == f"{second.pid}\n"


def test_many_that_take_and_release_at_once_never_hold_it_together(tmp_path: Path) -> None:
    """A lock may be gained on a file whose holder has just removed it; then it is not the file that
    the path names.
    """
    path, token = tmp_path / "pid", tmp_path / "token"

    def contend() -> str:
        taken = 0
        while taken < 300:
            try:
                file = PidFile.take(str(path))
            except StartError:
                continue
            os.close(os.open(token, os.O_CREAT | os.O_EXCL))
            assert path.read_text() == f"{os.getpid()}\n"
            os.unlink(token)
            file.release()
            taken += 1
        return "well"

    with contextlib.ExitStack() as stack:
        answers = [stack.enter_context(started(contend)) for _ in range(4)]
        assert [answer.read() for answer in answers] == ["well"] * 4
    for _ in answers:
        os.wait()


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    for path in (
        tmp_path / "fifo",
        tmp_path / "link",
        tmp_path,
        Path("/dev/null"),
        Path("/dev/tty"),
    ):
        assert refusal(path) == f"the pid file {path} cannot be written: it is not a regular file"


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "log"])
def test_ones_own_output_is_refused_and_left_as_it_is(tmp_path: Path, path: str) -> None:
    """/dev/stdout leads to a regular file where a shell redirects it."""
    log = tmp_path / "log"
    log.write_text("a line\n")
    source = "import sys; from sidecar.system.pid_file import PidFile; PidFile.take(sys.argv[1])"
    with open(log, "a", encoding="utf-8") as output:
        done = subprocess.run(
            [sys.executable, "-c", source, path],
            env={"PYTHONPATH": ROOT},
            cwd=tmp_path,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (
        f"StartError: the pid file {path} cannot be written: it is this process's own input or output"
        in done.stderr
    )
    assert log.read_text() == "a line\n"


def test_a_pid_file_that_cannot_be_made_is_refused_with_the_reason(shared: Path) -> None:
    assert (
        refusal(shared / "no" / "pid")
        == f"the pid file {shared}/no/pid cannot be written: No such file or directory"
    )
    shared.chmod(0o755 if os.getuid() == 0 else 0o555)
    assert (
        as_nobody(lambda: refusal(shared / "pid"))
        == f"the pid file {shared}/pid cannot be written: Permission denied"
    )
    assert list(shared.iterdir()) == []


def test_a_full_disk_refuses_the_start_and_leaves_no_empty_pid_file(tiny: Path) -> None:
    (tiny / "log").write_bytes(b"x" * 4096)
    assert (
        refusal(tiny / "pid")
        == f"the pid file {tiny}/pid cannot be written: No space left on device"
    )
    assert os.listdir(tiny) == ["log"]


def test_a_full_disk_is_no_matter_to_a_stale_pid_file(tiny: Path) -> None:
    (tiny / "pid").write_text("1\n")
    PidFile.take(str(tiny / "pid")).release()
