"""One exception in a job that is there for a reload, an upgrade or the helpers: serving goes on, and
whoever asks again gets what was asked for.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support import APPS, PATIENCE, SERVER, Load, Sidecar, alive, free_port, marked, until

RELOAD = [
    *(f"sidecar.host.settings_reload:SettingsReload.{each}" for each in (
        "request", "deadline", "on_exit", "_advance", "_start_reader", "_reader_ended", "_parse_answer", "_look_up", "_do", "_configure", "_put_in_force")),
    *(f"sidecar.policies.reload:ReloadPolicy.{each}" for each in ("requested", "reader_ended", "look_up_started", "look_up_ended", "decide")),
    *(f"sidecar.host.delegation:Delegation.{each}" for each in ("start", "deadline", "on_exit")),
]  # fmt: skip
UPGRADE = [
    *(f"sidecar.host.upgrading:Upgrading.{each}" for each in ("request", "deadline", "advance", "on_exit", "_start_check", "_become")),
    *(f"sidecar.policies.upgrade:UpgradePolicy.{each}" for each in ("requested", "check_started", "check_passed", "decide")),
]  # fmt: skip
HELPER = [
    *(f"sidecar.host.helper_processes:HelperProcesses.{each}" for each in ("deadline", "on_deadline", "on_exit", "read", "_ended")),
    *(f"sidecar.host.helpers:Helper.{each}" for each in ("open", "started", "ended", "close")),
    *(f"sidecar.policies.restart:RestartPolicy.{each}" for each in ("started", "ended", "deadline")),
]  # fmt: skip


class Planted(Sidecar):
    """With an exception in it, and with a settings file."""

    MODULE = (str(APPS / "planted.py"),)

    def __init__(self, tmp_path, entry: str, when: str) -> None:
        self.armed = tmp_path / "armed"
        self.file = tmp_path / "sidecar.yml"
        self.envdir = tmp_path / "env"
        self.envdir.mkdir()
        (tmp_path / "code").mkdir()
        self.http = free_port()
        self.write(workers=1)
        super().__init__(
            "--config", str(self.file), "--watch", str(tmp_path / "code"), "--drain-timeout", "4",
            "--control", str(tmp_path / "control"), program=(), port=False,
            env={"PLANT": entry, "WHEN": when, "ARMED": str(self.armed), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip

    def write(self, **settings: object) -> None:
        """Other settings."""
        listener = f"127.0.0.1:{self.http}"
        text = json.dumps({"command": list(SERVER), "port": listener, **settings})
        self.file.write_text(text)

    def children(self) -> list[int]:
        """All of its processes."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return list(map(int, path.read_text().split()))

    def met(self) -> bool:
        """Whether the exception was raised."""
        return not self.armed.exists()


@pytest.fixture
def planted(tmp_path):
    made = []

    def make(entry: str, when: str) -> Planted:
        made.append(Planted(tmp_path, entry, when))
        made[0].wait("serving")
        return made[0]

    yield make
    run = made[0]
    try:
        run.signal("TERM")
        assert run.process.wait(PATIENCE) == 0
        assert marked(run.mark) == []
        assert not [line for line in run.output if "Traceback" in line or "secret" in line]
    finally:
        run.clean_up()


def planting(entries: list[str]):
    def decorate(test):
        test = pytest.mark.parametrize("when", ["before", "after"])(test)
        names = [entry.partition(":")[2] for entry in entries]
        return pytest.mark.parametrize("entry", entries, ids=names)(test)

    return decorate


@planting(RELOAD)
def test_a_reload_that_is_asked_for_again_is_done(planted, entry, when):
    run = planted(entry, when)
    run.write(workers=2, envdir=[str(run.envdir)])
    with Load(run.http, pause=0.02) as load:
        run.armed.touch()
        run.signal("HUP")
        until(run.met, "the exception", run)
        run.signal("HUP")
        until(lambda: len(run.workers()) == 2, "two workers", run)
    assert load.failures == []


@planting(UPGRADE)
def test_an_upgrade_that_is_asked_for_again_is_done(planted, entry, when):
    run = planted(entry, when)
    with Load(run.http, pause=0.02) as load:
        run.armed.touch()
        run.signal("USR2")
        until(
            lambda: run.met() or run.seen("upgraded"),
            "the exception, or an upgrade that has none",
            run,
        )
        count = len(run.seen("upgraded"))
        until(
            lambda: len(run.seen("upgraded")) > count or run.signal("USR2"),
            "the upgrade that was asked for again",
            run,
        )
        run.armed.unlink(missing_ok=True)
    assert load.failures == []


@planting(HELPER)
def test_the_watcher_is_started_again(planted, entry, when):
    run = planted(entry, when)
    run.wait("watching")
    watcher = next(pid for pid in run.children() if pid not in run.workers())
    with Load(run.http, pause=0.02) as load:
        run.armed.touch()
        os.kill(watcher, signal.SIGKILL)
        until(lambda: not alive(watcher) and run.met(), "the watcher's end", run)
        run.wait("watching", count=2)
    assert load.failures == []


def test_every_entry_is_there():
    for entry in (*RELOAD, *UPGRADE, *HELPER):
        module, _, path = entry.partition(":")
        __import__(module)
        kind, _, method = path.partition(".")
        assert hasattr(getattr(sys.modules[module], kind), method), entry
