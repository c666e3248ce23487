"""`start_server`: the same as Debian's, seen from outside, run side by side; and each old bug that
is gone.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from sidecar.settings import address
from sidecar.start_server.options import environment, parse, resolve
from tests.support import PATIENCE, ROOT, alive, free_port, marked, until
from tests.system.starter import PERL, PROGRAM, Starter, in_order, pattern, rows, shows

# --- side by side


def started(run: Starter) -> None:
    run.wait_generations(1)


def hup(run: Starter) -> None:
    run.wait_generations(1)
    run.signal("HUP")
    run.wait_generations(2)
    run.wait(r"^old worker \d+ died")


def hup_twice(run: Starter) -> None:
    hup(run)
    run.signal("HUP")
    run.wait_generations(3)
    run.wait(r"^old worker \d+ died", 2)


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


def crash_loop(run: Starter) -> None:
    run.wait_generations(1)
    (run.where / "BREAK").write_text("2")
    os.kill(run.worker(1), signal.SIGKILL)
    run.wait_generations(4)


def envdir(run: Starter) -> None:
    run.wait_generations(1)
    (run.where / "env" / "FOO").write_text("two\nrest\n")
    (run.where / "env" / "BAR").write_text(" blanks \t\r\n")
    (run.where / "env" / "EMPTY").touch()
    (run.where / "env" / "LINE").write_text("\n")
    (run.where / "env" / "DIRECTORY").mkdir()
    (run.where / "env" / ".HIDDEN").write_text("x\n")
    hup(run)


def envdir_later(run: Starter) -> None:
    run.wait_generations(1)
    (run.where / "later").mkdir()
    (run.where / "later" / "FOO").write_text("x\n")
    (run.where / "later" / "KILL_OLD_DELAY").write_text("1\n")
    hup(run)


def timer(run: Starter) -> None:
    run.wait_generations(2)
    run.wait(r"^old worker \d+ died")


def forced(run: Starter) -> None:
    (run.where / "DEAF").touch()
    run.wait_generations(1, 2)
    (run.where / "DEAF").unlink()
    run.wait(r"^autorestart triggered \(forced")
    run.wait_generations(1, 2, 3)
    # Two workers are deaf.
    for generation in (1, 2):
        os.kill(run.worker(generation), signal.SIGKILL)
        run.wait(r"^old worker \d+ died", generation)


def stale_socket(where: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(where / "app.sock"))


IPV6 = (
    socket.has_ipv6
    and Path("/proc/net/if_inet6").exists()
    and "0001 80" in Path("/proc/net/if_inet6").read_text()
)

STARTS = ("start_server (pid:N) starting now...", "starting new worker N")
ENDS = ("received SIG, sending SIG to all workers:P1,P2", "worker N died, status:RAW", "exiting")
SWAPS = (
    "new worker is now running, sending SIG to old workers:P1,P2",
    "killing old workers",
    "old worker N died, status:RAW",
)
ASKED = ("received HUP, spawning a new worker", *SWAPS)
FAILS = ("new worker N seems to have failed to start, exit status:RAW",)
DIES = ("worker N died unexpectedly with status:RAW, restarting",)
WAITS = ("sleeping N secs before killing old workers",)


class Scenario(NamedTuple):
    """`options`, in which {0} … stand for free ports; what `happens`; the signal that ends it; the
    rows that it shows: those of messages are looked for in both logs. The directory is got ready by
    `before`; `differs` says how a line of Perl's reads here.
    """

    options: list[str]
    happens: Callable[[Starter], None]
    end: str
    rows: tuple[str, ...] = ()
    before: Callable[[Path], None] = lambda where: None
    differs: Mapping[str, str] = {}


SCENARIOS = {
    "start": Scenario([], started, "TERM", (*STARTS, *ENDS, "TERM", "--pid-file, --status-file", "SERVER_STARTER_PORT", "pid file")),
    "start-int": Scenario(["--signal-on-term=HUP"], started, "INT", (*ENDS, "INT")),
    "ports": Scenario(
        ["--port={0}", "--port=127.0.0.1:{1}", "--port", "u{0}", "--port=127.0.0.1:{2}=17", "--path=app.sock"], hup, "TERM",
        ("socket is duplicated to file descriptor N", "--port", "--path", "SERVER_STARTER_PORT"),
    ),
    "two-ports": Scenario(["--port={0}", "--port=localhost:{1}"], hup, "TERM", ("--port",)),
    "udp": Scenario(["--port=127.0.0.1:u{0}", "--port=u{1}"], hup, "TERM", ("--port",)),
    "path": Scenario(["--path=app.sock", "--path=b.sock"], hup, "TERM", ("removing existing socket file:PATH", "--path"), stale_socket),
    "hup": Scenario(["--signal-on-hup=sigquit", "--signal-on-term", "usr1"], hup, "TERM", (*ASKED, "--signal-on-hup, --signal-on-term")),
    "hup-twice": Scenario([], hup_twice, "TERM", (*ASKED, "HUP")),
    "crash": Scenario([], crash, "TERM", DIES),
    "crash-loop": Scenario([], crash_loop, "TERM", (*DIES, *FAILS)),
    "failing-generation": Scenario([], failing, "TERM", (*FAILS, *ASKED, "SERVER_STARTER_GENERATION")),
    "failing-at-start": Scenario([], failing_at_start, "TERM", FAILS, lambda where: (where / "BREAK").write_text("1")),
    "kill-old-delay": Scenario(["--kill-old-delay=1"], hup_twice, "TERM", (*WAITS, "--kill-old-delay")),
    "envdir": Scenario(["--envdir=env"], envdir, "TERM", ("--envdir", "from the envdir")),
    "envdir-later": Scenario(
        ["--envdir=later"], envdir_later, "TERM",
        (*WAITS, "--envdir", "ENVDIR, ENABLE_AUTO_RESTART, AUTO_RESTART_INTERVAL, KILL_OLD_DELAY"),
    ),
    "auto-restart": Scenario(
        ["--enable-auto-restart", "--auto-restart-interval=2", "--kill-old-delay=0"], timer, "TERM",
        ("autorestart triggered (interval=N)", "--enable-auto-restart, --auto-restart-interval", *SWAPS),
    ),
    "auto-restart-forced": Scenario(
        ["--enable-auto-restart", "--auto-restart-interval=2", "--kill-old-delay=0"], forced, "TERM",
        ("autorestart triggered (forced, interval=N)", "--enable-auto-restart, --auto-restart-interval"),
        lambda where: (where / "DEAF").touch(),
        # The deaf one has been asked before.
        {"running, sending TERM to old workers:<worker 1>,<worker 2>": "running, sending TERM to old workers:<worker 2>"},
    ),
}  # fmt: skip
if IPV6:
    SCENARIOS["ipv6"] = Scenario(
        ["--port=[::1]:{0}", "--port=[::1]:u{1}"], started, "TERM", ("--port",)
    )

# What Perl's warn adds to a line, and what it says of its own code.
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


# --- the command line


def settings(*words: str, environ: dict[str, str] | None = None):
    given, command, problems = parse(words)
    assert problems == []
    return resolve(given, command or ["x"], environment(given, environ or {}))


@shows("--port", "--path")
def test_ports_in_all_forms():
    got = settings(
        "--port=80",
        "--port",
        "127.0.0.1:u81=9",
        "-port=[::1]:82,::1:83",
        "--po= 84 ",
        "--path=a.sock,/b.sock",
    ).port
    assert [(each.kind, each.text, each.fd) for each in got] == [
        (address.TCP, "80", None), (address.UDP, "127.0.0.1:81", 9), (address.TCP, "[::1]:82", None), (address.TCP, "[::1]:83", None),
        (address.TCP, "84", None), (address.UNIX, "a.sock", None), (address.UNIX, "/b.sock", None),
    ]  # fmt: skip
    assert [each.ipv6only for each in got] == [False, False, True, True, False, False, False]


def test_the_command_starts_at_the_first_word_that_is_no_option():
    assert parse(["--port=80", "prog", "--port=81", "--", "x"])[:2] == (
        {"port": ["80"]},
        ["prog", "--port=81", "--", "x"],
    )
    assert parse(["--port=80", "--", "--prog"])[:2] == ({"port": ["80"]}, ["--prog"])


@shows("--kill-old-delay", "--enable-auto-restart, --auto-restart-interval")
def test_the_defaults_are_server_starters():
    got = settings()
    assert (got.workers, got.ready, got.interval, got.kill_old_delay, got.max_failures) == (
        1,
        "interval",
        1.0,
        0.0,
        0,
    )
    assert (got.signal_on_hup, got.signal_on_term, got.as_server_starter, got.profile) == (
        "TERM",
        "TERM",
        True,
        "none",
    )
    timer = settings("--enable-auto-restart")
    assert (timer.enable_auto_restart, timer.auto_restart_interval, timer.kill_old_delay) == (
        True,
        360.0,
        5.0,
    )


@shows("ENVDIR, ENABLE_AUTO_RESTART, AUTO_RESTART_INTERVAL, KILL_OLD_DELAY")
def test_an_envdir_wins_over_an_option_and_an_option_over_the_environment(tmp_path):
    own = {
        "KILL_OLD_DELAY": "7",
        "AUTO_RESTART_INTERVAL": "9",
        "ENABLE_AUTO_RESTART": "1",
        "ENVDIR": str(tmp_path),
    }
    got = settings("--kill-old-delay=8", environ=own)
    assert (got.kill_old_delay, got.auto_restart_interval, got.enable_auto_restart) == (
        8.0,
        9.0,
        True,
    )
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


@shows("exec of the program fails", "failed to exec PROGRAM…")
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


@shows("--port …=FD")
@pytest.mark.parametrize("fd", [3, 4, 5, 6, 7, 8, 9, 10, 11])
def test_a_port_may_have_any_number_whichever_the_socket_had(starter, fd):
    port = free_port()
    run = starter("--interval=0", f"--port=127.0.0.1:{port}={fd}")
    until(lambda: run.lives() and "listeners" in run.lives()[0], "the first life")
    assert run.lives()[0]["listeners"] == [
        [f"127.0.0.1:{port}", "SOCK_STREAM", f"('127.0.0.1', {port})"]
    ]
    run.wait(f"^socket is duplicated to file descriptor {fd}$")


@shows("during that delay")
def test_term_interrupts_the_kill_delay(starter):
    run = starter("--kill-old-delay=3600")
    run.wait_generations(1)
    run.signal("HUP")
    run.wait("^sleeping 3600 secs before killing old workers$")
    assert run.stop() == 0
    assert run.lines()[-1] == "exiting"
    assert "killing old workers" not in run.lines()


@shows("during that delay")
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


@shows("TERM in a crash loop")
def test_term_in_a_crash_loop_stops_at_once_without_another_spawn(starter):
    run = starter(program=("false",))
    run.wait(r"^new worker \d+ seems to have failed to start, exit status:256$", 3)
    assert run.stop() == 0
    lines = run.lines()
    assert not [
        line
        for line in lines[lines.index("received TERM, sending TERM to all workers:") :]
        if "starting" in line
    ]


@shows("HUP")
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


@shows("TERM, INT to the whole group")
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


@shows("QUIT", "USR2")
def test_quit_and_usr2_do_not_orphan_workers(starter):
    run = starter()
    run.wait_generations(1)
    worker = run.worker(1)
    run.signal("USR2")
    until(
        lambda: b"SIDECAR_HERITAGE=" in Path(f"/proc/{run.process.pid}/environ").read_bytes(),
        "the upgrade",
    )
    run.signal("HUP")
    run.wait_generations(2)
    run.wait(rf"^old worker {worker} died")
    assert run.stop("QUIT") == 0
    assert marked(run.mark) == []


@shows("a second instance")
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


@shows("--drain-timeout")
def test_a_stop_has_an_end(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "DEAF").touch()
    run = starter("--drain-timeout=0.5")
    run.wait_generations(1)
    assert run.stop() == 0
    assert re.search(r"^worker \d+ died, status:9$", run.text(), re.MULTILINE)


@shows("old programs that do not leave")
def test_stuck_old_workers_do_not_pile_up(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "DEAF").touch()
    run = starter("--drain-timeout=0.5")
    run.wait_generations(1)
    run.signal("HUP")
    run.wait_generations(2)
    run.wait(r"^old worker \d+ died, status:9$")


@shows("adopted orphans (PID 1)")
def test_adopted_orphans_are_not_called_workers(starter):
    run = starter(
        program=("sh", "-c", "(setsid sh -c 'echo $$ > orphan' &) ; exec " + " ".join(PROGRAM))
    )
    hup(run)
    orphan = int(run.text("orphan"))
    assert run.stop() == 0
    assert not re.search(rf"\b{orphan}\b", run.text())


# --- the clients


FILES = ("--pid-file=pid", "--status-file=status")


@shows("--restart")
def test_restart_returns_with_the_new_generation_alone(starter):
    run = starter()
    run.wait_generations(1)
    for generation in (2, 3):
        result = run.run("--restart", *FILES)
        assert (result.returncode, result.stderr) == (0, "")
        assert run.generations() == [generation]


@shows("--restart", "STATUS.failed")
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


@shows("--restart", "--restart-timeout")
def test_restart_has_a_timeout(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "DEAF").touch()
    run = starter()
    run.wait_generations(1)
    result = run.run("--restart", "--restart-timeout=2", *FILES)
    assert result.returncode == 1
    assert "not over within 2 secs" in result.stderr
    run.process.kill()


@shows("--restart")
def test_restart_says_when_nothing_is_there(starter):
    run = starter()
    run.wait_generations(1)
    run.process.kill()
    run.process.wait(PATIENCE)
    result = run.run("--restart", *FILES)
    assert (result.returncode, result.stderr) == (
        3,
        "failed to send SIGHUP to the server process:No such process\n",
    )


@shows("--stop", "stop_server (pid:N) stopping now (pid:M)...")
def test_stop_returns_when_it_has_gone(starter):
    run = starter()
    run.wait_generations(1)
    result = run.run("--stop", "--pid-file=pid")
    assert re.fullmatch(
        rf"stop_server \(pid:\d+\) stopping now \(pid:{run.process.pid}\)\.\.\.\n", result.stderr
    )
    assert result.returncode == 0
    assert marked(run.mark) in ([], [run.process.pid])
    assert run.text("status") == ""
    assert run.process.wait(PATIENCE) == 0


@shows("--stop")
def test_stop_signals_nobody_over_a_pid_file_that_was_left_behind(starter):
    run = starter()
    run.wait_generations(1)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (run.where / "left").write_text(f"{bystander.pid}\n")
        result = run.run("--stop", "--pid-file=left")
        assert (result.returncode, bystander.poll()) == (3, None)
        bystander.kill()


# --- the log


@shows("--log-file FILE")
def test_the_log_file_is_appended_to_and_opened_anew_on_hup_and_usr1(starter, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "out").write_text("before\n")
    run = starter("--log-file=out", program=("sh", "-c", "echo a life; exec " + " ".join(PROGRAM)))
    run.wait_generations(1)
    assert re.fullmatch(r"before\nstarting new worker \d+\na life\n", run.text("out"))
    (run.where / "out").rename(run.where / "out.1")
    run.signal("HUP")
    until(lambda: "killing old workers" in run.text("out"), "the swap in the new file")
    assert "a life" in run.text("out")
    (run.where / "out").rename(run.where / "out.2")
    run.signal("USR1")
    until((run.where / "out").exists, "the new file")
    assert run.stop() == 0
    assert run.text("out").endswith("exiting\n")
    assert run.text() == f"start_server (pid:{run.process.pid}) starting now...\n"


@shows("--log-file '| COMMAND'")
def test_a_log_command_reads_everything_and_is_started_again_when_it_dies(starter):
    run = starter(
        "--log-file=| echo $$ >> loggers; exec cat >> out",
        program=("sh", "-c", "echo a life; exec " + " ".join(PROGRAM)),
    )
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


@shows("--daemonize")
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
    # What it was started with is let go: `$(start_server --daemonize …)` reads to the end of it.
    held = {os.path.realpath(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
    assert str(run.where / "log") not in held
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
