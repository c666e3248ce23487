"""A helper is disposable: whatever it writes, PID 1 and its workers go on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, alive, until

# In the place of the admin: writes the lines of a file, once that is there, then waits for its end.
IMPOSTOR = """
import os, sys, time
while os.path.exists({path!r} + ".wait"):
    time.sleep(0.01)
os.write(1, open({path!r}, "rb").read())
sys.stdin.read()
"""
INSTEAD = """
import sys
if "run" in sys.orig_argv:
    from sidecar.host import helpers
    real = helpers.module
    helpers.module = lambda name, *words: (
        ({python!r}, "-c", {code!r}) if name == "sidecar.admin" else real(name, *words)
    )
"""
MALFORMED = [
    {"event": "notice"},
    {"event": "notice", "text": None},
    {"event": "notice", "text": ["a", 1]},
    {"event": "notice", "text": "half of a pair \ud800"},
    ["notice"],
    "notice",
]


@pytest.mark.parametrize("line", [*map(json.dumps, MALFORMED), "[" * 100_000, "\xff\x00"])
def test_a_malformed_line_during_a_drain_ends_only_its_helper(sidecar, tmp_path, line):
    path = tmp_path / "lines"
    Path(f"{path}.wait").touch()
    path.write_text('{"event": "notice", "text": "heeded"}\n' + line + "\n")
    code = IMPOSTOR.format(path=str(path))
    (tmp_path / "sitecustomize.py").write_text(INSTEAD.format(python=sys.executable, code=code))
    run = sidecar(
        "--admin", "127.0.0.1:0", "--drain-timeout", "1h",
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "DEAF": "1"},
    )  # fmt: skip
    run.wait("serving")
    run.signal("TERM")
    run.wait("stopping")
    Path(f"{path}.wait").unlink()
    run.wait("action_failed", what="understand the admin")
    run.wait("notice", text="heeded")
    run.wait("helper_exited", helper="the admin", cause="killed by SIGKILL")
    path.write_text("")
    assert alive(run.workers()[0])
    assert run.process.poll() is None
    # One that follows within a tenth of a second is taken for the same.
    until(
        lambda: run.process.poll() is not None or run.signal("TERM"),
        "the end",
    )
    assert run.exit() == 0
