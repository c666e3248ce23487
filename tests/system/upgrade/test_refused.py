"""A version that cannot take over is refused before anything is given up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE, ROOT, Load, Sidecar, marked, until
from tests.system.upgrade.installed import ask


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("host/control_desk.py", "import binascii\n", "import binascii, nothing_of_that_name\n", "No module named 'nothing_of_that_name'"),
        ("host/control_desk.py", "import binascii\n", "import binascii, (\n", "is damaged (invalid syntax)"),
        ("upgrade/state.py", "FORMAT = 1\n", "FORMAT = 7\n", "keeps its state in format 1, this version reads 7"),
        ("core/state.py", "        self.delay_logged_for = 0\n", "", "Supervisor.delay_logged_for in its state, which this version does not know"),
        ("host/resources.py", "        self._begin(SignalPipe(state", "        os.abort()\n        self._begin(SignalPipe(state", "SIGABRT"),
    ],
)  # fmt: skip
def test_it_is_refused_with_its_last_words_and_serving_goes_on(
    start, installed, tmp_path, name, old, new, said
):
    run = start()
    workers = run.workers()
    installed.change(name, old, new)
    with Load(run.port) as load:
        answer = ask(tmp_path, "upgrade")
        assert answer.returncode == 1
        assert said in answer.stderr
        failed = run.wait("upgrade_failed")
        assert said in failed["cause"]
    assert load.failures == []
    assert run.workers() == workers
    run.swap(2)
    assert run.seen("upgraded") == []
    assert run.stop() == 0


def test_a_version_that_knows_nothing_of_upgrades_refuses_to_check(start, installed):
    """A downgrade: the option comes first, so the version does not take it for a start."""
    run = start()
    installed.change("cli/main.py", "words[0].startswith(UPGRADE_CHECK)", "False")
    run.signal("USR2")
    assert "status 2" in run.wait("upgrade_failed")["cause"]
    assert run.stop() == 0


def test_a_check_that_never_ends_holds_nothing_up_and_a_stop_ends_it(start, installed, tmp_path):
    run = start()
    installed.change(
        "host/resources.py",
        "        self._begin(SignalPipe(state",
        "        __import__('time').sleep(3600)\n        self._begin(SignalPipe(state",
    )
    run.signal("USR2")
    until(lambda: checks(run), "the check")
    run.swap(2)
    assert run.stop() == 0
    assert "sidecar is stopping" in run.seen("upgrade_failed")[0]["cause"]


def checks(run: Sidecar) -> list[int]:
    """The processes of its own that prove something to it."""
    return [
        pid
        for pid in marked(run.mark)
        if b"--upgrade-check" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def test_check_only_says_whether_it_could(start, installed, tmp_path):
    run = start()
    installed.version("9.9")
    answer = ask(tmp_path, "upgrade", "--check")
    assert (answer.returncode, "sidecar 9.9 has proved" in answer.stdout) == (0, True)
    installed.change("host/control_desk.py", "import binascii\n", "import binascii, (\n")
    assert ask(tmp_path, "upgrade", "--check").returncode == 1
    assert run.seen("upgraded") == []
    assert run.stop() == 0


def test_a_variable_from_outside_means_nothing(sidecar):
    """Nor does it go on to the workers."""
    run = sidecar(env={"SIDECAR_UPGRADE_STATE": "1"})
    run.wait("serving")
    assert "SIDECAR_UPGRADE_STATE" not in run.get("/env")
    assert run.stop() == 0


def test_the_check_is_not_for_people(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "--upgrade-check=1", "run", "--", "true"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "sidecar upgrade --check" in done.stderr


def test_no_file_ever_holds_the_state(start, tmp_path):
    """A secret of the envdir is in the memfd alone, and that is gone when the new version runs."""
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "TOKEN").write_text("s3cr3t-of-the-envdir")
    run = start("--envdir", "env", "--workers", "2")
    run.signal("USR2")
    run.wait("upgraded")
    assert "s3cr3t-of-the-envdir" not in str(run)
    assert not [
        name
        for name in os.listdir(f"/proc/{run.pid}/fd")
        if "upgrade-state" in os.readlink(f"/proc/{run.pid}/fd/{name}")
    ]
    (tmp_path / "env" / "TOKEN").unlink()
    first, second = run.workers()
    os.kill(first, signal.SIGKILL)
    run.wait("worker_ready", 3)
    os.kill(second, signal.SIGKILL)
    run.wait("worker_died", 2)
    assert "s3cr3t-of-the-envdir" in run.get("/env"), "the generation keeps its environment"
    assert run.stop() == 0
