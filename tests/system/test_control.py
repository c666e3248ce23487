"""The control socket as its users have it: the commands of a real `sidecar`, while its workers
answer requests.
"""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.control import server
from tests.support import (
    PATIENCE,
    ROOT,
    SERVER,
    Load,
    Sidecar,
    alive,
    marked,
    open_to_others,
    until,
)

Control = Callable[..., subprocess.CompletedProcess]


def environment(**more: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")},
        "PYTHONPATH": str(ROOT),
        **more,
    }


def command(run: Sidecar, *words: str) -> list[str]:
    """The command line that asks `run`."""
    return [sys.executable, "-m", "sidecar", words[0], "--control", run.control, *words[1:]]


def ask(run: Sidecar, *words: str) -> subprocess.CompletedProcess[str]:
    """Do a command, and wait for its end."""
    return subprocess.run(
        command(run, *words), env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )


def status(run: Sidecar) -> dict:
    done = ask(run, "status", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Asking:
    """A command under way: its lines as they come."""

    def __init__(self, run: Sidecar, *words: str, **popen: object) -> None:
        self.process = subprocess.Popen(command(run, *words), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        **popen)  # fmt: skip

    def line(self, word: str) -> str:
        """Read up to a line with this word in it."""
        for line in self.process.stdout:
            if word in line:
                return line
        raise AssertionError(f"never: {word!r}; {self.process.stderr.read()}")

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


@pytest.fixture
def start(sidecar, tmp_path) -> Callable[..., Sidecar]:
    """Starts a sidecar that listens at tmp_path/control (`run.control`)."""

    def make(*options: str, control: str = str(tmp_path / "control"), **more: object) -> Sidecar:
        run = sidecar("--control", control, *options, **more)
        run.control = control
        return run

    return make


@pytest.fixture
def run(start) -> Sidecar:
    """One that serves, with two workers."""
    made = start("--workers", "2")
    made.wait("worker_ready", count=2)
    made.wait("serving")
    return made


@pytest.fixture
def asking() -> Iterator[Callable[..., Asking]]:
    made: list[Asking] = []

    def make(run: Sidecar, *words: str, **popen: object) -> Asking:
        made.append(Asking(run, *words, **popen))
        return made[-1]

    yield make
    for each in made:
        each.process.kill()
        each.process.communicate()


# --- status


def test_status_shows_generations_workers_the_last_swap_and_the_last_failure(run):
    text = ask(run, "status").stdout
    assert f"pid {run.pid}" in text
    assert f"listening on 127.0.0.1:{run.port}" in text
    rows = [line.split() for line in text.splitlines() if " ready " in line]
    assert {row[-7] if row[0] == "1" and "serving" in row else row[1] for row in rows} == {
        str(pid) for pid in run.workers()
    }
    assert all(line.endswith("MiB") for line in text.splitlines() if " ready " in line)
    assert "last swap" in text
    assert "last failure" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_status_json_is_one_object_that_agrees_with_the_log(run):
    run.swap(2)
    told = status(run)
    assert (told["state"], told["ready"], told["generation"], told["workers"], told["pid"]) == (
        "serving",
        True,
        2,
        2,
        run.pid,
    )
    assert [worker["pid"] for worker in told["generations"][0]["workers"]] == run.workers()
    assert all(1 << 20 < worker["memory"] < 1 << 30 for worker in told["generations"][0]["workers"])
    assert [(life["generation"], life["outcome"]) for life in told["timeline"]] == [
        (1, "served"),
        (2, "serving"),
    ]
    assert abs(told["last_swap"]["took"] - run.seen("serving", generation=2)[0]["took"]) < 1e-5
    assert told["swaps"] == [
        {"trigger": "signal", "outcome": "served", "count": 1},
        {"trigger": "start", "outcome": "served", "count": 1},
    ]


def test_a_failed_swap_is_in_status_with_its_cause_and_the_state_stays_serving(start, tmp_path):
    envdir = tmp_path / "env"
    envdir.mkdir()
    run = start("--envdir", str(envdir))
    run.wait("serving")
    (envdir / "DIE").write_text("3")
    done = ask(run, "reload", "--wait")
    assert done.returncode == 1
    assert "exited with status 3" in done.stderr
    told = status(run)
    # It tries again by itself, now or soon.
    assert told["state"] in ("serving", "swapping")
    assert (told["ready"], told["generation"]) == (True, 1)
    assert told["last_failure"]["generation"] >= 2
    assert "exited with status 3" in told["last_failure"]["cause"]
    assert "exited with status 3" in ask(run, "status").stdout
    assert ask(run, "health").returncode == 0


def test_a_reload_that_failed_shows_the_end_of_the_log_file(tmp_path):
    """What was written since the generation was begun, by whoever writes there; not before."""
    log, control = tmp_path / "log", str(tmp_path / "control")
    bad = tmp_path / "bad"
    script = f"""echo begins {"x" * 100}; test -e {bad} || exec {shlex.join(SERVER)}
        for n in $(seq 30); do echo line $n; done; printf "Error: no \\033[31mtable\\n" >&2; exit 3"""
    words = ["run", "--port", "127.0.0.1:0", "--control", control, "--log-file", str(log)]
    command = [sys.executable, "-m", "sidecar", *words, "--", "sh", "-c", script]
    mark = f"{os.getpid()}-{tmp_path}"
    environ = {**environment(), "MARK": mark}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL) as process:
        try:
            until(lambda: log.exists() and "serves after" in log.read_text(), "it serves")
            bad.touch()
            ask = [sys.executable, "-m", "sidecar", "reload", "--wait", "--control", control]
            done = subprocess.run(ask, cwd=ROOT, env=environ, capture_output=True, text=True)
            assert done.returncode == 1
            told = [line for line in done.stderr.splitlines() if line.startswith("  ")]
            assert 10 < len(told) <= 20
            assert "  line 30" in told
            assert "  line 1" not in told
            assert [each for each in told if "Error: no" in each and "\033" not in each]
            assert not [each for each in told if "serves after" in each]
        finally:
            process.terminate()
            process.wait(PATIENCE)
    until(lambda: marked(mark) == [], "the end of all of it")


def test_a_reload_that_failed_without_a_log_file_says_where_the_output_is(start, tmp_path):
    env = tmp_path / "env"
    env.mkdir()
    run = start("--envdir", str(env))
    run.wait("serving")
    (env / "DIE").write_text("3")
    done = ask(run, "reload", "--wait")
    assert done.returncode == 1
    assert "sidecar reload: there is no --log-file: what the new workers wrote is" in done.stderr
    assert run.stop() == 0


def test_what_changed_in_the_envdir_is_named_whatever_began_the_swap(start, tmp_path):
    """By name, and against what serves."""
    env = tmp_path / "env"
    env.mkdir()
    (env / "GONE").write_text("x")
    run = start("--envdir", str(env))
    run.wait("serving")
    ask(run, "reload", "--wait")
    assert run.seen("environment_changed") == []
    (env / "GONE").unlink()
    (env / "NEW").write_text("hunter2")
    assert ask(run, "reload", "--wait").returncode == 0
    (told,) = run.seen("environment_changed")
    assert told["names"] == ["GONE", "NEW"]
    assert "hunter2" not in str(told)
    assert run.stop() == 0


def worked(pid: int) -> int:
    """How long a process has been on a processor (nanoseconds)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def test_status_with_many_workers_costs_no_more_than_in_proportion(start):
    """A hundred times the workers, and no more than two hundred times the work of PID 1 (its time on
    a processor, whoever else is busy): nothing in it is quadratic.
    """
    program = (sys.executable, "-S", "-c", "import signal; signal.pause()")
    took = {}
    for workers in (2, 200):
        run = start(
            "--workers",
            str(workers),
            "--ready",
            "interval",
            "--interval",
            "0",
            program=program,
            port=False,
        )
        run.wait("serving")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(run.control)
            reader = sock.makefile("rb")
            times = []
            for _ in range(9):
                before = worked(run.pid)
                sock.sendall(b'{"command": "status"}\n')
                told = json.loads(reader.readline())
                times.append(worked(run.pid) - before)
            assert sum(len(each["workers"]) for each in told["generations"]) == workers
            took[workers] = sorted(times)[len(times) // 2]
        assert run.stop() == 0
    assert took[200] < 200 * took[2]


def test_watch_shows_it_again_and_again_in_place_until_ctrl_c(run):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, command(run, "status", "--watch"), environment())
    try:
        shown = b""
        while shown.count(b"\x1b[H\x1b[J") < 2:
            shown += os.read(terminal, 4096)
        assert b"generation" in shown.lower()
        os.write(terminal, b"\x03")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
        while select.select([terminal], [], [], 0)[0]:
            try:
                shown += os.read(terminal, 4096)
            except OSError:
                break
        assert b"Traceback" not in shown
    finally:
        os.close(terminal)


def test_watch_ends_when_sidecar_does(run, asking):
    watching = asking(run, "status", "--watch")
    watching.line("last swap")
    assert run.stop() == 0
    returned, _, err = watching.end()
    assert returned == 3
    assert "sidecar has left" in err


# --- reload


def test_a_reload_that_is_waited_for_tells_what_happens_and_loses_no_request(run):
    with Load(run.port) as load:
        for number in range(2, 7):
            done = ask(run, "reload", "--wait")
            assert (done.returncode, done.stderr) == (0, "")
            lines = done.stdout.splitlines()
            assert f"generation {number} begins (trigger: command)" in lines[0]
            assert f"generation {number} serves" in lines[-1]
    assert load.failures == []
    assert run.wait("swap_started", generation=2)["trigger"] == "command"


def test_a_reload_that_is_not_waited_for_ends_at_once(run):
    done = ask(run, "reload")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    run.wait("serving", generation=2)


def test_a_reload_whose_generation_never_gets_ready_is_not_waited_for_longer_than_asked(
    start, tmp_path
):
    (tmp_path / "env").mkdir()
    run = start("--envdir", str(tmp_path / "env"))
    run.wait("serving")
    (tmp_path / "env" / "NEVER").write_text("1")
    done = ask(run, "reload", "--wait", "--timeout", "500ms")
    assert done.returncode == 4
    assert "no answer in time" in done.stderr
    assert run.get().startswith("hello 1 ")


def test_reloads_during_a_swap_are_one_more_swap_and_all_hear_of_it(start, tmp_path, asking):
    (tmp_path / "env").mkdir()
    run = start("--envdir", str(tmp_path / "env"))
    run.wait("serving")
    (tmp_path / "env" / "BOOT").write_text("2")
    ask(run, "reload")
    run.wait("worker_started", generation=2)
    several = [asking(run, "reload", "--wait", "--json") for _ in range(4)]
    for each in several:
        returned, out, _ = each.end()
        assert returned == 0
        assert json.loads(out.splitlines()[-1]) == {"generation": 3, "done": 0}
    assert len(run.seen("swap_started")) == 3


def test_a_reload_that_a_saved_file_supersedes_ends_with_the_newer_generation(
    start, tmp_path, asking
):
    code, env = tmp_path / "code", tmp_path / "env"
    code.mkdir()
    env.mkdir()
    run = start("--watch", str(code), "--envdir", str(env))
    run.wait("serving")
    run.wait("watching")
    (env / "NEVER").write_text("1")
    waiting = asking(run, "reload", "--wait")
    waiting.line("generation 2: worker 0 started")
    (env / "NEVER").unlink()
    (code / "app.py").write_text("saved")
    waiting.line("generation 2 is given up")
    returned, out, _ = waiting.end()
    assert returned == 0
    assert "generation 3 serves" in out


def test_a_stop_ends_a_reload_that_waits_and_refuses_the_next(start, tmp_path, asking):
    (tmp_path / "env").mkdir()
    run = start("--lame-duck", "1h", "--envdir", str(tmp_path / "env"))
    run.wait("serving")
    (tmp_path / "env" / "NEVER").write_text("1")
    waiting = asking(run, "reload", "--wait")
    waiting.line("generation 2: worker 0 started")
    assert ask(run, "stop").returncode == 0
    returned, _, err = waiting.end()
    assert (returned, err) == (1, "sidecar reload: sidecar is stopping\n")
    for words in (("reload",), ("reload", "--wait"), ("scale", "+1")):
        done = ask(run, *words)
        assert (done.returncode, done.stderr) == (1, f"sidecar {words[0]}: sidecar is stopping\n")
    assert run.get().startswith("hello 1 ")
    assert run.stop("INT") == 0


def test_a_reload_ends_when_sidecar_gives_up(start, asking):
    run = start("--max-failures", "2", env={"BOOT": "0.5", "DIE": "3"})
    run.wait("worker_started")
    waiting = asking(run, "reload", "--wait")
    returned, _, err = waiting.end()
    assert returned == 1
    assert "exited with status 3" in err
    assert run.exit() == 3


# --- stop


def listening(port: int) -> set[str]:
    """The inodes of the IPv4 sockets that listen on this port (proc(5), /proc/net/tcp)."""
    rows = [each.split() for each in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}


def test_a_stop_that_is_waited_for_ends_when_sidecar_has_left(run):
    with Load(run.port) as load:
        before = load.answered
        until(lambda: load.answered > before + 10, "some answers")
    assert load.failures == []
    there = listening(run.port)
    assert there
    done = ask(run, "stop", "--wait")
    assert done.returncode == 0
    assert "stopped, status 0" in done.stdout.splitlines()[-1]
    # The port itself may be another test's by now.
    assert not there & listening(run.port)
    assert not os.path.exists(run.control)
    assert run.exit() == 0


def test_a_stop_that_takes_too_long_says_so_and_goes_on(start):
    run = start("--drain-timeout", "1h", env={"DEAF": "1"})
    run.wait("serving")
    assert ask(run, "stop", "--wait", "--timeout", "300ms").returncode == 4
    # As with TERM: the second one does not wait.
    assert ask(run, "stop", "--wait").returncode == 0
    assert run.exit() == 0


def test_whoever_waits_when_sidecar_is_killed_is_told(run, asking):
    waiting, stopping = asking(run, "events", "--follow"), asking(run, "events", "-f")
    waiting.line("serves")
    stopping.line("serves")
    os.kill(run.pid, signal.SIGKILL)
    for each in (waiting, stopping):
        returned, _, err = each.end()
        assert returned == 3
        assert "sidecar has left" in err
    assert ask(run, "status").returncode == 3


# --- scale, signal


def test_scale_changes_the_number_of_workers_and_loses_no_request(run):
    with Load(run.port) as load:
        for word, size in (("4", 4), ("+1", 5), ("-3", 2), ("1", 1), ("3", 3)):
            done = ask(run, "scale", word)
            assert (done.returncode, done.stdout) == (0, f"{size} workers from now on\n")
            until(lambda size=size: len(run.workers()) == size, f"{size} workers")
    assert load.failures == []
    assert status(run)["workers"] == 3


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("0", "there is one worker at least; `sidecar stop` ends all of them"),
        ("-5", "and one stays at least; `sidecar stop` ends all of them"),
        ("+0", "say how many more"),
    ],
)
def test_scaling_to_nothing_is_refused_and_changes_nothing(run, word, said):
    done = ask(run, "scale", word)
    assert done.returncode == 2
    assert said in done.stderr
    assert run.seen("scaled") == []


def test_signal_passes_one_on_to_the_serving_workers(run):
    done = ask(run, "signal", "usr1")
    assert done.returncode == 0
    assert done.stdout == f"passed to {', '.join(map(str, run.workers()))}\n"
    until(
        lambda: {f"USR1 {pid}" for pid in run.workers()} <= set(run.output),
        "what the program says of it",
    )


def test_signal_is_not_passed_to_a_program_that_would_end_of_it(start):
    run = start("--ready", "interval", program=("sleep", "3600"))
    run.wait("serving")
    done = ask(run, "signal", "usr1")
    assert done.returncode == 1
    assert f"not sent: no handler for SIGUSR1 in {run.workers()[0]}" in done.stderr
    assert ask(run, "signal", "WINCH").returncode == 0  # this ends nobody
    run.swap(2)
    assert run.seen("worker_died") == []


# --- events


def test_events_are_the_lines_of_the_log(run):
    run.swap(2)
    ours = ask(run, "events").stdout.splitlines()
    assert [line.partition("sidecar: ")[2] for line in ours] == [
        each["message"] for each in run.events[: len(ours)]
    ]
    records = [json.loads(line) for line in ask(run, "events", "--json").stdout.splitlines()]
    assert records[-1] == {"done": 0}
    assert [each["event"] for each in records[:-1]] == [
        each["event"] for each in run.events[: len(ours)]
    ]
    assert [each["number"] for each in records[:-1]] == list(range(1, len(ours) + 1))


def test_who_follows_hears_everything_to_the_end(run, asking):
    following = asking(run, "events", "--follow", "--json")
    following.line('"serving"')
    run.swap(2)
    run.stop()
    returned, out, _ = following.end()
    records = [json.loads(line) for line in out.splitlines()]
    assert returned == 0
    assert records[-1] == {"done": 0}
    assert records[-2]["event"] == "stopped"


def test_a_pipe_that_has_had_enough_ends_it_quietly(run):
    line = (
        " ".join(command(run, "events", "--follow")) + " | head -n 3; echo status ${PIPESTATUS[0]}"
    )
    with subprocess.Popen(
        ["bash", "-c", line],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        assert all("sidecar: " in each for each in lines)
        number = 1
        while not select.select([process.stdout], [], [], 0.2)[0]:
            number += 1
            run.swap(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (out, err) == ("status 0\n", "")


def test_what_a_check_wrote_and_what_an_envdir_holds_is_in_no_answer(start, tmp_path):
    """Promise 7. Names are told, values never."""
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "PASSWORD").write_text("Tr0ub4dor")
    check = tmp_path / "check"
    check.write_text('#!/bin/sh\necho "the password is $PASSWORD"\ntest ! -e env/BAD\n')
    check.chmod(0o755)
    run = start(
        "--envdir", str(tmp_path / "env"), "--watch-env", "--check", str(check), cwd=tmp_path
    )
    run.wait("serving")
    following = Asking(run, "events", "--follow", "--json")
    (tmp_path / "env" / "PASSWORD").write_text("c0rrecthorse")
    run.wait("serving", generation=2)
    (tmp_path / "env" / "BAD").write_text("st4ple")
    run.wait("swap_failed")
    said = ask(run, "reload", "--wait")
    assert said.returncode == 1
    words = (
        "status",
        "status --json",
        "events",
        "events --json",
        "health --json",
        "signal CONT --json",
        "scale 2 --json",
    )
    answers = [ask(run, *each.split()) for each in words]
    run.stop()
    told = "".join(each.stdout + each.stderr for each in [said, *answers]) + following.end()[1]
    assert "PASSWORD" in told
    for secret in ("Tr0ub4dor", "c0rrecthorse", "st4ple", "the password is"):
        assert secret not in told
    assert any("the password is" in each.get("output", "") for each in run.events), (
        "the log has it, so this test could fail"
    )


# --- health


def test_health_in_every_state(start, tmp_path):
    def health(word: str = "--ready") -> tuple[int, str]:
        done = ask(run, "health", word)
        return done.returncode, done.stdout.strip() or done.stderr.strip()

    gate = tmp_path / "env"
    gate.mkdir()
    (gate / "BOOT").write_text("2")
    run = start(
        "--lame-duck", "1h", "--envdir", str(gate), "--max-failures", "0", "--min-uptime", "0"
    )
    run.wait("worker_started")
    assert health() == (1, "sidecar health: starting: no worker has been ready yet")
    assert health("--live") == (0, "alive")
    run.wait("serving")
    assert (health(), health("--live")) == ((0, "ready"), (0, "ready"))
    run.signal("HUP")
    run.wait("worker_started", generation=2)
    assert health() == (0, "ready"), "during a swap"
    run.wait("serving", generation=2)
    run.alone(2)
    (gate / "NEVER").write_text("1")
    for pid in run.workers():
        os.kill(pid, signal.SIGKILL)
    run.wait("worker_died", generation=2)
    assert health() == (1, "sidecar health: no worker is ready")
    assert health("--live") == (0, "alive")
    assert run.stop("INT") == 0
    assert health()[0] == 3


def test_health_in_lame_duck_says_no_while_requests_are_answered(start):
    run = start("--lame-duck", "1h")
    run.wait("serving")
    run.signal("TERM")
    run.wait("stopping")
    done = ask(run, "health")
    assert (done.returncode, done.stderr) == (1, "sidecar health: stopping: lame duck\n")
    assert run.get().startswith("hello")
    assert run.stop("INT") == 0


def test_a_sidecar_that_hangs_is_not_healthy(run):
    """Stopped, it answers nobody: the probe gives up in time of its own."""
    os.kill(run.pid, signal.SIGSTOP)
    try:
        assert ask(run, "health", "--timeout", "200ms").returncode == 4
    finally:
        os.kill(run.pid, signal.SIGCONT)
    assert ask(run, "health").returncode == 0


# --- whom to ask


def test_the_only_one_there_is_found_and_of_several_none_is_guessed(sidecar, tmp_path):
    env = environment(TMPDIR=str(tmp_path), XDG_RUNTIME_DIR="")
    words = [sys.executable, "-c", "import sys; from sidecar.control import client; from sidecar.control import paths as whereabouts; here = sys.argv.pop(1)\n"
             "whereabouts.places = client.places = lambda environ: [here]\n"
             "sys.exit(client.run(sys.argv[1], sys.argv[2:], {}))", str(tmp_path)]  # fmt: skip

    def tell(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*words, *more], env=env, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
        )

    assert (tell("status").returncode, tell("status").stderr) == (
        3,
        "sidecar status: no sidecar runs here; say --control PATH\n",
    )
    one = sidecar("--control", str(tmp_path / "sidecar-7.sock"))
    one.wait("serving")
    assert tell("health").returncode == 0
    two = sidecar("--control", str(tmp_path / "sidecar-8.sock"))
    two.wait("serving")
    refusal = tell("stop")
    assert refusal.returncode == 3
    assert str(tmp_path / "sidecar-7.sock") in refusal.stderr
    assert str(tmp_path / "sidecar-8.sock") in refusal.stderr
    three = sidecar("--control", str(tmp_path / "sidecar-1.sock"))
    three.wait("serving")
    assert json.loads(tell("status", "--json").stdout)["pid"] == three.pid, (
        "PID 1's is the container's own"
    )
    # One that was killed leaves its socket behind, which misleads nobody.
    for each in (three, two):
        os.kill(each.pid, signal.SIGKILL)
        each.process.wait()
    assert json.loads(tell("status", "--json").stdout)["pid"] == one.pid
    assert one.stop() == 0


# --- impostors

IMPOSTOR = r"""
import os, socket, sys
os.setgid(4242); os.setuid(4242)
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
sock.listen()
print("listens", flush=True)
while True:
    one = sock.accept()[0]
    asked = one.recv(4096)
    if asked:
        print(asked.decode(), flush=True)
    try:
        one.sendall(b'{"ready": true, "generation": 1, "pid": 4242, "done": 0}\n')
    except OSError:
        pass  # who did not believe it has left; `health` comes a second time
    one.close()
"""


@pytest.fixture
def impostor() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Starts who listens at a path as uid 4242, and says yes to everything."""
    made: list[subprocess.Popen[str]] = []

    def make(path: Path) -> subprocess.Popen[str]:
        made.append(
            subprocess.Popen(
                [sys.executable, "-c", IMPOSTOR, str(path)], stdout=subprocess.PIPE, text=True
            )
        )
        assert made[-1].stdout.readline() == "listens\n"
        return made[-1]

    yield make
    for each in made:
        each.kill()
        each.communicate()


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A directory as /tmp is."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o1777)
        yield Path(place)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize(
    "words", [("health",), ("health", "--live"), ("health", "--json"), ("status",), ("reload",)]
)
@pytest.mark.parametrize("how", ["found", "named", "named in the environment"])
def test_nobody_believes_an_impostor(words, how, impostor, anybodys):
    """Neither what it says nor that it is there: it is asked nothing."""
    path = anybodys / "sidecar-1.sock"
    there = impostor(path)
    more = ("--control", str(path)) if how == "named" else ()
    environ = environment()
    if how == "named in the environment":
        environ["SIDECAR_CONTROL"] = str(path)
    start = (
        "import sys; from sidecar.cli import main as cli\n"
        "from sidecar.control import client, health as probe; here = sys.argv.pop(1)\n"
        "probe.places = client.places = lambda environ: [here]\nsys.exit(cli.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", start, str(anybodys), *words, *more], cwd=ROOT, env=environ,
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert f"who listens at {path} is not to be trusted: it is uid 4242" in done.stderr
    there.kill()
    assert there.stdout.read() == ""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_the_real_one_is_found_beside_impostors(sidecar, impostor, anybodys, tmp_path):
    run = sidecar("--control", str(tmp_path / "sidecar-7.sock"))
    run.wait("serving")
    impostor(anybodys / "sidecar-1.sock")
    own = anybodys / "own"
    there = impostor(own)
    # It may have the name of its own process: it is believed to be that user's, who may run one.
    os.rename(own, anybodys / f"sidecar-{there.pid}.sock")
    start = (
        "import sys; from sidecar.cli import main as cli\n"
        "from sidecar.control import client, health as probe; here = sys.argv.pop(1).split()\n"
        "probe.places = client.places = lambda environ: here\nsys.exit(cli.main())"
    )
    for places in (f"{tmp_path} {anybodys}", f"{anybodys} {tmp_path}"):
        done = subprocess.run(
            [sys.executable, "-c", start, places, "status", "--json"], cwd=ROOT, env=environment(),
            capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert json.loads(done.stdout)["pid"] == run.pid, done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
@open_to_others
def test_root_may_ask_a_users_sidecar(anybodys):
    """In a container whose user is not root, `docker exec -u 0`."""
    mine = anybodys / "mine"
    mine.mkdir(mode=0o755)
    os.chown(mine, 4242, 4242)
    run = Sidecar(
        "--control", str(mine / "control.sock"), user=4242, group=4242, extra_groups=(),
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        run.wait("serving")
        run.control = str(mine / "control.sock")
        assert ask(run, "health").stdout == "ready\n"
        # Its name says whose process it is.
        os.rename(mine / "control.sock", anybodys / f"sidecar-{run.pid}.sock")
        run.control = str(anybodys / f"sidecar-{run.pid}.sock")
        assert ask(run, "health").stdout == "ready\n"
        os.rename(run.control, anybodys / "control.sock")
        run.control = str(anybodys / "control.sock")
        assert "is not to be trusted" in ask(run, "health").stderr
    finally:
        run.clean_up()


# --- what a terminal would obey


def test_a_files_name_moves_nobodys_cursor(start, tmp_path, asking):
    """Whoever may save a file could write over what is on the screen: in the log and in `events`."""
    tree = tmp_path / "tree"
    tree.mkdir()
    out = tmp_path / "log"
    out.touch()
    run = start("--watch", str(tree), "--log-format", "text", "--log-file", str(out))
    until(lambda: "watching" in out.read_text(), "the watcher")
    (tree / "a\x1b[2J\x9b1m\u202eb\nc.py").write_text("x")
    until(lambda: "changed:" in out.read_text(), "the change")
    name = "a\\x1b[2J\\x9b1m\\u202eb"
    for text in (out.read_text(), ask(run, "events").stdout):
        assert name in text
        assert not set(text) & set("\x1b\x9b\u202e")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("status", "--nonsense"), "--nonsense"), (("reload", "--wiat"), "--wait"), (("scale",), "say how many"), (("scale", "x"), "how"),
        (("signal", "KILL"), "no signal a program can answer"), (("signal",), "say which"), (("reload", "--timeout"), "value is missing"),
        (("reload", "--timeout", "soon"), "no duration"), (("stop", "--watch"), "for status"), (("health", "--ready", "--live"), "ask one"),
        (("events", "now"), "now"),
    ],
)  # fmt: skip
def test_words_that_make_no_sense_are_named_and_nothing_is_asked(words, told):
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert f"usage: sidecar {words[0]}" in done.stderr


def test_a_socket_that_is_turned_off_or_not_there_is_said(tmp_path):
    for value, told in (("none", "turned off"), (str(tmp_path / "nothing"), "No such file")):
        for name in ("status", "health"):
            words = [sys.executable, "-m", "sidecar", name]
            done = subprocess.run(
                words,
                env=environment(SIDECAR_CONTROL=value),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 3
            assert told in done.stderr


def test_without_a_place_for_a_socket_it_is_said_once_and_everything_else_works(tmp_path):
    """As under a read-only root: all of the usual places are, for whoever is not root, not there."""
    code = "import sys; from sidecar.control import server as control\n"
    code += "from sidecar.cli import main as cli; control.places = lambda environ: ['/proc', '/nonexistent']; sys.exit(cli.main())"
    words = [sys.executable, "-c", code, "run", "--port", "127.0.0.1:0", "--", *SERVER]
    log = tmp_path / "log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            words, env=environment(), cwd=ROOT, stderr=stderr, stdin=subprocess.DEVNULL
        ) as process,
    ):
        try:
            until(lambda: " serves after" in log.read_text(), "generation 1")
            process.send_signal(signal.SIGHUP)
            until(lambda: "generation 2 serves after" in log.read_text(), "generation 2")
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
    assert log.read_text().count("has nobody to ask here") == 1


def test_two_sidecars_cannot_have_one_path(start, run):
    second = start()
    assert second.process.wait(PATIENCE) == 1
    until(lambda: any("in use" in line for line in second.output), "the refusal")
    assert ask(run, "health").returncode == 0


# --- whatever clients do, PID 1 goes on


def switches(run: Sidecar) -> int:
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{run.pid}/status").read_text().splitlines()
    )
    return int(status["voluntary_ctxt_switches"])


def test_once_everybody_has_left_it_is_never_woken_again(run):
    for words in (("status",), ("events",), ("health",), ("scale", "+1"), ("reload", "--wait")):
        assert ask(run, *words).returncode == 0
    run.wait("generation_ended", generation=1)
    until(lambda: switches(run) == (time.sleep(0.2), switches(run))[1], "the loop's rest")
    before = switches(run)
    time.sleep(2 * server.PATIENCE / 5)
    assert switches(run) == before


def test_clients_of_every_bad_kind_at_once_hold_nothing_up(run):
    """The silent, the deaf, the flooding and the malformed, a thousand in all: requests are
    answered, swaps go on, commands too.
    """
    peers: list[socket.socket] = []

    def connect(data: bytes) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(run.control)
            sock.send(data)
        except OSError:
            pass
        peers.append(sock)

    with Load(run.port) as load:
        for number in range(200):
            connect(b"")
            connect(b'{"command": "sta')
            connect(b"\xff\0{[" * 100 + b"\n" + b"x" * 5000)
            connect(b'{"command": "status"}\n' * 2000)
            if number % 10 == 0:
                connect(b'{"command": "events", "follow": true}\n')
        done = subprocess.Popen(command(run, "health"), env=environment())
        for number in (2, 3, 4):
            run.swap(number)
        assert done.wait(PATIENCE) == 0
        before = load.answered
        until(lambda: load.answered > before + 50, "answers")
    assert load.failures == []
    for each in peers:
        each.close()
    assert status(run)["generation"] == 4
    assert run.stop() == 0


def test_a_thousand_commands_at_once_are_all_answered(run):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], min(4096, limits[1])), limits[1]))
    peers = []
    try:
        with Load(run.port) as load:
            for _ in range(1000):
                peers.append(socket.socket(socket.AF_UNIX))
                peers[-1].settimeout(PATIENCE)
                peers[-1].connect(run.control)
            for each in peers:
                each.sendall(b'{"command": "health"}\n')
            for each in peers:
                assert json.loads(each.recv(1000)) == {"ready": True, "done": 0}
                each.close()
        assert load.failures == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in peers:
            each.close()
    assert run.stop() == 0


def test_a_client_that_comes_while_it_leaves_does_not_hang(start):
    """From the stop on, clients ask without pause, until nobody answers: each is answered or
    refused.
    """
    run = start("--drain-timeout", "500ms", env={"DEAF": "1"})
    run.wait("serving")
    run.signal("TERM")
    outcomes = set()
    while alive(run.pid):
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(PATIENCE)
                sock.connect(run.control)
                sock.sendall(b'{"command": "health"}\n')
                outcomes.add("answered" if sock.recv(1000) else "hung up on")
        except TimeoutError:
            raise
        except OSError as error:
            outcomes.add(type(error).__name__)
    assert "answered" in outcomes
    assert run.exit() == 0


def test_clients_that_wait_while_it_leaves_cost_it_nothing(start, tmp_path, asking):
    """The log command takes its time to write out what it has; a client that came too late for an
    answer must not make the wait a spin.
    """
    run = start(
        "--log-file",
        f"| cat > {tmp_path}/out; while test ! -e {tmp_path}/enough; do sleep 0.05; done",
    )
    until(
        lambda: (tmp_path / "out").exists() and '"serving"' in (tmp_path / "out").read_text(),
        "generation 1",
    )
    run.signal("TERM")
    until(lambda: '"stopped"' in (tmp_path / "out").read_text(), "the last word")

    def cpu() -> int:
        return sum(
            map(int, Path(f"/proc/{run.pid}/stat").read_text().rpartition(")")[2].split()[11:13])
        )

    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(run.control)
        sock.sendall(b'{"command": "health"}\n')
        before = cpu()
        time.sleep(1.0)  # what is measured
        spent = cpu() - before
        (tmp_path / "enough").touch()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert spent < os.sysconf("SC_CLK_TCK") / 4
    assert run.exit() == 0


BROKEN = """
import sys
from sidecar.cli import main as cli
from sidecar.control import commands
from sidecar.host.control_desk import ControlDesk
def broken(*_): raise RuntimeError("a secret could be in here")
ControlDesk.status = broken
commands.Following.heard = broken
sys.exit(cli.main())
"""


def test_a_defect_in_an_answer_is_said_and_hurts_nobody_else(tmp_path, asking):
    log = tmp_path / "log"
    words = [
        sys.executable,
        "-c",
        BROKEN,
        "run",
        "--port",
        "127.0.0.1:0",
        "--control",
        str(tmp_path / "control"),
        "--",
        *SERVER,
    ]
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            words, env=environment(), cwd=ROOT, stderr=stderr, stdin=subprocess.DEVNULL
        ) as process,
    ):
        try:
            process.control = str(tmp_path / "control")
            until(lambda: " serves after" in log.read_text(), "generation 1")
            done = ask(process, "status")
            assert (done.returncode, done.stderr) == (
                1,
                "sidecar status: a defect in sidecar: its log says where\n",
            )
            asking(process, "events", "--follow").line("serves")
            assert ask(process, "reload", "--wait").returncode == 0
            assert ask(process, "health").returncode == 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
    assert log.read_text().count("a defect in sidecar: RuntimeError at <string>:6") == 2
    assert "secret" not in log.read_text()


# --- --log-file


@pytest.mark.parametrize("how", ["USR1", "HUP", "signal USR1"])
def test_the_log_file_is_opened_anew(start, tmp_path, how):
    """For who rotates it: by USR1, by HUP, and by the command, where there is no `kill`. The output
    of the workers goes there too.
    """
    log = tmp_path / "log"
    log.write_text("before\n")
    run = start(
        "--log-file",
        str(log),
        program=("sh", "-c", "echo a worker speaks; exec " + " ".join(SERVER)),
    )
    until(lambda: '"serving"' in log.read_text(), "generation 1 in the file")
    assert log.read_text().startswith("before\n")
    assert "a worker speaks\n" in log.read_text()
    log.rename(tmp_path / "log.1")
    if how == "signal USR1":
        assert ask(run, "signal", "USR1").returncode == 0
    else:
        run.signal(how)
    until(log.exists, "the new file")
    os.kill(run.pid, signal.SIGTTIN)
    until(lambda: '"scaled"' in log.read_text(), "the next event in the new file")
    assert '"scaled"' not in (tmp_path / "log.1").read_text()
    assert run.stop() == 0
    assert '"stopped"' in log.read_text()
    assert run.events == []


def test_a_log_file_may_be_rotated_by_copying_and_truncating(start, tmp_path):
    """logrotate's copytruncate: who writes need not be told, for everything is appended."""
    log = tmp_path / "log"
    run = start("--log-file", str(log))
    until(lambda: log.exists() and '"serving"' in log.read_text(), "generation 1 in the file")
    os.truncate(log, 0)
    assert ask(run, "signal", "USR1").returncode == 0
    until(lambda: "USR1" in log.read_text(), "what the worker has to say")
    assert ask(run, "scale", "2").returncode == 0
    until(lambda: '"scaled"' in log.read_text(), "sidecar's next line")
    assert "\0" not in log.read_text()
    assert '"serving"' not in log.read_text()
    assert "another file now" not in log.read_text()
    assert run.stop() == 0


def test_a_log_file_that_was_renamed_goes_on_being_the_workers_and_that_is_said(start, tmp_path):
    log = tmp_path / "log"
    run = start("--log-file", str(log))
    until(lambda: log.exists() and '"serving"' in log.read_text(), "generation 1 in the file")
    log.rename(tmp_path / "log.1")
    run.signal("USR1")
    until(lambda: log.exists() and "another file now" in log.read_text(), "the remark")
    log.rename(tmp_path / "log.2")
    run.signal("HUP")
    until(lambda: log.exists() and '"serving"' in log.read_text(), "generation 2 in the file")
    assert "another file now" not in log.read_text()
    assert run.stop() == 0


def test_a_log_file_that_cannot_be_opened_anew_is_said_in_the_old_one(start, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    run = start("--log-file", str(place / "log"))
    until(
        lambda: (place / "log").exists() and '"serving"' in (place / "log").read_text(),
        "generation 1 in the file",
    )
    place.rename(tmp_path / "other")
    run.signal("USR1")
    until(
        lambda: "cannot reopen the log" in (tmp_path / "other" / "log").read_text(), "the complaint"
    )
    assert run.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and a directory of somebody else")
@pytest.mark.parametrize("trap", [os.symlink, os.link, lambda _, path: os.mkfifo(path)])
def test_a_log_file_exchanged_by_the_workers_user_is_not_opened_anew(start, tmp_path, trap):
    """A link would have root append to any file, a pipe hold it up for ever: the old file stays."""
    place, secret = tmp_path / "place", tmp_path / "secret"
    place.mkdir()
    os.chown(place, 4242, 4242)
    secret.touch(0o600)
    log = place / "log"
    run = start("--log-file", str(log))
    until(lambda: log.exists() and '"serving"' in log.read_text(), "generation 1 in the file")
    log.rename(place / "log.1")
    trap(secret, log)
    if log.is_symlink():
        os.lchown(log, 4242, 4242)
    run.signal("USR1")
    until(lambda: "cannot reopen the log" in (place / "log.1").read_text(), "the complaint")
    assert run.stop() == 0
    assert '"stopped"' in (place / "log.1").read_text()
    assert secret.read_text() == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and a directory of somebody else")
def test_a_pid_file_that_is_a_link_of_the_workers_user_is_refused(start, tmp_path):
    place, secret = tmp_path / "place", tmp_path / "secret"
    place.mkdir()
    os.chown(place, 4242, 4242)
    secret.write_text("secret")
    (place / "pid").symlink_to(secret)
    os.lchown(place / "pid", 4242, 4242)
    run = start("--pid-file", str(place / "pid"))
    assert run.process.wait(PATIENCE) == 1
    until(lambda: any("it is a symbolic link" in line for line in run.output), "the refusal")
    assert secret.read_text() == "secret"


def test_a_log_file_that_is_a_pipe_stays_that_pipe(start, tmp_path):
    """Opening it anew could wait for a reader for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    run = start("--log-file", str(pipe))
    until(lambda: os.path.exists(run.control), "its start")
    os.set_blocking(reading, True)
    said = ""
    with open(reading) as file:
        while '"serving"' not in said:
            said += file.readline()
        pipe.unlink()
        assert ask(run, "signal", "USR1").returncode == 0
        assert run.stop() == 0
        said += file.read()
    assert '"stopped"' in said
    assert "cannot reopen" not in said


def test_a_log_file_that_cannot_be_opened_is_refused(start):
    run = start("--log-file", "/nonexistent/log")
    assert run.process.wait(PATIENCE) == 1
    until(lambda: any("/nonexistent/log" in line for line in run.output), "the refusal")


def test_the_output_may_go_to_a_command(start, tmp_path):
    run = start("--log-file", f"| cat > {tmp_path}/out")
    until(
        lambda: (tmp_path / "out").exists() and '"serving"' in (tmp_path / "out").read_text(),
        "the log in the command's hands",
    )
    assert run.stop() == 0
    assert '"stopped"' in (tmp_path / "out").read_text()
