"""Where the control socket is, and who is answered."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from sidecar.base.errors import StartError
from sidecar.control import server
from sidecar.control.server import ControlSocket
from tests.support import PATIENCE
from tests.unit.children import as_nobody
from tests.unit.control_server.peers import Loop, Peer


def test_the_file_is_its_owners_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        it = ControlSocket.open(str(tmp_path / "control"), [])
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(it.path).st_mode) == 0o600
    it.close()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize(("mode", "how"), [(0o600, "refused by the file"), (0o666, "hung up on")])
def test_another_user_is_not_answered_even_if_the_file_lets_him_in(mode, how):
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        loop = Loop(ControlSocket.open(f"{place}/control", []))
        os.chmod(loop.control.path, mode)

        def work() -> str:
            try:
                one = Peer(loop.control.path)
            except PermissionError:
                return "refused by the file"
            try:
                one.send({"say": 1})
            except BrokenPipeError:
                pass
            return "hung up on" if one.closed() else "answered"

        assert as_nobody(work) == how
        assert loop.asked == []
        loop.end()


# --- where
def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path):
    path = str(tmp_path / "control")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(path)
    it = ControlSocket.open(path, [])
    Peer(path).sock.close()
    it.close()
    assert not os.path.exists(path)


def test_a_socket_that_somebody_listens_on_is_not_and_works_on(loop):
    with pytest.raises(StartError, match=r"--control .*in use"):
        ControlSocket.open(loop.control.path, [])
    assert Peer(loop.control.path).ask(say=1)["echo"] == 1


def test_a_socket_whose_queue_is_full_is_somebodys(tmp_path):
    path = str(tmp_path / "control")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting,
    ):
        sock.bind(path)
        sock.listen(0)
        waiting.connect(path)
        with pytest.raises(StartError):
            ControlSocket.open(path, [])


@pytest.mark.parametrize("kind", ["file", "directory", "link", "dangling link", "fifo"])
def test_what_is_no_socket_is_left_alone(tmp_path, kind):
    path = tmp_path / "control"
    match kind:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case "link":
            (tmp_path / "other").write_text("precious")
            path.symlink_to(tmp_path / "other")
        case "dangling link":
            path.symlink_to(tmp_path / "nowhere")
        case "fifo":
            os.mkfifo(path)
    before = os.lstat(path)
    with pytest.raises(StartError, match="--control"):
        ControlSocket.open(str(path), [])
    assert os.lstat(path) == before


@pytest.mark.parametrize(
    "path",
    ["/nonexistent/control", "/proc/control", "x" * 200],
    ids=["no directory", "not writable", "too long"],
)
def test_a_path_that_cannot_be_is_refused_with_the_reason(path):
    with pytest.raises(
        StartError, match="say a path in a directory that can be written to, or none"
    ):
        ControlSocket.open(path, [])


def test_a_path_that_has_become_anothers_is_not_removed(tmp_path):
    it = ControlSocket.open(str(tmp_path / "control"), [])
    os.unlink(it.path)
    (tmp_path / "control").write_text("another's")
    it.close()
    assert (tmp_path / "control").read_text() == "another's"


def test_the_first_place_that_can_be_written_to_is_taken(tmp_path):
    good, taken = tmp_path / "good", tmp_path / "taken"
    good.mkdir()
    taken.mkdir()
    first = ControlSocket.open("", [str(taken)])
    assert first.path == str(taken / f"sidecar-{os.getpid()}.sock")
    # Two containers may share a directory, and have the same pid.
    second = ControlSocket.open("", ["/nonexistent", "/proc", str(taken), str(good)])
    assert second.path == str(good / f"sidecar-{os.getpid()}.sock")
    first.close()
    second.close()
    assert list(tmp_path.glob("*/*")) == []


def test_without_any_place_there_is_none_and_helpers_are_served(tmp_path):
    it = Loop(ControlSocket.open("", ["/proc", "/nonexistent"]))
    assert it.control.path == ""
    ours, theirs = socket.socketpair()
    it.do(lambda: it.control.adopt(ours))
    theirs.settimeout(PATIENCE)
    theirs.sendall(b'{"say": 1}\n')
    assert b'"echo": 1' in theirs.recv(1000)
    it.end()
    theirs.close()


def test_places_are_the_usual_ones():
    assert server.places({}) == ["/run", "/tmp", "/dev/shm"]
    assert server.places({"XDG_RUNTIME_DIR": "/run/user/5", "TMPDIR": "/x"}) == [
        "/run",
        "/run/user/5",
        "/x",
        "/dev/shm",
    ]


def test_none_means_none():
    it = ControlSocket.open("none", ["/tmp"])
    assert it.path == ""
    it.close()


def test_the_end_is_the_end_for_clients_too(tmp_path):
    """Also for one who has connected and was never accepted: he is told that nobody is there, and
    does not wait.
    """
    it = ControlSocket.open(str(tmp_path / "control"), [])
    one = Peer(it.path).send({"say": 1})
    it.close()
    assert one.closed()
    with pytest.raises(FileNotFoundError):
        Peer(str(tmp_path / "control"))
    assert Path(tmp_path).is_dir()
