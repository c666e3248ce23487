"""`start_server` does the same as Debian's, seen from outside, run side by side."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import PATIENCE, ROOT, marked
from tests.system.start_server.scenarios import SCENARIOS, Scenario
from tests.system.start_server.starter import PERL, Starter, in_order, pattern, rows, shows

WHERE = re.compile(r" at /\S+ line \d+\.$")
PERLS_OWN = "Use of uninitialized value"
MESSAGES = {*rows("Messages")}


def live(run: Starter, scenario: Scenario) -> dict:
    """All that is to be the same. The ports are called by their place among the options."""
    scenario.happens(run)
    seen = {"generations": run.generations(), "pid file": run.text("pid") == f"{run.process.pid}\n"}
    seen["exit"] = run.stop(scenario.end)
    text = json.dumps([{**life, "pid": 0, "backlogs": 0} for life in run.lives()])
    for index, port in enumerate(run.ports):
        text = re.sub(rf"\b{port}\b", f"<port {index}>", text)
    seen["lives"] = json.loads(text)
    seen["left"] = sorted(path.name for path in run.where.iterdir())
    seen["lines"] = [WHERE.sub("", line) for line in run.lines()]
    assert marked(run.mark) == []
    for row in MESSAGES & {*scenario.rows}:
        assert re.search(pattern(row), run.text(), re.MULTILINE), (
            f"{run.kind} lacks {row}\n{run.text()}"
        )
    return seen


@shows(*{row for each in SCENARIOS.values() for row in each.rows})
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_as_perls(name, pair):
    scenario = SCENARIOS[name]

    def before(where: Path) -> None:
        (where / "env").mkdir()
        (where / "env" / "FOO").write_text("one\n")
        scenario.before(where)

    with ThreadPoolExecutor() as pool:
        perl, ours = pool.map(live, pair(*scenario.options, before=before), [scenario, scenario])
    theirs, rest = perl.pop("lines"), ours.pop("lines")
    assert ours == perl
    theirs = [
        line.replace(*change)
        for line in theirs
        if not line.startswith(PERLS_OWN)
        for change in [*scenario.differs.items()] or [("", "")]
    ]
    missing = in_order(theirs, rest)
    assert missing == [], "\n".join(["--- Perl's", *theirs, "--- ours", *rest])


USAGE = [
    "--foo", "--port", "--interval abc -- x", "--p 3 -- x", "--restart=1 -- x", "--interval --dir", "-inter 1", "--restart", "--stop",
    "--daemonize -- true", "--stop --pid-file /nonexistent", "--restart --pid-file /nonexistent --status-file /x", "--INTERVAL=", "--FOO",
    "--stop=1 --foo --bar", "--kill-old-delay=x -- true", "", "--drain 1 -- true", "--restart-t 1",
]  # fmt: skip


@shows(
    "how they are read",
    "unknown option, missing or wrong value",
    "--drain-timeout",
    "--restart-timeout",
)
@pytest.mark.skipif(
    not Path(PERL).exists(), reason=f"needs {PERL} (Debian: libserver-starter-perl)"
)
@pytest.mark.parametrize("words", USAGE)
def test_the_same_refusals_as_perls(words):
    said = []
    for command in ([PERL], [sys.executable, "-m", "sidecar.start_server"]):
        result = subprocess.run(
            [*command, *words.split()], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE
        )
        said.append((result.returncode, re.sub(r" at \S+ line \d+\.", "", result.stderr)))
    assert said[1] == said[0]


@pytest.mark.skipif(
    not Path(PERL).exists(), reason=f"needs {PERL} (Debian: libserver-starter-perl)"
)
def test_an_address_that_cannot_be_bound_is_the_same_exit_status(tmp_path):
    codes = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for command in ([PERL], [sys.executable, "-m", "sidecar.start_server"]):
            for port in (
                f"127.0.0.1:{taken.getsockname()[1]}",
                "192.0.2.1:80",
                "abc",
                "host.invalid:80",
            ):
                result = subprocess.run(
                    [*command, f"--port={port}", "--", "true"],
                    capture_output=True,
                    cwd=ROOT,
                    timeout=PATIENCE,
                )
                codes.append(result.returncode)
    assert codes[4:] == codes[:4]
