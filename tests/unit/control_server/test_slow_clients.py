"""Clients that are slow, silent, or too many: the loop goes on, and the others are answered."""

from __future__ import annotations

import gc
import os
import resource
import socket
import threading
import time

import pytest

from sidecar.control import server
from sidecar.control.server import ControlSocket
from tests.support import PATIENCE, until
from tests.unit.children import in_child
from tests.unit.control_server.peers import Loop, Peer


@pytest.fixture
def hurried(monkeypatch) -> None:
    monkeypatch.setattr(server, "CLIENT_TIMEOUT_S", 0.5)


def test_a_request_may_come_byte_by_byte(peer):
    one = peer()
    for byte in b'{"say": 1}\n':
        one.sock.send(bytes([byte]))
    assert one.next()["echo"] == 1


@pytest.mark.usefixtures("hurried")
def test_who_sends_a_byte_now_and_then_has_no_more_time_than_others(loop, peer):
    one = peer()

    def dribble() -> None:
        while True:
            one.sock.send(b" ")
            time.sleep(0.02)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        dribble()
    assert loop.clients() == 0


@pytest.mark.usefixtures("hurried")
def test_the_silent_are_dropped_before_and_after_a_request(loop, peer):
    silent, once = peer(), peer()
    assert once.ask(say=1)["echo"] == 1
    assert silent.closed()
    assert once.closed()
    assert loop.control.deadline == float("inf")


@pytest.mark.usefixtures("hurried")
def test_an_answer_that_nobody_takes_is_dropped_and_nothing_more_is_read_meanwhile(loop, peer):
    one = peer().send(*({"much": 1 << 20} for _ in range(10)))
    until(lambda: loop.asked, "the first request")
    until(lambda: loop.clients() == 0, "its end here")
    assert len(loop.asked) == 1
    one.sock.close()


def test_a_flood_of_requests_waits_for_its_answers_to_be_taken_and_delays_nobody(loop, peer):
    flood = peer()
    flood.sock.settimeout(0.2)

    def ask() -> None:
        while True:
            flood.sock.sendall(b'{"much": 1000, "say": "flood"}\n' * 1000)

    with pytest.raises(TimeoutError):  # it fills its own end
        ask()
    asked = len(loop.asked)
    other = peer()
    assert [other.ask(say=number)["echo"] for number in range(50)] == list(range(50))
    assert len(loop.asked) == asked + 50
    assert max(len(each.unsent) for each in loop.control._clients.values()) < 5000


def test_floods_of_requests_whose_answers_are_taken_leave_the_loop_to_others(loop, peer):
    """Another is answered all the same, and turns end, so that everything else has its turn."""
    over = threading.Event()

    def flood(one: Peer) -> None:
        one.sock.sendall(b'{"say": "flood"}\n' * 100)
        while not over.is_set():
            one.next()
            one.send({"say": "flood"})

    threads = [threading.Thread(target=flood, args=(peer(),), daemon=True) for _ in range(5)]
    for each in threads:
        each.start()
    until(lambda: len(loop.asked) > 500, "the flood")
    before = loop.turns
    other = peer()
    until(
        lambda: other.ask(say=1)["echo"] == 1 and loop.turns > before + 5,
        "some turns, and answers meanwhile",
    )
    over.set()
    for each in threads:
        each.join(PATIENCE)


@pytest.mark.usefixtures("hurried")
def test_who_follows_and_does_not_read_is_dropped_and_the_others_hear_everything(loop, peer):
    deaf, good = peer().send({"follow": True}), peer().send({"follow": True})
    assert good.next() == {"event": "past"}
    until(lambda: len(loop.asked) == 2, "both")
    for number in range(3000):
        loop.tell("swap", number=number, text="x" * 1000)
        assert good.next()["number"] == number
    until(lambda: loop.clients() == 1, "the end of the deaf one")
    loop.tell("end")
    assert good.next()["event"] == "end"
    del deaf


@pytest.mark.usefixtures("hurried")
def test_who_follows_has_no_deadline_and_costs_no_wake_up(loop, peer):
    one = peer().send({"follow": True})
    one.next()
    until(lambda: loop.control.deadline == float("inf"), "the loop's rest")
    before = loop.turns
    time.sleep(1.0)  # twice the patience
    assert loop.turns == before
    loop.tell("swap")
    assert one.next() == {"event": "swap"}


def test_a_thousand_clients_at_once_are_all_answered(loop, peer):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(before[1], 4096)), before[1]))
    try:
        peers = [peer() for _ in range(1000)]
        for number, each in enumerate(peers):
            each.send({"say": number})
        for number, each in enumerate(peers):
            assert each.next()["echo"] == number
            assert loop.clients() <= server.MAX_CLIENTS
            each.sock.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("hurried")
def test_more_clients_than_there_is_room_for_wait_until_the_silent_are_dropped(loop, peer):
    silent = [peer() for _ in range(server.MAX_CLIENTS)]
    until(lambda: loop.clients() == server.MAX_CLIENTS, "a full house")
    assert peer().ask(say="late")["echo"] == "late"
    assert all(each.closed() for each in silent)


def test_many_who_follow_leave_room_for_those_who_ask(loop, peer, monkeypatch):
    monkeypatch.setattr(server, "MAX_STREAMS", 5)
    monkeypatch.setattr(server, "MAX_CLIENTS", 3)
    followers = [peer().send({"follow": True}) for _ in range(5)]
    for each in followers:
        assert each.next() == {"event": "past"}
    assert "5 clients wait" in peer().ask(follow=True)["cause"]
    assert peer().ask(say=1)["echo"] == 1
    followers[0].sock.close()
    until(lambda: peer().ask(follow=True) == {"event": "past"}, "room for another")


def test_without_descriptors_clients_wait_and_the_loop_does_not_spin(tmp_path):
    def work() -> str:
        gc.disable()  # what an earlier test has left open would be closed at any moment
        it = Loop(ControlSocket.open(str(tmp_path / "control"), []))
        one = Peer(it.control.path)
        one.ask(say=1)
        two = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The lowest number that is free, not the highest that is taken: there may be gaps below it.
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
        two.connect(it.control.path)
        until(lambda: not it.control._accepting, "the pause")
        turns = it.turns
        for _ in range(10):
            assert one.ask(say=2)["echo"] == 2
        assert it.turns <= turns + 20 + 1, it.turns
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        two.sendall(b'{"say": 3}\n')
        return two.recv(100).decode()

    assert '"echo": 3' in in_child(work)


def test_a_helper_has_no_deadline(loop, monkeypatch):
    monkeypatch.setattr(server, "CLIENT_TIMEOUT_S", 0.2)
    ours, theirs = socket.socketpair()
    loop.do(lambda: loop.control.adopt(ours))
    theirs.settimeout(PATIENCE)
    for _ in range(2):
        theirs.sendall(b'{"say": 1}\n')
        assert b'"echo": 1' in theirs.recv(1000)
        assert loop.control.deadline == float("inf")
        time.sleep(0.4)
    theirs.close()
    until(lambda: loop.clients() == 0, "its end here")


def test_a_helper_sends_no_descriptors(loop):
    """The last close of a socket that lingers would hold PID 1 up."""
    ours, theirs = socket.socketpair()
    try:
        ours.getsockopt(socket.SOL_SOCKET, server.SO_PASSRIGHTS)
    except OSError:
        pytest.skip("needs Linux 6.16")
    loop.do(lambda: loop.control.adopt(ours))
    until(lambda: loop.clients() == 1, "its beginning")
    theirs.settimeout(PATIENCE)
    with pytest.raises(PermissionError):
        socket.send_fds(theirs, [b'{"say": 1}\n'], [theirs.fileno()])
    theirs.sendall(b'{"say": 1}\n')
    assert b'"echo": 1' in theirs.recv(1000)
    theirs.close()
    until(lambda: loop.clients() == 0, "its end here")
