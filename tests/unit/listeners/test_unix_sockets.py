"""Unix sockets: mode, owner, and what is at the path already."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.base.errors import ListenError
from sidecar.settings import address
from sidecar.system.listeners import Listeners
from tests.unit.listeners.sockets import (
    NOBODY,
    REFUSED,
    Open,
    answers,
    bound,
    connect,
    in_child,
    in_namespace,
    needs_root,
    only,
    private,
    problems_in_child,
    refusal,
)


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


def test_a_read_only_file_system_is_named(run: str) -> None:
    said = in_namespace(f"mount -t tmpfs -o ro none {run}", REFUSED, f"{run}/a.sock")
    assert said == (
        f"--port {run}/a.sock: the directory {run} is on a read-only file system; mount a writable one there, such as a tmpfs"
    )
