"""Promise 7: what was put into a settings file from the environment shows nowhere.

Each test has a sink that would show it, had it not been masked where it entered.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, SERVER, Notified, until

SECRET = "s3cr3t-of-the-file"
SECOND_FAILS = 'check: [sh, -c, "echo $0; test $SERVER_STARTER_GENERATION = 1", "${TOKEN}"]\n'


@pytest.fixture
def configured(sidecar, tmp_path):
    """A sidecar whose settings file has this text, and TOKEN in its environment."""

    def start(text: str, *options: str, env: dict[str, str] | None = None, **more):
        (tmp_path / "sidecar.yml").write_text(text)
        return sidecar(
            "--config",
            str(tmp_path / "sidecar.yml"),
            "--control",
            str(tmp_path / "control"),
            *options,
            env={"TOKEN": SECRET, **(env or {})},
            **more,
        )

    return start


def test_a_failure_shows_it_in_no_file_and_no_message(configured, tmp_path):
    """The status file, the service manager, the log, the control socket's answers."""
    with Notified(f"{tmp_path}/notify") as manager:
        run = configured(
            SECOND_FAILS,
            "--status-file",
            str(tmp_path / "status"),
            env={"NOTIFY_SOCKET": manager.address},
        )
        run.wait("serving")
        run.signal("HUP")
        failed = run.wait("swap_failed")
        status = ""
        while "failed" not in status:
            status = manager.next().get("STATUS", "")
        until((tmp_path / "status.failed").exists, "the failure in a file")
        told = {
            "log": json.dumps(run.events),
            "STATUS": status,
            "status file": (tmp_path / "status.failed").read_text(),
        }
        for words in ("status", "status --json", "events --json", "reload --wait"):
            told[words] = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "sidecar",
                    *words.split(),
                    "--control",
                    tmp_path / "control",
                ],
                env={"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
            ).stdout
        run.stop()
    assert failed["output"] == "…"
    for sink, text in told.items():
        assert "exit" in text or sink == "reload --wait", (sink, text)
        assert SECRET not in text, sink


def test_giving_up_shows_it_not_in_the_termination_log(tmp_path):
    (tmp_path / "sidecar.yml").write_text(
        f"check: [sh, -c, 'exit 3', '${{TOKEN}}']\nmax-failures: 1\ncommand: {json.dumps(SERVER)}\n"
    )
    log = tmp_path / "termination-log"
    log.touch()
    launcher = (
        "import sys; from sidecar.cli import main as cli; from sidecar.system import termination_log;"
        " termination_log.TERMINATION_LOG = sys.argv.pop(1); sys.exit(cli.main())"
    )
    run = subprocess.run(
        [sys.executable, "-c", launcher, log, "run", "--config", tmp_path / "sidecar.yml"],
        env={"PYTHONPATH": str(ROOT), "TOKEN": SECRET},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "exited with status 3" in log.read_text()
    assert SECRET not in log.read_text() + run.stderr


def test_the_arguments_of_a_helper_do_not_show_it(configured, tmp_path):
    """Anybody on the machine can read them."""
    (tmp_path / SECRET).mkdir()
    run = configured(f"watch: {tmp_path}/${{TOKEN}}\n")
    run.wait("watching")
    helpers = [
        Path(f"/proc/{pid}/cmdline").read_bytes()
        for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    ]
    assert any(b"sidecar.watch" in each for each in helpers)
    assert not any(SECRET.encode() in each for each in helpers)
    run.stop()
