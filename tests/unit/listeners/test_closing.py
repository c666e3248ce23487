"""What is removed when listeners are closed, and what a crash leaves behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.settings import address
from sidecar.system.listeners import Listeners
from tests import support
from tests.unit.listeners.sockets import Open, answers, bound, connect, only, private


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
    assert len(listeners.repair()) == 1
    assert answers(f"{run}/a.sock", only(listeners).sock)
    listeners.close()
    assert os.listdir(run) == []


def test_a_foreign_file_under_the_private_name_stays_and_hinders_nothing(
    listen: Open, run: str
) -> None:
    Path(private(f"{run}/a.sock")).write_text("precious")
    listeners = listen(f"{run}/a.sock")
    os.unlink(f"{run}/a.sock")
    (sentence,) = listeners.repair()
    assert "a new socket is bound there" in sentence
    assert answers(f"{run}/a.sock", only(listeners).sock)
    listeners.close()
    assert Path(private(f"{run}/a.sock")).read_text() == "precious"


def test_closing_a_tcp_listener_frees_its_port(listen: Open) -> None:
    listeners = listen("127.0.0.1:0")
    where = only(listeners).bound_to
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
        cwd=support.ROOT,
    )
    assert done.stdout.strip() == ""
