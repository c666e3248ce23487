"""The settings file under a running sidecar: HUP changes all of it, or nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.support import PATIENCE, ROOT, SERVER, Load, free_port, get, until

COMMAND = json.dumps(list(SERVER))


class Reloaded:
    """A sidecar and its settings file."""

    def __init__(self, sidecar, tmp_path, text: str, *options: str, **keywords) -> None:
        self.file = tmp_path / "sidecar.yml"
        self.control = str(tmp_path / "control")
        self.write(text)
        options = ("--config", str(self.file), "--control", self.control, *options)
        self.run = sidecar(*options, program=(), port=False, **keywords)
        self.run.wait("serving")

    def write(self, text: str) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text if text.startswith("command:") else f"command: {COMMAND}\n{text}")
        fresh.replace(self.file)

    def reload(self, text: str, number: int) -> dict:
        """Write, HUP, and wait until generation `number` serves alone; what was said to have
        changed.
        """
        self.write(text)
        count = len(self.run.seen("settings_read")) + 1
        self.run.signal("HUP")
        read = self.run.wait("settings_read", count=count)
        self.run.wait("serving", generation=number)
        self.run.alone(number)
        return read["changed"]

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sidecar", *words, "--control", self.control],
            cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip

    def status(self) -> dict:
        return json.loads(self.ask("status", "--json").stdout)


@pytest.fixture
def reloaded(sidecar, tmp_path):
    return lambda text, *options, **keywords: Reloaded(
        sidecar, tmp_path, text, *options, **keywords
    )


def environment(port: int) -> dict[str, str]:
    return {
        name: value[1:-1]
        for name, _, value in (line.partition("=") for line in get(port, "/env").splitlines())
    }


def refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def test_the_usual_file_is_read_said_and_enough_to_run(sidecar, tmp_path):
    port = free_port()
    (tmp_path / "sidecar.yml").write_text(
        f"command: {COMMAND}\nport: 127.0.0.1:{port}\ncontrol: none\n"
    )
    run = sidecar(program=(), port=False, cwd=tmp_path)
    run.wait("serving")
    assert [each["file"] for each in run.seen("settings_read")] == ["sidecar.yml"]
    assert get(port).startswith("hello 1")
    assert run.stop() == 0


def test_command_directory_umask_environment_and_signals_are_those_of_now(reloaded, tmp_path):
    port = free_port()
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "GREETING").write_text("good evening")
    it = reloaded(f"port: 127.0.0.1:{port}\n")
    assert get(port).startswith("hello 1")
    with_more = json.dumps([*SERVER, "--more"])
    more = (
        f"dir: {tmp_path}\numask: 027\nenvdir: {tmp_path}/env\nsignal-on-term: QUIT\nworkers: 2\n"
    )
    changed = it.reload(f"command: {with_more}\nport: 127.0.0.1:{port}\n{more}", 2)
    assert changed == ["command", "workers", "envdir", "dir", "umask", "signal-on-term"]
    about = json.loads(get(port, "/about"))
    assert (about["argv"][1:], about["directory"], about["umask"]) == (
        ["--more"],
        str(tmp_path),
        0o27,
    )
    assert get(port).startswith("good evening 2")
    assert environment(port)["SIDECAR_WORKERS"] == "2"
    assert len(it.run.workers()) == 2
    it.run.signal("TERM")
    assert it.run.wait("stopping")["sending"] == "QUIT"
    assert it.run.exit() == 0
    assert {each["cause"] for each in it.run.seen("worker_exited", generation=2)} == {
        "killed by SIGQUIT"
    }


def test_how_an_envdir_is_named_and_who_leaves_first_are_those_of_now(reloaded, tmp_path):
    """The swap that reads them already goes by them, and so does the watcher."""
    port = free_port()
    env = tmp_path / "env"
    env.mkdir()
    (env / "db-host").write_text("a")
    usual = f"port: 127.0.0.1:{port}\nwatch-env: yes\n"
    it = reloaded(f"{usual}envdir: {env}\n")
    assert environment(port)["db-host"] == "a"
    it.run.wait("watching")
    changed = it.reload(f"{usual}envdir: '{env},upper,prefix=APP_'\noverlap: never\n", 2)
    assert changed == ["envdir", "overlap"]
    assert it.run.seen("overlap_skipped", generation=2)[0]["why"] == "--overlap never"
    found = environment(port)
    assert (found["APP_DB_HOST"], "db-host" in found) == ("a", False)
    it.run.wait("watching", count=2)
    (env / "db-host").write_text("b")
    assert it.run.wait("serving", count=3)["changed"] == ["APP_DB_HOST"]
    assert environment(port)["APP_DB_HOST"] == "b"


def test_the_log_s_format_is_that_of_now(tmp_path):
    """In a process of its own: what the other tests start has --log-format json, and a flag wins."""
    file, log = tmp_path / "sidecar.yml", tmp_path / "log"
    file.write_text(f"command: {COMMAND}\nready: interval\ninterval: 1ms\ncontrol: none\n")
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "run"],
            cwd=tmp_path,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    try:
        until(lambda: "sidecar: generation 1 serves" in log.read_text(), "a line of text")
        file.write_text(file.read_text() + "log-format: json\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: '"event": "serving"' in log.read_text(), "a line of JSON")
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_times_readiness_and_check_are_those_of_now(reloaded):
    port = free_port()
    it = reloaded(f"port: 127.0.0.1:{port}\n", env={"DEAF": "1"})
    it.write(
        f"port: 127.0.0.1:{port}\ndrain-timeout: 50ms\nready: interval\ninterval: 10ms\ncheck: echo checked\nmax-surge: 1\n"
    )
    it.run.signal("HUP")
    assert it.run.wait("worker_ready", generation=2)["by"] == "interval"
    assert it.run.wait("check_output")["output"] == "checked"
    assert it.run.wait("worker_killed")["generation"] == 1  # deaf: after 50 ms, not after 25 s
    it.run.wait("generation_ended", generation=1)
    it.reload(
        f"port: 127.0.0.1:{port}\ndrain-timeout: 50ms\nready: command\nready-command: ['true']\nstart-timeout: 7s\n",
        3,
    )
    assert it.run.wait("worker_ready", generation=3)["by"] == "command"
    assert len(it.run.seen("check_output")) == 1
    it.run.signal("TERM")
    assert it.run.exit() == 0


def test_readiness_may_become_notify(reloaded):
    port = free_port()
    it = reloaded(f"port: 127.0.0.1:{port}\n", env={"NOTIFY": ""})
    command = json.dumps(["env", "NOTIFY=1", *SERVER])
    it.reload(f"command: {command}\nport: 127.0.0.1:{port}\nready: notify\n", 2)
    assert it.run.wait("worker_ready", generation=2)["by"] == "notify"
    it.reload(f"port: 127.0.0.1:{port}\n", 3)
    assert it.run.wait("worker_ready", generation=3)["by"] == "accept"
    assert it.run.stop() == 0


def test_listeners_come_and_go_under_load_and_the_kept_one_loses_nothing(reloaded, tmp_path):
    kept, moving, other = free_port(), free_port(), free_port()
    it = reloaded(f"port: 127.0.0.1:{kept}\n")
    with Load(kept) as load:
        it.reload(f"port: [127.0.0.1:{moving}, 127.0.0.1:{kept}, 'unix:{tmp_path}/s']\n", 2)
        assert get(moving).startswith("hello 2")
        assert (
            environment(kept)["SERVER_STARTER_PORT"]
            == f"127.0.0.1:{moving}=3;127.0.0.1:{kept}=4;{tmp_path}/s=5"
        )
        it.reload(f"port: [127.0.0.1:{kept}, 127.0.0.1:{other}]\n", 3)
        it.run.wait("listener_closed", count=2)
        assert {each["address"] for each in it.run.seen("listener_closed")} == {
            f"127.0.0.1:{moving}",
            f"{tmp_path}/s",
        }
        assert refused(moving)
        assert not (tmp_path / "s").exists()
        assert get(other).startswith("hello 3")
        it.reload(f"port: [127.0.0.1:{kept}=7, '127.0.0.1:{moving},name=back']\n", 4)
        assert get(moving).startswith("hello 4")
        assert (
            environment(kept)["SERVER_STARTER_PORT"] == f"127.0.0.1:{kept}=7;127.0.0.1:{moving}=3"
        )
        it.reload(f"port: 127.0.0.1:{kept}\n", 5)
    assert load.failures == []
    assert load.answered > 50
    assert it.run.stop() == 0


def test_a_port_that_moved_answers_at_the_old_place_until_nobody_is_there(reloaded):
    """An old worker that still has a request to answer keeps the old socket; and a swap that fails
    keeps everything.
    """
    old, new = free_port(), free_port()
    it = reloaded(f"port: 127.0.0.1:{old}\nworkers: 2\n")
    it.run.wait("worker_ready", count=2)
    failing = json.dumps(["env", "DIE=3", *SERVER])
    it.write(f"command: {failing}\nport: 127.0.0.1:{new}\nworkers: 2\n")
    it.run.signal("HUP")
    it.run.wait("swap_failed")
    assert get(old).startswith("hello 1")
    # What serves is started again with the listeners and the command it was begun with.
    os.kill(it.run.workers()[0], signal.SIGKILL)
    it.run.wait("worker_ready", count=3, generation=1)
    assert environment(old)["SERVER_STARTER_PORT"] == f"127.0.0.1:{old}=3"
    assert it.run.seen("listener_closed") == []
    slow = socket.create_connection(("127.0.0.1", old))
    slow.sendall(b"GET /slow?2 HTTP/1.1\r\nHost: x\r\n\r\n")
    it.write(f"port: 127.0.0.1:{new}\nworkers: 2\n")
    it.run.signal("HUP")
    it.run.wait("serving", trigger="signal")
    assert get(new).startswith("hello")
    assert not refused(old)
    assert b"200" in slow.recv(100)
    slow.close()
    assert it.run.wait("listener_closed")["address"] == f"127.0.0.1:{old}"
    assert refused(old)
    assert it.run.stop() == 0


BAD = [
    "workers: 0\n",
    "worker: 2\n",
    "workers: 2\nworkers: 2\n",
    "workers: [2\n",
    "workers: {a: 1}\n",
    "ready: command\n",
    "envdir: /nowhere\n",
    "user: ${NOT_THERE}\n",
    "port: [127.0.0.1:TAKEN, 127.0.0.1:FREE]\n",
    "port: unix:/nowhere/s\n",
    "ready: accept\nport: []\n",
    "command: ''\n",
]


def test_a_bad_file_changes_nothing_in_twelve_ways_and_a_good_one_clears_it(reloaded):
    port, free = free_port(), free_port()
    it = reloaded(f"port: 127.0.0.1:{port}\n")
    before, fds = it.status(), len(os.listdir(f"/proc/{it.run.pid}/fd"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for count, bad in enumerate(BAD, 1):
            text = bad.replace("TAKEN", str(taken.getsockname()[1])).replace("FREE", str(free))
            it.write(text if "port" in text else f"{text}port: 127.0.0.1:{port}\n")
            it.run.signal("HUP")
            cause = it.run.wait("reload_rejected", count=count)["cause"]
            after = it.status()
            assert "; ".join(after["problems"]) == cause
            for name in ("generations", "listeners", "workers"):
                assert [str(each).partition("age")[0] for each in [after[name]]] == [
                    str(each).partition("age")[0] for each in [before[name]]
                ]
            assert refused(free)
        it.file.unlink()
        it.run.signal("HUP")
        assert "cannot be read" in it.run.wait("reload_rejected", count=len(BAD) + 1)["cause"]
    assert len(os.listdir(f"/proc/{it.run.pid}/fd")) == fds
    assert len(it.run.seen("swap_started")) == 1
    assert "cannot be read" in it.ask("status").stdout
    it.reload(f"port: 127.0.0.1:{port}\n", 2)
    assert it.status()["problems"] == []
    assert it.run.stop() == 0


def test_reload_wait_answers_with_what_came_of_it(reloaded):
    port = free_port()
    it = reloaded(f"port: 127.0.0.1:{port}\n")
    it.write(f"port: 127.0.0.1:{port}\nworkers: 2\n")
    done = it.ask("reload", "--wait")
    assert done.returncode == 0, done.stderr
    assert "generation 2 serves" in done.stdout
    it.run.alone(2)
    assert len(it.run.workers()) == 2
    it.write("worker: 2\n")
    done = it.ask("reload", "--wait")
    assert done.returncode == 1
    assert "worker: there is no such setting; did you mean workers?" in done.stderr
    failing = json.dumps(["env", "DIE=3", *SERVER])
    it.write(f"command: {failing}\nport: 127.0.0.1:{port}\n")
    done = it.ask("reload", "--wait")
    assert done.returncode == 1
    assert "exited with status 3" in done.stderr
    assert it.run.stop() == 0


def test_many_hups_while_the_file_is_read_are_one_more_reading_and_the_latest_wins(reloaded):
    port = free_port()
    it = reloaded(f"port: 127.0.0.1:{port}\n")
    for number in range(1, 31):
        it.write(f"port: 127.0.0.1:{port}\nstart-timeout: {number}m\nworkers: {1 + number % 2}\n")
        it.run.signal("HUP")
    it.write(f"port: 127.0.0.1:{port}\nworkers: 3\n")
    it.run.signal("HUP")
    until(
        lambda: it.status()["workers"] == 3 and it.status()["state"] == "serving", "three workers"
    )
    until(lambda: len(it.run.workers()) == 3, "the old ones' end")
    assert it.run.stop() == 0


def test_a_generation_that_is_coming_is_given_up_for_a_mended_file(reloaded):
    """Nobody waits a minute for a command that hangs once the file is right again."""
    port = free_port()
    it = reloaded(f"port: 127.0.0.1:{port}\n")
    hanging = json.dumps(["env", "NEVER=1", *SERVER])
    it.write(f"command: {hanging}\nport: 127.0.0.1:{port}\n")
    it.run.signal("HUP")
    it.run.wait("worker_started", generation=2)
    it.reload(f"port: 127.0.0.1:{port}\n", 3)
    assert it.run.wait("swap_superseded")["generation"] == 2
    assert it.run.stop() == 0


def test_what_cannot_change_is_named_once_and_stays(reloaded, tmp_path):
    port = free_port()
    it = reloaded(f"port: 127.0.0.1:{port}\npid-file: {tmp_path}/pid\n")
    it.reload(
        f"port: '127.0.0.1:{port},defer'\npid-file: {tmp_path}/other\nstatus-file: {tmp_path}/status\nuser: nobody\n",
        2,
    )
    remarks = [each["text"] for each in it.run.seen("notice")]
    assert len(remarks) == 2
    assert remarks[0].startswith(f"--port 127.0.0.1:{port},defer: defer, nonblock")
    assert remarks[1].startswith(
        "user, pid-file, status-file: this cannot change while sidecar runs"
    )
    assert (tmp_path / "pid").exists()
    assert not (tmp_path / "other").exists()
    assert json.loads(get(port, "/about"))["uids"][0] == os.getuid()
    assert it.run.stop() == 0


def test_the_watcher_goes_by_the_rules_of_now(reloaded, tmp_path):
    port = free_port()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    it = reloaded(f"port: 127.0.0.1:{port}\nwatch: {tmp_path}/a\n")
    it.run.wait("watching")
    it.reload(f"port: 127.0.0.1:{port}\nwatch: {tmp_path}/b\nwatch-only: '*.py'\n", 2)
    assert it.run.wait("watching", count=2)["roots"] == [f"{tmp_path}/b"]
    (tmp_path / "a" / "x.py").write_text("")
    (tmp_path / "b" / "x.txt").write_text("")
    (tmp_path / "b" / "x.py").write_text("")
    it.run.wait("serving", generation=3, trigger="watch")
    assert [path for each in it.run.seen("files_changed") for path in each["paths"]] == [
        f"{tmp_path}/b/x.py"
    ]
    it.reload(f"port: 127.0.0.1:{port}\n", 4)
    assert it.run.seen("helper_exited") == []
    assert it.run.stop() == 0


def test_nothing_that_was_filled_in_shows_anywhere(reloaded, tmp_path):
    port = free_port()
    command = json.dumps([*SERVER, "${TOKEN}"])
    text = f"command: {command}\nport: 127.0.0.1:{port}\ncheck: sh -c 'exit 3' ${{TOKEN}}\n"
    it = reloaded(text.replace("exit 3", "exit 0"), env={"TOKEN": "hunter2hunter2"})
    assert json.loads(get(port, "/about"))["argv"][1:] == ["hunter2hunter2"]
    it.write(text)
    assert it.ask("reload", "--wait").returncode == 1
    it.write(f"{text}dir: /nowhere/${{TOKEN}}\nenvdir: /nowhere/${{TOKEN}}\nworkers: ${{TOKEN}}\n")
    it.run.signal("HUP")
    it.run.wait("reload_rejected")
    it.write(f"{text}envdir: /nowhere/${{TOKEN}}\n")
    it.run.signal("HUP")
    assert "/nowhere/" not in it.run.wait("reload_rejected", count=2)["cause"]
    it.write(f"command: /nowhere/${{TOKEN}}\nport: 127.0.0.1:{port}\n")
    done = it.ask("reload", "--wait")
    assert done.returncode == 1
    everything = (
        json.dumps(it.run.events)
        + it.ask("status", "--json").stdout
        + it.ask("events").stdout
        + done.stdout
        + done.stderr
    )
    assert "hunter2" not in everything + "".join(it.run.output)
    assert it.run.stop() == 0


def test_reloads_leave_nothing_behind_and_inherited_sockets_stay(reloaded):
    port, other = free_port(), free_port()
    it = reloaded(f"port: 127.0.0.1:{port}\n")
    it.reload(f"port: [127.0.0.1:{port}]\n", 2)
    fds = len(os.listdir(f"/proc/{it.run.pid}/fd"))
    for number in range(3, 15):
        it.reload(
            f"port: [127.0.0.1:{port}{f', 127.0.0.1:{other}' if number % 2 else ''}]\n", number
        )
    until(lambda: len(os.listdir(f"/proc/{it.run.pid}/fd")) == fds, "the descriptors' end")
    assert json.loads(get(port, "/about"))["fds"].keys() >= {"0", "1", "2", "3"}
    assert it.run.stop() == 0


def test_a_hup_during_the_stop_or_just_before_it_disturbs_nothing(reloaded):
    port = free_port()
    it = reloaded(f"port: 127.0.0.1:{port}\nlame-duck: 300ms\n")
    it.write(f"port: 127.0.0.1:{port}\nlame-duck: 1h\n")
    it.run.signal("TERM")
    it.run.wait("stopping")
    it.run.signal("HUP")
    assert it.run.exit() == 0
    assert len(it.run.seen("swap_started")) == 1
