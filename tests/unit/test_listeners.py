"""The listening sockets, on real sockets and files."""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.base.errors import ListenError
from sidecar.settings import address
from sidecar.system.listeners import Listener, Listeners
from sidecar.system.sockets import LONGEST_BACKLOG, inherited

NOBODY = 65534
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="changes owner, uid or mounts: needs root")
Open = Callable[..., Listeners]


def v6_works() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_v6 = pytest.mark.skipif(not v6_works(), reason="no ::1 here")


@pytest.fixture
def run() -> Iterator[str]:
    """A directory with a short name, because a unix socket's path may have 107 bytes."""
    directory = tempfile.mkdtemp(prefix="sl", dir="/tmp")
    os.chmod(directory, 0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def listen() -> Iterator[Open]:
    opened: list[Listeners] = []

    def listen(
        *specs: str,
        backlog: int | None = None,
        inherited: tuple[tuple[socket.socket, str], ...] = (),
    ) -> Listeners:
        listeners = Listeners.open(
            [address.parse(spec) for spec in specs], backlog=backlog, inherited=inherited
        )
        opened.append(listeners)
        return listeners

    yield listen
    for listeners in opened:
        listeners.close()


def refusal(listen: Open, *specs: str, **more: object) -> tuple[str, ...]:
    with pytest.raises(ListenError) as caught:
        listen(*specs, **more)
    return caught.value.problems


def free_port(host: str = "127.0.0.1", kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


Where = str | tuple[str, int]


def family_of(where: Where) -> int:
    return (
        socket.AF_UNIX
        if isinstance(where, str)
        else socket.AF_INET6
        if ":" in where[0]
        else socket.AF_INET
    )


def bound(where: Where, *, kind: int = socket.SOCK_STREAM, queue: int | None = 5) -> socket.socket:
    """A socket that somebody other than sidecar has bound."""
    sock = socket.socket(family_of(where), kind)
    sock.bind(where)
    if queue is not None and kind == socket.SOCK_STREAM:
        sock.listen(queue)
    return sock


def connect(where: Where) -> socket.socket:
    client = socket.socket(family_of(where))
    client.settimeout(5)
    try:
        client.connect(where)
    except OSError:
        client.close()
        raise
    return client


def serve(server: socket.socket) -> None:
    """Accept one connection, as a worker would, and greet it."""
    assert waiting(server, 5000)
    accepted, _ = server.accept()
    with accepted:
        accepted.sendall(b"hello")


def waiting(server: socket.socket, milliseconds: int = 0) -> bool:
    poll = select.poll()
    poll.register(server, select.POLLIN)
    return bool(poll.poll(milliseconds))


def answers(where: Where, server: socket.socket) -> bool:
    with connect(where) as client:
        serve(server)
        return client.recv(5) == b"hello"


def worker(listener: Listener) -> socket.socket:
    """The listener as a worker holds it: another descriptor of the same open socket."""
    return socket.socket(fileno=os.dup(listener.sock.fileno()))


def only(listeners: Listeners) -> Listener:
    (listener,) = listeners
    return listener


def private(path: str) -> str:
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.sidecar")


def in_child(function: Callable[[], object], uid: int | None = None) -> object:
    """What `function` returns (as JSON) in a forked child, as user `uid`."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            if uid is not None:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            os.write(writer, json.dumps(function()).encode())
        except BaseException as error:
            os.write(writer, json.dumps(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def problems_in_child(
    *specs: str, uid: int | None = None, before: Callable[[], object] = lambda: None
) -> list[str]:
    def attempt() -> list[str]:
        before()
        try:
            Listeners.open([address.parse(spec) for spec in specs], backlog=None).close()
        except ListenError as error:
            return list(error.problems)
        return []

    found = in_child(attempt, uid)
    assert isinstance(found, list), found
    return found


def tcp_info_backlog(sock: socket.socket) -> int:
    """tcpi_sacked, which is the backlog of a listening socket."""
    return int(
        struct.unpack_from("8B6I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104))[13]
    )


# Binding


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
    port = both.where[1]
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
        listen(f"{kind}{alone.where[1]}")


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
    port = only(living).where[1]
    specs = [f"[::]:{port}", str(port)]
    with pytest.raises(ListenError) as caught:
        Listeners.changed([address.parse(each) for each in specs], [living], backlog=None)
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
    assert len(listeners.mend()) == 2
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
        LONGEST_BACKLOG, int(Path("/proc/sys/net/core/somaxconn").read_text())
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
    assert (listeners.handoff(), listeners.inodes(), listeners.mend(), len(listeners)) == (
        [],
        frozenset(),
        [],
        0,
    )


# Numbers and names


def test_workers_get_numbers_from_3_up_around_the_fixed_ones(listen: Open) -> None:
    listeners = listen("0", "0=4", "0", "0=0", "0")
    assert [listener.fd for listener in listeners] == [3, 4, 5, 0, 6]


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


# Unix sockets


def test_a_unix_socket_has_mode_0777_unless_asked_otherwise_and_the_umask_stays(
    listen: Open, run: str
) -> None:
    umask = os.umask(0o027)
    try:
        listen(f"{run}/a", f"{run}/b,mode=0660", f"{run}/c,mode=1600")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(umask)
    assert [stat.S_IMODE(os.stat(f"{run}/{name}").st_mode) for name in "abc"] == [
        0o777,
        0o660,
        0o1600,
    ]


def test_a_unix_socket_is_never_more_open_than_asked_and_refuses_until_it_is_ready(
    run: str,
) -> None:
    path, seen = f"{run}/a,mode=0600", []

    def look(event: str, _: object) -> None:
        if event in ("os.link", "os.chown", "os.chmod"):
            with socket.socket(socket.AF_UNIX) as probe:
                seen.append(
                    (event, stat.S_IMODE(os.stat(f"{run}/a").st_mode), probe.connect_ex(f"{run}/a"))
                )

    def attempt() -> object:
        sys.addaudithook(look)
        Listeners.open([address.parse(f"{path},owner={os.getuid()}")], backlog=None)
        return seen

    assert in_child(attempt) == [
        ["os.link", 0o600, errno.ECONNREFUSED],
        ["os.chown", 0o600, errno.ECONNREFUSED],
    ]


@pytest.mark.parametrize("moment", ["open", "os.link", "os.chown"])
@pytest.mark.parametrize("kind", [os.symlink, os.link])
@needs_root
def test_who_may_write_to_the_directory_has_no_hand_on_the_mode_and_owner_of_other_files(
    run: str, moment: str, kind: Callable[[str, str], None]
) -> None:
    """A link to another file takes the path's place at a bad moment."""
    path, secret = f"{run}/a", f"{run}/secret"
    with open(secret, "w"):
        os.chmod(secret, 0o600)

    def attempt() -> object:
        done = []

        def exchange(event: str, arguments: tuple[object, ...]) -> None:
            if event == moment and not done and (moment != "open" or arguments[0] == path):
                done.append(event)
                os.unlink(path)
                kind(secret, path)

        sys.addaudithook(exchange)
        owner = ",owner=12345" if moment == "os.chown" else ""
        try:
            Listeners.open([address.parse(f"{path},mode=0666{owner}")], backlog=None)
        except ListenError:
            done.append("refused")
        return done

    assert in_child(attempt) == ([moment, "refused"] if moment == "open" else [moment])
    found = os.stat(secret)
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, 0)


@needs_root
def test_a_directory_exchanged_on_the_way_does_not_choose_what_is_removed(
    listen: Open, run: str
) -> None:
    """The directory of the path is exchanged for a link just before the socket is removed."""
    os.mkdir(f"{run}/theirs")
    os.mkdir(f"{run}/others")
    Path(f"{run}/others/a").touch()
    listeners = listen(f"{run}/theirs/a")

    def attempt() -> object:
        def exchange(event: str, arguments: tuple[object, ...]) -> None:
            if event == "os.remove" and arguments[0] in ("a", f"{run}/theirs/a"):
                os.rename(f"{run}/theirs", f"{run}/moved")
                os.symlink("others", f"{run}/theirs")

        sys.addaudithook(exchange)
        listeners.close()
        return sorted(os.listdir(f"{run}/others"))

    assert in_child(attempt) == ["a"]
    assert os.listdir(f"{run}/moved") == []


def test_a_unix_socket_has_the_backlog_that_is_asked_for(listen: Open, run: str) -> None:
    listen(f"{run}/a,backlog=3")
    clients = [socket.socket(socket.AF_UNIX) for _ in range(6)]
    for client in clients:
        client.setblocking(False)
    answers = [client.connect_ex(f"{run}/a") for client in clients]
    assert answers == [0] * 4 + [errno.EAGAIN] * 2  # the kernel lets one more than the backlog wait
    for client in clients:
        client.close()


@needs_root
def test_a_unix_socket_is_given_to_its_owner_by_number_or_name(listen: Open, run: str) -> None:
    listen(f"{run}/a,owner=12345:54321,mode=0600", f"{run}/b,owner=nobody", f"{run}/c,owner=:12345")
    owners = [(os.stat(f"{run}/{name}").st_uid, os.stat(f"{run}/{name}").st_gid) for name in "abc"]
    assert owners == [(12345, 54321), (NOBODY, 0), (0, 12345)]
    assert stat.S_IMODE(os.stat(f"{run}/a").st_mode) == 0o600
    assert os.path.samefile(private(f"{run}/a"), f"{run}/a")


def test_an_unknown_owner_is_refused_before_anything_is_made(listen: Open, run: str) -> None:
    assert refusal(listen, f"{run}/a,owner=no-such-user", f"{run}/b,owner=0:no-such-group") == (
        f"--port {run}/a,owner=no-such-user: there is no user 'no-such-user' here; one given as a number need not be known",
        f"--port {run}/b,owner=0:no-such-group: there is no group 'no-such-group' here; one given as a number need not be known",
    )
    assert os.listdir(run) == []


@needs_root
def test_an_owner_that_may_not_be_set_is_refused_and_the_socket_removed(run: str) -> None:
    os.chmod(run, 0o777)
    (problem,) = problems_in_child(f"{run}/a,owner=0", uid=NOBODY)
    assert problem.startswith(f"--port {run}/a,owner=0: uid {NOBODY} may not give the socket to 0")
    assert os.listdir(run) == []


def test_getsockname_shows_the_path_that_was_asked_for(listen: Open, run: str) -> None:
    assert only(listen(f"unix:{run}/app.sock")).sock.getsockname() == f"{run}/app.sock"


def test_a_stale_socket_is_replaced(listen: Open, run: str) -> None:
    bound(f"{run}/a.sock").close()
    listener = only(listen(f"{run}/a.sock"))
    assert answers(f"{run}/a.sock", listener.sock)


def test_a_live_socket_is_refused_and_goes_on_serving(listen: Open, run: str) -> None:
    with bound(f"{run}/a.sock") as other:
        assert refusal(listen, f"{run}/a.sock") == (
            f"--port {run}/a.sock: something is listening on it already",
        )
        other.accept()[0].close()  # the connection by which sidecar asked
        assert answers(f"{run}/a.sock", other)


def test_a_live_socket_with_a_full_queue_is_refused(listen: Open, run: str) -> None:
    with bound(f"{run}/a.sock", queue=0) as other, connect(f"{run}/a.sock"):
        assert other
        assert refusal(listen, f"{run}/a.sock") == (
            f"--port {run}/a.sock: something is listening on it already",
        )


def test_a_file_a_directory_and_a_symbolic_link_at_the_path_are_refused_and_untouched(
    listen: Open, run: str
) -> None:
    Path(run, "file").write_text("precious")
    Path(run, "directory").mkdir()
    Path(run, "link").symlink_to("file")
    Path(run, "dangling").symlink_to("nowhere")
    os.mkfifo(f"{run}/pipe")
    names = ["file", "directory", "link", "dangling", "pipe"]
    what = ["regular file", "directory", "symbolic link", "symbolic link", "pipe or device"]
    assert refusal(listen, *[f"{run}/{name}" for name in names]) == tuple(
        f"--port {run}/{name}: a {thing} is at the path; remove it, or take another path"
        for name, thing in zip(names, what, strict=True)
    )
    assert sorted(os.listdir(run)) == sorted(names)
    assert Path(run, "file").read_text() == "precious"


def test_a_missing_directory_is_named(listen: Open, run: str) -> None:
    assert refusal(listen, f"{run}/no/such/a.sock") == (
        f"--port {run}/no/such/a.sock: the directory {run}/no/such does not exist",
    )


def test_a_directory_that_is_a_file_is_named(listen: Open, run: str) -> None:
    Path(run, "file").touch()
    assert refusal(listen, f"{run}/file/a.sock") == (
        f"--port {run}/file/a.sock: {run}/file is no directory",
    )


@needs_root
def test_a_directory_in_which_we_may_not_write_is_named_with_our_uid(run: str) -> None:
    assert problems_in_child(f"{run}/a.sock", uid=NOBODY) == [
        f"--port {run}/a.sock: uid {NOBODY} may not make or remove a socket in the directory {run}"
    ]


@needs_root
def test_a_stale_socket_of_somebody_else_that_we_may_not_ask_is_refused(run: str) -> None:
    os.chmod(run, 0o777)
    bound(f"{run}/a.sock").close()
    os.chmod(f"{run}/a.sock", 0o600)
    (problem,) = problems_in_child(f"{run}/a.sock", uid=NOBODY)
    assert "may not connect to it to see whether it is stale" in problem
    assert os.listdir(run) == ["a.sock"]


def in_namespace(script: str, python: str, *arguments: str) -> str:
    """What Python prints in a mount namespace of its own, prepared by a shell script. Skips where
    that is not allowed.
    """
    if not ROOT or not shutil.which("unshare"):
        pytest.skip("mounts something: needs root and unshare(1)")
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    done = subprocess.run(
        [
            "unshare",
            "-m",
            "sh",
            "-ec",
            script + '; exec "$@"',
            "sh",
            sys.executable,
            "-c",
            python,
            *arguments,
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


REFUSED = """
import sys
from sidecar.settings import address
from sidecar.base import errors
from sidecar.system import listeners
try:
    listeners.Listeners.open([address.parse(sys.argv[1])], backlog=None)
except errors.ListenError as error:
    print(error)
"""


def test_a_read_only_file_system_is_named(run: str) -> None:
    said = in_namespace(f"mount -t tmpfs -o ro none {run}", REFUSED, f"{run}/a.sock")
    assert said == (
        f"--port {run}/a.sock: the directory {run} is on a read-only file system; mount a writable one there, such as a tmpfs"
    )


# What is said of ports


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


# Inherited sockets


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
from sidecar.system import listeners, sockets
try:
    found = sockets.inherited(os.environ, os.getpid())
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


# Mending


def test_mending_leaves_healthy_listeners_and_their_queues_alone(listen: Open, run: str) -> None:
    listeners = listen("127.0.0.1:0", "127.0.0.1:u0", f"{run}/a.sock")
    tcp, _, path = listeners
    before = (listeners.handoff(), listeners.inodes(), sorted(os.listdir(run)))
    with connect(tcp.sock.getsockname()) as one, connect(f"{run}/a.sock") as other:
        assert listeners.mend() == []
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
        assert listeners.mend() == [
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
    assert listeners.mend() == []


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
    (sentence,) = listeners.mend()
    assert "a new socket is bound there" in sentence
    assert listeners.handoff() == handoff
    assert listeners.inodes() != inodes
    assert answers(("127.0.0.1", port), listener.sock)
    assert answers(("::1", port), listener.sock)
    assert listeners.mend() == []


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
        (sentence,) = listeners.mend()
        assert sentence.startswith(
            f"listener {listener.key}: new connections do not reach it any more, and it cannot be repaired: "
        )
        assert "another process listens there" in sentence
    assert len(listeners.mend()) == 1
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
    assert listeners.mend() == [
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
    assert listeners.mend() == []
    listeners.close()
    assert os.listdir(run) == []


def test_a_shut_down_udp_socket_is_bound_anew(listen: Open) -> None:
    listeners = listen("127.0.0.1:u0")
    listener = only(listeners)
    with pytest.raises(OSError, match="not connected"):
        listener.sock.shutdown(socket.SHUT_RDWR)
    assert len(listeners.mend()) == 1
    assert listeners.mend() == []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"hi", listener.where)
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
        assert listeners.mend() == [
            f"listener {path}: a program removed the socket's path; it is put back"
        ]
        assert listeners.inodes() == inodes
        serve(living)
        assert early.recv(5) == b"hello"
        assert answers(path, living)
        os.unlink(path)
        assert len(listeners.mend()) == 1
        assert answers(path, living)
    assert listeners.mend() == []


def test_the_path_of_an_inherited_socket_is_put_back_too(listen: Open, run: str) -> None:
    path = f"{run}/a.sock"
    listeners = listen(inherited=((bound(path), ""),))
    os.unlink(path)
    assert len(listeners.mend()) == 1
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
    assert len(listeners.mend()) == 1
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
    assert listeners.mend() == [
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
    (sentence,) = listeners.mend()
    assert "workers that hold the old one hear nothing more" in sentence
    assert listeners.inodes() != inodes
    assert answers(path, only(listeners).sock)
    os.unlink(path)
    assert listeners.mend() == [
        f"listener {path}: a program removed the socket's path; it is put back"
    ]


def test_something_foreign_at_the_path_is_left_alone_and_reported(listen: Open, run: str) -> None:
    listeners = listen(f"{run}/a", f"{run}/b")
    os.unlink(f"{run}/a")
    os.unlink(f"{run}/b")
    Path(run, "a").write_text("precious")
    with bound(f"{run}/b") as other:
        lost = "new connections do not reach it any more, and it cannot be repaired"
        assert listeners.mend() == [
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
    (sentence,) = listeners.mend()
    assert sentence.endswith(f"the directory {run} does not exist")
    os.mkdir(run)
    assert len(listeners.mend()) == 1
    assert answers(f"{run}/d.sock", next(iter(listeners)).sock)


def test_several_spoilt_listeners_are_mended_in_one_go(listen: Open, run: str) -> None:
    listeners = listen("127.0.0.1:0", f"{run}/a", f"{run}/b")
    tcp, shut, _ = listeners
    tcp.sock.shutdown(socket.SHUT_RDWR)
    shut.sock.shutdown(socket.SHUT_RDWR)
    os.unlink(f"{run}/b")
    assert len(listeners.mend()) == 3
    assert all(answers(listener.where, listener.sock) for listener in listeners)
    assert listeners.mend() == []


# Closing, and what is left behind


def test_closing_removes_the_path_and_the_private_link(listen: Open, run: str) -> None:
    listeners = listen(f"{run}/a.sock")
    assert sorted(os.listdir(run)) == [".a.sock.sidecar", "a.sock"]
    listeners.close()
    assert os.listdir(run) == []


def test_closing_leaves_a_path_that_names_another_socket_by_now(listen: Open, run: str) -> None:
    listeners = listen(f"{run}/a.sock")
    os.unlink(f"{run}/a.sock")
    with bound(f"{run}/a.sock") as other:
        listeners.close()
        assert answers(f"{run}/a.sock", other)


def test_what_a_crashed_sidecar_left_is_replaced_and_does_not_pile_up(
    listen: Open, run: str
) -> None:
    def crash() -> None:
        Listeners.open([address.parse(f"{run}/a.sock")], backlog=None)
        os._exit(0)

    for _ in range(2):
        pid = os.fork()
        if not pid:
            crash()
        os.waitpid(pid, 0)
        assert sorted(os.listdir(run)) == [".a.sock.sidecar", "a.sock"]
    listeners = listen(f"{run}/a.sock")
    os.unlink(f"{run}/a.sock")
    assert len(listeners.mend()) == 1
    assert answers(f"{run}/a.sock", only(listeners).sock)
    listeners.close()
    assert os.listdir(run) == []


def test_a_foreign_file_under_the_private_name_stays_and_hinders_nothing(
    listen: Open, run: str
) -> None:
    Path(private(f"{run}/a.sock")).write_text("precious")
    listeners = listen(f"{run}/a.sock")
    os.unlink(f"{run}/a.sock")
    (sentence,) = listeners.mend()
    assert "a new socket is bound there" in sentence
    assert answers(f"{run}/a.sock", only(listeners).sock)
    listeners.close()
    assert Path(private(f"{run}/a.sock")).read_text() == "precious"


def test_closing_a_tcp_listener_frees_its_port(listen: Open) -> None:
    listeners = listen("127.0.0.1:0")
    where = only(listeners).where
    listeners.close()
    with pytest.raises(OSError, match=os.strerror(errno.ECONNREFUSED)):
        connect(where)


def test_importing_it_and_opening_listeners_brings_nothing_heavy_into_pid_1(run: str) -> None:
    code = f"""
import sys
before = set(sys.modules)
from sidecar.settings import address
from sidecar.system import listeners
listeners.Listeners.open([address.parse(spec) for spec in ("localhost:0", "{run}/a.sock,owner={os.getuid()}")], backlog=None).close()
print(*sorted(set(sys.modules) & {{"re", "typing", "dataclasses", "pwd", "grp", "encodings.idna", "contextlib", "logging"}} - before))
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == ""
