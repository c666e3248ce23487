"""Promise 9: a bad setting is refused before anything is bound or started. And the files: pid and
status.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from sidecar.control.commands import COMMANDS
from sidecar.settings import launchers
from tests.support import ROOT, SERVER, free_port, until


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
        (
            ("run", "--port", "8080", "--port", "0.0.0.0:8080", "--", "true"),
            "listens where '8080' does",
        ),
        (
            ("run", "--port", "8080:80", "--", "true"),
            "in a container sidecar listens on its inner port alone: say 80",
        ),
        (("run", "--port", "http://0.0.0.0:8080/", "--", "true"), "is a URL; say 0.0.0.0:8080"),
        (("run", "--port", "9" * 5000, "--", "true"), "is no port"),
        (("run", "--max-memory", "9" * 400, "--", "true"), "more than any machine has"),
        (
            ("run", "--check", "make && true", "--", "true"),
            "&& is for a shell, and no shell runs this command; say sh -c 'make && true'",
        ),
        (
            ("run", "--ready", "command", "--ready-command", "curl -f x >/dev/null", "--", "true"),
            "> is for a shell",
        ),
        (
            ("run", "--check", "A=1 make", "--", "true"),
            "A=… in front of the program is for a shell",
        ),
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


@pytest.mark.parametrize(
    "line", ["curl http://x/?a=1&b=2", "grep 'a > b; c' x", "sh -c 'a && b | c'", 'x "`y`" a\\;b']
)
def test_what_is_quoted_or_within_a_word_is_no_shell_syntax(line):
    assert launchers.shell_syntax(line.replace('"`y`"', "'`y`'")) == ""


@pytest.mark.parametrize("line", ["a | b", "a 2>&1", "a; b", "a&&b", "x $(y)", 'x "`y`"', "cd x"])
def test_shell_syntax_is_seen(line):
    assert launchers.shell_syntax(line) or '"' in line


@pytest.mark.parametrize("word", ["version", "--version", "-v", "-V"])
def test_the_version_is_said_however_it_is_asked_for(word):
    done = subprocess.run([sys.executable, "-m", "sidecar", word], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"sidecar ")


@pytest.mark.parametrize("words", [("--help",), ("schema",), ("run", "--help")])
def test_an_answer_that_cannot_be_written_is_no_traceback(words):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", *words], cwd=ROOT, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr == b"sidecar: cannot write the answer: No space left on device\n"


def test_what_may_be_meant_otherwise_is_said_at_the_start(sidecar, tmp_path):
    """A misspelt variable, a settings file of another name, sidecar's options behind the program."""
    (tmp_path / "sidecar.yaml").write_text("workers: 3\n")
    run = sidecar(
        program=(*SERVER, "--drain-timeout=5s", "--port", "1"),
        env={"SIDECAR_WORKRES": "4", "SIDECAR_OF_MINE": "x", "SIDECAR_API_SERVICE_HOST": "10.0.0.1"},
        cwd=tmp_path,
    )  # fmt: skip
    run.wait("serving")
    said = [each["text"] for each in run.seen("notice")]
    for part in (
        "SIDECAR_WORKRES: no setting has this variable; did you mean SIDECAR_WORKERS?",
        "sidecar.yaml is not read: the usual name is sidecar.yml",
        "--drain-timeout stands behind the program",
    ):
        assert len([each for each in said if part in each]) == 1, said
    assert len(said) == 3
    assert run.stop() == 0


def test_a_port_that_only_the_program_was_told_is_said(sidecar):
    run = sidecar(program=("sleep", "100", "--port"), port=False)
    assert any(
        "sidecar run --port … -- sleep" in each["text"]
        for each in [run.wait("notice"), *run.seen("notice")]
    )
    run.stop()


def test_check_tells_all_that_the_start_would_and_more():
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "check", "--max-failures", "0", "gunicorn", "--pid", "x", "--reload", "a:b"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "SIDECAR_OF_MINE": "x"},
    )  # fmt: skip
    assert done.returncode == 0
    for part in (
        "SIDECAR_OF_MINE: no setting has this variable",
        "gunicorn --pid: two generations cannot share the file",
        "gunicorn --reload: it starts its own workers anew",
    ):
        assert part in done.stdout


def test_what_the_system_refuses_is_said_and_ends_with_status_1(tmp_path):
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


def test_all_that_does_not_fit_the_machine_is_named_at_once_before_anything_is_bound(tmp_path):
    """By check and by the start alike, each with where it was said."""
    port, none = free_port(), tmp_path / "none"
    settings = tmp_path / "some.yml"
    settings.write_text(
        f"command: no-such-program\nuser: no-such-user\ngroup: no-such-group\n"
        f"log-file: {tmp_path}\nenvdir:\n  - {tmp_path}\n  - {none}\n"
    )
    words = (
        "--config", str(settings), "--port", f"127.0.0.1:{port}", "--dir", str(none),
        "--pid-file", f"{none}/pid", "--control", f"{none}/control",
    )  # fmt: skip
    env = {"SIDECAR_STATUS_FILE": f"{none}/status"}
    with socket.create_server(("127.0.0.1", port)):  # whoever binds first says that it is in use
        told = [refused(command, *words, env=env) for command in ("run", "dev")]
    (status, lines), in_dev = told
    assert status == in_dev[0] == 1
    for start in (
        f"{settings}:2: user no-such-user: there is no such user",
        f"{settings}:3: group no-such-group: there is no such group",
        f"--dir {none}: there is no such directory",
        f"{settings}:4: log-file {tmp_path}: it is a directory",
        f"--pid-file {none}/pid: the directory {none}: there is no such directory",
        f"SIDECAR_STATUS_FILE {none}/status: the directory {none}: there is no such directory",
        f"--control {none}/control: the directory {none}: there is no such directory",
        f"{settings}:7: envdir {none}: the envdir {none} cannot be read",
    ):
        for each in (lines, in_dev[1]):
            assert len([line for line in each if line.startswith(f"sidecar: {start}")]) == 1, each
    assert (len(lines), len(in_dev[1])) == (8, 8)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["some.yml"]
    assert refused("check", *words, env=env) == (1, lines)
    # With a setting that is wrong by itself everything is still told.
    status, all_of_it = refused("run", *words, "--workers", "x", env=env)
    assert status == 2
    assert set(all_of_it) > set(lines)


def test_a_program_that_is_not_there_is_refused_before_anything_is_bound(tmp_path):
    """With the exit status that says so to Docker, but where it may also come later."""
    port = free_port()
    words = ("--port", f"127.0.0.1:{port}", "--", "no-such-program")
    said = "sidecar: the command line: no-such-program: not found in any directory of PATH"
    with socket.create_server(("127.0.0.1", port)):
        assert refused("run", *words) == (127, [said])
        assert refused("check", *words) == (1, [said])
        (tmp_path / "program").write_text("no program")
        status, lines = refused("run", *words[:3], f"{tmp_path}/program")
        assert (status, "may be executed" in lines[0]) == (126, True)
        status, lines = refused("run", "--max-failures", "0", *words)
        assert (status, "another process listens there" in lines[0]) == (1, True)
    # An envdir's PATH is where the workers' programs are looked for.
    (tmp_path / "program").chmod(0o755)
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "PATH").write_text(str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "check", "--envdir", f"{tmp_path}/env", "program"],
        cwd=ROOT, capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_address_in_use_is_told_with_the_line_of_the_file(tmp_path):
    settings = tmp_path / "some.yml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings.write_text(f"command: 'true'\nport:\n  - 0\n  - 127.0.0.1:{port}\n")
        status, lines = refused("run", "--config", str(settings))
    assert status == 1
    assert lines[0].startswith(f"sidecar: {settings}:4: port 127.0.0.1:{port}: another process")


def test_what_can_be_written_to_where_nothing_can_be_made_is_no_mistake(tmp_path):
    """A log at /dev/stdout or in a pipe, a pid file that is there, a link to a file to be made."""
    (tmp_path / "link").symlink_to(tmp_path / "log")
    (tmp_path / "pid").write_text("")
    for words in (
        ("--log-file", "/dev/null"),
        ("--log-file", f"{tmp_path}/link"),
        ("--log-file", "| cat"),
        ("--pid-file", f"{tmp_path}/pid", "--status-file", f"{tmp_path}/status"),
        ("--control", "none"),
        ("--dir", "/"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", "check", *words, "--", "true"],
            cwd=ROOT, capture_output=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b""), words
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "pid"]


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
    (tmp_path / "gone").mkdir()
    run = sidecar("--status-file", str(tmp_path / "gone" / "status"))
    run.wait("serving")
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    run.swap(2)
    run.swap(3)
    assert len(run.seen("action_failed")) == 1
    assert "--status-file" in run.seen("action_failed")[0]["what"]
    assert run.stop() == 0


@pytest.mark.parametrize(
    "words",
    [
        (), ("--help",), ("--version",),
        *((name, "--help") for name in ("dev", "check", "rollout", *COMMANDS)),
    ],
    ids=str,
)  # fmt: skip
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
    [("--help",), ("run", "--help"), ("profiles",), ("schema",), ("check", "--", "true")],
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
    assert len(done.stdout.splitlines()) <= 64
