"""What sidecar gives each worker: group, session, user, capabilities, directory and terminal."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.support import PATIENCE, ROOT, readable_by_all


def test_group_session_mask_umask_and_directory(sidecar, tmp_path):
    run = sidecar("--umask", "027", "--dir", str(tmp_path))
    run.wait("serving")
    about = json.loads(run.get("/about"))
    assert about["pid"] == about["group"] == about["session"]
    assert about["parent"] == run.pid
    assert about["umask"] == 0o27
    assert about["directory"] == str(tmp_path)
    assert int(about["blocked"], 16) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start workers as another user")
@pytest.mark.parametrize(
    ("options", "uid", "gid"),
    [
        (("--user", "nobody"), 65534, 65534),
        (("--user", "12345"), 12345, 12345),
        (("--user", "12345", "--group", "54321"), 12345, 54321),
        (("--user", "12345:54321"), 12345, 54321),
        (("--user", "nobody", "--group", "daemon"), 65534, 1),
    ],
)
def test_workers_run_as_another_user_while_sidecar_binds_as_root(
    sidecar, options, uid, gid, tmp_path
):
    """By name or number, with the user's own groups and none of root's; a number needs no passwd
    entry.
    """
    run = sidecar(
        *options,
        "--ready",
        "interval",
        "--interval",
        "0",
        program=("/usr/bin/python3", "-S", readable_by_all(tmp_path)),
        extra_groups=[0, 54399],
        preexec_fn=inherit_capabilities,
    )
    run.wait("serving")
    about = json.loads(run.get("/about"))
    assert about["uids"] == [uid] * 3
    assert about["gids"] == [gid] * 3
    assert set(about["groups"]) <= {gid}
    assert about["inheritable"] == 0
    assert about["no_new_privs"] == 1
    assert run.stop() == 0


def inherit_capabilities() -> None:
    """In a child: what container engines used to do (CVE-2022-24769)."""
    import ctypes

    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[2] = sets[1]
    assert libc.capset(header, sets) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start workers as another user")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), 0),
        (("--no-new-privs",), 1),
        (("--user", "12345"), 1),
        (("--user", "12345", "--no-new-privs=no"), 0),
    ],
)
def test_the_way_to_new_privileges_is_closed_with_user_unless_asked_otherwise(options, expected):
    worker = ["--max-failures", "1", "--", "grep", "NoNewPrivs", "/proc/self/status"]
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "run", *options, *worker],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout == f"NoNewPrivs:\t{expected}\n", done.stderr


def test_a_worker_has_no_controlling_terminal(sidecar):
    """It could put commands into it, for the shell that sidecar was started from (TIOCSTI)."""
    ours, theirs = os.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    run = sidecar(stdin=theirs, preexec_fn=take_terminal)
    run.wait("serving")
    tty_of = [
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4]
        for pid in (run.pid, *run.workers())
    ]
    assert tty_of[0] != "0"
    assert tty_of[1:] == ["0"]
    assert run.stop() == 0
    os.close(ours)
    os.close(theirs)
