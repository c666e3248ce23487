"""Promise 9: a bad setting is refused before anything is bound or started. And the files: pid and
status.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sidecar.commands import COMMANDS
from tests.support import ROOT, free_port, until


def refused(*words: str, env: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """Exit status and messages of a `sidecar` that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def test_every_wrong_setting_is_named_at_once_with_where_it_came_from(tmp_path):
    status, lines = refused(
        "run", "--port", "http", "--drain-timeout", "5x", "--signal-on-hup", "KILL", "--worker", "3", "--pid-file", f"{tmp_path}/pid",
        env={"SIDECAR_WORKERS": "many", "SIDECAR_READY": "never"},
    )  # fmt: skip
    assert status == 2
    for part in (
        "--worker: there is no such option; did you mean --workers?",
        "--port http: 'http' is no port (0 to 65535); say PORT, HOST:PORT, [V6]:PORT, uPORT or unix:/PATH",
        "--drain-timeout 5x: '5x' is no duration; say 500ms, 30s, 5m, 2h or a number of seconds",
        "--signal-on-hup KILL: 'KILL' is no signal a program can answer",
        "SIDECAR_WORKERS many: 'many' is not a whole number of 1 or more",
        "SIDECAR_READY never: 'never' is none of auto, accept, notify, interval, command",
    ):
        assert any(part in line for line in lines), part
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (
            ("run", "--port", "8080", "--port", "8080", "--", "true"),
            "'8080' listens where '8080' does",
        ),
        (("run", "--port", "unix:" + "/x" * 60, "--", "true"), "the path is 120 bytes long"),
        (("run", "--port", "unix:relative", "--", "true"), "absolute"),
        (("run", "--ready", "command", "--", "true"), "needs --ready-command"),
        (
            ("run", "--slow-start", "--ready", "notify", "--", "true"),
            "--slow-start: needs --ready accept",
        ),
        (
            ("run", "--slow-start", "--max-surge", "1", "--", "true"),
            "--slow-start: not with --max-surge",
        ),
        (("run", "--port"), "--port: SPEC is missing"),
        (
            ("run", "--port", "0"),
            "the program to run is missing; end the line with `-- PROGRAM ARGUMENTS`",
        ),
        (("rnu",), "there is no such command; did you mean run?"),
    ],
)
def test_a_setting_wrong_by_itself_or_with_another_ends_with_status_2(words, part):
    status, lines = refused(*words)
    assert status == 2
    assert any(part in line for line in lines), lines


def test_what_the_system_refuses_is_said_and_ends_with_status_1(tmp_path):
    import socket

    (tmp_path / "file").write_text("precious")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, lines = refused(
            "run", "--port", f"127.0.0.1:{port}", "--port", f"unix:{tmp_path}/file", "--", "true"
        )
    assert status == 1
    assert any(
        f"--port 127.0.0.1:{port}: another process listens there" in line for line in lines
    ), lines
    assert any("regular file" in line for line in lines), lines
    assert (tmp_path / "file").read_text() == "precious"
    assert refused("run", "--envdir", f"{tmp_path}/none", "--", "true")[0] == 1
    assert refused("run", "--user", "no-such-user", "--", "true")[0] == 1
    assert refused("run", "--ready", "accept", "--", "true")[0] == 1


def test_a_kubernetes_service_called_sidecar_is_no_setting(sidecar):
    """Its pods get SIDECAR_PORT=tcp://10.0.0.1:80 and the like."""
    run = sidecar(
        env={
            "SIDECAR_PORT": "tcp://10.0.0.1:80",
            "SIDECAR_PORT_80_TCP": "tcp://10.0.0.1:80",
            "SIDECAR_WORKERS": "",
        }
    )
    run.wait("serving")
    assert run.stop() == 0


def test_the_program_needs_no_double_dash(sidecar):
    """Options end at the first word that is none, so the program's own options are its own."""
    run = sidecar(program=("sh", "-c", 'test "$1" = --port && exit 5', "sh", "--port"))
    del run
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "run", "--max-failures", "1", "sh", "-c", "exit 5", "--port"],
        cwd=ROOT, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 5


def test_a_second_instance_on_the_same_pid_file_is_refused_and_harms_nothing(sidecar, tmp_path):
    pid_file, status_file = tmp_path / "pid", tmp_path / "status"
    run = sidecar("--pid-file", str(pid_file), "--status-file", str(status_file))
    run.wait("serving")
    assert pid_file.read_text() == f"{run.pid}\n"
    port = free_port()
    status, lines = refused(
        "run", "--port", f"127.0.0.1:{port}", "--pid-file", str(pid_file), "--", "true"
    )
    assert status == 1
    assert str(run.pid) in lines[0]
    assert pid_file.read_text() == f"{run.pid}\n"
    assert status_file.exists()
    assert run.get().startswith("hello")
    assert run.stop() == 0
    assert not pid_file.exists()
    assert not status_file.exists()


def test_the_status_file_lists_generation_and_pid_in_numeric_order(sidecar, tmp_path):
    """Of every worker that takes or has taken connections; ten generations and more sort as
    numbers.
    """
    status_file = tmp_path / "status"
    run = sidecar(
        "--status-file",
        str(status_file),
        "--workers",
        "2",
        "--drain-timeout",
        "1h",
        env={"DEAF": "1"},
    )
    run.wait("worker_ready", count=2)
    for number in range(2, 12):
        run.swap(number, gone=False)
    expected = sorted((each["generation"], each["pid"]) for each in run.seen("worker_ready"))
    lines = "".join(f"{generation}:{pid}\n" for generation, pid in expected)
    until(lambda: status_file.read_text() == lines, "the eleventh generation in the status file")
    run.signal("TERM")
    run.wait("stopping")
    assert run.stop("INT") == 0


def test_a_status_file_that_cannot_be_written_is_said_once_and_stops_nothing(sidecar, tmp_path):
    run = sidecar("--status-file", str(tmp_path / "none" / "status"))
    run.wait("serving")
    run.swap(2)
    run.swap(3)
    assert len(run.seen("cannot")) == 1
    assert "--status-file" in run.seen("cannot")[0]["what"]
    assert run.stop() == 0


@pytest.mark.parametrize(
    "words",
    [(), ("--help",), ("dev", "--help"), ("--version",), *((name, "--help") for name in COMMANDS)],
    ids=str,
)
def test_help_fits_a_screen(words):
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == (0 if words else 2)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert len(done.stdout.splitlines()) <= 40


@pytest.mark.parametrize(
    "words",
    [("--help",), ("run", "--help"), ("profiles",), ("schema",), ("check", "--", "x")],
    ids=str,
)
def test_a_reader_who_leaves_is_no_error(words):
    """`sidecar check | head -1`."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [("run", "--help")])
def test_the_list_of_all_options_fits_a_large_one(words):
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == (0 if words else 2)
    assert max(map(len, done.stdout.splitlines())) <= 110
    assert len(done.stdout.splitlines()) <= 60
