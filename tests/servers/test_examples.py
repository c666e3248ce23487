"""Every example by the command that examples/README.md gives: served, saved, broken, mended."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE, ROOT, free_port, get, marked, until

pytestmark = pytest.mark.servers

COMMANDS = dict(
    re.findall(
        r"`cd examples/(\w+); (sidecar dev [^`]+)`", (ROOT / "examples" / "README.md").read_text()
    )
)
BROKEN = {".py": "x = = 1\n", ".js": "let let = (\n"}


def greet(name: str, port: int) -> str:
    """The answer of a server that has one, else an empty text."""
    try:
        if name != "sockets":
            return get(port)
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            sock.sendall(b"are you there?\n")
            return sock.recv(4096).decode()
    except OSError:
        return ""


def test_every_example_has_a_command():
    directories = {
        path.name
        for path in (ROOT / "examples").iterdir()
        if path.is_dir() and not path.name.startswith("__")
    }
    # Those with pages of their own: docs/recipes, docs/docker.md.
    assert COMMANDS.keys() == directories - {"recipes", "bare", "front"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_is_served_saved_broken_and_mended(tmp_path, name):
    place = shutil.copytree(
        ROOT / "examples" / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "GREETING").write_text("ahoy\n")
    port, mark = free_port(), f"{os.getpid()}-example-{name}"
    words = shlex.split(COMMANDS[name].replace("--port 8080", f"--port 127.0.0.1:{port}"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if shutil.which(words[words.index("--") + 1], path=path) is None:
        pytest.skip(f"{words[words.index('--') + 1]} is not installed; see tests/setup")
    command = [*words[:2], "--envdir", "../env", *words[2:]]
    with (
        (tmp_path / "out").open("wb") as out,
        subprocess.Popen(
            command,
            cwd=place,
            env={**os.environ, "PATH": path, "MARK": mark},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        ) as process,
    ):
        said = (tmp_path / "out").read_text
        try:
            until(lambda: "watching" in said() and "generation 1 serves" in said(), "generation 1")
            assert greet(name, port).startswith("ahoy from generation 1")
            # At once: an envdir's file that is empty for a moment is a variable unset for a
            # generation.
            (tmp_path / "new").write_text("servus\n")
            (tmp_path / "new").replace(tmp_path / "env" / "GREETING")
            until(
                lambda: greet(name, port).startswith("servus from generation 2"),
                "the new environment",
            )
            source = next(
                each
                for each in place.rglob("*")
                if each.suffix in BROKEN and "from generation" in each.read_text()
            )
            good = source.read_text()
            source.write_text(BROKEN[source.suffix])
            until(lambda: "✗ generation 3 failed" in said(), "the failure")
            assert greet(name, port).startswith("servus from generation 2")
            source.write_text(good.replace("from generation", "of generation"))
            until(lambda: greet(name, port).startswith("servus of generation 4"), "the new code")
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
            assert marked(mark) == []
        finally:
            process.kill()
            print(said())
            for pid in marked(mark):
                os.kill(pid, signal.SIGKILL)
