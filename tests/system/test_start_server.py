"""`start_server`: the same as Debian's, seen from outside, run side by side; and each old bug that is gone."""

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

import pytest

from sidecar import address
from sidecar.start_server import parse, resolve
from tests.support import APPS, PATIENCE, ROOT, alive, free_port, marked, until

PERL = "/usr/bin/start_server"
PROGRAM = (sys.executable, "-S", str(APPS / "starter_app.py"))


class Starter:
    """A start_server, Perl's or ours, in a directory of its own, and what can be seen of it."""

    def __init__(self, kind: str, where: Path, *options: str, program: tuple[str, ...] = PROGRAM, env: dict[str, str] | None = None):
        self.kind, self.where = kind, where
        where.mkdir(exist_ok=True)
        self.mark = f"{os.getpid()}-{id(self)}"
        self.environ = {**os.environ, "PYTHONPATH": str(ROOT), "MARK": self.mark, **(env or {})}
        self.words = [PERL] if kind == "perl" else [sys.executable, "-m", "sidecar.start_server"]
        files = ("--pid-file=pid", "--status-file=status")
        with open(where / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*self.words, *files, *options, "--", *program],
                cwd=where, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def run(self, *options: str) -> subprocess.CompletedProcess:
        """Another start_server beside it: --stop, --restart, a second instance."""
        return subprocess.run([*self.words, *options], cwd=self.where, env=self.environ, capture_output=True, text=True, timeout=PATIENCE)

    def text(self, name: str = "log") -> str:
        try:
            return (self.where / name).read_text()
        except FileNotFoundError:
            return ""

    def wait(self, pattern: str, count: int = 1) -> None:
        until(lambda: len(re.findall(pattern, self.text(), re.MULTILINE)) >= count, f"{count} × {pattern} in\n{self.text()}")

    def wait_generations(self, *generations: int) -> None:
        until(lambda: self.generations() == list(generations), f"{generations}, it is {self.text('status')!r}\n{self.text()}")

    def generations(self) -> list[int]:
        return sorted(int(line.partition(":")[0]) for line in self.text("status").splitlines())

    def worker(self, generation: int) -> int:
        return int(dict(line.split(":") for line in self.text("status").splitlines())[str(generation)])

    def lives(self) -> list[dict]:
        return [json.loads(line) for line in self.text("SEEN").splitlines()]

    def signal(self, name: str) -> None:
        os.kill(self.process.pid, signal.Signals[f"SIG{name}"])

    def stop(self, name: str = "TERM") -> int:
        self.signal(name)
        return self.process.wait(PATIENCE)

    def lines(self) -> list[str]:
        """The log, with processes called by the order in which they were started."""
        text = self.text()
        for index, pid in enumerate(re.findall(r"^starting new worker (\d+)$", text, re.MULTILINE), 1):
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


@pytest.fixture
def starter(tmp_path):
    running: list[Starter] = []

    def make(*options: str, kind: str = "ours", where: Path = tmp_path / "ours", **more) -> Starter:
        running.append(Starter(kind, where, *options, **more))
        return running[-1]

    yield make
    for each in running:
        each.clean_up()


# --- side by side


def started(run: Starter) -> None:
    run.wait_generations(1)


def hup(run: Starter) -> None:
    run.wait_generations(1)
    run.signal("HUP")
    run.wait_generations(2)
    run.wait(r"^old worker \d+ died")


def crash(run: Starter) -> None:
    run.wait_generations(1)
    os.kill(run.worker(1), signal.SIGKILL)
    run.wait_generations(2)


def failing(run: Starter) -> None:
    run.wait_generations(1)
    (run.where / "BREAK").touch()
    run.signal("HUP")
    run.wait_generations(3)
    run.wait(r"^old worker \d+ died")


def failing_at_start(run: Starter) -> None:
    run.wait_generations(2)


def envdir(run: Starter) -> None:
    run.wait_generations(1)
    (run.where / "env" / "FOO").write_text("two\nrest\n")
    (run.where / "env" / "BAR").write_text(" blanks \n")
    hup(run)


def timer(run: Starter) -> None:
    run.wait_generations(2)
    run.wait(r"^old worker \d+ died")


IPV6 = socket.has_ipv6 and Path("/proc/net/if_inet6").exists() and "0001 80" in Path("/proc/net/if_inet6").read_text()

# Name: options, what happens, the signal that ends it. PORTS stands for free ports, the same for both.
SCENARIOS: dict[str, tuple[list[str], Callable[[Starter], None], str]] = {
    "start": ([], started, "TERM"),
    "start-int": (["--signal-on-term=HUP"], started, "INT"),
    "ports": (["--port={0}", "--port=127.0.0.1:{1}", "--port", "u{0}", "--port=127.0.0.1:{2}=17", "--path=app.sock"], hup, "TERM"),
    "hup": (["--signal-on-hup=sigquit", "--signal-on-term", "usr1"], hup, "TERM"),
    "crash": ([], crash, "TERM"),
    "failing-generation": ([], failing, "TERM"),
    "failing-at-start": ([], failing_at_start, "TERM"),
    "kill-old-delay": (["--kill-old-delay=1"], hup, "TERM"),
    "envdir": (["--envdir=env"], envdir, "TERM"),
    "auto-restart": (["--enable-auto-restart", "--auto-restart-interval=2", "--kill-old-delay=0"], timer, "TERM"),
}
if IPV6:
    SCENARIOS["ipv6"] = (["--port=[::1]:{0}", "--port=[::1]:u{1}"], started, "TERM")


@pytest.mark.skipif(not Path(PERL).exists(), reason=f"needs {PERL} (Debian: libserver-starter-perl)")
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_as_perls(name, tmp_path, starter):
    options, happens, end = SCENARIOS[name]
    ports = [free_port() for _ in range(3)]
    seen = {}
    for kind in ("perl", "ours"):
        where = tmp_path / kind
        (where / "env").mkdir(parents=True)
        (where / "env" / "FOO").write_text("one\n")
        if happens is failing_at_start:
            (where / "BREAK").touch()
        run = starter(*[option.format(*ports) for option in options], kind=kind, where=where)
        happens(run)
        seen[kind] = {"generations": run.generations(), "pid file": run.text("pid") == f"{run.process.pid}\n"}
        seen[kind]["exit"] = run.stop(end)
        seen[kind]["lives"] = [{**life, "pid": 0} for life in run.lives()]
        seen[kind]["left"] = sorted(path.name for path in where.iterdir())
        seen[kind]["lines"] = run.lines()
        assert marked(run.mark) == []
    theirs, ours = seen["perl"].pop("lines"), seen["ours"].pop("lines")
    assert seen["ours"] == seen["perl"]
    rest = iter(ours)
    missing = [line for line in theirs if "removing existing" not in line and line not in rest]
    assert missing == [], "\n".join(["--- Perl's", *theirs, "--- ours", *ours])


USAGE = [
    "--foo", "--port", "--interval abc -- x", "--p 3 -- x", "--restart=1 -- x", "--interval --dir", "-inter 1", "--restart", "--stop",
    "--daemonize -- true", "--stop --pid-file /nonexistent", "--restart --pid-file /nonexistent --status-file /x", "--INTERVAL=", "--FOO",
    "--stop=1 --foo --bar", "--kill-old-delay=x -- true", "",
]  # fmt: skip


@pytest.mark.skipif(not Path(PERL).exists(), reason=f"needs {PERL} (Debian: libserver-starter-perl)")
@pytest.mark.parametrize("words", USAGE)
def test_the_same_refusals_as_perls(words):
    said = []
    for command in ([PERL], [sys.executable, "-m", "sidecar.start_server"]):
        result = subprocess.run([*command, *words.split()], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
        said.append((result.returncode, re.sub(r" at \S+ line \d+\.", "", result.stderr)))
    assert said[1] == said[0]


@pytest.mark.skipif(not Path(PERL).exists(), reason=f"needs {PERL} (Debian: libserver-starter-perl)")
def test_an_address_that_cannot_be_bound_is_the_same_exit_status(tmp_path):
    codes = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for command in ([PERL], [sys.executable, "-m", "sidecar.start_server"]):
            for port in (f"127.0.0.1:{taken.getsockname()[1]}", "192.0.2.1:80", "abc", "host.invalid:80"):
                result = subprocess.run([*command, f"--port={port}", "--", "true"], capture_output=True, cwd=ROOT, timeout=PATIENCE)
                codes.append(result.returncode)
    assert codes[4:] == codes[:4]


# --- the command line


def settings(*words: str, environ: dict[str, str] | None = None):
    from sidecar.start_server import _environment

    given, command, problems = parse(words)
    assert problems == []
    return resolve(given, command or ["x"], _environment(given, environ or {}))


def test_ports_in_all_forms():
    got = settings("--port=80", "--port", "127.0.0.1:u81=9", "-port=[::1]:82,::1:83", "--po= 84 ", "--path=a.sock,/b.sock").port
    assert [(each.kind, each.text, each.fd) for each in got] == [
        (address.TCP, "80", None), (address.UDP, "127.0.0.1:81", 9), (address.TCP, "[::1]:82", None), (address.TCP, "[::1]:83", None),
        (address.TCP, "84", None), (address.UNIX, "a.sock", None), (address.UNIX, "/b.sock", None),
    ]  # fmt: skip


def test_the_command_starts_at_the_first_word_that_is_no_option():
    assert parse(["--port=80", "prog", "--port=81", "--", "x"])[:2] == ({"port": ["80"]}, ["prog", "--port=81", "--", "x"])
    assert parse(["--port=80", "--", "--prog"])[:2] == ({"port": ["80"]}, ["--prog"])


def test_the_defaults_are_server_starters():
    got = settings()
    assert (got.workers, got.ready, got.interval, got.kill_old_delay, got.max_failures) == (1, "interval", 1.0, 0.0, 0)
    assert (got.signal_on_hup, got.signal_on_term, got.signal_on_int, got.profile) == ("TERM", "TERM", "TERM", "none")
    timer = settings("--enable-auto-restart")
    assert (timer.enable_auto_restart, timer.auto_restart_interval, timer.kill_old_delay) == (True, 360.0, 5.0)


def test_an_envdir_wins_over_an_option_and_an_option_over_the_environment(tmp_path):
    own = {"KILL_OLD_DELAY": "7", "AUTO_RESTART_INTERVAL": "9", "ENABLE_AUTO_RESTART": "1", "ENVDIR": str(tmp_path)}
    got = settings("--kill-old-delay=8", environ=own)
    assert (got.kill_old_delay, got.auto_restart_interval, got.enable_auto_restart) == (8.0, 9.0, True)
    (tmp_path / "KILL_OLD_DELAY").write_text("6\n")
    (tmp_path / "ENABLE_AUTO_RESTART").write_text("0\n")
    got = settings("--kill-old-delay=8", "--enable-auto-restart", environ=own)
    assert (got.kill_old_delay, got.enable_auto_restart) == (6.0, False)


# --- the old bugs


def test_a_deleted_variable_goes(starter, tmp_path):
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "FOO").write_text("at the start\n")
    run = starter(f"--envdir={tmp_path}/env")
    run.wait_generations(1)
    (tmp_path / "env" / "FOO").unlink()
    hup(run)
    assert [life["environ"].get("FOO") for life in run.lives()] == ["at the start", None]


def test_an_envdir_that_is_not_there_yet_is_empty(starter, tmp_path):
    run = starter("--envdir=later")
    run.wait_generations(1)
    (run.where / "later").mkdir()
    (run.where / "later" / "FOO").write_text("x\n")
    hup(run)
    assert [life["environ"].get("FOO") for life in run.lives()] == [None, "x"]


def test_a_failed_exec_removes_nothing(starter, tmp_path):
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nexec {' '.join(PROGRAM)}\n")
    program.chmod(0o755)
    run = starter("--path=app.sock", program=(str(program),))
    run.wait_generations(1)
    worker = run.worker(1)
    program.unlink()
    run.signal("HUP")
    run.wait(r"^failed to exec .*program: not found$")
    run.wait(r"^new worker \d+ seems to have failed to start, exit status:65280$")
    assert {"pid", "status", "app.sock"} <= {path.name for path in run.where.iterdir()}
    assert run.worker(1) == worker
    assert alive(worker)
    assert run.stop() == 0


@pytest.mark.parametrize("fd", [3, 4, 5, 6, 7, 8, 9, 10, 11])
def test_a_port_may_have_any_number_whichever_the_socket_had(starter, fd):
    port = free_port()
    run = starter("--interval=0", f"--port=127.0.0.1:{port}={fd}")
    until(lambda: run.lives() and "listeners" in run.lives()[0], "the first life")
    assert run.lives()[0]["listeners"] == [[f"127.0.0.1:{port}", "SOCK_STREAM", f"('127.0.0.1', {port})"]]
    run.wait(f"^socket is duplicated to file descriptor {fd}$")


def test_term_interrupts_the_kill_delay(starter):
    run = starter("--kill-old-delay=3600")
    run.wait_generations(1)
    run.signal("HUP")
    run.wait("^sleeping 3600 secs before killing old workers$")
    assert run.stop() == 0
    assert run.lines()[-1] == "exiting"
    assert "killing old workers" not in run.lines()


def test_a_new_worker_that_dies_in_the_kill_delay_leaves_the_old_one_alone(starter):
    run = starter("--kill-old-delay=3600")
    run.wait_generations(1)
    old = run.worker(1)
    run.signal("HUP")
    run.wait_generations(1, 2)
    os.kill(run.worker(2), signal.SIGKILL)
    run.wait(r"^new worker \d+ seems to have failed to start, exit status:9$")
    run.wait_generations(1, 3)
    assert run.worker(1) == old
    assert alive(old)


def test_term_in_a_crash_loop_stops_at_once_without_another_spawn(starter):
    run = starter(program=("false",))
    run.wait(r"^new worker \d+ seems to have failed to start, exit status:256$", 3)
    assert run.stop() == 0
    lines = run.lines()
    assert not [line for line in lines[lines.index("received TERM, sending TERM to all workers:") :] if "starting" in line]


def test_queued_hups_coalesce(starter):
    run = starter()
    run.wait_generations(1)
    for _ in range(9):
        run.signal("HUP")
    run.wait(r"^old worker \d+ died")
    until(lambda: len(run.generations()) == 1, "one generation")
    run.signal("HUP")  # whatever was queued has begun before what this brings about
    last = run.generations()[0]
    until(lambda: run.generations() and run.generations()[0] > last, "the next")
    assert run.stop() == 0
    assert run.text().count("starting new worker") <= 4


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_what_goes_to_the_whole_group_never_respawns_first(starter, name):
    run = starter()
    run.wait_generations(1)
    os.kill(run.process.pid, signal.SIGSTOP)
    os.kill(run.worker(1), signal.Signals[f"SIG{name}"])
    until(lambda: not alive(run.lives()[0]["pid"]), "the worker's end")
    run.signal(name)
    run.signal("CONT")
    assert run.process.wait(PATIENCE) == 0
    assert run.text().count("starting new worker") == 1


def test_quit_and_usr2_do_not_orphan_workers(starter):
    run = starter()
    run.wait_generations(1)
    worker = run.worker(1)
    run.signal("USR2")
    until(lambda: b"SIDECAR_HERITAGE=" in Path(f"/proc/{run.process.pid}/environ").read_bytes(), "the upgrade")
    run.signal("HUP")
    run.wait_generations(2)
    run.wait(rf"^old worker {worker} died")
    assert run.stop("QUIT") == 0
    assert marked(run.mark) == []


def test_a_second_instance_leaves_the_pid_file_alone(starter):
    run = starter()
    run.wait_generations(1)
    second = run.run("--pid-file=pid", "--status-file=status", "--", "true")
    assert second.returncode == 255
    assert f"held by process {run.process.pid}" in second.stderr
    assert run.text("pid") == f"{run.process.pid}\n"
    assert run.generations() == [1]
    assert run.run("--stop", "--pid-file=pid").returncode == 0
    assert run.process.wait(PATIENCE) == 0


def test_a_stop_has_an_end(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "DEAF").touch()
    run = starter("--drain-timeout=0.5")
    run.wait_generations(1)
    assert run.stop() == 0
    assert re.search(r"^worker \d+ died, status:9$", run.text(), re.MULTILINE)


def test_stuck_old_workers_do_not_pile_up(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "DEAF").touch()
    run = starter("--drain-timeout=0.5")
    run.wait_generations(1)
    run.signal("HUP")
    run.wait_generations(2)
    run.wait(r"^old worker \d+ died, status:9$")


def test_an_automatic_restart_is_forced_after_twice_the_interval(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "DEAF").touch()
    run = starter("--enable-auto-restart", "--auto-restart-interval=1", "--kill-old-delay=0", "--interval=0.2")
    run.wait(r"^autorestart triggered \(interval=1\)$")
    run.wait(r"^autorestart triggered \(forced, interval=1\)$")


def test_adopted_orphans_are_not_called_workers(starter):
    run = starter(program=("sh", "-c", "(setsid sh -c 'echo $$ > orphan' &) ; exec " + " ".join(PROGRAM)))
    hup(run)
    orphan = int(run.text("orphan"))
    assert run.stop() == 0
    assert not re.search(rf"\b{orphan}\b", run.text())


# --- the clients


FILES = ("--pid-file=pid", "--status-file=status")


def test_restart_returns_with_the_new_generation_alone(starter):
    run = starter()
    run.wait_generations(1)
    for generation in (2, 3):
        result = run.run("--restart", *FILES)
        assert (result.returncode, result.stderr) == (0, "")
        assert run.generations() == [generation]


def test_restart_ends_with_the_reason_when_the_new_generation_fails(starter):
    run = starter()
    run.wait_generations(1)
    for generation in (2, 4):
        (run.where / "BREAK").touch()
        result = run.run("--restart", *FILES)
        assert result.returncode == 1
        assert f"generation {generation} failed: exited with status 3" in result.stderr
        assert f"generation {generation - 1} serves on" in result.stderr
        run.wait_generations(generation + 1)  # it is tried again
        until(lambda: not (run.where / "status.failed").exists(), "the reason's end")
    assert run.stop() == 0
    assert not (run.where / "status.failed").exists()


def test_restart_has_a_timeout(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "DEAF").touch()
    run = starter()
    run.wait_generations(1)
    result = run.run("--restart", "--restart-timeout=2", *FILES)
    assert result.returncode == 1
    assert "not over within 2 secs" in result.stderr
    run.process.kill()


def test_restart_says_when_nothing_is_there(starter):
    run = starter()
    run.wait_generations(1)
    run.process.kill()
    run.process.wait(PATIENCE)
    result = run.run("--restart", *FILES)
    assert (result.returncode, result.stderr) == (3, "failed to send SIGHUP to the server process:No such process\n")


def test_stop_returns_when_it_has_gone(starter):
    run = starter()
    run.wait_generations(1)
    result = run.run("--stop", "--pid-file=pid")
    assert re.fullmatch(rf"stop_server \(pid:\d+\) stopping now \(pid:{run.process.pid}\)\.\.\.\n", result.stderr)
    assert result.returncode == 0
    assert marked(run.mark) in ([], [run.process.pid])
    assert run.text("status") == ""
    assert run.process.wait(PATIENCE) == 0


def test_stop_signals_nobody_over_a_pid_file_that_was_left_behind(starter):
    run = starter()
    run.wait_generations(1)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (run.where / "left").write_text(f"{bystander.pid}\n")
        result = run.run("--stop", "--pid-file=left")
        assert (result.returncode, bystander.poll()) == (3, None)
        bystander.kill()


# --- the log


def test_the_log_file_is_appended_to_and_opened_anew_on_hup(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "out").write_text("before\n")
    run = starter("--log-file=out", program=("sh", "-c", "echo a life; exec " + " ".join(PROGRAM)))
    run.wait_generations(1)
    assert re.fullmatch(r"before\nstarting new worker \d+\na life\n", run.text("out"))
    (run.where / "out").rename(run.where / "out.1")
    run.signal("HUP")
    until(lambda: "killing old workers" in run.text("out"), "the swap in the new file")
    assert "a life" in run.text("out")
    assert run.stop() == 0
    assert run.text("out").endswith("exiting\n")
    assert run.text() == f"start_server (pid:{run.process.pid}) starting now...\n"


def test_a_log_command_reads_everything_and_is_started_again_when_it_dies(starter):
    run = starter("--log-file=| echo $$ >> loggers; exec cat >> out", program=("sh", "-c", "echo a life; exec " + " ".join(PROGRAM)))
    run.wait_generations(1)
    until(lambda: "a life" in run.text("out"), "the first life's output")
    os.kill(int(run.text("loggers").split()[0]), signal.SIGKILL)
    until(lambda: len(run.text("loggers").split()) == 2, "the second log command")
    run.signal("HUP")
    until(lambda: "killing old workers" in run.text("out"), "the swap")
    assert run.stop() == 0
    out = run.text("out")
    assert out.count("a life") == 2
    assert out.endswith("exiting\n")
    assert not re.search(rf"worker {run.text('loggers').split()[0]}\b", out)
    assert marked(run.mark) == []


# --- the background


def test_daemonize(starter):
    run = starter("--log-file=out", "--daemonize", "--path=app.sock")
    assert run.process.wait(PATIENCE) == 0
    # It returns when the pid file has the final pid.
    pid = int(run.text("pid"))
    assert pid != run.process.pid
    assert alive(pid)
    run.wait_generations(1)
    session, group = os.getsid(pid), os.getpgid(pid)
    assert session == group
    assert session not in (pid, os.getsid(0))
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.path.samefile(f"/proc/{pid}/fd/1", run.where / "out")
    assert run.run("--restart", *FILES).returncode == 0
    assert run.run("--stop", "--pid-file=pid").returncode == 0
    until(lambda: marked(run.mark) == [], "the end of everything")
    assert {path.name for path in run.where.iterdir()} == {"log", "out", "SEEN"}
    assert run.text("out").endswith("exiting\n")


def test_daemonize_says_what_hinders_it(starter):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        run = starter("--log-file=out", "--daemonize", f"--port=127.0.0.1:{taken.getsockname()[1]}")
        assert run.process.wait(PATIENCE) == 98
    assert "another process listens there" in run.text()
    assert not (run.where / "pid").exists()
