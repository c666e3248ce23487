"""`sidecar dev`, as somebody at a terminal sees it."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import saves
from tests.support import PATIENCE, ROOT, SERVER, free_port, get, marked, until

GREEN, RED = "\033[32m", "\033[31m"
# What each line begins with.
STAMP = r"\d\d:\d\d:\d\d "


class Dev:
    """`sidecar dev` in a directory; what it writes to stderr, a pseudo terminal or a pipe. Options
    go before the program.
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        terminal: bool = True,
        env: dict[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.mark = f"{os.getpid()}-{id(self)}"
        environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "MARK": self.mark,
            "TREE": str(directory),
            "TERM": "xterm",
            **(env or {}),
        }
        environ = {name: value for name, value in environ.items() if name != "NO_COLOR" or env}
        command = [
            sys.executable,
            "-m",
            "sidecar",
            "dev",
            "--port",
            f"127.0.0.1:{self.port}",
            *options,
            "--",
            *SERVER,
        ]
        self.read, theirs = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env=environ,
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal if terminal else None,
        )
        os.close(theirs)
        self.text, self.closing = "", os.eventfd(0)
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        while True:
            if self.closing in select.select([self.read, self.closing], [], [])[0]:
                return
            try:
                part = os.read(self.read, 65536)
            except OSError:  # a terminal's end
                return
            if not part:
                return
            self.text += part.decode(errors="replace")

    def lines(self) -> list[str]:
        """What was written, without colours and moments."""
        plain = re.sub(r"\033\[\d*m", "", self.text).replace("\r", "").split("\n")
        return [re.sub(f"^{STAMP}", "", line) for line in plain]

    def wait(self, text: str, times: int = 1) -> None:
        until(
            lambda: "\n".join(self.lines()).count(text) >= times or not self._reader.is_alive(),
            f"{text!r} in\n{self.text}",
        )
        assert "\n".join(self.lines()).count(text) >= times, self.text

    def begun(self) -> None:
        self.wait("· watching")
        self.wait("generation 1 serves")

    def type(self, text: str) -> None:
        os.write(self.read, text.encode())

    def exit(self) -> int:
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert marked(self.mark) == []
        return status

    def clean_up(self) -> None:
        for pid in [self.process.pid] if self.process.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        for pid in marked(self.mark):
            os.kill(pid, signal.SIGKILL)
        self._reader.join(PATIENCE)
        os.close(self.closing)
        if self.read >= 0:
            os.close(self.read)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def tree(tmp_path) -> Path:
    return saves.plant(tmp_path / "tree")


@pytest.fixture
def dev(tree) -> Iterator[Callable[..., Dev]]:
    started: list[Dev] = []

    def start(*options: str, **keywords: object) -> Dev:
        started.append(Dev(tree, *options, **keywords))
        return started[-1]

    yield start
    for each in started:
        each.clean_up()
        print(each.text)


def test_one_short_line_an_event_in_colour(dev, tree):
    run = dev()
    run.begun()
    (tree / "app.py").write_text("new = 1\n")
    run.wait("generation 2 serves")
    run.type("q\n")
    assert run.exit() == 0
    said = [line for line in run.lines() if line and line != "q"]
    assert [re.sub(r"after [\d.]+ s", "after N s", line).replace(str(run.port), "PORT") for line in sorted(said[:3])] == [
        "· listening on 127.0.0.1:PORT", "· watching .", "● generation 1 serves after N s",
    ]  # fmt: skip
    assert [re.sub(r"after [\d.]+ s", "after N s", line) for line in said[3:]] == [
        "~ app.py", "● generation 2 serves after N s", "~ q", "· stopping", "· stopped",
    ]  # fmt: skip
    assert re.search(re.escape(GREEN) + STAMP + "● generation 2", run.text)


@pytest.mark.parametrize(
    "how",
    [{"terminal": False}, {"env": {"NO_COLOR": "1"}}, {"env": {"TERM": "dumb"}}],
    ids=["pipe", "NO_COLOR", "dumb"],
)
def test_no_colour_where_none_is_wanted(dev, tree, how):
    run = dev(**how)
    run.begun()
    (tree / "app.py").write_text("x = =\n")
    run.wait("failed after")
    assert "\033" not in run.text
    os.kill(run.process.pid, signal.SIGINT)
    assert run.exit() == 0


def test_a_failure_is_told_in_full_once_and_then_that_it_is_the_same(dev, tree):
    run = dev("--check", "python3 -c \"compile(open('app.py').read(), 'app.py', 'exec')\"")
    run.begun()
    (tree / "app.py").write_text("x = = 1\n")
    run.wait("save to try again")
    told = run.lines()
    start = next(number for number, line in enumerate(told) if line.startswith("✗"))
    assert re.match(
        r"✗ generation 2 failed after [\d.]+ s: the check `python3 -c .*` exited with status 1",
        told[start],
    )
    box = "\n".join(told[start + 1 :])
    assert "│ SyntaxError: invalid syntax" in box
    assert "changed: app.py" in box
    assert "generation 1 serves on; save to try again" in box
    assert re.search(re.escape(RED) + STAMP + "✗ generation 2", run.text)
    (tree / "pkg" / "mod.py").write_text("new = 2\n")
    run.wait("✗ generation 3 failed in the same way (2 times now); generation 1 serves on")
    assert "\n".join(run.lines()).count("SyntaxError") == 1
    (tree / "app.py").write_text("x = 1\n")
    run.wait("generation 4 serves")
    run.wait(", mended")
    assert get(run.port).split()[1] == "4"


def test_enter_swaps_and_q_stops(dev):
    run = dev()
    run.begun()
    run.type("\n")
    run.wait("generation 2 serves")
    run.type("r\n")
    run.wait("generation 3 serves")
    run.type("q\n")
    assert run.exit() == 0


def test_ctrl_c_stops(dev):
    run = dev()
    run.begun()
    run.type("\x03")
    assert run.exit() == 0
    assert "· stopped" in run.lines()


def test_an_end_of_input_is_no_wish(dev):
    """Ctrl-D, a terminal that closes its side: it serves on."""
    run = dev()
    run.begun()
    run.type("\x04")
    os.kill(run.process.pid, signal.SIGHUP)
    run.wait("generation 2 serves")
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.exit() == 0


class Shell(Dev):
    """An interactive shell in the terminal, in which `sidecar dev` is typed. `pid` is sidecar's."""

    def __init__(self, directory: Path, before: str = "") -> None:
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PS1": "% ", "TERM": "xterm"}
        self.port, self.mark = free_port(), f"{os.getpid()}-{id(self)}"
        self.read, theirs = pty.openpty()
        shell = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
        self.process = subprocess.Popen(
            shell, cwd=directory, env=environ, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(theirs)
        self.text, self.closing = "", os.eventfd(0)
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        words = [sys.executable, "-m", "sidecar", "dev", "--port", f"127.0.0.1:{self.port}"]
        file = directory.parent / "pid"
        words += ["--pid-file", str(file), "--", *SERVER]
        self.type(f"MARK={self.mark} {before} {shlex.join(words)}\n")
        self._pid_file = file

    def begun(self) -> None:
        super().begun()
        self.pid = int(self._pid_file.read_text())

    def hang_up(self) -> None:
        """Close the terminal, as a window is closed."""
        os.eventfd_write(self.closing, 1)
        self._reader.join(PATIENCE)
        os.close(self.read)
        self.read = -1


@pytest.fixture
def shell(tree) -> Iterator[Callable[..., Shell]]:
    started: list[Shell] = []

    def start(before: str = "") -> Shell:
        started.append(Shell(tree, before))
        started[-1].begun()
        return started[-1]

    yield start
    for each in started:
        each.clean_up()
        print(each.text)


def test_keys_live_on_after_the_background(shell):
    """Ctrl-Z, bg, fg: what is typed meanwhile is the shell's, and read by it alone."""
    run = shell()
    run.type("\x1a")
    run.wait("Stopped")
    run.type("bg\n")
    run.type("echo $((40 + 2)) for the shell\n")
    run.wait("42 for the shell")
    run.type("fg\n")
    until(lambda: os.tcgetpgrp(run.read) == os.getpgid(run.pid), "sidecar in the foreground")
    run.type("\n")
    run.wait("~ Enter")
    run.wait("generation 2 serves")
    run.type("q\n")
    run.wait("· stopped")
    assert "\n".join(run.lines()).count("~ Enter") == 1
    until(lambda: marked(run.mark) == [], "its end")


def test_in_the_background_nothing_is_spent_on_a_line_that_nobody_reads(shell):
    run = shell()
    run.type("\x1a")
    run.wait("Stopped")
    run.type("bg\n")
    run.type("sleep 1000\n")
    until(lambda: os.tcgetpgrp(run.read) != os.getpgid(run.process.pid), "a program of the shell's")
    run.type("a line\nand another\n")
    os.kill(run.pid, signal.SIGHUP)
    run.wait("generation 2 serves")
    until(lambda: get(run.port).split()[1] == "2", "the new generation alone")
    before = ticks(run.pid)
    os.kill(run.pid, signal.SIGHUP)
    run.wait("generation 3 serves")
    assert ticks(run.pid) - before < os.sysconf("SC_CLK_TCK")
    run.type("\x03")


def ticks(pid: int) -> int:
    """The CPU time of a process, in the kernel's ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_closing_the_terminal_ends_it(shell, background):
    run = shell()
    if background:
        run.type("\x1a")
        run.wait("Stopped")
        run.type("bg\n")
        run.type("echo $((40 + 2)) for the shell\n")
        run.wait("42 for the shell")
    run.hang_up()
    until(lambda: marked(run.mark) == [], "the end of sidecar and of all it started")


def test_started_deaf_to_hup_it_outlives_the_terminal(shell):
    """As by `nohup`, which it was asked to."""
    run = shell("""sh -c 'trap "" HUP; exec "$@"' sh""")
    run.hang_up()
    run.process.wait(PATIENCE)
    assert get(run.port).split()[1] == "1"
    os.kill(run.pid, signal.SIGTERM)
    until(lambda: marked(run.mark) == [], "its end")


def test_run_outlives_the_terminal(shell, tree):
    """A HUP is a swap for it, whoever sends it."""
    run = shell()
    run.type("q\n")
    run.wait("· stopped")
    file = tree.parent / "again"
    words = [sys.executable, "-m", "sidecar", "run", "--port", f"127.0.0.1:{run.port}"]
    words += ["--pid-file", str(file), "--log-file", f"{tree.parent}/log", "--", *SERVER]
    run.type(f"MARK={run.mark} {shlex.join(words)}\n")
    log = tree.parent / "log"
    until(lambda: log.exists() and "generation 1 serves" in log.read_text(), "it serves")
    pid = int(file.read_text())
    run.hang_up()
    until(lambda: "generation 2 serves" in log.read_text(), "a swap")
    os.kill(pid, signal.SIGTERM)
    until(lambda: marked(run.mark) == [], "its end")


def test_a_program_that_does_not_start_waits_for_the_save_that_mends_it(dev, tree):
    """It never leaves by itself, however often it has failed."""
    (tree / "app.py").write_text("x = = 1\n")
    run = dev()
    run.wait("nothing serves; save, or wait, to try again")
    run.wait("in the same way (5 times now)")
    (tree / "app.py").write_text("x = 1\n")
    run.wait(", mended")
    assert get(run.port).startswith("hello")
    assert "\n".join(run.lines()).count("save, or wait") == 1


def test_an_envdir_in_the_directory_is_watched_too(dev, tree):
    """And a file of it that is saved is one swap, not two."""
    (tree / "env").mkdir()
    (tree / "env" / "GREETING").write_text("first\n")
    run = dev("--envdir", "env")
    run.begun()
    (tree / "env" / "GREETING").write_text("second\n")
    run.wait("~ environment: GREETING")
    until(lambda: get(run.port).startswith("second"), "the new greeting")
    (tree / "app.py").write_text("new = 1\n")
    run.wait("~ app.py")
    run.type("q\n")
    assert run.exit() == 0


def test_an_option_of_ones_own_wins(dev, tree):
    run = dev("--watch", "pkg", "--log-format", "text")
    run.wait("watching pkg by")
    run.wait("generation 1 serves")
    (tree / "app.py").write_text("new = 1\n")
    (tree / "pkg" / "mod.py").write_text("new = 2\n")
    run.wait("generation 2 serves")
    assert "changed: pkg/mod.py" in "\n".join(run.lines())
    assert "changed: app.py" not in "\n".join(run.lines())


def test_help_says_what_it_sets(tmp_path):
    from sidecar.settings.table import DEV_PRESETS, TABLE

    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "dev", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    for name in DEV_PRESETS.keys() & TABLE.keys():
        assert TABLE[name].flag in done.stdout


def test_without_a_program_it_is_refused(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "dev"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "the program to run is missing" in done.stderr


def test_the_command_of_the_page_serves(tmp_path):
    """docs/dev-loop.md, the first block; with a port of its own."""
    command = re.search(
        r"```sh\n(sidecar dev .*)\n```", (ROOT / "docs" / "dev-loop.md").read_text()
    ).group(1)
    if shutil.which("gunicorn", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("gunicorn is not installed; pip install -e '.[servers]'")
    port = free_port()
    for name in ("env", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (
        (tmp_path.parent / "out").open("wb") as out,
        subprocess.Popen(
            command.replace("8080", str(port)).split(),
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        ) as process,
    ):
        said = (tmp_path.parent / "out").read_text
        try:
            until(
                lambda: "watching ., env" in said() and "generation 1 serves" in said(),
                "generation 1",
            )
            assert "generation 1" in get(port)
        finally:
            process.terminate()
            process.wait(PATIENCE)
    assert "· stopped" in said()
