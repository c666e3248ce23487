"""The sealed state: who reads it, and what is refused."""

from __future__ import annotations

import fcntl
import json
import os

import pytest

from sidecar.base.record import Descriptor
from sidecar.upgrade import execute
from sidecar.upgrade.state import FORMAT, IncompatibleState


def sealed(state: dict) -> int:
    fd, _ = execute.write_state(state, "0.1.0")
    return fd


def test_a_state_comes_back_as_it_was_and_its_descriptors_are_known():
    state = {
        "a": (1, 2),
        "numbers": {5: {"x": float("inf")}},
        "fds": [Descriptor(7), {"deep": Descriptor(9)}, Descriptor(-1)],
        "text": "\udcff",
    }
    fd, kept = execute.write_state(state, "0.1.0")
    assert kept == [7, 9]
    found = execute.read_state(str(fd), os.getpid())
    told = {"format": FORMAT, "version": "0.1.0", "pid": os.getpid(), "sealed": fd}
    assert found == {**state, **told}
    assert execute.read_state(str(fd), os.getpid()) == found, "it is there for another attempt"
    os.close(fd)


def test_it_cannot_be_changed_once_it_is_sealed():
    fd = sealed({"a": 1})
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.truncate(fd, 0)
    os.close(fd)


@pytest.mark.parametrize("text", ["", "x", "-1", "9999999", "9" * 30, "1", "²"])
def test_what_names_no_state_of_ours_is_ignored(text):
    assert execute.read_state(text, os.getpid()) is None


def test_a_state_of_another_process_or_one_that_is_not_sealed_is_ignored(tmp_path):
    fd = sealed({"a": 1})
    assert execute.read_state(str(fd), os.getpid() + 1) is None
    os.close(fd)
    told = json.dumps({"format": FORMAT, "version": "9", "pid": os.getpid()}).encode()
    fd = os.memfd_create("sidecar-upgrade-state", os.MFD_ALLOW_SEALING)
    os.write(fd, told)
    assert execute.read_state(str(fd), os.getpid()) is None
    os.close(fd)
    with open(tmp_path / "state", "wb+") as file:
        file.write(told)
        file.flush()
        assert execute.read_state(str(file.fileno()), os.getpid()) is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_one_that_cannot_be_read_is_never_taken_for_nothing(data):
    fd = os.memfd_create("sidecar-upgrade-state", os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, execute._SEALS)
    with pytest.raises(IncompatibleState, match="cannot be read"):
        execute.read_state(str(fd), os.getpid())
    os.close(fd)


def test_another_format_is_refused_and_the_one_before_is_read(monkeypatch):
    told = {"format": FORMAT + 1, "version": "9.9", "pid": 1}
    with pytest.raises(
        IncompatibleState,
        match=rf"the running sidecar \(9\.9\) keeps its state in format {FORMAT + 1}, this version reads {FORMAT}",
    ):
        execute.to_current_format(told)
    monkeypatch.setitem(
        execute.OLDER, FORMAT - 1, lambda state: {**state, "format": FORMAT, "new": 1}
    )
    assert execute.to_current_format({"format": FORMAT - 1, "version": "0.0", "pid": 1})["new"] == 1
    with pytest.raises(IncompatibleState, match=rf"reads {FORMAT - 1} and {FORMAT}"):
        execute.to_current_format({"format": FORMAT - 2, "version": "0.0", "pid": 1})


def test_how_to_start_again_is_known_from_how_it_was_started():
    origin = execute.StartCommand.of(
        "/v/bin/python",
        ["python", "-I", "/v/bin/sidecar", "run", "x"],
        ["/v/bin/sidecar", "run", "x"],
    )
    assert origin == execute.StartCommand(
        "/v/bin/python", ("/v/bin/python", "-I", "/v/bin/sidecar"), ("run", "x")
    )
    assert execute.check_command(origin, 7) == (
        "/v/bin/python",
        "-I",
        "/v/bin/sidecar",
        "--upgrade-check=7",
        "run",
        "x",
    )
    assert execute.StartCommand.of("/v/bin/python", ["python", "-c", "…"], ["-c", "run"]) is None
    assert execute.StartCommand.of("", ["sidecar", "run"], ["sidecar", "run"]) is None
