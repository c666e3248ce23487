"""`sidecar check` and `sidecar schema`, from a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.cli import check
from sidecar.settings import schema
from sidecar.settings.table import TABLE
from tests.support import ROOT


def sidecar(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        cwd=cwd, env={**own, "PYTHONPATH": str(ROOT), **environ}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_check_shows_each_setting_with_where_it_came_from(tmp_path):
    (tmp_path / "gunicorn").write_text("#!/bin/sh\n")
    (tmp_path / "gunicorn").chmod(0o755)
    (tmp_path / "sidecar.yml").write_text(
        "command: ./gunicorn ${WHAT}\nworkers: 2\npid-file: ${WHO}\n"
    )
    done = sidecar(
        "check",
        "--lame-duck",
        "1s",
        cwd=tmp_path,
        WHAT="app:app",
        WHO="hunter2",
        SIDECAR_MAX_SURGE="1",
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert len(rows) >= len(TABLE)
    assert rows["workers"].split()[1:] == ["2", "sidecar.yml:2"]
    assert rows["lame-duck"].split()[1:] == ["1s", "--lame-duck"]
    assert rows["max-surge"].split()[1:] == ["1", "SIDECAR_MAX_SURGE"]
    assert rows["signal-on-hup"].endswith("profile gunicorn")
    assert rows["drain-timeout"].split()[1:] == ["25s", "default"]
    assert "hunter2" not in done.stdout + done.stderr
    assert "app:app" not in done.stdout + done.stderr
    shown = json.loads(
        sidecar("check", "--json", cwd=tmp_path, WHAT="app:app", WHO="hunter2").stdout
    )
    assert shown["settings"]["pid-file"] == {
        "value": "(filled in from the environment)",
        "from": "sidecar.yml:3",
        "secret": True,
    }
    assert shown["problems"] == []


def test_check_in_a_container_has_the_options_and_the_program_of_pid_1(
    sidecar, tmp_path, monkeypatch, capsys
):
    """As `kubectl exec POD -- sidecar check --grace 40s`."""
    running = sidecar("--drain-timeout", "20s", "--lame-duck", "10s")
    running.wait("serving")
    monkeypatch.setattr(check, "PID_1", f"/proc/{running.pid}")
    monkeypatch.chdir(tmp_path)
    assert check.main(["--grace", "40s"], {}) == 0
    told = capsys.readouterr()
    assert "drain-timeout" in told.out
    assert "the program are those PID 1 was started with" in told.out
    assert check.main(["--grace", "34s"], {}) == 2
    assert "a stop may take 35 s" in capsys.readouterr().err
    assert check.main(["--grace", "34s", "--lame-duck", "1s"], {}) == 0  # said now, so it wins
    assert check.main(["--grace", "34s", "--", "true"], {}) == 0  # a program of one's own: nothing
    capsys.readouterr()
    monkeypatch.setattr(check, "PID_1", "/proc/self")
    assert check.main(["--grace", "40s"], {}) == 2
    assert "the program to run is missing" in capsys.readouterr().err


def test_check_shows_an_address(tmp_path):
    done = sidecar(
        "check", "--json", "--admin", "127.0.0.1:9100", "--port", "8080", "true", cwd=tmp_path
    )
    shown = json.loads(done.stdout)["settings"]
    assert (shown["admin"]["value"], shown["port"]["value"]) == ("127.0.0.1:9100", ["8080"])


def test_check_says_what_is_wrong_and_ends_with_2(tmp_path):
    (tmp_path / "sidecar.yml").write_text("workerz: 2\n")
    done = sidecar("check", "--drain-timeout", "x", "--envdir", "none", "--", "true", cwd=tmp_path)
    assert done.returncode == 2
    assert [line.partition(" ")[2].partition(":")[0] for line in done.stderr.splitlines()] == [
        "sidecar.yml",
        "--drain-timeout x",
        "--envdir none",
    ]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--grace", "30s"), 0),
        (("--grace", "30s", "--lame-duck", "1s"), 2),
        (("--grace", "30s", "--pre-stop", "1s"), 2),
        (("--grace", "40s", "--pre-stop", "5s", "--lame-duck", "5s"), 0),
        (("--grace", "soon"), 2),
    ],
)  # fmt: skip
def test_check_holds_the_stop_against_a_grace_period(words, status, tmp_path):
    done = sidecar("check", *words, "--", "true", cwd=tmp_path)
    assert done.returncode == status, done.stderr


def test_check_remarks_on_what_may_be_meant_otherwise(tmp_path):
    words = ("--port", "8080", "--drain-timeout", "60", "--env-splay", "3", "--watch", "nowhere")
    words += ("--max-failures", "0")  # a program may come later
    done = sidecar("check", *words, "--", "no-such-program", cwd=tmp_path, SIDECAR_WORKER_S="2")
    assert done.returncode == 0, done.stderr
    remarks = [
        line.removeprefix("remark: ")
        for line in done.stdout.splitlines()
        if line.startswith("remark: ")
    ]
    starts = [
        "a stop may take 65 s",
        "watch: there is no directory nowhere",
        "env-splay:",
        "the command line: no-such-program",
        "SIDECAR_WORKER_S: no setting",
    ]
    assert [remark.startswith(start) for remark, start in zip(remarks, starts, strict=True)] == [
        True
    ] * 5


def test_the_usual_file_can_be_turned_off_and_another_named(tmp_path):
    (tmp_path / "sidecar.yml").write_text("workers: 2\n")
    (tmp_path / "other.yml").write_text("workers: 3\n")

    def workers(*words: str, **environ: str) -> list:
        row = json.loads(
            sidecar("check", "--json", *words, "--", "true", cwd=tmp_path, **environ).stdout
        )["settings"]["workers"]
        return [row["value"], row["from"]]

    assert workers() == [2, "sidecar.yml:1"]
    assert workers("--config", "none") == [1, "default"]
    assert workers("--config", "other.yml") == [3, "other.yml:1"]
    assert workers(SIDECAR_CONFIG="other.yml") == [3, "other.yml:1"]
    assert workers("--config=none", SIDECAR_CONFIG="other.yml") == [1, "default"]
    assert sidecar("check", "--config", "gone.yml", "--", "true", cwd=tmp_path).returncode == 2


def test_help_and_schema(tmp_path):
    done = sidecar("--help", cwd=tmp_path)
    assert len(done.stdout.splitlines()) <= 40
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert json.loads(sidecar("schema", cwd=tmp_path).stdout) == schema.schema()


def test_pid_1_has_no_yaml_and_starts_without_a_file_as_it_did(tmp_path):
    """Neither the reader nor PyYAML is imported, with a file or without; without one nothing is
    started for it.
    """
    (tmp_path / "sidecar.yml").write_text("command: 'true'\n")
    code = "import sys, os; from sidecar.cli.invocation import Invocation; chosen = Invocation(sys.argv[1:], os.environ);"
    code += "chosen.settings(chosen.read());"
    code += "import sidecar.host.loop; print([name for name in sys.modules if 'yaml' in name or name == 'subprocess'])"
    for words in ([], ["--config", "none", "true"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("words", "interval", "from_", "only_time"),
    [
        (("--", "true"), "1s", "default", True),
        (("--", "celery", "-A", "app", "worker"), "10s", "profile celery", True),
        (("--", "python3", "-m", "rq", "worker"), "10s", "profile rq", True),
        (("--interval", "2s", "--", "rq", "worker"), "2s", "--interval", True),
        (("--port", "u8080", "--", "true"), "1s", "default", True),
        (("--port", "8080", "--", "true"), "1s", "default", False),
        (("--ready", "notify", "--", "true"), "1s", "default", False),
        (("--ready", "interval", "--", "true"), "1s", "default", False),
    ],
)
def test_check_says_where_nothing_but_time_makes_ready(tmp_path, words, interval, from_, only_time):
    done = sidecar("check", "--json", *words, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["settings"]["interval"]["value"] == float(interval.removesuffix("s"))
    assert told["settings"]["interval"]["from"] == from_
    assert any("whether it works or not" in each for each in told["remarks"]) == only_time
