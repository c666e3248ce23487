"""docs/start_server.md, row by row: where ours is meant to differ from Perl's, both are run and
each is seen to do what the table says.

What is the same, and the old bugs, are in test_start_server.py. Every row has a test in one of the
two.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import PATIENCE, Notified, alive, free_port, marked, until
from tests.system import test_start_server
from tests.system.starter import PERL, PROGRAM, SHOWN, Starter, pattern, rows, shows
from tests.system.test_start_server import settings, stale_socket

FILES = ("--pid-file=pid", "--status-file=status")
OURS = (sys.executable, "-m", "sidecar.start_server")
needs_perl = pytest.mark.skipif(
    not Path(PERL).exists(), reason=f"needs {PERL} (Debian: libserver-starter-perl)"
)


def test_every_row_of_the_table_has_a_test_and_every_claim_a_row():
    table = rows()
    assert len(table) == len({*table}), "a row's name is to be found but once"
    assert {*SHOWN} == {*table}
    there = {*vars(test_start_server), *globals()}
    assert {name for names in SHOWN.values() for name in names} <= there


def touch(*names: str):
    """A directory with these files."""

    def before(where: Path) -> None:
        for name in names:
            (where / name).touch()

    return before


def sh(script: str, then: tuple[str, ...] = PROGRAM) -> tuple[str, ...]:
    """A program that is a shell script first."""
    return ("sh", "-c", f"{script}; exec {' '.join(then)}")


def script(path: Path) -> None:
    """The program as a file of its own; it writes its arguments to `words`."""
    path.write_text(f"#!/bin/sh\necho $* > words\nexec {' '.join(PROGRAM)}\n")
    path.chmod(0o755)


def both(*words: str, cwd: Path) -> tuple[subprocess.CompletedProcess, subprocess.CompletedProcess]:
    """What each says to a command line that it does not stay for."""
    perl, ours = (
        subprocess.run(
            [*command, *words], capture_output=True, text=True, cwd=cwd, timeout=PATIENCE
        )
        for command in ([PERL], OURS)
    )
    return perl, ours


def gone(pid: int) -> None:
    until(lambda: not alive(pid), f"the end of {pid}")


def switches(pid: int) -> int:
    """How often a process has gone to sleep."""
    return int(
        re.search(
            r"^voluntary_ctxt_switches:\s+(\d+)",
            Path(f"/proc/{pid}/status").read_text(),
            re.MULTILINE,
        )[1]
    )


def environ(pid: int) -> list[str]:
    """NAME=value of a process, as it was when it began."""
    return Path(f"/proc/{pid}/environ").read_text().split("\0")[:-1]


# --- options


@shows("how they are read")
def test_what_follows_the_program_is_the_programs_own(pair):
    perl, ours = pair(
        program=("./program", "--version"),
        dashes=False,
        before=lambda where: script(where / "program"),
    )
    assert perl.process.wait(PATIENCE) == 0
    assert perl.text() == "0.35\n"
    ours.wait_generations(1)
    assert ours.text("words") == "--version\n"


@shows("--port …=FD")
@needs_perl
def test_the_number_that_the_socket_has_already(starter, tmp_path):
    lost = []
    for fd in (3, 4, 5):  # one of them is Perl's first
        look = ("sh", "-c", f"test -e /proc/$$/fd/{fd}; echo $? > lost; exec sleep 1000")
        run = starter(
            f"--port={free_port()}={fd}", kind="perl", where=tmp_path / str(fd), program=look
        )
        until(lambda run=run: run.text("lost"), "the look")
        lost.append(int(run.text("lost")))
    assert sum(lost) == 1
    # Ours is given each number in test_a_port_may_have_any_number_whichever_the_socket_had.
    for refused in (1, 2):
        result = subprocess.run(
            [*OURS, f"--port=127.0.0.1:{free_port()}={refused}", "--", "true"],
            capture_output=True,
            timeout=PATIENCE,
        )
        assert result.returncode == 255


@shows("the same port twice")
@needs_perl
def test_the_same_port_twice(starter, tmp_path):
    port = f"127.0.0.1:{free_port()}"
    perl, ours = both(f"--port={port}", f"--port={port}", "--", "true", cwd=tmp_path)
    assert (perl.returncode, ours.returncode) == (98, 255)
    assert "starting" not in ours.stderr
    udp = f"--port=127.0.0.1:u{free_port()}"
    run = starter(udp, udp, kind="perl", where=tmp_path / "perl")
    run.wait_generations(1)
    assert len(run.lives()[0]["listeners"]) == 2
    assert (
        subprocess.run(
            [*OURS, udp, udp, "--", "true"], capture_output=True, timeout=PATIENCE
        ).returncode
        == 255
    )


@shows("--path")
@pytest.mark.parametrize("path", ["a;b", "a=b", ""])
def test_a_path_that_cannot_be_told_is_refused(path):
    result = subprocess.run(
        [*OURS, f"--path={path}", "--", "true"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert result.returncode == (255 if path else 1)
    assert "starting" not in result.stderr


@shows("something is at the path", "removing existing socket file:PATH")
def test_a_stale_socket_is_removed_and_said(pair):
    for run in pair("--path=app.sock", before=stale_socket):
        run.wait_generations(1)
        assert re.search(pattern("removing existing socket file:PATH"), run.text(), re.MULTILINE)


@shows("something is at the path")
def test_what_is_no_stale_socket_is_left_alone(pair):
    def file(where: Path) -> None:
        (where / "app.sock").write_text("precious")

    perl, ours = pair("--path=app.sock", before=file)
    perl.wait_generations(1)
    assert (perl.where / "app.sock").is_socket()
    assert ours.process.wait(PATIENCE) == 255
    assert (ours.where / "app.sock").read_text() == "precious"
    assert "a regular file is at the path" in ours.text()


@shows("something is at the path")
def test_a_socket_that_somebody_listens_on_is_left_alone(pair):
    listening = []

    def listener(where: Path) -> None:
        listening.append(socket.socket(socket.AF_UNIX))
        listening[-1].bind(str(where / "app.sock"))
        listening[-1].listen()

    perl, ours = pair("--path=app.sock", before=listener)
    perl.wait_generations(1)
    assert ours.process.wait(PATIENCE) == 255
    for sock in listening:
        sock.settimeout(0)
    for run, found in ((perl, None), (ours, listening[1])):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(run.where / "app.sock"))
            if found:
                found.accept()[0].close()
    with pytest.raises(BlockingIOError):
        listening[0].accept()
    for sock in listening:
        sock.close()


@shows("the path at the end")
def test_the_path_at_the_end(pair):
    perl, ours = pair("--path=app.sock")
    for run in (perl, ours):
        run.wait_generations(1)
        assert (run.where / "app.sock").stat().st_mode & 0o777 == 0o777
    assert (ours.where / ".app.sock.sidecar").is_socket()
    (ours.where / "app.sock").unlink()
    ours.signal("HUP")
    ours.wait_generations(2)
    until((ours.where / "app.sock").is_socket, "the path again")
    for run in (perl, ours):
        assert run.stop() == 0
        assert sorted(path.name for path in run.where.iterdir()) == ["SEEN", "log"]


@shows("--dir")
def test_dir_is_where_the_program_starts_and_nothing_else_does(pair):
    def before(where: Path) -> None:
        (where / "sub").mkdir()
        script(where / "sub" / "program")

    for run in pair(
        "--dir=sub", "--path=app.sock", "--log-file=out", before=before, program=("./program",)
    ):
        run.wait_generations(1)
        assert {"pid", "status", "app.sock", "out"} <= {path.name for path in run.where.iterdir()}
        assert {path.name for path in (run.where / "sub").iterdir()} == {"program", "words", "SEEN"}


@shows("--interval")
@needs_perl
def test_an_interval_may_be_a_part_of_a_second(tmp_path):
    assert [settings(f"--interval={text}").interval for text in ("500ms", "0.5", "2")] == [
        0.5,
        0.5,
        2.0,
    ]
    result = subprocess.run(
        [PERL, "--interval=500ms", "--", "true"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=PATIENCE,
    )
    assert result.returncode == 1


@shows("during the interval")
def test_nothing_ends_the_interval_but_a_death(pair):
    perl, ours = pair(
        "--interval=3600", program=sh("while ! test -e DIE; do sleep 0.01; done; exit 4")
    )
    for run in (perl, ours):
        run.wait("^starting new worker")
        run.signal("HUP")
        run.wait("^received HUP")
    # Perl's was believed, unseen.
    perl.wait("^starting new worker", 2)
    assert perl.generations() == [1]
    (ours.where / "DIE").touch()
    ours.wait(r"^new worker \d+ seems to have failed to start, exit status:1024$")
    assert ours.generations() == []


@shows("--signal-on-hup, --signal-on-term")
@pytest.mark.parametrize("name", ["KILL", "STOP", "FOO", ""])
def test_a_signal_that_no_program_can_heed_is_refused(name):
    for option in ("hup", "term"):
        result = subprocess.run(
            [*OURS, f"--signal-on-{option}={name}", "--", "true"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert result.returncode == (255 if name else 1)
        assert f"signal-on-{option}" in result.stderr


@shows("--enable-auto-restart, --auto-restart-interval")
def test_the_automatic_restart_needs_no_wake_up_every_second(pair):
    perl, ours = pair("--enable-auto-restart")
    for run in (perl, ours):
        run.wait_generations(1)
    first = switches(perl.process.pid)
    until(
        lambda: switches(perl.process.pid) >= first + 2,
        "two ticks of Perl's, in which ours has come to rest",
    )
    before = switches(ours.process.pid)
    until(lambda: switches(perl.process.pid) >= first + 5, "three more")
    assert switches(ours.process.pid) == before


@shows("during that delay")
def test_perl_sits_the_delay_out(pair):
    perl, ours = pair("--kill-old-delay=2")
    for run in (perl, ours):
        run.wait_generations(1)
        run.signal("HUP")
    for run in (perl, ours):
        run.wait("^sleeping 2 secs")
        assert run.stop() == 0
    assert "killing old workers" in perl.lines()
    assert "killing old workers" not in ours.lines()


@shows("--backlog")
@pytest.mark.parametrize("words", [(), ("--backlog=7",)])
def test_backlog(pair, words):
    perl, ours = pair("--port={0}", *words)
    for run in (perl, ours):
        run.wait_generations(1)
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert ours.lives()[0]["backlogs"] == [7 if words else most]
    assert perl.lives()[0]["backlogs"] == [7 if words else min(most, socket.SOMAXCONN)]


@shows("--log-file FILE")
def test_a_log_file_has_the_output_of_both(pair):
    for run in pair("--log-file=out", program=sh("echo a life")):
        run.wait_generations(1)
        run.signal("HUP")
        until(lambda run=run: "killing old workers" in run.text("out"), "the swap")
        assert run.stop() == 0
        out = re.sub(r"\d+", "N", run.text("out")).splitlines()
        assert out[0] == "starting new worker N"
        assert out[-1] == "exiting"
        assert out.count("a life") == 2
        assert [re.sub(r"\d+", "N", line) for line in run.text().splitlines()] == [
            "start_server (pid:N) starting now..."
        ]


@shows("--log-file FILE", "--pid-file, --status-file")
@needs_perl
def test_a_file_that_cannot_be_opened(tmp_path):
    perl, ours = both("--log-file=nonexistent/log", "--", "true", cwd=tmp_path)
    assert (ours.returncode, perl.returncode) == (2, 2)
    assert perl.stderr.partition(": ")[0] in ours.stderr
    perl, ours = both("--pid-file=nonexistent/pid", "--", "true", cwd=tmp_path)
    assert (ours.returncode, perl.returncode) == (2, 2)
    assert "nonexistent/pid" in ours.stderr


@shows("--log-file '| COMMAND'")
def test_a_log_command_that_dies(pair):
    # Who reads on is a child of the command, so that Perl's word on its death is seen.
    command = "--log-file=| exec 3<&0; cat <&3 >> out & echo $$ >> loggers; exec sleep 1000"
    perl, ours = pair(command, ours=("--drain-timeout=1",))
    for run in (perl, ours):
        run.wait_generations(1)
        until(lambda run=run: run.text("loggers"), "the log command")
        os.kill(int(run.text("loggers").split()[0]), signal.SIGKILL)
    until(
        lambda: re.search(
            rf"^old worker {perl.text('loggers').strip()} died, status:9$",
            perl.text("out"),
            re.MULTILINE,
        ),
        "Perl's word",
    )
    until(lambda: len(ours.text("loggers").split()) == 2, "the next log command")
    assert len(perl.text("loggers").split()) == 1
    assert "old worker" not in ours.text("out")


@shows("--daemonize", "--stop", "--restart")
def test_daemonize_restart_and_stop_as_perls(pair):
    for run in pair("--daemonize", "--log-file=out", "--path=app.sock"):
        assert run.process.wait(PATIENCE) == 0
        run.wait_generations(1)
        pid = int(run.text("pid"))
        assert os.getsid(pid) not in (pid, os.getsid(0))
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        result = run.run("--restart", *FILES)
        assert (result.returncode, result.stderr) == (0, "")
        assert run.generations() == [2]
        result = run.run("--stop", "--pid-file=pid")
        assert result.returncode == 0
        assert re.match(pattern("stop_server (pid:N) stopping now (pid:M)..."), result.stderr)
        gone(pid)
        assert {path.name for path in run.where.iterdir()} == {"log", "out", "SEEN"}
        assert marked(run.mark) == []


@shows("--restart")
def test_restart_returns_as_soon_as_the_swap_is_over(pair):
    shortest = {}
    for run in pair("--interval=0"):
        run.wait_generations(1)
        took = []
        for generation in (2, 3, 4):
            since = time.monotonic()
            assert run.run("--restart", *FILES).returncode == 0
            took.append(time.monotonic() - since)
            assert run.generations() == [generation]
        shortest[run.kind] = min(took)
    # Perl's sleeps a second before it looks again.
    assert shortest["ours"] < shortest["perl"], shortest


@shows("--restart", "STATUS.failed")
def test_restart_while_no_program_is_up(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "BREAK").write_text("for ever")
    run = starter()
    run.wait("^new worker .* failed to start", 2)
    result = run.run("--restart", *FILES)
    assert result.returncode == 1
    assert re.match(r"generation \d+ failed: exited with status 3.*; none serves\n", result.stderr)
    (run.where / "BREAK").unlink()
    result = run.run("--restart", *FILES)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(run.generations()) == 1


@shows("--restart")
def test_restart_signals_nobody_whose_number_is_in_a_pid_file_left_behind(pair):
    """Only the lock says that the number is still the server's. Perl's does not look at it."""
    for run in pair():
        run.wait_generations(1)
        with subprocess.Popen(["sleep", "600"]) as bystander:
            (run.where / "left").write_text(f"{bystander.pid}\n")
            words = [*run.words, "--restart", "--pid-file=left", "--status-file=status"]
            with subprocess.Popen(
                words, cwd=run.where, env=run.environ, stderr=subprocess.PIPE, text=True
            ) as restart:
                if run.kind == "perl":
                    assert bystander.wait(PATIENCE) == -signal.SIGHUP
                    restart.kill()  # it waits for ever for a swap that does not come
                else:
                    assert "No such process" in restart.communicate(timeout=PATIENCE)[1]
                    assert restart.returncode == 3
                    bystander.kill()
                    assert bystander.wait(PATIENCE) == -signal.SIGKILL
        assert run.generations() == [1]


@shows("--stop")
def test_perls_stop_signals_whoever_has_the_number_by_now(pair):
    for run in pair():
        run.wait_generations(1)
        with subprocess.Popen(["sleep", "600"]) as bystander:
            (run.where / "left").write_text(f"{bystander.pid}\n")
            status = run.run("--stop", "--pid-file=left").returncode
            assert status == (0 if run.kind == "perl" else 3)
            if run.kind == "perl":
                assert bystander.wait(PATIENCE) == -signal.SIGTERM
            else:
                assert bystander.poll() is None
            bystander.kill()


@shows("--help, --version")
@needs_perl
def test_help_and_version(tmp_path):
    perl, ours = both("--help", cwd=tmp_path)
    assert (perl.returncode, ours.returncode) == (0, 0)
    options = {*re.findall(r"^ +(--[a-z-]+)", perl.stdout, re.MULTILINE)} | {
        *re.findall(r"(--[a-z-]+)", perl.stdout)
    }
    assert options - {"--"} <= {*re.findall(r"--[a-z-]+", ours.stdout)}
    perl, ours = both("--version", cwd=tmp_path)
    assert re.fullmatch(re.escape(perl.stdout.strip()) + r" \(sidecar \S+\)\n", ours.stdout)


# --- variables


@shows("SERVER_STARTER_PORT")
def test_port_0_is_told_as_what_it_became(pair):
    perl, ours = pair("--port=127.0.0.1:0")
    for run in (perl, ours):
        run.wait_generations(1)
    ((key, _, where),) = perl.lives()[0]["listeners"]
    assert key == "127.0.0.1:0"
    assert where != "('127.0.0.1', 0)"
    ((key, _, where),) = ours.lives()[0]["listeners"]
    assert f"('127.0.0.1', {key.partition(':')[2]})" == where
    assert f"SERVER_STARTER_PORT={key}=3" in environ(ours.worker(1))


PACE = "ENVDIR, ENABLE_AUTO_RESTART, AUTO_RESTART_INTERVAL, KILL_OLD_DELAY"


def env(**variables: str):
    """A directory with an envdir `env`."""

    def before(where: Path) -> None:
        (where / "env").mkdir()
        for name, value in variables.items():
            (where / "env" / name).write_text(f"{value}\n")

    return before


@shows(PACE)
def test_the_pace_follows_the_envdir(pair):
    perl, ours = pair("--envdir=env", "--kill-old-delay=3600", before=env(KILL_OLD_DELAY="0"))
    for run in (perl, ours):
        run.wait_generations(1)
        run.signal("HUP")
        run.wait(r"^old worker \d+ died")
        (run.where / "env" / "KILL_OLD_DELAY").write_text("1\n")
        run.signal("HUP")
        run.wait("^sleeping 1 secs before killing old workers$")
        run.wait(r"^old worker \d+ died", 2)
        assert "3600" not in run.text()
    # Perl goes by what was there at its start until it is started again; ours by the option.
    for run in (perl, ours):
        (run.where / "env" / "KILL_OLD_DELAY").unlink()
        run.signal("HUP")
    perl.wait("^killing old workers$", 3)
    ours.wait("^sleeping 3600 secs before killing old workers$")
    assert ours.stop() == 0


@shows(PACE)
def test_an_automatic_restart_may_be_turned_on_and_off_by_the_envdir(starter, tmp_path):
    run = starter("--envdir=env", "--interval=0.1")
    run.wait_generations(1)
    env(ENABLE_AUTO_RESTART="1", AUTO_RESTART_INTERVAL="1", KILL_OLD_DELAY="0")(run.where)
    run.signal("HUP")
    run.wait(r"^autorestart triggered \(interval=1\)$", 2)
    (run.where / "env" / "ENABLE_AUTO_RESTART").write_text("0\n")
    # The next restart reads it, and is the last one (tests/histories has how long).
    until(
        lambda: run.lives()[-1]["environ"]["ENABLE_AUTO_RESTART"] == "0",
        "a restart that turns it off",
    )
    run.wait_generations(len(run.lives()))
    assert run.text().count("starting new worker") == len(run.lives())


@shows(PACE)
def test_a_wrong_pace_in_a_changed_envdir_changes_nothing_and_is_said(starter):
    run = starter("--envdir=env", "--kill-old-delay=1", "--interval=0.1")
    run.wait_generations(1)
    env(KILL_OLD_DELAY="tomorrow")(run.where)
    run.signal("HUP")
    run.wait("^sleeping 1 secs before killing old workers$")
    assert "KILL_OLD_DELAY is no duration" in run.text()
    assert "tomorrow" not in run.text()
    refused = run.run("--envdir=env", "--", "true")
    assert refused.returncode == 255
    assert "KILL_OLD_DELAY is no duration" in refused.stderr
    assert "tomorrow" not in refused.stderr


@shows("from the envdir")
def test_a_nul_in_the_envdir_stands_for_a_newline(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    env(FOO="a\0b")(tmp_path / "ours")
    run = starter("--envdir=env")
    run.wait_generations(1)
    assert run.lives()[0]["environ"]["FOO"] == "a\nb"


@shows("deleted from the envdir")
def test_what_is_deleted_from_the_envdir(pair):
    perl, ours = pair("--envdir=env", before=env(FOO="at the start"))
    for run in (perl, ours):
        run.wait_generations(1)
        (run.where / "env" / "FOO").write_text("later\n")
        run.signal("HUP")
        run.wait_generations(2)
        (run.where / "env" / "FOO").unlink()
        run.signal("HUP")
        run.wait_generations(3)
    assert [life["environ"].get("FOO") for life in perl.lives()] == [
        "at the start",
        "later",
        "at the start",
    ]
    assert [life["environ"].get("FOO") for life in ours.lives()] == ["at the start", "later", None]


@shows("an envdir that cannot be read (permissions)")
def test_an_envdir_that_cannot_be_read(pair):
    perl, ours = pair("--envdir=env", before=env(FOO="one"))
    for run in (perl, ours):
        run.wait_generations(1)
        (run.where / "env" / "BAR").symlink_to("/proc/self/mem")  # even root cannot read that
        run.signal("HUP")
    perl.wait_generations(2)
    ours.wait("^generation 2 failed.*env/BAR cannot be read|env/BAR cannot be read")
    assert ours.generations() == [1]
    (ours.where / "env" / "BAR").unlink()
    until(lambda: ours.generations() not in ([], [1]), "the next attempt")


@shows("others")
def test_no_other_variable_comes_in(pair):
    names = []
    for run in pair("--port={0}"):
        run.wait_generations(1)
        names.append({entry.partition("=")[0] for entry in environ(run.worker(1))})
        assert "SERVER_STARTER_PORT" in names[-1]
    assert names[1] - names[0] == {
        "SIDECAR_TRIGGER",
        "SIDECAR_WORKER",
        "SIDECAR_WORKERS",
        "SIDECAR_WORKER_PID",
    }
    assert names[0] <= names[1]


@shows("NOTIFY_SOCKET")
def test_the_service_manager_is_told_by_start_server_itself(pair, tmp_path):
    with Notified(f"{tmp_path}/notify") as manager:
        perl, ours = pair(env={"NOTIFY_SOCKET": manager.address})
        for run in (perl, ours):
            run.wait_generations(1)
        manager.next(READY="1")
        assert manager.senders == {ours.process.pid}
        assert f"NOTIFY_SOCKET={manager.address}" in environ(perl.worker(1))
        assert not any(entry.startswith("NOTIFY_SOCKET") for entry in environ(ours.worker(1)))


@shows("SIGPIPE")
def test_sigpipe(pair):
    perl, ours = pair(program=sh("grep SigIgn /proc/self/status > ignored"))
    for run in (perl, ours):
        run.wait_generations(1)
    pipe = 1 << (signal.SIGPIPE - 1)
    assert int(perl.text("ignored").split()[1], 16) & pipe
    assert not int(ours.text("ignored").split()[1], 16) & pipe


# --- files


@shows("pid file")
def test_the_pid_file_is_locked(pair):
    for run in pair():
        run.wait_generations(1)
        with open(run.where / "pid") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        run.process.kill()
        run.process.wait(PATIENCE)
        (again := Starter(run.kind, run.where)).wait("^starting new worker", 2)
        until(
            lambda run=run, again=again: run.text("pid") == f"{again.process.pid}\n",
            "its pid in the file that was left behind",
        )
        again.clean_up()


@shows("a second instance")
def test_perls_second_instance_empties_the_pid_file(pair):
    perl, ours = pair()
    for run in (perl, ours):
        run.wait_generations(1)
    second = Starter("perl", perl.where)
    until(lambda: perl.text("pid") == "", "the empty pid file")
    assert second.process.poll() is None
    second.clean_up()
    assert ours.run(*FILES, "--", "true").returncode == 255
    assert ours.text("pid") == f"{ours.process.pid}\n"


@shows("exec of the program fails", "failed to exec PROGRAM…")
def test_perls_failed_exec_removes_the_files(pair):
    perl, ours = pair(
        "--path=app.sock", before=lambda where: script(where / "program"), program=("./program",)
    )
    for run in (perl, ours):
        run.wait_generations(1)
        (run.where / "program").unlink()
        run.signal("HUP")
        run.wait(r"failed to exec \./program")
        run.wait(r"new worker \d+ seems to have failed to start, exit status:65280$")
    assert {"pid", "status", "app.sock"} & {path.name for path in perl.where.iterdir()} == set()
    assert {"pid", "status", "app.sock"} <= {path.name for path in ours.where.iterdir()}


@shows("status file")
def test_the_order_of_the_status_file(pair):
    perl, ours = pair("--interval=0", before=touch("DEAF"))
    for run in (perl, ours):
        for generation in range(1, 11):
            until(
                lambda run=run, least=generation: len(run.lives()) >= least,
                f"life {generation}\n{run.text()}",
            )
            run.wait_generations(*range(1, generation + 1))
            if generation < 10:
                run.signal("HUP")
    order = [
        [int(line.partition(":")[0]) for line in run.text("status").splitlines()]
        for run in (perl, ours)
    ]
    assert order == [sorted(range(1, 11), key=str), [*range(1, 11)]]


@shows("status file")
def test_a_program_that_has_died_is_not_in_the_status_file(pair):
    perl, ours = pair()
    for run in (perl, ours):
        run.wait_generations(1)
        (run.where / "BREAK").write_text("for ever")
        pid = run.worker(1)
        os.kill(pid, signal.SIGKILL)
        run.wait("seems to have failed to start", 2)
        assert run.text("status") == (f"1:{pid}\n" if run.kind == "perl" else "")


# --- signals


@shows("HUP")
def test_hups_that_come_during_a_swap(pair):
    perl, ours = pair("--interval=1")
    for run in (perl, ours):
        run.wait_generations(1)
        for count in (1, 2, 3):
            run.signal("HUP")
            run.wait("^received HUP", count)
            run.wait("^starting new worker", 2)
    perl.wait_generations(4)
    ours.wait_generations(3)
    for run, attempts in ((perl, 4), (ours, 3)):
        assert run.stop() == 0
        assert run.text().count("starting new worker") == attempts


@shows("TERM")
def test_a_second_term_kills_what_is_left(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "DEAF").touch()
    run = starter()
    run.wait_generations(1)
    run.signal("TERM")
    run.wait("^received TERM")
    assert alive(run.worker(1))
    until(lambda: run.process.poll() is not None or run.signal("TERM"), "the end")
    assert run.process.returncode == 0
    assert re.search(r"^worker \d+ died, status:9$", run.text(), re.MULTILINE)


@shows("TERM in a crash loop")
def test_perl_starts_one_more_on_term_in_a_crash_loop(pair):
    perl, ours = pair(before=lambda where: (where / "BREAK").write_text("for ever"))
    started = {}
    for run in (perl, ours):
        run.wait("seems to have failed to start", 2)
        if run is perl:
            run.wait("^starting new worker", 3)
            gone(int(re.findall(r"^starting new worker (\d+)$", run.text(), re.MULTILINE)[2]))
            (run.where / "BREAK").unlink()
        started[run] = run.text().count("starting new worker")
        assert run.stop() == 0
        (one,) = [
            index
            for index, line in enumerate(run.lines())
            if line.startswith("received TERM, sending TERM to all workers:")
        ]
        assert run.lines()[-1] == "exiting"
        assert not [line for line in run.lines()[one:] if line.startswith("starting")]
    assert perl.text().count("starting new worker") > started[perl]


@shows("QUIT", "USR1", "USR2")
@pytest.mark.parametrize("name", ["QUIT", "USR1", "USR2"])
def test_perl_dies_of_a_signal_that_it_does_not_know_and_leaves_its_program(pair, name):
    perl, ours = pair()
    for run in (perl, ours):
        run.wait_generations(1)
        run.signal(name)
    assert perl.process.wait(PATIENCE) == -signal.Signals[f"SIG{name}"]
    assert alive(perl.worker(1))
    if name == "QUIT":
        assert ours.process.wait(PATIENCE) == 0
        assert marked(ours.mark) == []
    elif name == "USR1":
        ours.signal("HUP")
        ours.wait_generations(2)
        assert "died unexpectedly" not in ours.text()
    else:
        # An upgrade in place: the program it was exec'd with is another one, of the same pid, with
        # the same worker.
        until(
            lambda: b"SIDECAR_HERITAGE=" in Path(f"/proc/{ours.process.pid}/environ").read_bytes(),
            "the upgrade",
        )
        worker = ours.worker(1)
        assert alive(worker)
        ours.signal("HUP")
        ours.wait_generations(2)


@shows("TTIN, TTOU")
def test_ttin_and_ttou(starter):
    run = starter("--interval=0.1")
    run.wait_generations(1)
    run.signal("TTIN")
    until(lambda: len(run.text("status").splitlines()) == 2, "two programs")
    assert {line.partition(":")[0] for line in run.text("status").splitlines()} == {"1"}
    run.signal("TTOU")
    until(lambda: len(run.text("status").splitlines()) == 1, "one program")
    assert {life["environ"]["SERVER_STARTER_GENERATION"] for life in run.lives()} == {"1"}


@shows("ALRM")
def test_alrm(pair):
    """Both are sent HUP behind it: what it would have done, it has done by the time that has served."""
    for run in pair():
        run.wait_generations(1)
        run.signal("ALRM")
        run.signal("HUP")
        run.wait_generations(2)
        assert run.process.poll() is None
        assert len(run.lives()) == 2


@shows("any other that would end it (PROF, VTALRM, real time …)")
def test_signals_without_a_meaning(pair):
    perl, ours = pair()
    for run in (perl, ours):
        run.wait_generations(1)
        run.signal("VTALRM")
    assert perl.process.wait(PATIENCE) == -signal.SIGVTALRM
    assert alive(perl.worker(1))
    ours.signal("HUP")
    ours.wait_generations(2)
    assert ours.process.poll() is None


@shows("start_server is killed outright")
def test_start_server_is_killed_outright(pair):
    perl, ours = pair()
    for run in (perl, ours):
        run.wait_generations(1)
        run.process.kill()
        run.process.wait(PATIENCE)
    gone(ours.worker(1))
    assert alive(perl.worker(1))


# --- what it does


@shows("a program that dies in the interval", "a program that dies later")
def test_a_program_that_dies_is_tried_again_after_a_pause(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "BREAK").write_text("3")
    run = starter("--interval=0.1")
    run.wait_generations(4)
    pauses = [
        float(text)
        for text in re.findall(r"^trying again in ([\d.]+) secs$", run.text(), re.MULTILINE)
    ]
    assert len(pauses) == 3
    assert max(pauses) == pauses[2] > pauses[0] > 0
    os.kill(run.worker(4), signal.SIGKILL)
    run.wait("^trying again in", 4)
    run.wait_generations(5)


@shows("old programs that do not leave")
def test_old_programs_that_do_not_leave(pair):
    perl, ours = pair(before=touch("DEAF"), ours=("--drain-timeout=0.5",))
    for run in (perl, ours):
        for generation in (2, 3):
            run.wait_generations(*range(1, generation)) if run is perl else run.wait_generations(
                generation - 1
            )
            run.signal("HUP")
    perl.wait_generations(1, 2, 3)
    ours.wait(r"^old worker \d+ died, status:9$", 2)
    ours.wait_generations(3)


@shows("processes that a program has left in its group")
def test_what_a_program_has_left_in_its_group(pair):
    perl, ours = pair(program=sh("sleep 1000 & echo $! >> left"), ours=("--drain-timeout=0.5",))
    for run in (perl, ours):
        run.wait_generations(1)
        run.signal("HUP")
        run.wait(r"^old worker \d+ died, status:15$")
        run.wait_generations(2)
    gone(int(ours.text("left").split()[0]))
    assert alive(int(perl.text("left").split()[0]))


@shows("Ctrl-C at a terminal")
def test_programs_have_groups_of_their_own(pair):
    perl, ours = pair()
    for run in (perl, ours):
        run.wait_generations(1)
    assert os.getpgid(perl.worker(1)) == perl.process.pid
    assert os.getpgid(ours.worker(1)) == ours.worker(1)


@shows("new worker is now running, sending SIG to old workers:P1,P2")
def test_a_swap_is_said_to_be_over_also_if_the_old_program_dies_meanwhile(pair):
    perl, ours = pair("--interval=2")
    for run in (perl, ours):
        run.wait_generations(1)
        run.signal("HUP")
    for run in (perl, ours):
        run.wait("^starting new worker", 2)
        os.kill(run.worker(1), signal.SIGKILL)
    for run in (perl, ours):
        run.wait("^killing old workers$")
        run.wait(r"^old worker \d+ died, status:9$")
    end = [
        "new worker is now running, sending TERM to old workers:<worker 1>",
        "killing old workers",
        "old worker <worker 1> died, status:9",
    ]
    assert perl.lines()[-3:] == end
    assert ours.lines()[-3:] == [end[2], end[0].replace("<worker 1>", "none"), end[1]]
