"""`--watch-env`: a changed envdir swaps, and no value of it is said."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.saves import AtomicWriter
from tests.support import until
from tests.system.watch.watched import begun, replaced, watcher


def test_a_changed_value_swaps_and_the_same_value_does_nothing(sidecar, env):
    run = begun(sidecar("--envdir", str(env), "--watch-env"))
    (env / "GREETING").write_text("first   \nwritten anew, with what is not read\n")
    replaced(env / "GREETING", "first")
    (env / "COLOUR").write_text("blue\n")
    told = run.wait("serving", count=2)
    assert (told["generation"], told["trigger"], told["changed"]) == (2, "envdir", ["COLOUR"])
    run.alone(2)
    assert "COLOUR='blue'" in run.get("/env")
    (env / "GREETING").write_text("second\n")
    (env / "COLOUR").unlink()
    run.wait("serving", count=3)
    run.alone(3)
    until(
        lambda: run.get().startswith("second") and "COLOUR=" not in run.get("/env"), "both changes"
    )


@pytest.mark.parametrize("old", [False, True], ids=["new order", "old order"])
def test_a_volume_of_kubernetes_is_one_swap(sidecar, tmp_path, old):
    """A write with the same values, as at a token's rotation of another volume or a label that
    changed, does nothing.
    """
    volume = tmp_path / "volume"
    volume.mkdir()
    writer = AtomicWriter(volume, old)
    writer.write({"GREETING": "one", "COLOUR": "red"})
    run = begun(sidecar("--envdir", str(volume), "--watch-env"))
    writer.write({"GREETING": "two", "COLOUR": "blue"})
    assert run.wait("serving", count=2)["changed"] == ["COLOUR", "GREETING"]
    writer.write({"GREETING": "two", "COLOUR": "blue"})
    writer.write({"GREETING": "two", "SHAPE": "round"})
    assert run.wait("serving", count=3)["changed"] == ["COLOUR", "SHAPE"]
    assert len(run.seen("swap_started")) == 3
    run.alone(3)
    assert run.get().startswith("two")


def test_a_changed_file_is_told_by_the_name_of_its_variable(sidecar, env):
    run = sidecar("--envdir", f"{env},upper,prefix=APP_", "--watch-env")
    run.wait("serving")
    assert run.wait("watching")["roots"] == [str(env)]
    (env / "db-password").write_text("secret\n")
    assert run.wait("serving", count=2)["changed"] == ["APP_DB_PASSWORD"]
    run.alone(2)
    assert "APP_DB_PASSWORD='secret'" in run.get("/env")


def test_an_envdir_that_cannot_be_read_keeps_the_old_and_going_back_counts(sidecar, env):
    """The same values as before are a change then: what has failed in between is made up for."""
    run = begun(sidecar("--envdir", str(env), "--watch-env"))
    replaced(env / "GREETING", "x" * 200_000)
    assert "GREETING" in run.wait("environment_unreadable")["cause"]
    assert run.get().startswith("first 1 ")
    replaced(env / "GREETING", "first\n")
    run.wait("serving", count=2)
    run.alone(2)
    assert run.get().startswith("first 2 ")
    shutil.move(env, env.parent / "away")
    run.wait("environment_unreadable", count=2)
    shutil.move(env.parent / "away", env)
    run.wait("serving", count=3)
    assert len(run.seen("swap_started")) == 3
    assert run.seen("swap_failed") == []


def test_a_value_that_makes_the_program_die_is_not_tried_again_until_it_changes(sidecar, env):
    """And going back to the value that served is a swap, too."""
    run = begun(sidecar("--envdir", str(env), "--watch-env"))
    (env / "DIE").write_text("4")
    failed = run.wait("swap_failed")
    assert (failed["trigger"], failed["changed"], failed["still"]) == ("envdir", ["DIE"], [1])
    (env / "DIE").unlink()
    run.wait("serving", generation=3)
    assert run.seen("retry_scheduled") == []


def test_a_splay_puts_an_envdirs_change_off_but_no_other(sidecar, env):
    """So long a splay that it ends in no test: the swap that somebody asks for meanwhile takes the
    change along.
    """
    run = begun(sidecar("--envdir", str(env), "--watch-env", "--env-splay", "9999h"))
    (env / "GREETING").write_text("second\n")
    run.wait("environment_changed")
    run.signal("HUP")
    told = run.wait("serving", generation=2)
    assert (told["trigger"], told["changed"]) == ("signal", ["GREETING"])
    run.alone(2)
    assert run.get().startswith("second 2 ")
    assert len(run.seen("swap_started")) == 2


def test_after_its_splay_the_change_is_served(sidecar, env):
    run = begun(sidecar("--envdir", str(env), "--watch-env", "--env-splay", "1s"))
    (env / "GREETING").write_text("second\n")
    assert run.wait("serving", generation=2)["trigger"] == "envdir"


def test_no_value_of_an_envdir_is_said(sidecar, env):
    """Neither in the log nor where any process could read it: names only."""
    secret = "s3cr3t-not-to-be-said"
    (env / "TOKEN").write_text(secret + "1")
    run = begun(sidecar("--envdir", str(env), "--watch-env", "--watch", str(env.parent)))
    (env / "TOKEN").write_text(secret + "2")
    run.wait("environment_changed")
    number = run.wait("serving", count=2)["generation"]
    run.alone(number)
    assert f"TOKEN='{secret}2'" in run.get("/env")
    replaced(env / "TOKEN", secret * 20_000)
    run.wait("environment_unreadable")
    os.kill(watcher(run), signal.SIGKILL)
    run.wait("helper_exited")
    pid = watcher(run)
    assert secret not in Path(f"/proc/{pid}/cmdline").read_text()
    assert secret not in Path(f"/proc/{pid}/environ").read_text()
    (env / "TOKEN").unlink()
    run.wait("environment_changed", count=2)
    assert run.stop() == 0
    assert secret not in json.dumps(run.events)
    assert not [line for line in run.output if secret in line]
