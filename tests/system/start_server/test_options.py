"""The rows of docs/start_server.md on options: where ours is meant to differ from
Perl's, both are run and each is seen to do what the table says.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support import PATIENCE, free_port, until
from tests.system.start_server.side_by_side import OURS, both, needs_perl, script, sh
from tests.system.start_server.starter import PERL, pattern, settings, shows, stale_socket


def switches(pid: int) -> int:
    """How often a process has gone to sleep."""
    return int(
        re.search(
            r"^voluntary_ctxt_switches:\s+(\d+)",
            Path(f"/proc/{pid}/status").read_text(),
            re.MULTILINE,
        )[1]
    )


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
