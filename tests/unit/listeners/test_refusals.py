"""Ports and hosts that cannot be bound are refused with the reason and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.listeners.sockets import (
    NOBODY,
    REFUSED,
    Open,
    bound,
    free_port,
    in_namespace,
    needs_root,
    problems_in_child,
    refusal,
)


def test_a_taken_port_is_refused(listen: Open) -> None:
    with bound(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refusal(listen, f"127.0.0.1:{port}") == (
            f"--port 127.0.0.1:{port}: another process listens there; `ss -ltnp` shows which",
        )


@pytest.mark.parametrize(
    ("first", "second"),
    [("127.0.0.1:{}", "localhost:{}"), ("{}", "127.0.0.1:{}"), ("127.0.0.1:u{}", "localhost:u{}")],
)
def test_a_port_that_is_taken_by_another_of_ours_is_refused_naming_that(
    listen: Open, first: str, second: str
) -> None:
    port = free_port()
    first, second = first.format(port), second.format(port)
    assert refusal(listen, first, second) == (
        f"--port {second}: --port {first} listens there already; leave one of the two out",
    )


def test_a_path_that_is_another_of_ours_through_a_linked_directory_is_refused_naming_that(
    listen: Open, run: str
) -> None:
    Path(run, "other").symlink_to(run)
    assert refusal(listen, f"{run}/a", f"{run}/other/a") == (
        f"--port {run}/other/a: --port {run}/a listens there already; leave one of the two out",
    )
    assert os.listdir(run) == ["other"]


def test_tcp_and_udp_share_a_port_number(listen: Open) -> None:
    port = free_port()
    assert (
        listen(f"127.0.0.1:{port}", f"127.0.0.1:u{port}").environment()["SERVER_STARTER_PORT"]
        == f"127.0.0.1:{port}=3;127.0.0.1:{port}=4"
    )


def test_an_address_of_no_interface_here_is_refused(listen: Open) -> None:
    assert refusal(listen, "192.0.2.1:0") == (
        "--port 192.0.2.1:0: no network interface here has the address 192.0.2.1",
    )


def test_a_host_that_does_not_resolve_is_refused(listen: Open) -> None:
    (problem,) = refusal(listen, "no-such-host.invalid:80")
    assert problem.startswith(
        "--port no-such-host.invalid:80: no-such-host.invalid does not resolve ("
    )


def test_brackets_around_what_is_no_v6_address_are_refused(listen: Open) -> None:
    (problem,) = refusal(listen, "[::zz]:80")
    assert problem.startswith("--port [::zz]:80: ::zz is no IPv6 address (")


def test_a_host_that_has_a_v6_address_only_is_refused_with_what_to_say(run: str) -> None:
    Path(run, "hosts").write_text("2001:db8::1 six.example\n")
    said = in_namespace(f"mount --bind {run}/hosts /etc/hosts", REFUSED, "six.example:80")
    assert (
        said == "--port six.example:80: six.example has only an IPv6 address; say [2001:db8::1]:80"
    )


@needs_root
def test_a_privileged_port_is_refused_to_a_user_with_the_ways_out() -> None:
    if Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text().strip() != "1024":
        pytest.skip("net.ipv4.ip_unprivileged_port_start is not 1024 here")
    assert problems_in_child("127.0.0.1:81", uid=NOBODY) == [
        f"--port 127.0.0.1:81: port 81 is privileged, uid {NOBODY} may not bind it; that needs root, CAP_NET_BIND_SERVICE "
        "or the sysctl net.ipv4.ip_unprivileged_port_start=81; or take a port from 1024 up"
    ]


def test_every_problem_is_said_at_once_and_nothing_is_left_bound(listen: Open, run: str) -> None:
    Path(run, "file").write_text("precious")
    port = free_port()
    good = [f"127.0.0.1:{port}", f"{run}/good.sock"]
    problems = refusal(listen, good[0], f"{run}/file", good[1], "192.0.2.1:0", f"{run}/no/a")
    assert [problem.partition(": ")[0] for problem in problems] == [
        f"--port {run}/file",
        "--port 192.0.2.1:0",
        f"--port {run}/no/a",
    ]
    assert os.listdir(run) == ["file"]
    bound(("127.0.0.1", port)).close()
