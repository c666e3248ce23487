"""What comes from outside may be anything: a clear error, nothing lost, PID 1 goes on.

SIDECAR_EXAMPLES says how many examples each test tries (`make fuzz`: twenty thousand).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.base.errors import EnvdirError
from sidecar.control.commands import COMMANDS
from sidecar.control.server import MAX_REQUEST_BYTES
from sidecar.settings import address, types
from sidecar.settings import table as ours
from sidecar.system import envdir
from tests.support import PATIENCE, Sidecar

EXAMPLES = int(os.environ.get("SIDECAR_EXAMPLES", "200"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

# --- the control protocol


@pytest.fixture(scope="module")
def run() -> Iterator[Sidecar]:
    """One sidecar for all examples. Nothing an example says may stop it."""
    with tempfile.TemporaryDirectory() as place:
        made = Sidecar(
            "--control",
            f"{place}/control",
            "--lame-duck",
            "1h",
            "--min-uptime",
            "0",
            "--log-file",
            f"{place}/log",
        )
        try:
            made.path = f"{place}/control"
            made.log = Path(f"{place}/log")
            while not made.log.exists() or '"serving"' not in made.log.read_text():
                assert made.process.poll() is None
            yield made
            assert '"internal_error"' not in made.log.read_text()
        finally:
            made.clean_up()


def connect(run: Sidecar) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(run.path)
    return sock


def lives(run: Sidecar) -> None:
    """Whether it answers, to the word, and nothing in it was wrong."""
    with connect(run) as sock:
        sock.sendall(b'{"command": "health", "live": true, "id": 7}\n')
        answer = json.loads(sock.makefile("rb").readline())
    assert (answer["id"], answer["done"]) == (7, 0)
    assert run.process.poll() is None


SAFE = ["status", "events", "health", "scale", "signal", "reload"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)
#: No example is to begin as many processes as it can.
MEMBERS = {
    "wait": ANYTHING, "follow": ANYTHING, "live": ANYTHING, "id": ANYTHING, "by": ANYTHING.filter(lambda value: type(value) is not int),
    "to": st.sampled_from([1, 2, 0, -1, True, 1.5, "2", None, 10**6, 10**40]),
    "signal": st.sampled_from(["CONT", "SIGCONT", "cont", "KILL", "STOP", "", "X", None, 18, ["CONT"]]),
}  # fmt: skip
REQUESTS = st.fixed_dictionaries(
    {
        "command": st.sampled_from(SAFE)
        | ANYTHING.filter(lambda value: not isinstance(value, str) or value not in COMMANDS)
    },
    optional=MEMBERS,
)


def no_stop(data: bytes) -> bool:
    return b"stop" not in data and b"scale" not in data and b"upgrade" not in data


TEXTS = st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))


@fuzz
@given(data=st.binary(max_size=200).filter(no_stop) | TEXTS.filter(no_stop),
       times=st.sampled_from([1, 1, 1, 50]), shut=st.booleans())  # fmt: skip
def test_any_bytes_are_answered_line_by_line_or_hung_up_on(run, data, times, shut):
    """One answer for each line, no more and no less, unless one is too long."""
    data *= times
    with connect(run) as sock:
        sock.sendall(data)
        if not shut:
            return lives(run)
        sock.shutdown(socket.SHUT_WR)
        answers = [json.loads(line) for line in sock.makefile("rb")]
    *lines, rest = data.split(b"\n")
    assert all(answer["done"] == 2 and answer["cause"] for answer in answers)
    if max(map(len, [*lines, rest])) < MAX_REQUEST_BYTES:
        assert len(answers) == len(lines)
    return lives(run)


@fuzz
@given(requests=st.lists(REQUESTS, min_size=1, max_size=5), cut=st.integers(0, 400))
def test_any_request_is_answered_and_only_a_sensible_one_does_anything(run, requests, cut):
    """Each in its turn, up to the first that waits for something; cut anywhere on its way."""
    data = b"".join(json.dumps(each).encode() + b"\n" for each in requests)
    with connect(run) as sock:
        reader = sock.makefile("rb")
        sock.sendall(data[:cut])
        sock.sendall(data[cut:])
        for request in requests:
            while True:
                if request["command"] in ("events", "reload") and (
                    request.get("follow") is True or request.get("wait") is True
                ):
                    return lives(run)
                answer = json.loads(reader.readline())
                marked = isinstance(request.get("id"), (int, str))
                assert answer.get("id", None) == (request["id"] if marked else None)
                if "done" in answer:
                    assert answer["done"] in (0, 1, 2)
                    assert answer["done"] == 0 or answer["cause"]
                    break
    return lives(run)


# --- what is written on a command line


def outcome(read: Callable[[str], Any], text: str) -> tuple[Any, str]:
    """What is read, or what is said to be wrong."""
    try:
        return read(text), ""
    except ValueError as error:
        return None, str(error)


@fuzz
@given(
    text=st.text(max_size=60)
    | st.from_regex(
        r"([*a-z0-9.\[\]:]{0,12}:)?u?\d{1,6}(=\d{1,4})?(,[a-z]{1,8}(=[a-z0-9:]{0,6})?){0,3}",
        fullmatch=True,
    )
)
def test_any_listen_spec_is_an_address_or_a_clear_error(text):
    it, problem = outcome(address.parse, text)
    if it is None:
        assert len(problem) > 10, "an error that says what would be right"
        return
    assert it.kind in (address.TCP, address.UDP, address.UNIX)
    assert 0 <= it.port <= 65535
    assert ";" not in it.text
    assert "=" not in it.text
    assert (it.kind == address.UNIX) == bool(it.path)


@fuzz
@given(text=st.text(max_size=30) | st.from_regex(r"[0-9.]{1,400}(ms|s|m|h|d)?", fullmatch=True))
def test_any_duration_is_a_number_of_seconds_or_a_clear_error(text):
    seconds, problem = outcome(types.duration, text)
    assert (
        "say 500ms, 30s" in problem or "at most" in problem
        if seconds is None
        else 0.0 <= seconds <= types.MAX_DURATION_S
    )


KINDS = {id(each.kind): each for each in ours.TABLE.values()}.values()


@pytest.mark.parametrize("kind", [each.kind for each in KINDS], ids=[each.name for each in KINDS])
@fuzz
@given(text=st.text(max_size=30))
def test_any_value_of_any_setting_is_read_or_a_clear_error(kind, text):
    value, problem = outcome(kind, text)
    assert value is not None or problem


# --- the envdir

NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
CONTENTS = st.binary(max_size=200) | st.sampled_from(
    [b"", b"\n", b"a\nb", b"\0", b" \t\n", b"\xff\xfe", b"x" * 140_000]
)


@fuzz
@given(files=st.dictionaries(NAMES, CONTENTS, max_size=5), odd=st.sampled_from(["", "", "directory", "fifo", "link", "loop"]),
       whole=st.booleans(), lenient=st.booleans())  # fmt: skip
def test_any_directory_is_an_environment_or_a_clear_error(files, odd, whole, lenient):
    place = tempfile.mkdtemp().encode()
    try:
        for name, content in files.items():
            with open(os.path.join(place, name), "wb") as file:
                file.write(content)
        path = os.path.join(place, b"ODD" + b"x" * 20)
        match odd:
            case "directory":
                os.mkdir(path)
            case "fifo":
                os.mkfifo(path)
            case "link":
                os.symlink(b"nowhere", path)
            case "loop":
                os.symlink(path, path)
        try:
            reading = envdir.read([place.decode()], whole, lenient)
        except EnvdirError as error:
            told = str(error)
        else:
            told = repr(reading)
            environ = envdir.apply({"KEPT": "1"}, reading)
            # What comes of it can be given to a program.
            for name, value in environ.items():
                assert name
                assert not {"=", "\0"} & set(name)
                assert "\0" not in value
                os.fsencode(f"{name}={value}")
        for name, content in files.items():
            secret = content.strip().decode("utf-8", "surrogateescape")
            if (
                len(secret) > 6
                and secret.isascii()
                and secret.isprintable()
                and secret not in os.fsdecode(name) + os.fsdecode(place)
            ):
                assert secret not in told, "no value is told"
    finally:
        shutil.rmtree(place)
