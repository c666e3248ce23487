"""The control socket alone, in a loop of its own: whatever its clients do, the loop goes on and the
others are answered.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.base.errors import StartError
from sidecar.control import server
from sidecar.control.server import Control
from tests.support import PATIENCE, until
from tests.unit.children import as_nobody, in_child


class Following:
    """An answer that goes on until the event "end"."""

    done = False

    def heard(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        self.done = record["event"] == "end"
        return [record, *([{"done": 0}] if self.done else [])]


class Loop:
    """Serves a control socket in a thread, as PID 1 does, and counts how often it was woken."""

    def __init__(self, it: Control) -> None:
        self.control = it
        self.turns = 0
        self.asked: list[object] = []
        self._orders: list[Callable[[], None]] = []
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK)
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self.control.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._over:
            deadline = self.control.deadline
            ready = poll.poll(
                None
                if deadline == float("inf")
                else max(0.0, deadline - time.monotonic()) * 1000 + 1
            )
            if any(fd == self._wake for fd, _ in ready):
                os.read(self._wake, 4096)
                orders, self._orders = self._orders, []
                for order in orders:
                    order()
            if not any(fd == self._wake for fd, _ in ready) or len(ready) > 1:
                self.turns += 1
            self.control.turn(time.monotonic(), self._answer)

    def _answer(self, request: object) -> tuple[list[dict[str, Any]], Following | None]:
        self.asked.append(request)
        if not isinstance(request, dict):
            return [{"done": 2, "cause": "no object"}], None
        if request.get("follow"):
            return [{"event": "past"}], Following()
        return [{"done": 0, "echo": request.get("say"), "much": "x" * request.get("much", 0)}], None

    def do(self, order: Callable[[], None]) -> None:
        """In the loop's thread, soon."""
        self._orders.append(order)
        os.write(self._woken, b"x")

    def tell(self, event: str, **more: Any) -> None:
        self.do(lambda: self.control.tell({"event": event, **more}, time.monotonic()))

    def clients(self) -> int:
        return len(self.control._clients)

    def end(self) -> None:
        self._over = True
        os.write(self._woken, b"x")
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self.control.close()
        os.close(self._wake)
        os.close(self._woken)


class Peer:
    """A client."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(path)
        self.data = b""

    def send(self, *requests: object) -> Peer:
        self.sock.sendall(b"".join(json.dumps(each).encode() + b"\n" for each in requests))
        return self

    def next(self) -> dict[str, Any]:
        """The next object; EOFError if there is none."""
        while b"\n" not in self.data:
            part = self.sock.recv(1 << 16)
            if not part:
                raise EOFError
            self.data += part
        line, _, self.data = self.data.partition(b"\n")
        return json.loads(line)

    def ask(self, **request: Any) -> dict[str, Any]:
        return self.send(request).next()

    def closed(self) -> bool:
        """Wait for the end of the connection; whether nothing was said before."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


@pytest.fixture
def loop(tmp_path) -> Iterator[Loop]:
    it = Loop(Control.open(str(tmp_path / "control"), []))
    yield it
    it.end()


@pytest.fixture
def peer(loop) -> Iterator[Callable[[], Peer]]:
    peers: list[Peer] = []

    def make() -> Peer:
        peers.append(Peer(loop.control.path))
        return peers[-1]

    yield make
    for each in peers:
        each.sock.close()


# --- asking


def test_requests_are_answered_in_their_order_each_with_its_id(peer):
    one = peer().send(*({"say": number, "id": f"n{number}"} for number in range(100)))
    assert [one.next() for _ in range(100)] == [
        {"id": f"n{number}", "done": 0, "echo": number, "much": ""} for number in range(100)
    ]


def test_an_answer_that_goes_on_hears_events_until_it_is_done_and_then_the_next_request_is_read(
    loop, peer
):
    one = peer().send({"follow": True, "id": 1}, {"say": "after", "id": 2})
    assert one.next() == {"id": 1, "event": "past"}
    loop.tell("swap")
    assert one.next() == {"id": 1, "event": "swap"}
    assert len(loop.asked) == 1
    loop.tell("end")
    assert [one.next() for _ in range(3)] == [
        {"id": 1, "event": "end"}, {"id": 1, "done": 0}, {"id": 2, "done": 0, "echo": "after", "much": ""},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [b"", b"status", b"{", b"\xff\xfe", b"\0", b"[" * 4000, b'{"a":' * 700, b'"' + b"x" * 4000, b"GET / HTTP/1.1\r", b"1e999", b"9" * 4000,
     b'{"say": NaN}', b'{"id": [], "say": 1}', b'{"id": ' + b"9" * 4000 + b"}"],
    ids=lambda line: str(line[:12]),
)  # fmt: skip
def test_a_line_that_is_no_request_is_answered_and_the_next_one_too(peer, line):
    one = peer()
    one.sock.sendall(line + b"\n")
    assert one.next()["done"] in (0, 2)
    assert one.ask(say="hello")["echo"] == "hello"


def test_a_line_without_end_is_refused_with_the_reason(loop, peer):
    one = peer()
    one.sock.sendall(b"x" * (server.LONGEST_REQUEST + 1))
    assert str(server.LONGEST_REQUEST) in one.next()["cause"]
    assert one.closed()
    until(lambda: loop.clients() == 0, "its end here")


def test_a_request_of_the_greatest_length_is_read(peer):
    text = "x" * (server.LONGEST_REQUEST - len(json.dumps({"say": ""})) - 1)
    assert peer().ask(say=text)["echo"] == text


def test_who_has_shut_down_its_own_side_is_answered_to_the_end(loop, peer):
    """`nc -N` does so after the request."""
    one, two = peer().send({"say": 1}, {"say": 2}), peer().send({"follow": True})
    one.sock.shutdown(socket.SHUT_WR)
    two.sock.shutdown(socket.SHUT_WR)
    assert (one.next()["echo"], one.next()["echo"]) == (1, 2)
    assert one.closed()
    assert two.next() == {"event": "past"}
    loop.tell("end")
    assert (two.next(), two.next()) == ({"event": "end"}, {"done": 0})
    assert two.closed()


def test_who_asks_and_leaves_at_once_has_asked(loop, peer):
    peer().send({"say": "reload"}).sock.close()
    until(lambda: loop.asked == [{"say": "reload"}], "the request")
    until(lambda: loop.clients() == 0, "its end here")


def test_a_large_answer_arrives_whole(peer):
    """Larger than any buffer, and than what may wait for somebody who follows."""
    assert len(peer().ask(much=3 * server.MOST_WAITING)["much"]) == 3 * server.MOST_WAITING


# --- those who are slow, silent, or too many


@pytest.fixture
def hurried(monkeypatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.5)


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
            assert loop.clients() <= server.MOST_CLIENTS
            each.sock.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("hurried")
def test_more_clients_than_there_is_room_for_wait_until_the_silent_are_dropped(loop, peer):
    silent = [peer() for _ in range(server.MOST_CLIENTS)]
    until(lambda: loop.clients() == server.MOST_CLIENTS, "a full house")
    assert peer().ask(say="late")["echo"] == "late"
    assert all(each.closed() for each in silent)


def test_many_who_follow_leave_room_for_those_who_ask(loop, peer, monkeypatch):
    monkeypatch.setattr(server, "MOST_GOING", 5)
    monkeypatch.setattr(server, "MOST_CLIENTS", 3)
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
        it = Loop(Control.open(str(tmp_path / "control"), []))
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
    monkeypatch.setattr(server, "PATIENCE", 0.2)
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


# --- who may


def test_the_file_is_its_owners_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        it = Control.open(str(tmp_path / "control"), [])
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
        loop = Loop(Control.open(f"{place}/control", []))
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
    it = Control.open(path, [])
    Peer(path).sock.close()
    it.close()
    assert not os.path.exists(path)


def test_a_socket_that_somebody_listens_on_is_not_and_works_on(loop):
    with pytest.raises(StartError, match=r"--control .*in use"):
        Control.open(loop.control.path, [])
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
            Control.open(path, [])


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
        Control.open(str(path), [])
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
        Control.open(path, [])


def test_a_path_that_has_become_anothers_is_not_removed(tmp_path):
    it = Control.open(str(tmp_path / "control"), [])
    os.unlink(it.path)
    (tmp_path / "control").write_text("another's")
    it.close()
    assert (tmp_path / "control").read_text() == "another's"


def test_the_first_place_that_can_be_written_to_is_taken(tmp_path):
    good, taken = tmp_path / "good", tmp_path / "taken"
    good.mkdir()
    taken.mkdir()
    first = Control.open("", [str(taken)])
    assert first.path == str(taken / f"sidecar-{os.getpid()}.sock")
    # Two containers may share a directory, and have the same pid.
    second = Control.open("", ["/nonexistent", "/proc", str(taken), str(good)])
    assert second.path == str(good / f"sidecar-{os.getpid()}.sock")
    first.close()
    second.close()
    assert list(tmp_path.glob("*/*")) == []


def test_without_any_place_there_is_none_and_helpers_are_served(tmp_path):
    it = Loop(Control.open("", ["/proc", "/nonexistent"]))
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
    it = Control.open("none", ["/tmp"])
    assert it.path == ""
    it.close()


def test_the_end_is_the_end_for_clients_too(tmp_path):
    """Also for one who has connected and was never accepted: he is told that nobody is there, and
    does not wait.
    """
    it = Control.open(str(tmp_path / "control"), [])
    one = Peer(it.path).send({"say": 1})
    it.close()
    assert one.closed()
    with pytest.raises(FileNotFoundError):
        Peer(str(tmp_path / "control"))
    assert Path(tmp_path).is_dir()
