"""What ends the wait for a spoilt listener, and what does not."""

from __future__ import annotations

import os
import select
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.system.listener_watch import ListenerWatch


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name, because a unix socket's path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="sl", dir="/tmp") as directory:
        (Path(directory) / "in").mkdir()
        yield Path(directory) / "in"


def tcp(_: Path) -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def udp(_: Path) -> socket.socket:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def unix(place: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"{place}/s")
    sock.listen()
    os.link(f"{place}/s", f"{place}/.s.sidecar")
    return sock


def woken(watch: ListenerWatch) -> bool:
    """By way of another epoll set, as PID 1 waits."""
    with select.epoll() as outer:
        outer.register(watch, select.EPOLLIN)
        return bool(outer.poll(0))


@pytest.mark.parametrize("kind", [tcp, udp, unix])
def test_a_hang_up_ends_the_wait_once_and_what_comes_in_does_not(
    place: Path, kind: Callable[[Path], socket.socket]
) -> None:
    with kind(place) as sock:
        watch = ListenerWatch([(sock.fileno(), "")])
        clients = [socket.socket(sock.family, sock.type) for _ in range(5)]
        for client in clients:
            client.connect(sock.getsockname())
            if sock.type == socket.SOCK_DGRAM:
                client.send(b"hello")
        assert not woken(watch)
        if sock.type == socket.SOCK_STREAM:
            for _ in clients:
                sock.accept()[0].close()
        for client in clients:
            client.close()
        assert not woken(watch)
        try:
            os.dup(sock.fileno())  # a worker's
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            assert kind is udp  # it is shut down all the same
        assert woken(watch)
        watch.take()
        assert not woken(watch)
        watch.close()


def removed(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.touch()
    other.rename(path)


def moved(path: Path) -> None:
    path.rename(path.with_name("other"))


def its_directory_moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def its_directory_removed(path: Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize(
    "spoil", [removed, replaced, moved, its_directory_moved, its_directory_removed]
)
def test_a_removed_path_ends_the_wait_and_other_files_do_not(
    place: Path, spoil: Callable[[Path], None]
) -> None:
    with unix(place) as sock:
        path = Path(sock.getsockname())
        watch = ListenerWatch([(sock.fileno(), str(path))])
        assert watch.problem == ""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        for name in ("a", "b"):
            (place / name).write_text("text")
            (place / name).rename(place / "c")
        (place / "c").unlink()
        assert not woken(watch)
        spoil(path)
        assert woken(watch)
        watch.take()
        assert not woken(watch)
        watch.close()


def test_a_path_that_is_gone_or_forbidden_is_no_end_of_the_world(place: Path) -> None:
    with unix(place) as sock:
        before = len(os.listdir("/proc/self/fd"))
        shutil.rmtree(place)
        watch = ListenerWatch([(sock.fileno(), f"{place}/s")])
        assert watch.problem == ""
        sock.shutdown(socket.SHUT_RDWR)
        assert woken(watch)
        watch.close()
        assert len(os.listdir("/proc/self/fd")) == before
