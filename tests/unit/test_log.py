"""How a line looks, and what happens when nobody reads it."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys

import pytest

from sidecar.log.messages import PHRASES
from sidecar.log.writer import Log, format_line
from tests.support import PATIENCE, ROOT

FIELDS = {
    "swap_failed": {
        "generation": 2,
        "trigger": "signal",
        "cause": "x\ny",
        "lasted": 1.5,
        "still": [1],
        "degraded": False,
        "again": None,
    },
}


def test_a_line_of_text_says_when_who_and_what():
    text = format_line("text", "swap_failed", FIELDS["swap_failed"], 1_000_000_000.25)
    assert text == (
        "2001-09-09T01:46:40.250Z sidecar: error: generation 2 failed after 1.5 s (trigger: signal): x y; generation 1 serves on; "
        "it is not tried again by itself\n"
    )


def test_a_line_of_json_has_the_same_and_the_fields_by_name():
    record = json.loads(format_line("json", "swap_failed", FIELDS["swap_failed"], 1_000_000_000.25))
    assert record["time"] == "2001-09-09T01:46:40.250Z"
    assert record["event"] == "swap_failed"
    assert record["level"] == "error"
    assert record["message"].startswith("generation 2 failed")
    assert record["lasted"] == 1.5
    assert record["still"] == [1]


def test_what_is_lost_while_the_reader_sleeps_is_counted_and_said():
    read, write = os.pipe()
    log = Log("text", write)
    while not log.lost:
        log.say("signal_received", {"signal": "HUP"})
    for _ in range(9):
        log.say("signal_received", {"signal": "HUP"})
    lost = log.lost
    os.read(read, 1 << 16)
    log.say("signal_received", {"signal": "TERM"})
    shown = os.read(read, 1 << 16).decode()
    assert f"{lost} lines of sidecar's own log were lost" in shown
    assert shown.endswith("SIGTERM received\n")
    os.close(read)
    log.say("signal_received", {"signal": "HUP"})  # the reader is gone: no error, nobody to tell
    os.close(write)


MUCH = """
import sys
from sidecar.log.writer import Log
log = Log("text", 2)
for number in range(2000):
    log.say("notice", {"text": f"line {number}"})
print(log.lost)
"""


@pytest.mark.parametrize("ends", [pty.openpty, socket.socketpair, os.pipe])
def test_a_reader_that_never_reads_holds_nobody_up(ends):
    """Be it a terminal, which takes parts of lines, a socket or a pipe; and the end stays blocking
    for the workers.
    """
    reading, writing = (each if isinstance(each, int) else each.detach() for each in ends())
    try:
        done = subprocess.run(
            [sys.executable, "-c", MUCH],
            stdout=subprocess.PIPE,
            stderr=writing,
            cwd=ROOT,
            timeout=PATIENCE,
        )
        assert int(done.stdout) > 0
        assert os.get_blocking(writing)
    finally:
        os.close(writing)
    os.set_blocking(reading, False)
    said = b""
    try:
        while part := os.read(reading, 1 << 16):
            said += part
    except OSError:  # a terminal's end
        pass
    os.close(reading)
    lines = said.replace(b"\r", b"").split(b"\n")
    whole = re.compile(rb"2\S* sidecar: warning: (line \d+|\d+ lines .* stderr was full)")
    assert [line for line in lines[:-1] if not whole.fullmatch(line)] == []


def test_it_follows_its_descriptor_and_lets_go_of_what_that_was():
    """As --log-file does: another file takes the descriptor's place."""
    one, writing = os.pipe()
    log = Log("text", writing)
    log.say("signal_received", {"signal": "HUP"})
    other, end = os.pipe()
    os.dup2(end, writing)
    log.say("signal_received", {"signal": "TERM"})
    assert os.read(one, 4096).endswith(b"SIGHUP received\n")
    assert os.read(one, 4096) == b""  # nobody writes there any more
    assert os.read(other, 4096).endswith(b"SIGTERM received\n")
    os.close(end)
    log.release()
    os.close(writing)
    assert os.read(other, 4096) == b""
    for fd in (one, other):
        os.close(fd)


def test_a_line_that_a_terminal_took_a_part_of_is_ended_before_the_next():
    reading, writing = pty.openpty()
    log = Log("text", writing)
    while not log.lost:
        log.say("notice", {"text": "x" * 999})
    said = b""
    while b"SIGTERM received" not in said:
        said += os.read(reading, 1 << 16)
        log.say("signal_received", {"signal": "TERM"})
    lines = said.decode().split("\r\n")
    # Each is whole: begins with a time, is as long as it should be.
    assert all(line.startswith("2") for line in lines[:-1])
    assert {line.count("x") for line in lines if "xxx" in line} == {999}
    assert sum("of sidecar's own log were lost" in line for line in lines) == 1
    os.close(reading)
    os.close(writing)


def test_a_line_is_never_longer_than_a_pipe_takes_at_once():
    read, write = os.pipe()
    Log("text", write).say("notice", {"text": "é" * 10_000})
    data = os.read(read, 1 << 16)
    assert len(data) <= 4096
    assert data.endswith("…\n".encode())
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    "fields",
    [
        {"generation": 1, "took": 1.0, "trigger": "signal", "pids": [*range(100_000, 100_900)]},
        {"generation": 1, "took": 1.0, "trigger": "é" * 9000, "pids": ["\n" * 9000]},
        {
            "generation": 1,
            "took": 1.0,
            "trigger": "signal",
            "pids": [],
            "output": "x" * 9000 + "end",
        },
    ],
)
def test_a_line_of_json_that_is_too_long_stays_json_and_says_what_was_cut(fields):
    read, write = os.pipe()
    Log("json", write).say("serving", fields)
    data = os.read(read, 1 << 16)
    os.close(read)
    os.close(write)
    assert len(data) <= 4096
    record = json.loads(data)
    assert record["event"] == "serving"
    for name in record["truncated"]:
        assert str(record[name])[:10] in str(fields.get(name, record[name]))
    assert {*record["truncated"]} <= {"message", "pids", "trigger", "output"}
    assert record.get("output", "end").endswith("end")


@pytest.mark.parametrize("event", PHRASES)
def test_every_phrase_can_be_said(event):
    class Anything(dict):
        def __missing__(self, name: str) -> object:
            return [1]

    PHRASES[event][1].format_map(Anything())


@pytest.mark.parametrize(
    ("event", "more", "said"),
    [
        (
            "worker_killed",
            {"after": 5.0, "leader": True},
            "! generation 1: worker 0 (pid 7) has not left 5 s",
        ),
        (
            "leader_exited",
            {"pids": [8], "strays": [], "signal": "TERM", "kill_in": 3.0, "shell": False},
            "! generation 1: worker 0 (pid 7) has gone, but its process 8 lives on",
        ),
        ("recycling", {"memory": 2**21, "limit": 2**20}, "holds 2.0 MiB, more than 1.0 MiB"),
    ],
)
def test_a_warning_that_is_told_in_words_of_its_own_is_told_in_the_style_dev_too(event, more, said):
    read, write = os.pipe()
    Log("dev", write).say(event, {"generation": 1, "slot": 0, "pid": 7, **more})
    os.close(write)
    with open(read, "rb") as file:
        assert said in file.read().decode()


def test_what_a_terminal_would_obey_is_shown_as_an_escape() -> None:
    """In every style; JSON keeps the value, whoever reads it."""
    name = "a\x1b[2J\x9b1m\u202e\x07\x7f\U000e0001é\u3000\udcff"
    fields = {"paths": [name], "count": 1}
    for style in ("text", "json", "dev"):
        read, write = os.pipe()
        Log(style, write).say("files_changed", fields)
        os.close(write)
        with open(read, "rb") as file:
            text = file.read().decode()
        assert all(char.isprintable() or char in "\n\u3000" for char in text)
        if style == "json":
            assert json.loads(text)["paths"] == [name]
        elif text:
            assert "a\\x1b[2J\\x9b1m\\u202e\\x07\\x7f\\U000e0001é\u3000\\udcff" in text
