"""The watcher is a process that may die at any time."""

from __future__ import annotations

import os
import signal
import time

from tests import saves
from tests.support import Load, alive, until
from tests.system.watch.watched import SETTLE, begun, replaced, served, switches, there, watcher


def test_a_watcher_killed_ten_times_misses_nothing_and_serving_never_notices(watched, tree):
    """What changes while there is none is found by the next one; it is started again after pauses
    that grow.
    """
    run = watched("--watch-settle", "0")
    with Load(run.port, one_shot=1, kept=1, pause=0.02) as load:
        for count in range(1, 11):
            pid = watcher(run)
            os.kill(pid, signal.SIGKILL)
            replaced(tree / "pkg" / "mod.py", f"version = {count}\n")
            run.wait("helper_exited", count=count)
            if count % 3 == 0:
                (tree / f"new{count}").mkdir()
                (tree / f"new{count}" / "file.py").write_text("x = 1\n")
    until(lambda: served(run) == there(tree), "the last save served")
    assert load.failures == []
    assert run.seen("worker_died") == []
    assert [each["cause"] for each in run.seen("helper_exited")] == ["killed by SIGKILL"] * 10
    assert run.stop() == 0


def test_a_watcher_that_is_stopped_is_replaced(watched, tree):
    """SIGSTOP makes it deaf, which nobody would notice."""
    run = watched()
    pid = watcher(run)
    os.kill(pid, signal.SIGSTOP)
    (tree / "app.py").write_text("new = 1\n")
    assert run.wait("helper_exited")["pid"] == pid
    run.wait("serving", generation=2)
    run.alone(2)
    assert served(run) == there(tree)


def test_the_watcher_dies_with_sidecar(watched):
    run = watched()
    pid = watcher(run)
    run.process.kill()
    until(lambda: not alive(pid), "the watcher's end")


def test_the_watcher_dies_with_a_sidecar_that_it_does_not_see_die(watched):
    """It is stopped when sidecar is killed: the kernel sees to it."""
    run = watched()
    pid = watcher(run)
    os.kill(run.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGSTOP)
    run.process.kill()
    until(lambda: not alive(pid), "the watcher's end")


def test_at_rest_pid_1_does_not_wake_and_the_watcher_hardly(watched, env):
    """The watcher's own ticks are the clock."""
    run = watched("--watch-env", "--envdir", str(env))
    pid = watcher(run)

    def tick() -> float:
        before = switches(pid)
        until(lambda: switches(pid) > before, "the watcher's tick")
        return time.monotonic()

    for _ in range(2):
        tick()
    first, woken, ticks = tick(), switches(run.pid), switches(pid)
    while switches(pid) < ticks + 4:
        last = tick()
    assert switches(run.pid) == woken
    assert (switches(pid) - ticks) / (last - first) <= 1.0
    run.signal("CHLD")
    until(lambda: switches(run.pid) > woken, "that a wake-up is counted")


def test_a_watch_on_a_directory_that_is_not_there_yet(sidecar, tmp_path):
    """It is said, and watched once it is there."""
    run = sidecar("--watch", str(tmp_path / "later"))
    run.wait("serving")
    assert "later" in run.wait("notice")["text"]
    run.wait("watching")
    saves.plant(tmp_path / "later")
    assert run.wait("serving", count=2)["trigger"] == "watch"


def test_both_sources_at_once_are_one_answer(watched, tree, env):
    """A deploy that changes code and environment: the last generation has both, and at most one was
    given up on the way.
    """
    run = watched("--watch-env", "--envdir", str(env))
    (env / "GREETING").write_text("second\n")
    (tree / "app.py").write_text("new = 1\n")
    until(lambda: run.get().startswith("second") and served(run) == there(tree), "both")
    assert int(run.get().split()[1]) <= 3
    assert len(run.seen("swap_started")) <= 3


def test_an_envdir_in_the_watched_tree_is_no_code(sidecar, tree):
    """Its files count by what would be read, and are one swap."""
    (tree / "env").mkdir()
    (tree / "env" / "GREETING").write_text("first\n")
    run = begun(
        sidecar("--watch", str(tree), "--watch-env", "--envdir", str(tree / "env"), *SETTLE)
    )
    replaced(tree / "env" / "GREETING", "second\n")
    assert run.wait("serving", generation=2)["trigger"] == "envdir"
    (tree / "end").write_text("x")
    told = run.wait("serving", count=3)
    assert [os.path.basename(each) for each in told["changed"]] == ["end"]
