"""A generation that time alone made ready, and that dies soon after it took over: sidecar goes back
to the settings and the environment of the last good one, once, and says so.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE, ROOT, SERVER, Sidecar

SECRET = "s3cr3t-w0rd"


class Case:
    """A sidecar with a settings file and an envdir of which generation 1 has held out and is kept:
    2 has replaced it.

    What is long is the settings' to say, so that nothing here has to be quick or to wait: at first
    a generation has held out when its successor's interval is over, and from `breaks` on never.
    """

    def __init__(self, where: Path, *options: str) -> None:
        self.where = where
        (where / "env").mkdir()
        self.variable("TOKEN", "old")
        self.settings(min_uptime="0s", umask="027")
        words = ("--ready", "interval", "--interval", "400ms", "--envdir", str(where / "env"))
        self.environ = {"SIDECAR_CONTROL": str(where / "control")}
        words = (*words, "--config", str(where / "sidecar.yml"), *options)
        self.run = Sidecar(*words, program=(), env=self.environ)
        self.run.wait("serving", generation=1)
        self.run.swap(2)
        self.run.wait("generation_ended", generation=1)

    def settings(self, command: tuple[str, ...] = SERVER, **more: str) -> None:
        told = {name.replace("_", "-"): value for name, value in more.items()}
        (self.where / "sidecar.yml").write_text(json.dumps({"command": command, **told}))

    def variable(self, name: str, value: str) -> None:
        (self.where / "env" / name).write_text(value)

    def breaks(self) -> None:
        """A changed environment with which the program crashes soon after its start goes live."""
        self.settings(min_uptime="1h", umask="027")
        self.variable("CRASH", "0.8")
        self.variable("TOKEN", SECRET)
        self.run.signal("HUP")
        self.run.wait("serving", generation=3)
        self.run.wait("worker_died", generation=3)

    def environment(self) -> dict[str, str]:
        pairs = (line.split("=", 1) for line in self.run.get("/env").splitlines())
        return {name: ast.literal_eval(value) for name, value in pairs}

    def ask(self, *words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "sidecar", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environ},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        ).stdout

    def stop(self) -> None:
        assert self.run.stop() == 0
        assert SECRET not in json.dumps(self.run.events)


@pytest.fixture
def case(tmp_path):
    cases: list[Case] = []

    def make(*options: str) -> Case:
        cases.append(Case(tmp_path, *options))
        return cases[-1]

    yield make
    for each in cases:
        each.run.clean_up()
        print(each.run)


def test_a_changed_environment_that_breaks_the_program_is_gone_back_from(case):
    it = case()
    it.breaks()
    back = it.run.wait("reverted")
    numbers = {name: back[name] for name in ("level", "generation", "like", "failed")}
    assert numbers == {"level": "warning", "generation": 4, "like": 1, "failed": 3}
    assert (back["settings"], back["variables"]) == ([], ["CRASH", "TOKEN"])
    it.run.wait("serving", generation=4)
    had = it.environment()
    assert had["TOKEN"] == "old"
    assert "CRASH" not in had
    assert (had["SERVER_STARTER_GENERATION"], had["SIDECAR_TRIGGER"]) == ("4", "crash")
    said = "went back     generation 4 has the settings and environment of generation 1"
    assert said in it.ask("status")
    # Who asks for a swap gets what there is now.
    (it.where / "env" / "CRASH").unlink()
    it.run.swap(5)
    assert it.environment()["TOKEN"] == SECRET
    assert "went back" not in it.ask("status")
    assert len(it.run.seen("reverted")) == 1
    it.stop()


def test_what_went_back_and_dies_soon_is_not_gone_back_to_again(case):
    """The usual attempts go on, with what there is now."""
    it = case("--max-backoff", "300ms", "--max-failures", "0")
    it.breaks()
    it.run.wait("serving", generation=4)
    os.kill(it.run.wait("worker_started", generation=4)["pid"], 9)
    it.run.wait("worker_died", generation=6)
    assert [each["generation"] for each in it.run.seen("reverted")] == [4]
    assert it.run.seen("serving", generation=5) != []
    it.stop()


def test_settings_are_gone_back_to_as_well_also_after_an_upgrade_in_place(case):
    """What they and the environment were is in no file any more: the state has it."""
    it = case()
    until_told = f"until [ -e {it.where}/go ]; do sleep 0.05; done"
    it.settings(("sh", "-c", until_told), min_uptime="1h", umask="022", drain_timeout="7s")
    it.variable("TOKEN", SECRET)
    it.run.swap(3)
    it.run.wait("generation_ended", generation=2)
    it.run.signal("USR2")
    it.run.wait("upgraded")
    (it.where / "go").touch()
    back = it.run.wait("reverted")
    assert (back["generation"], back["like"]) == (4, 1)
    assert (back["settings"], back["variables"]) == (["command", "umask"], ["TOKEN"])
    it.run.wait("serving", generation=4)
    assert it.environment()["TOKEN"] == "old"
    it.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_refused_is_not_begun_when_what_serves_crashes(tmp_path, workers):
    """The worker that takes a dead one's place has the command, environment and listener of the
    one that served. Who asks for a swap gets what there is now, and a crash after that, too.
    """
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "TOKEN").write_text("old")
    settings = tmp_path / "sidecar.yml"
    settings.write_text(json.dumps({"command": SERVER}))
    words = ("--envdir", str(tmp_path / "env"), "--config", str(settings))
    run = Sidecar(*words, "--workers", str(workers), program=())
    try:
        run.wait("serving", generation=1)
        (tmp_path / "env" / "TOKEN").write_text(SECRET)
        (tmp_path / "env" / "DIE").write_text("1")
        settings.write_text(json.dumps({"command": [*SERVER, "new"], "umask": "077"}))
        run.signal("HUP")
        run.wait("swap_failed", generation=2)
        served = run.workers()
        for pid in served:
            os.kill(pid, 9)
        kept = run.wait("kept_previous")
        assert (kept["level"], kept["generation"], kept["like"], kept["failed"]) == (
            "warning",
            3,
            1,
            2,
        )
        run.wait("serving", generation=3, trigger="crash")
        environment = run.get("/env")
        assert "TOKEN='old'\n" in environment
        assert "DIE=" not in environment
        assert json.loads(run.get("/about"))["argv"] == list(SERVER[2:])
        (tmp_path / "env" / "DIE").unlink()
        run.signal("HUP")
        run.wait("serving", generation=4)
        run.alone(4)
        assert f"TOKEN={SECRET!r}\n" in run.get("/env")
        for pid in run.workers():
            os.kill(pid, 9)
        run.wait("serving", generation=5, trigger="crash")
        assert f"TOKEN={SECRET!r}\n" in run.get("/env")
        assert len(run.seen("kept_previous")) == 1
        assert run.stop() == 0
        assert SECRET not in json.dumps(run.events)
    finally:
        run.clean_up()
