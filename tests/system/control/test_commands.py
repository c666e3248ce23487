"""`sidecar stop`, `scale`, `signal` and `events`; words that make no sense."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE, ROOT, Load, until
from tests.system.control.asking import Asking, ask, command, environment, status


def listening(port: int) -> set[str]:
    """The inodes of the IPv4 sockets that listen on this port (proc(5), /proc/net/tcp)."""
    rows = [each.split() for each in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}


def test_a_stop_that_is_waited_for_ends_when_sidecar_has_left(run):
    with Load(run.port) as load:
        before = load.answered
        until(lambda: load.answered > before + 10, "some answers")
    assert load.failures == []
    there = listening(run.port)
    assert there
    done = ask(run, "stop", "--wait")
    assert done.returncode == 0
    assert "stopped, status 0" in done.stdout.splitlines()[-1]
    # The port itself may be another test's by now.
    assert not there & listening(run.port)
    assert not os.path.exists(run.control)
    assert run.exit() == 0


def test_a_stop_that_takes_too_long_says_so_and_goes_on(start):
    run = start("--drain-timeout", "1h", env={"DEAF": "1"})
    run.wait("serving")
    assert ask(run, "stop", "--wait", "--timeout", "300ms").returncode == 4
    # As with TERM: the second one does not wait.
    assert ask(run, "stop", "--wait").returncode == 0
    assert run.exit() == 0


def test_whoever_waits_when_sidecar_is_killed_is_told(run, asking):
    waiting, stopping = asking(run, "events", "--follow"), asking(run, "events", "-f")
    waiting.line("serves")
    stopping.line("serves")
    os.kill(run.pid, signal.SIGKILL)
    for each in (waiting, stopping):
        returned, _, err = each.end()
        assert returned == 3
        assert "sidecar has left" in err
    assert ask(run, "status").returncode == 3


# --- scale, signal
def test_scale_changes_the_number_of_workers_and_loses_no_request(run):
    with Load(run.port) as load:
        for word, size in (("4", 4), ("+1", 5), ("-3", 2), ("1", 1), ("3", 3)):
            done = ask(run, "scale", word)
            assert (done.returncode, done.stdout) == (0, f"{size} workers from now on\n")
            until(lambda size=size: len(run.workers()) == size, f"{size} workers")
    assert load.failures == []
    assert status(run)["workers"] == 3


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("0", "there is one worker at least; `sidecar stop` ends all of them"),
        ("-5", "and one stays at least; `sidecar stop` ends all of them"),
        ("+0", "say how many more"),
    ],
)
def test_scaling_to_nothing_is_refused_and_changes_nothing(run, word, said):
    done = ask(run, "scale", word)
    assert done.returncode == 2
    assert said in done.stderr
    assert run.seen("scaled") == []


def test_signal_passes_one_on_to_the_serving_workers(run):
    done = ask(run, "signal", "usr1")
    assert done.returncode == 0
    assert done.stdout == f"passed to {', '.join(map(str, run.workers()))}\n"
    until(
        lambda: {f"USR1 {pid}" for pid in run.workers()} <= set(run.output),
        "what the program says of it",
    )


def test_signal_is_not_passed_to_a_program_that_would_end_of_it(start):
    run = start("--ready", "interval", program=("sleep", "3600"))
    run.wait("serving")
    done = ask(run, "signal", "usr1")
    assert done.returncode == 1
    assert f"not sent: no handler for SIGUSR1 in {run.workers()[0]}" in done.stderr
    assert ask(run, "signal", "WINCH").returncode == 0  # this ends nobody
    run.swap(2)
    assert run.seen("worker_died") == []


# --- events
def test_events_are_the_lines_of_the_log(run):
    run.swap(2)
    ours = ask(run, "events").stdout.splitlines()
    assert [line.partition("sidecar: ")[2] for line in ours] == [
        each["message"] for each in run.events[: len(ours)]
    ]
    records = [json.loads(line) for line in ask(run, "events", "--json").stdout.splitlines()]
    assert records[-1] == {"done": 0}
    assert [each["event"] for each in records[:-1]] == [
        each["event"] for each in run.events[: len(ours)]
    ]
    assert [each["number"] for each in records[:-1]] == list(range(1, len(ours) + 1))


def test_who_follows_hears_everything_to_the_end(run, asking):
    following = asking(run, "events", "--follow", "--json")
    following.line('"serving"')
    run.swap(2)
    run.stop()
    returned, out, _ = following.end()
    records = [json.loads(line) for line in out.splitlines()]
    assert returned == 0
    assert records[-1] == {"done": 0}
    assert records[-2]["event"] == "stopped"


def test_a_pipe_that_has_had_enough_ends_it_quietly(run):
    line = (
        " ".join(command(run, "events", "--follow")) + " | head -n 3; echo status ${PIPESTATUS[0]}"
    )
    with subprocess.Popen(
        ["bash", "-c", line],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        assert all("sidecar: " in each for each in lines)
        number = 1
        while not select.select([process.stdout], [], [], 0.2)[0]:
            number += 1
            run.swap(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (out, err) == ("status 0\n", "")


def test_what_a_check_wrote_and_what_an_envdir_holds_is_in_no_answer(start, tmp_path):
    """Promise 7. Names are told, values never."""
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "PASSWORD").write_text("Tr0ub4dor")
    check = tmp_path / "check"
    check.write_text('#!/bin/sh\necho "the password is $PASSWORD"\ntest ! -e env/BAD\n')
    check.chmod(0o755)
    run = start(
        "--envdir", str(tmp_path / "env"), "--watch-env", "--check", str(check), cwd=tmp_path
    )
    run.wait("serving")
    following = Asking(run, "events", "--follow", "--json")
    (tmp_path / "env" / "PASSWORD").write_text("c0rrecthorse")
    run.wait("serving", generation=2)
    (tmp_path / "env" / "BAD").write_text("st4ple")
    run.wait("swap_failed")
    said = ask(run, "reload", "--wait")
    assert said.returncode == 1
    words = (
        "status",
        "status --json",
        "events",
        "events --json",
        "health --json",
        "signal CONT --json",
        "scale 2 --json",
    )
    answers = [ask(run, *each.split()) for each in words]
    run.stop()
    told = "".join(each.stdout + each.stderr for each in [said, *answers]) + following.end()[1]
    assert "PASSWORD" in told
    for secret in ("Tr0ub4dor", "c0rrecthorse", "st4ple", "the password is"):
        assert secret not in told
    assert any("the password is" in each.get("output", "") for each in run.events), (
        "the log has it, so this test could fail"
    )


# --- what a terminal would obey
def test_a_files_name_moves_nobodys_cursor(start, tmp_path, asking):
    """Whoever may save a file could write over what is on the screen: in the log and in `events`."""
    tree = tmp_path / "tree"
    tree.mkdir()
    out = tmp_path / "log"
    out.touch()
    run = start("--watch", str(tree), "--log-format", "text", "--log-file", str(out))
    until(lambda: "watching" in out.read_text(), "the watcher")
    (tree / "a\x1b[2J\x9b1m\u202eb\nc.py").write_text("x")
    until(lambda: "changed:" in out.read_text(), "the change")
    name = "a\\x1b[2J\\x9b1m\\u202eb"
    for text in (out.read_text(), ask(run, "events").stdout):
        assert name in text
        assert not set(text) & set("\x1b\x9b\u202e")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("status", "--nonsense"), "--nonsense"), (("reload", "--wiat"), "--wait"), (("scale",), "say how many"), (("scale", "x"), "how"),
        (("signal", "KILL"), "no signal a program can answer"), (("signal",), "say which"), (("reload", "--timeout"), "value is missing"),
        (("reload", "--timeout", "soon"), "no duration"), (("stop", "--watch"), "for status"), (("health", "--ready", "--live"), "ask one"),
        (("events", "now"), "now"),
    ],
)  # fmt: skip
def test_words_that_make_no_sense_are_named_and_nothing_is_asked(words, told):
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert f"usage: sidecar {words[0]}" in done.stderr
