"""A listener that a program broke is repaired; healthy ones are left alone."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path

import pytest

from sidecar.system.listener import Listener
from tests.unit.listeners.sockets import (
    Open,
    answers,
    bound,
    connect,
    free_port,
    needs_v6,
    only,
    private,
    serve,
    tcp_info_backlog,
    waiting,
)


def worker(listener: Listener) -> socket.socket:
    """The listener as a worker holds it: another descriptor of the same open socket."""
    return socket.socket(fileno=os.dup(listener.sock.fileno()))


def test_mending_leaves_healthy_listeners_and_their_queues_alone(listen: Open, run: str) -> None:
    listeners = listen("127.0.0.1:0", "127.0.0.1:u0", f"{run}/a.sock")
    tcp, _, path = listeners
    before = (listeners.handoff(), listeners.inodes(), sorted(os.listdir(run)))
    with connect(tcp.sock.getsockname()) as one, connect(f"{run}/a.sock") as other:
        assert listeners.repair() == []
        assert (listeners.handoff(), listeners.inodes(), sorted(os.listdir(run))) == before
        serve(tcp.sock)
        serve(path.sock)
        assert (one.recv(5), other.recv(5)) == (b"hello", b"hello")
    assert not waiting(path.sock)


@pytest.mark.parametrize("zero", [False, True], ids=["explicit port", "port 0"])
def test_a_shut_down_tcp_listener_listens_again_for_the_workers_that_hold_it_now(
    listen: Open, zero: bool
) -> None:
    listeners = listen(f"127.0.0.1:{0 if zero else free_port()},defer,backlog=9")
    listener = only(listeners)
    where, inodes = listener.sock.getsockname(), listeners.inodes()
    with worker(listener) as living:
        living.shutdown(socket.SHUT_RDWR)
        with pytest.raises(ConnectionRefusedError):
            connect(where)
        assert listeners.repair() == [
            f"listener {listener.key}: a program called shutdown() on the shared socket; it listens again"
        ]
        assert listeners.inodes() == inodes
        assert tcp_info_backlog(living) == 9
        assert living.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert living.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= 5
        with connect(where) as client:
            client.sendall(b"GET")  # with defer, the kernel hands over a connection that has spoken
            serve(living)
            assert client.recv(5) == b"hello"
    assert listeners.repair() == []


@needs_v6
def test_a_shut_down_inherited_listener_that_had_port_0_is_bound_anew_to_its_port(
    listen: Open,
) -> None:
    both = bound(("::", 0))
    port = both.getsockname()[1]
    listeners = listen(inherited=((both, ""),))
    listener = only(listeners)
    handoff, inodes = listeners.handoff(), listeners.inodes()
    listener.sock.shutdown(socket.SHUT_RDWR)
    (sentence,) = listeners.repair()
    assert "a new socket is bound there" in sentence
    assert listeners.handoff() == handoff
    assert listeners.inodes() != inodes
    assert answers(("127.0.0.1", port), listener.sock)
    assert answers(("::1", port), listener.sock)
    assert listeners.repair() == []


def test_a_port_that_somebody_else_took_meanwhile_is_reported_and_mended_once_it_is_free(
    listen: Open,
) -> None:
    listeners = listen("127.0.0.1:0")
    listener = only(listeners)
    where = listener.sock.getsockname()
    listener.sock.shutdown(socket.SHUT_RDWR)
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(where)
        thief.listen()
        (sentence,) = listeners.repair()
        assert sentence.startswith(
            f"listener {listener.key}: new connections do not reach it any more, and it cannot be repaired: "
        )
        assert "another process listens there" in sentence
    assert len(listeners.repair()) == 1
    assert answers(where, listener.sock)


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_RDWR])
def test_a_shut_down_unix_listener_is_bound_anew_at_its_path(
    listen: Open, run: str, how: int
) -> None:
    path = f"{run}/a.sock"
    listeners = listen(f"{path},mode=0600,nonblock")
    listener = only(listeners)
    handoff, inodes = listeners.handoff(), listeners.inodes()
    listener.sock.shutdown(how)
    with pytest.raises(ConnectionRefusedError):
        connect(path)
    assert listeners.repair() == [
        f"listener {path}: a program called shutdown() on the shared socket; a new socket is bound there; "
        "workers that hold the old one hear nothing more, the next ones will"
    ]
    assert listeners.handoff() == handoff
    assert listeners.inodes() != inodes
    assert not os.get_inheritable(listener.sock.fileno())
    assert not os.get_blocking(listener.sock.fileno())
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert answers(path, listener.sock)
    assert not waiting(listener.sock)
    assert listeners.repair() == []
    listeners.close()
    assert os.listdir(run) == []


def test_a_shut_down_udp_socket_is_bound_anew(listen: Open) -> None:
    listeners = listen("127.0.0.1:u0")
    listener = only(listeners)
    with pytest.raises(OSError, match="not connected"):
        listener.sock.shutdown(socket.SHUT_RDWR)
    assert len(listeners.repair()) == 1
    assert listeners.repair() == []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"hi", listener.bound_to)
    assert waiting(listener.sock, 5000)
    assert listener.sock.recv(2) == b"hi"


def test_an_unlinked_path_is_put_back_for_the_same_socket_with_its_queue(
    listen: Open, run: str
) -> None:
    path = f"{run}/a.sock"
    listeners = listen(path)
    inodes = listeners.inodes()
    with worker(only(listeners)) as living, connect(path) as early:
        os.unlink(path)
        assert listeners.repair() == [
            f"listener {path}: a program removed the socket's path; it is put back"
        ]
        assert listeners.inodes() == inodes
        serve(living)
        assert early.recv(5) == b"hello"
        assert answers(path, living)
        os.unlink(path)
        assert len(listeners.repair()) == 1
        assert answers(path, living)
    assert listeners.repair() == []


def test_the_path_of_an_inherited_socket_is_put_back_too(listen: Open, run: str) -> None:
    path = f"{run}/a.sock"
    listeners = listen(inherited=((bound(path), ""),))
    os.unlink(path)
    assert len(listeners.repair()) == 1
    assert answers(path, only(listeners).sock)
    listeners.close()
    assert os.listdir(run) == ["a.sock"]


def test_an_inherited_unix_socket_that_is_bound_anew_keeps_mode_and_path_at_close(
    listen: Open, run: str
) -> None:
    path = f"{run}/a.sock"
    sock = bound(path)
    os.chmod(path, 0o640)
    listeners = listen(inherited=((sock, ""),))
    only(listeners).sock.shutdown(socket.SHUT_RDWR)
    assert len(listeners.repair()) == 1
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert answers(path, only(listeners).sock)
    listeners.close()
    assert os.listdir(run) == ["a.sock"]


def test_a_stale_socket_that_a_program_left_at_the_path_makes_room_for_ours(
    listen: Open, run: str
) -> None:
    path = f"{run}/a.sock"
    listeners = listen(path)
    os.unlink(path)
    bound(path).close()
    assert listeners.repair() == [
        f"listener {path}: a program removed the socket's path; it is put back"
    ]
    assert answers(path, only(listeners).sock)


def test_an_unlinked_path_without_private_link_gets_a_new_socket_and_the_sentence_says_so(
    listen: Open, run: str
) -> None:
    path = f"{run}/a.sock"
    listeners = listen(path)
    inodes = listeners.inodes()
    os.unlink(path)
    os.unlink(private(path))
    (sentence,) = listeners.repair()
    assert "workers that hold the old one hear nothing more" in sentence
    assert listeners.inodes() != inodes
    assert answers(path, only(listeners).sock)
    os.unlink(path)
    assert listeners.repair() == [
        f"listener {path}: a program removed the socket's path; it is put back"
    ]


def test_something_foreign_at_the_path_is_left_alone_and_reported(listen: Open, run: str) -> None:
    listeners = listen(f"{run}/a", f"{run}/b")
    os.unlink(f"{run}/a")
    os.unlink(f"{run}/b")
    Path(run, "a").write_text("precious")
    with bound(f"{run}/b") as other:
        lost = "new connections do not reach it any more, and it cannot be repaired"
        assert listeners.repair() == [
            f"listener {run}/a: {lost}: a regular file is at the path; remove it, or take another path",
            f"listener {run}/b: {lost}: something is listening on it already",
        ]
        other.accept()[0].close()
        assert answers(f"{run}/b", other)
        listeners.close()
        assert Path(run, "a").read_text() == "precious"
        assert answers(f"{run}/b", other)
    assert sorted(os.listdir(run)) == ["a", "b"]


def test_a_removed_directory_is_reported_and_mended_once_it_is_back(listen: Open, run: str) -> None:
    listeners = listen(f"{run}/d.sock", "127.0.0.1:0")
    shutil.rmtree(run)
    (sentence,) = listeners.repair()
    assert sentence.endswith(f"the directory {run} does not exist")
    os.mkdir(run)
    assert len(listeners.repair()) == 1
    assert answers(f"{run}/d.sock", next(iter(listeners)).sock)


def test_several_spoilt_listeners_are_mended_in_one_go(listen: Open, run: str) -> None:
    listeners = listen("127.0.0.1:0", f"{run}/a", f"{run}/b")
    tcp, shut, _ = listeners
    tcp.sock.shutdown(socket.SHUT_RDWR)
    shut.sock.shutdown(socket.SHUT_RDWR)
    os.unlink(f"{run}/b")
    assert len(listeners.repair()) == 3
    assert all(answers(listener.bound_to, listener.sock) for listener in listeners)
    assert listeners.repair() == []
