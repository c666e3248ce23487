"""A start_server, Perl's or ours, as the tests run and watch it; and the rows of
docs/start_server.md with the tests that show them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sidecar.start_server.options import environment, parse, resolve
from tests.support import APPS, PATIENCE, ROOT, marked, until

PERL = "/usr/bin/start_server"
PROGRAM = (sys.executable, "-S", str(APPS / "starter_app.py"))


class Starter:
    """A start_server, Perl's or ours, in a directory of its own, and what can be seen of it."""

    def __init__(
        self, kind: str, where: Path, *options: str, program: tuple[str, ...] = PROGRAM, env: dict[str, str] | None = None,
        dashes: bool = True,
    ):  # fmt: skip
        self.kind, self.where = kind, where
        where.mkdir(exist_ok=True)
        self.ports: list[int] = []
        self.mark = f"{os.getpid()}-{id(self)}"
        self.environ = {**os.environ, "PYTHONPATH": str(ROOT), "MARK": self.mark, **(env or {})}
        self.words = [PERL] if kind == "perl" else [sys.executable, "-m", "sidecar.start_server"]
        files = ("--pid-file=pid", "--status-file=status")
        with open(where / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*self.words, *files, *options, *["--"] * dashes, *program],
                cwd=where, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def run(self, *options: str) -> subprocess.CompletedProcess:
        """Another start_server beside it: --stop, --restart, a second instance."""
        return subprocess.run(
            [*self.words, *options],
            cwd=self.where,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def text(self, name: str = "log") -> str:
        try:
            return (self.where / name).read_text()
        except FileNotFoundError:
            return ""

    def wait(self, pattern: str, count: int = 1) -> None:
        until(
            lambda: len(re.findall(pattern, self.text(), re.MULTILINE)) >= count,
            f"{count} × {pattern} in\n{self.text()}",
        )

    def wait_generations(self, *generations: int) -> None:
        until(
            lambda: self.generations() == list(generations),
            f"{generations}, it is {self.text('status')!r}\n{self.text()}",
        )

    def generations(self) -> list[int]:
        return sorted(int(line.partition(":")[0]) for line in self.text("status").splitlines())

    def worker(self, generation: int) -> int:
        return int(
            dict(line.split(":") for line in self.text("status").splitlines())[str(generation)]
        )

    def lives(self) -> list[dict]:
        return [json.loads(line) for line in self.text("SEEN").splitlines()]

    def signal(self, name: str) -> None:
        if self.kind == "perl":
            # A signal that comes just before it waits is heard at the next child's end only.
            until(
                lambda: (
                    Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
                    == "S"
                ),
                "Perl's waiting",
            )
        os.kill(self.process.pid, signal.Signals[f"SIG{name}"])

    def stop(self, name: str = "TERM") -> int:
        self.signal(name)
        return self.process.wait(PATIENCE)

    def lines(self) -> list[str]:
        """The log, with processes called by the order in which they were started."""
        text = self.text()
        for index, pid in enumerate(
            re.findall(r"^starting new worker (\d+)$", text, re.MULTILINE), 1
        ):
            text = re.sub(rf"\b{pid}\b", f"<worker {index}>", text)
        return re.sub(r"\(pid:\d+\)", "(pid:N)", text).splitlines()

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        for pid in marked(self.mark):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def stale_socket(where: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(where / "app.sock"))


def settings(*words: str, environ: dict[str, str] | None = None):
    given, command, problems = parse(words)
    assert problems == []
    return resolve(given, command or ["x"], environment(given, environ or {}))


# Row of docs/start_server.md (its first cell, less the backticks) → the tests that show it.
SHOWN: dict[str, list[str]] = {}


def shows(*rows: str) -> Callable[[Callable], Callable]:
    """A test is what shows these rows."""

    def claim(test: Callable) -> Callable:
        assert test.__name__.startswith("test_")
        for row in rows:
            SHOWN.setdefault(row, []).append(test.__name__)
        return test

    return claim


def rows(section: str = "") -> list[str]:
    """The first cells of the tables of docs/start_server.md (of one section), less the backticks."""
    found, within = [], ""
    lines = (ROOT / "docs" / "start_server.md").read_text().splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        within = line.removeprefix("## ") if line.startswith("## ") else within
        if (
            line.startswith("| ")
            and not line.startswith("| ---")
            and not after.startswith("| ---")
            and section in ("", within)
        ):
            found.append(
                re.split(r"(?<!\\)\|", line)[1].strip().replace("`", "").replace("\\|", "|")
            )
    return found


def pattern(row: str) -> str:
    """A row of the table of messages as a regular expression for the whole line."""
    text = re.escape(row)
    for word, means in (
        ("P1,P2", r"[\d,]*"),
        ("SIG", "[A-Z]+"),
        ("RAW", r"\d+"),
        ("PATH", r"\S+"),
        ("N", r"\d+"),
        ("M", r"\d+"),
    ):
        text = re.sub(rf"\b{re.escape(re.escape(word))}\b", lambda _, means=means: means, text)
    return f"^{text}"


def in_order(theirs: list[str], ours: list[str]) -> list[str]:
    """Those of their lines that ours lack, or have in another place."""
    rest = iter(ours)
    return [line for line in theirs if line not in rest]
