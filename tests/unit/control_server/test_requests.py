"""The control socket alone, in a loop of its own: requests and their answers."""

from __future__ import annotations

import json
import socket

import pytest

from sidecar.control import server
from tests.support import until


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
    one.sock.sendall(b"x" * (server.MAX_REQUEST_BYTES + 1))
    assert str(server.MAX_REQUEST_BYTES) in one.next()["cause"]
    assert one.closed()
    until(lambda: loop.clients() == 0, "its end here")


def test_a_request_of_the_greatest_length_is_read(peer):
    text = "x" * (server.MAX_REQUEST_BYTES - len(json.dumps({"say": ""})) - 1)
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
    assert len(peer().ask(much=3 * server.MAX_UNSENT_BYTES)["much"]) == 3 * server.MAX_UNSENT_BYTES
