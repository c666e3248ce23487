"""The descriptors of listeners: their numbers and names in a worker."""

from __future__ import annotations

import json
import os
import resource
import socket

import pytest

from tests.unit.listeners.sockets import Open, free_port, in_child, problems_in_child


def test_workers_get_numbers_from_3_up_around_the_fixed_ones(listen: Open) -> None:
    listeners = listen("0", "0=4", "0", "0=0", "0")
    assert [listener.worker_fd for listener in listeners] == [3, 4, 5, 0, 6]


def test_systemd_variables_are_in_the_order_of_the_numbers(listen: Open) -> None:
    found = listen("0=4,name=second", "0,name=first").environment()
    assert (found["LISTEN_FDS"], found["LISTEN_FDNAMES"]) == ("2", "first:second")


@pytest.mark.parametrize("specs", [("0=0",), ("0", "0=0"), ("0=5",), ("0", "0=9")])
def test_systemd_variables_are_left_out_where_the_numbers_are_not_3_and_up_without_a_gap(
    listen: Open, specs: tuple[str, ...]
) -> None:
    assert list(listen(*specs).environment()) == ["SERVER_STARTER_PORT"]


def test_a_listener_without_a_name_is_called_by_its_port_or_file_and_never_like_another(
    listen: Open, run: str
) -> None:
    port = free_port()
    found = listen(
        f"127.0.0.1:{port}",
        f"127.0.0.2:{port}",
        f"{run}/a:\tb\u00e9.sock",
        "0,name=web",
        f"{run}/web",
    ).environment()
    assert found["LISTEN_FDNAMES"] == f"{port}:{port}-2:a__b_.sock:web:web-2"


def test_a_plain_loop_of_dup2_gives_the_child_each_listener_whatever_the_numbers(
    listen: Open, run: str
) -> None:
    listeners = listen(
        "127.0.0.1:0=4", "127.0.0.1:0=3", "127.0.0.1:0=17", f"{run}/a.sock", "127.0.0.1:0=0"
    )
    targets = {target for _, target in listeners.handoff()}
    assert min(own for own, _ in listeners.handoff()) > max(targets)
    assert not any(os.get_inheritable(own) for own, _ in listeners.handoff())

    def child() -> list[object]:
        for own, target in listeners.handoff():
            os.dup2(own, target)
        return [socket.socket(fileno=target).getsockname() for _, target in listeners.handoff()]

    assert in_child(child) == json.loads(
        json.dumps([listener.sock.getsockname() for listener in listeners])
    )


def test_a_number_that_leaves_no_room_for_our_own_is_refused_and_the_limit_named() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))

    assert problems_in_child("127.0.0.1:0=1022", before=limit) == []
    (problem,) = problems_in_child("127.0.0.1:0=1023", before=limit)
    assert "above 1023" in problem
    assert "ulimit -n" in problem
