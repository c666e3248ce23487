"""Sockets that were passed to sidecar: by systemd, or by the sidecar before."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from sidecar.base.errors import ListenError
from sidecar.system.inherited_sockets import inherited
from tests.unit.listeners.sockets import (
    Open,
    answers,
    bound,
    connect,
    needs_v6,
    only,
    refusal,
    tcp_info_backlog,
)


def test_an_inherited_socket_that_is_asked_for_is_taken_for_it_with_its_name(
    listen: Open, run: str
) -> None:
    tcp, path = bound(("127.0.0.1", 0)), bound(f"{run}/a.sock")
    port = tcp.getsockname()[1]
    inode = os.fstat(tcp.fileno()).st_ino
    listeners = listen(
        f"{run}/a.sock", f"localhost:{port},name=web", inherited=((tcp, "one"), (path, "two"))
    )
    assert listeners.environment() == {
        "SERVER_STARTER_PORT": f"{run}/a.sock=3;localhost:{port}=4",
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "two:web",
    }
    assert inode in listeners.inodes()
    assert tcp.fileno() == -1


def test_inherited_sockets_that_nobody_asked_for_come_after_the_others(
    listen: Open, run: str
) -> None:
    any_v4, local, path = bound(("0.0.0.0", 0)), bound(("127.0.0.1", 0)), bound(f"{run}/a.sock")
    ports = [sock.getsockname()[1] for sock in (any_v4, local)]
    listeners = listen(
        "127.0.0.1:0", inherited=((any_v4, "app.socket"), (local, "app.socket"), (path, ""))
    )
    asked = next(iter(listeners)).key
    found = listeners.environment()
    assert (
        found["SERVER_STARTER_PORT"]
        == f"{asked}=3;{ports[0]}=4;127.0.0.1:{ports[1]}=5;{run}/a.sock=6"
    )
    assert found["LISTEN_FDNAMES"] == f"{asked.rpartition(':')[2]}:app.socket:app.socket:a.sock"


@needs_v6
def test_inherited_v6_and_udp_sockets_have_the_keys_of_their_kind(listen: Open) -> None:
    six, udp = bound(("::1", 0)), bound(("127.0.0.1", 0), kind=socket.SOCK_DGRAM)
    keys = [f"[::1]:{six.getsockname()[1]}", f"127.0.0.1:{udp.getsockname()[1]}"]
    assert [listener.key for listener in listen(inherited=((six, ""), (udp, "")))] == keys


@needs_v6
def test_the_socket_for_both_families_that_systemd_makes_of_a_bare_port_is_taken_for_one(
    listen: Open,
) -> None:
    both = bound(("::", 0))
    port = both.getsockname()[1]
    listener = only(listen(str(port), inherited=((both, ""),)))
    assert listener.key == str(port)
    assert answers(("127.0.0.1", port), listener.sock)


def test_an_inherited_tcp_socket_gets_nodelay_and_keeps_its_backlog(listen: Open) -> None:
    sock = only(listen(inherited=((bound(("127.0.0.1", 0), queue=7), ""),))).sock
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
    assert tcp_info_backlog(sock) == 7


def test_an_inherited_socket_that_does_not_listen_yet_is_made_to(listen: Open) -> None:
    listener = only(listen(inherited=((bound(("127.0.0.1", 0), queue=None), ""),)))
    assert answers(listener.sock.getsockname(), listener.sock)


def test_an_inherited_connection_is_refused(listen: Open) -> None:
    with bound(("127.0.0.1", 0)) as server:
        client = connect(server.getsockname())
        (problem,) = refusal(listen, inherited=((client, "conn"),))
        assert problem.startswith("LISTEN_FDS: the socket conn: a listening socket is needed")
        assert client.fileno() == -1


def test_the_path_of_an_inherited_socket_stays_at_close(listen: Open, run: str) -> None:
    listen(inherited=((bound(f"{run}/a.sock"), ""),)).close()
    assert os.listdir(run) == ["a.sock"]


ACTIVATE = """
import os, sys
number, names, code, fds = int(sys.argv[1]), sys.argv[2], sys.argv[3], [int(fd) for fd in sys.argv[4:]]
high = [os.dup2(fd, 100 + n) for n, fd in enumerate(fds)]
os.closerange(3, 100)
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n)
    os.close(fd)
os.environ.update(LISTEN_FDS=str(number), LISTEN_FDNAMES=names, LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-c", code])
"""
LIST = """
import json, os
from sidecar.base import errors
from sidecar.system import inherited_sockets, listeners
try:
    found = inherited_sockets.inherited(os.environ, os.getpid())
    took = [[sock.getsockname(), name, os.get_inheritable(sock.fileno())] for sock, name in found]
    opened = listeners.Listeners.open([], backlog=None, inherited=found)
    print(json.dumps([took, opened.environment(), opened.handoff()]))
except errors.ListenError as error:
    print(json.dumps(error.problems))
"""


def activate(names: str, *files: socket.socket | int, number: int | None = None) -> list[object]:
    """What `inherited` finds in a process that systemd would have started like this."""
    fds = [file if isinstance(file, int) else file.fileno() for file in files]
    count = str(len(fds) if number is None else number)
    command = [sys.executable, "-c", ACTIVATE, count, names, LIST, *map(str, fds)]
    done = subprocess.run(command, pass_fds=fds, check=True, capture_output=True, text=True)
    found: list[object] = json.loads(done.stdout)
    return found


def test_sockets_passed_by_systemd_are_found_with_their_names_and_moved_out_of_the_way(
    run: str,
) -> None:
    with bound(("127.0.0.1", 0)) as tcp, bound(f"{run}/a.sock") as path:
        host, port = tcp.getsockname()
        took, environment, handoff = activate("web:app", tcp, path)
        assert took == [[[host, port], "web", False], [f"{run}/a.sock", "app", False]]
        key = f"127.0.0.1:{port}=3;{run}/a.sock=4"
        assert environment == {
            "SERVER_STARTER_PORT": key,
            "LISTEN_FDS": "2",
            "LISTEN_FDNAMES": "web:app",
        }
        assert handoff == [[5, 3], [6, 4]]


def test_sockets_without_names_are_named_by_sidecar(run: str) -> None:
    with bound(f"{run}/a.sock") as path:
        _, environment, _ = activate("", path)
        assert environment["LISTEN_FDNAMES"] == "a.sock"  # type: ignore[index]


def test_every_passed_descriptor_that_is_no_fit_socket_is_named(run: str) -> None:
    with (
        open(os.devnull) as file,
        bound("\0abstract-sidecar-test") as abstract,
        bound(f"{run}/d", kind=socket.SOCK_DGRAM) as datagram,
        bound(f"{run}/a;b") as semicolon,
    ):
        problems = activate("a:b:c:d", file.fileno(), abstract, datagram, semicolon, number=6)
    path = "a unix socket has to have a path, without ';' and '=': SERVER_STARTER_PORT could not carry it"
    assert problems == [
        "LISTEN_FDS: file descriptor 3 of 6 is no socket",
        f"LISTEN_FDS: file descriptor 4 of 6: {path}",
        "LISTEN_FDS: file descriptor 5 of 6: it is neither a TCP, a UDP nor a unix stream socket",
        f"LISTEN_FDS: file descriptor 6 of 6: {path}",
        "LISTEN_FDS: file descriptor 7 of 6 is not open",
    ]


@pytest.mark.parametrize(
    "environ",
    [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_PID": "7"}],
)
def test_nothing_is_inherited_that_is_not_meant_for_this_process(environ: dict[str, str]) -> None:
    assert inherited(environ, 7) == []


def test_a_count_of_descriptors_that_is_no_number_is_refused() -> None:
    with pytest.raises(ListenError, match="'x' is no number"):
        inherited({"LISTEN_FDS": "x", "LISTEN_PID": "7"}, 7)
