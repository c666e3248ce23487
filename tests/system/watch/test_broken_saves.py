"""A broken save changes nothing, and the next good one is served."""

from __future__ import annotations

import os
import socket

import pytest

from tests import saves
from tests.support import PATIENCE, Load, until
from tests.system.watch.watched import SETTLE, replaced, served, there


@pytest.mark.parametrize("check", [False, True], ids=["the program dies", "the check fails"])
def test_a_broken_save_changes_nothing_and_the_next_good_one_is_served(watched, tree, check):
    """It is said once, with its cause, the check's output and what has changed, and not tried again
    meanwhile.
    """
    run = watched(
        *(("--check", f"python3 -m py_compile {tree / 'app.py'}") if check else ()), *SETTLE
    )
    before = served(run)
    with Load(run.port) as load:
        (tree / "app.py").write_text("x = = 1\n")
        failed = run.wait("swap_failed")
        assert (failed["generation"], failed["trigger"], failed["still"]) == (2, "watch", [1])
        assert [os.path.basename(each) for each in failed["changed"]] == ["app.py"]
        assert failed["lasted"] > 0
        assert ("exited with status 1" in failed["cause"]) is True
        assert ("SyntaxError" in failed["output"]) is check
        assert served(run) == before
        # A second broken save: one more failure, and all that has changed since is named.
        (tree / "pkg" / "mod.py").write_text("new = 2\n")
        again = run.wait("swap_failed", count=2)
        assert [os.path.relpath(each, tree) for each in again["changed"]] == [
            "app.py",
            "pkg/mod.py",
        ]
        (tree / "app.py").write_text("x = 1\n")
        run.wait("serving", generation=4)
    assert load.failures == []
    run.alone(4)
    assert served(run) == there(tree)
    assert len(run.seen("swap_failed")) == 2
    assert run.seen("retry_scheduled") == []


def test_the_output_of_a_check_is_the_end_of_it(watched, tree):
    """However much it writes."""
    run = watched(
        "--check", "sh -c 'test \"$SIDECAR_TRIGGER\" = start || { seq 1 200000; exit 1; }'"
    )
    (tree / "app.py").write_text("new = 1\n")
    output = run.wait("swap_failed")["output"].split("\n")
    assert output[-1] == "200000"
    assert len("\n".join(output)) <= 2000
    assert output == [str(number) for number in range(200001 - len(output), 200001)]


def test_a_save_during_a_slow_start_gives_the_half_started_generation_up(watched, tree, env):
    """It goes before the next one begins: never three at a time."""
    run = watched("--envdir", str(env))
    (env / "BOOT").write_text("3600")
    (tree / "app.py").write_text("new = 1\n")
    run.wait("worker_started", generation=2)
    (env / "BOOT").write_text("0")
    (tree / "app.py").write_text("newer = 1\n")
    run.wait("serving", generation=3)
    assert run.seen("swap_superseded", generation=2)
    names = [(each["event"], each.get("generation")) for each in run.events]
    gone = min(
        names.index((name, 2)) for name in ("worker_exited", "worker_died") if (name, 2) in names
    )
    assert gone < names.index(("worker_started", 3))
    run.alone(3)
    assert served(run) == there(tree)


def test_fifty_saves_ten_of_them_broken_lose_no_request(watched, tree):
    """50 new connections a second all the while: the old version answers while the new one is
    broken, and the fix is served.
    """
    run = watched()
    good, number = 0, 1
    with Load(run.port, one_shot=2, kept=0, path="/tree", pause=0.04) as load:
        for save in range(50):
            number += 1
            if save % 5 == 2:
                replaced(tree / "app.py", saves.BROKEN.format(save))
                run.wait("swap_failed", generation=number)
                assert served(run)["app.py"] == saves.GOOD.format(good)
            else:
                good = save
                replaced(tree / "app.py", saves.GOOD.format(save))
                run.wait("serving", generation=number)
                run.alone(number)
                assert served(run)["app.py"] == saves.GOOD.format(good)
    assert load.failures == []
    assert load.answered >= 50
    assert len(run.seen("swap_started")) == 51
    assert run.stop() == 0


def test_a_stream_does_not_hold_a_swap_up_and_ends_at_the_deadline(watched, tree):
    """Server-sent events, a WebSocket: the old generation goes on with it beside the new one."""
    run = watched("--drain-timeout", "2s")
    with socket.create_connection(("127.0.0.1", run.port), PATIENCE) as sock:
        sock.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        old = run.workers()[0]
        said = b""
        while b"data: %d" % old not in said:
            said += sock.recv(4096)
        (tree / "app.py").write_text("new = 1\n")
        run.wait("serving", generation=2)
        (tree / "app.py").write_text("newer = 1\n")
        run.wait("serving", generation=3)
        # It may still answer for a moment.
        second = run.seen("worker_started", generation=2)[0]["pid"]
        until(lambda: second not in run.workers(), "the end of the second generation's worker")
        assert served(run) == there(tree)
        assert sock.recv(4096), "the old stream goes on"
        run.wait("worker_killed", generation=1)
        try:
            while sock.recv(4096):
                pass
        except ConnectionResetError:
            pass
    run.wait("worker_exited", generation=1)
