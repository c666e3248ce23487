"""Each kind of address is bound as it was asked for, on real sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sidecar.base.errors import ListenError
from sidecar.settings import address
from sidecar.system.listener import Listener
from sidecar.system.listeners import Listeners
from sidecar.system.sockets import MAX_BACKLOG
from tests.unit.listeners.sockets import (
    Open,
    Where,
    answers,
    family_of,
    free_port,
    needs_v6,
    only,
    tcp_info_backlog,
    v6_works,
    waiting,
)


def test_each_kind_of_address_accepts_connections_and_is_known_by_its_key_byte_for_byte(
    listen: Open, run: str
) -> None:
    bare, local, six = free_port(), free_port(), free_port("::1") if v6_works() else 0
    specs = [
        f"{bare}",
        f"127.0.0.1:{local}",
        *([f"[::1]:{six}"] if six else []),
        f"unix:{run}/app.sock",
    ]
    listeners = listen(*specs)
    keys = [
        f"{bare}=3",
        f"127.0.0.1:{local}=4",
        *([f"[::1]:{six}=5"] if six else []),
        f"{run}/app.sock={len(specs) + 2}",
    ]
    assert listeners.environment()["SERVER_STARTER_PORT"] == ";".join(keys)
    places: list[Where] = [
        ("127.0.0.1", bare),
        ("127.0.0.1", local),
        *([("::1", six)] if six else []),
        f"{run}/app.sock",
    ]
    assert all(
        answers(place, listener.sock) for place, listener in zip(places, listeners, strict=True)
    )


def test_a_bare_port_is_every_ipv4_address_and_no_ipv6_one(listen: Open) -> None:
    assert only(listen("0")).sock.getsockname()[0] == "0.0.0.0"


def test_port_zero_is_published_as_the_port_that_the_kernel_chose(listen: Open) -> None:
    listeners = listen("0", "127.0.0.1:0", "localhost:0", "127.0.0.1:u0")
    ports = [listener.sock.getsockname()[1] for listener in listeners]
    assert all(ports)
    assert [listener.key for listener in listeners] == [
        str(ports[0]),
        f"127.0.0.1:{ports[1]}",
        f"localhost:{ports[2]}",
        f"127.0.0.1:{ports[3]}",
    ]


def v6_only(listener: Listener) -> int:
    return listener.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


@needs_v6
@pytest.mark.parametrize("kind", ["", "u"])
def test_every_v6_address_is_every_v4_address_too_unless_asked_otherwise(
    listen: Open, kind: str
) -> None:
    both = only(listen(f"[::]:{kind}0"))
    port = both.bound_to[1]
    assert (both.key, both.families) == (f"[::]:{port}", "IPv6 and IPv4")
    for host in ("127.0.0.1", "::1"):
        if kind:
            with socket.socket(family_of((host, port)), socket.SOCK_DGRAM) as sender:
                sender.sendto(b"hello", (host, port))
            assert waiting(both.sock, 5000)
            assert both.sock.recv(5) == b"hello"
        else:
            assert answers((host, port), both.sock)
    for option in ("ipv6only", "ipv6only=on"):
        alone = only(listen(f"[::]:{kind}0,{option}"))
        assert (v6_only(alone), alone.families) == (1, "IPv6 only")
        listen(f"{kind}{alone.bound_to[1]}")


@needs_v6
def test_an_address_of_one_interface_has_one_family(listen: Open) -> None:
    listeners = [*listen("[::1]:0", "127.0.0.1:0", "0")]
    assert v6_only(listeners[0]) == 1
    assert [each.families for each in listeners] == [""] * 3


@needs_v6
@pytest.mark.parametrize("v4", ["", "0.0.0.0:", "127.0.0.1:"])
@pytest.mark.parametrize("first", [0, 1])
def test_given_together_each_family_has_a_socket_of_its_own(
    listen: Open, v4: str, first: int
) -> None:
    port = free_port("::")
    specs = [f"[::]:{port}", f"{v4}{port}"]
    six, four = list(listen(*specs[first:], *specs[:first]))[:: -1 if first else 1]
    assert six.families == "IPv6 only"
    assert answers(("127.0.0.1", port), four.sock)
    assert answers(("::1", port), six.sock)


@needs_v6
def test_a_reload_that_adds_the_other_family_is_refused_and_says_who_listens_there(
    listen: Open,
) -> None:
    living = listen("[::]:0")
    port = only(living).bound_to[1]
    specs = [f"[::]:{port}", str(port)]
    with pytest.raises(ListenError) as caught:
        Listeners.reconfigure([address.parse(each) for each in specs], [living], backlog=None)
    assert caught.value.problems == (
        f"--port {port}: --port [::]:0 listens there already; drop it with one reload, and take this one with the next",
    )
    assert only(living).families == "IPv6 and IPv4"


@needs_v6
def test_a_socket_for_both_families_that_is_bound_anew_is_for_both_again(listen: Open) -> None:
    listeners = listen("[::]:u0", "[::]:u0,ipv6only")
    for each in listeners:
        with pytest.raises(OSError, match="not connected"):
            each.sock.shutdown(socket.SHUT_RDWR)
    assert len(listeners.repair()) == 2
    assert [each.families for each in listeners] == ["IPv6 and IPv4", "IPv6 only"]


def test_a_host_name_is_resolved_and_keeps_its_name_as_key(listen: Open) -> None:
    listener = only(listen("localhost:0"))
    host, port = listener.sock.getsockname()
    assert (host, listener.key) == ("127.0.0.1", f"localhost:{port}")


def test_a_udp_port_is_bound_and_not_listened_on_and_loses_its_u_in_the_key(listen: Open) -> None:
    port = free_port(kind=socket.SOCK_DGRAM)
    listeners = listen(f"127.0.0.1:u{port}")
    listener = only(listeners)
    assert (listener.key, listener.sock.type) == (f"127.0.0.1:{port}", socket.SOCK_DGRAM)
    assert listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
    assert listeners.inodes() == frozenset()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"hi", ("127.0.0.1", port))
    assert waiting(listener.sock, 5000)


def test_tcp_listeners_have_nodelay_reuseaddr_and_the_longest_backlog_and_block(
    listen: Open,
) -> None:
    sock = only(listen("127.0.0.1:0")).sock
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 0
    assert os.get_blocking(sock.fileno())
    assert tcp_info_backlog(sock) == min(
        MAX_BACKLOG, int(Path("/proc/sys/net/core/somaxconn").read_text())
    )


def test_defer_nonblock_and_backlog_are_set_where_they_are_asked_for(
    listen: Open, run: str
) -> None:
    both, own, path = listen(
        "127.0.0.1:0,defer,nonblock", "127.0.0.1:0,backlog=9", f"{run}/a.sock,nonblock", backlog=6
    )
    assert both.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= 5
    assert not os.get_blocking(both.sock.fileno())
    assert not os.get_blocking(path.sock.fileno())
    assert (tcp_info_backlog(both.sock), tcp_info_backlog(own.sock)) == (6, 9)


def test_no_listeners_leave_an_empty_server_starter_port_and_nothing_of_systemd(
    listen: Open,
) -> None:
    listeners = listen()
    assert listeners.environment() == {"SERVER_STARTER_PORT": ""}
    assert (listeners.handoff(), listeners.inodes(), listeners.repair(), len(listeners)) == (
        [],
        frozenset(),
        [],
        0,
    )
