"""What the tests of listeners share: a listener, and clients that ask who answers."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest

from sidecar.base.errors import ListenError
from sidecar.settings import address
from sidecar.system.listener import Listener
from sidecar.system.listeners import Listeners

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
