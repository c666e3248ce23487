"""A worker's contract: what sidecar gives each worker (DESIGN, "A worker's contract")."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from sidecar.system.notify_socket import NotifySocket
from tests.support import APPS, PATIENCE, ROOT, alive, readable_by_all, until


def environment(run) -> dict[str, str]:
    """The worker's environment, from the worker itself."""
    lines = (line.partition("=") for line in run.get("/env").splitlines())
    return {name: value[1:-1] for name, _, value in lines}


def test_every_protocol_is_there_at_once_and_names_the_same_sockets(sidecar, tmp_path):
    run = sidecar(
        "--port",
        "[::1]:0,name=six",
        "--port",
        f"unix:{tmp_path}/s",
        "--port",
        "127.0.0.1:u0",
        "--workers",
        "2",
    )
    run.wait("worker_ready", count=2)
    env = environment(run)
    listening = {each["fd"]: each["address"] for each in run.seen("listening")}
    assert env["SERVER_STARTER_PORT"] == ";".join(
        f"{address}={fd}" for fd, address in sorted(listening.items())
    )
    assert env["SERVER_STARTER_GENERATION"] == "1"
    assert env["LISTEN_FDS"] == "4"
    assert env["LISTEN_FDNAMES"].split(":")[1] == "six"
    assert env["SIDECAR_WORKERS"] == "2"
    assert env["SIDECAR_TRIGGER"] == "start"
    assert "NOTIFY_SOCKET" not in env
    assert int(env["LISTEN_PID"]) in run.workers()
    slots = {run.get().split()[2] for _ in range(200)}
    assert slots == {"0", "1"}
    run.swap(2)
    assert environment(run)["SIDECAR_TRIGGER"] == "signal"


def test_fds_are_the_standard_three_and_the_listeners_and_nothing_leaks(sidecar):
    """Not even a descriptor that sidecar itself was started with; and not after fifty swaps either."""
    leaked, other = socket.socketpair()
    os.set_inheritable(leaked.fileno(), True)
    run = sidecar("--port", "127.0.0.1:0", pass_fds=(leaked.fileno(),))
    run.wait("serving")
    held = len(os.listdir(f"/proc/{run.pid}/fd"))
    assert sorted(json.loads(run.get("/about"))["fds"], key=int)[:5] == ["0", "1", "2", "3", "4"]
    for number in range(2, 52):
        run.swap(number)
    until(lambda: len(run.workers()) == 1, "the old workers' end")
    fds = json.loads(run.get("/about"))["fds"]
    assert {name for name, target in fds.items() if not target.startswith("/proc")} == {
        "0",
        "1",
        "2",
        "3",
        "4",
    }
    assert len(os.listdir(f"/proc/{run.pid}/fd")) == held
    leaked.close()
    other.close()


def test_fixed_fds_are_where_they_were_asked_for(sidecar):
    run = sidecar("--port", "127.0.0.1:0=9", "--port", "127.0.0.1:0", port=False)
    run.wait("serving")
    assert {each["fd"] for each in run.seen("listening")} == {9, 3}
    env = environment(run)
    assert "=9;" in env["SERVER_STARTER_PORT"]
    assert "LISTEN_FDS" not in env  # systemd's protocol knows no gap


def test_group_session_mask_umask_and_directory(sidecar, tmp_path):
    run = sidecar("--umask", "027", "--dir", str(tmp_path))
    run.wait("serving")
    about = json.loads(run.get("/about"))
    assert about["pid"] == about["group"] == about["session"]
    assert about["parent"] == run.pid
    assert about["umask"] == 0o27
    assert about["directory"] == str(tmp_path)
    assert int(about["blocked"], 16) == 0


def ignored_and_blocked(*prefix: str) -> dict[str, str]:
    """What a worker that is no Python program (and no shell, which clears its mask) starts with,
    seen by itself.
    """
    worker = ["--max-failures", "1", "--", "grep", "-E", "SigIgn|SigBlk", "/proc/self/status"]
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "sidecar", "run", *worker],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return dict(line.split(":\t") for line in done.stdout.splitlines())


def test_signals_are_as_sidecar_found_them():
    """Python ignores SIGPIPE and SIGXFSZ: the worker must not. What `nohup` ignores stays ignored,
    what was blocked stays blocked.
    """
    mine = dict(line.split(":\t") for line in open("/proc/self/status") if line.startswith("Sig"))
    python = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    before = int(mine["SigIgn"], 16) & ~python
    assert int(ignored_and_blocked()["SigIgn"], 16) == before
    assert int(ignored_and_blocked()["SigBlk"], 16) == 0
    hup = 1 << (signal.SIGHUP - 1)
    assert int(ignored_and_blocked("nohup")["SigIgn"], 16) == before | hup
    blocking = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); os.execv(sys.argv[1], sys.argv[1:])"
    assert int(ignored_and_blocked(sys.executable, "-c", blocking)["SigBlk"], 16) == 1 << (
        signal.SIGUSR1 - 1
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start workers as another user")
@pytest.mark.parametrize(
    ("options", "uid", "gid"),
    [
        (("--user", "nobody"), 65534, 65534),
        (("--user", "12345"), 12345, 12345),
        (("--user", "12345", "--group", "54321"), 12345, 54321),
        (("--user", "12345:54321"), 12345, 54321),
        (("--user", "nobody", "--group", "daemon"), 65534, 1),
    ],
)
def test_workers_run_as_another_user_while_sidecar_binds_as_root(
    sidecar, options, uid, gid, tmp_path
):
    """By name or number, with the user's own groups and none of root's; a number needs no passwd
    entry.
    """
    run = sidecar(
        *options,
        "--ready",
        "interval",
        "--interval",
        "0",
        program=("/usr/bin/python3", "-S", readable_by_all(tmp_path)),
        extra_groups=[0, 54399],
        preexec_fn=inherit_capabilities,
    )
    run.wait("serving")
    about = json.loads(run.get("/about"))
    assert about["uids"] == [uid] * 3
    assert about["gids"] == [gid] * 3
    assert set(about["groups"]) <= {gid}
    assert about["inheritable"] == 0
    assert about["no_new_privs"] == 1
    assert run.stop() == 0


def inherit_capabilities() -> None:
    """In a child: what container engines used to do (CVE-2022-24769)."""
    import ctypes

    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[2] = sets[1]
    assert libc.capset(header, sets) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start workers as another user")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), 0),
        (("--no-new-privs",), 1),
        (("--user", "12345"), 1),
        (("--user", "12345", "--no-new-privs=no"), 0),
    ],
)
def test_the_way_to_new_privileges_is_closed_with_user_unless_asked_otherwise(options, expected):
    worker = ["--max-failures", "1", "--", "grep", "NoNewPrivs", "/proc/self/status"]
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "run", *options, *worker],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout == f"NoNewPrivs:\t{expected}\n", done.stderr


def test_a_worker_has_no_controlling_terminal(sidecar):
    """It could put commands into it, for the shell that sidecar was started from (TIOCSTI)."""
    ours, theirs = os.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    run = sidecar(stdin=theirs, preexec_fn=take_terminal)
    run.wait("serving")
    tty_of = [
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4]
        for pid in (run.pid, *run.workers())
    ]
    assert tty_of[0] != "0"
    assert tty_of[1:] == ["0"]
    assert run.stop() == 0
    os.close(ours)
    os.close(theirs)


def test_the_environment_follows_the_envdir(sidecar, tmp_path):
    """Read anew for every generation; a removed file falls back to the container's own value, or
    goes.
    """
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    (first / "GREETING").write_text("from a  \nsecond line\n")
    (first / "ONLY").write_text("here")
    (second / "GREETING").write_text("from b\n")
    (second / "HIDDEN").write_text("")
    (second / ".dot").write_text("no")
    run = sidecar(
        "--envdir", str(first), "--envdir", str(second), env={"GREETING": "own", "HIDDEN": "seen"}
    )
    run.wait("serving")
    assert "GREETING has" in run.seen("notice")[0]["text"]
    env = environment(run)
    assert env["GREETING"] == "from b"
    assert env["ONLY"] == "here"
    assert "HIDDEN" not in env
    assert ".dot" not in env
    (second / "GREETING").unlink()
    (first / "ONLY").unlink()
    (second / "HIDDEN").unlink()
    run.swap(2)
    env = environment(run)
    assert env["GREETING"] == "from a"
    assert env["HIDDEN"] == "seen"
    assert "ONLY" not in env
    (first / "GREETING").unlink()
    run.swap(3)
    assert environment(run)["GREETING"] == "own"


def test_no_value_of_an_envdir_is_ever_said(sidecar, tmp_path):
    """Promise 7: neither when all goes well nor when a swap fails because of it."""
    secret = "pa55word-do-not-say"
    (tmp_path / "TOKEN").write_text(secret + "\nand more")
    run = sidecar("--envdir", str(tmp_path))
    run.wait("serving")
    (tmp_path / "TOKEN").write_text(secret * 20000)
    run.signal("HUP")
    assert "TOKEN" in run.wait("swap_failed")["cause"]
    (tmp_path / "TOKEN").write_text(secret)
    (tmp_path / "DIE").write_text("1")
    run.signal("HUP")
    run.wait("swap_failed", count=2)
    assert run.stop() == 0
    assert secret not in str(run)


def test_usr1_goes_to_the_serving_workers_of_a_program_that_reopens_its_logs_on_it(sidecar):
    run = sidecar("--workers", "2", "--profile", "gunicorn")
    run.wait("worker_ready", count=2)
    run.signal("USR1")
    until(
        lambda: (
            {line for line in run.output if line.startswith("USR1")}
            == {f"USR1 {pid}" for pid in run.workers()}
        ),
        "USR1 in each",
    )
    assert run.get().startswith("hello")
    assert run.stop("QUIT") == 0


#: Says on stderr which of these signals it gets; of no other it has a handler.
TELLS = (
    "sh",
    "-c",
    'for name in WINCH CONT TERM; do trap "echo got $name >&2" $name; done;'
    " trap 'echo got TERM >&2; exit' TERM; while :; do sleep 0.05; done",
)


def test_usr1_goes_to_no_program_that_does_not_expect_it(sidecar):
    """Neither where nothing is known of the program, handler or not, nor where it has no handler."""
    run = sidecar()
    run.wait("serving")
    run.signal("USR1")
    run.swap(2)
    assert run.stop() == 0
    assert not [line for line in run.output if line.startswith("USR1")]
    run = sidecar("--ready", "interval", "--profile", "gunicorn", program=TELLS, port=False)
    run.wait("serving")
    run.signal("USR1")
    run.swap(2)
    assert run.seen("worker_died") == []
    assert run.stop() == 0


def test_winch_and_cont_are_not_passed_on(sidecar):
    """A resized terminal sends WINCH, and nginx drops its workers on it."""
    run = sidecar("--ready", "interval", program=TELLS, port=False)
    run.wait("serving")
    run.signal("WINCH")
    run.signal("CONT")
    run.swap(2)
    assert run.stop() == 0
    got = [line for line in run.output if line.startswith("got")]
    assert got == ["got TERM", "got TERM"]


def test_readiness_by_notify_by_interval_and_by_command(sidecar, tmp_path):
    run = sidecar("--ready", "notify", env={"NOTIFY": "1"})
    assert run.wait("worker_ready")["by"] == "notify"
    run = sidecar("--ready", "notify", "--start-timeout", "300ms", "--max-failures", "1")
    assert run.wait("swap_failed")["cause"] == "not ready within 0.3 s (readiness notify)"
    run = sidecar("--ready", "interval", "--interval", "50ms")
    assert run.wait("worker_ready")["by"] == "interval"
    run = sidecar("--ready", "command", "--ready-command", f"test -e {tmp_path}/go")
    run.wait("worker_started")
    assert run.seen("worker_ready") == []
    (tmp_path / "go").touch()
    assert run.wait("worker_ready")["by"] == "command"
    assert run.stop() == 0


LINGERS = """
import os, signal, socket, struct

notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect("\\0" + os.environ["NOTIFY_SOCKET"][1:])
with socket.create_server(("127.0.0.1", 0)) as peer:
    for message in (b"READY=1", b"STATUS=again"):
        passed = [socket.create_connection(peer.getsockname()) for _ in range(5)]
        for each in passed:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
            each.setblocking(False)
            try:
                while each.send(bytes(1 << 16)):
                    pass
            except BlockingIOError:
                pass
        socket.send_fds(notify, [message], [each.fileno() for each in passed])
        for each in passed:
            each.close()
    signal.pause()
"""


def test_a_descriptor_sent_with_a_notification_does_not_hold_sidecar_up(sidecar):
    """The last close of a socket that lingers lasts an hour: nothing but the message may be left to
    wake sidecar.
    """
    run = sidecar("--ready", "notify", program=(sys.executable, "-c", LINGERS))
    assert run.wait("worker_ready")["by"] == "notify"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sidecar",
            "status",
            "--control",
            run.wait("control_socket_opened")["path"],
        ],
        cwd=ROOT,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert run.stop() == 0


FLOOD = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.connect("\\0" + sys.argv[1][1:])
    sent = 0
    while True:
        notify.send(b"READY=1")
        sent += 1
        print(sent, flush=True)
"""


def test_who_floods_the_notification_socket_holds_nobody_up(sidecar):
    """A stranger's messages are read at sidecar's pace, not at its own; a worker is heard among
    them.
    """
    run = sidecar("--ready", "notify", env={"NOTIFY": "1"})
    run.wait("serving")
    address = environment(run)["NOTIFY_SOCKET"]
    in_advance = int(NotifySocket.BURST / NotifySocket.PACE) * NotifySocket.MOST
    with subprocess.Popen(
        [sys.executable, "-c", FLOOD, address], stdout=subprocess.PIPE, text=True
    ) as stranger:
        try:
            while int(stranger.stdout.readline()) <= in_advance:
                pass
            began = time.monotonic()
            for _ in range(500):
                stranger.stdout.readline()
            assert 500 / (time.monotonic() - began) < 2 * NotifySocket.MOST / NotifySocket.PACE
            run.swap(2)
        finally:
            stranger.kill()
    assert run.stop() == 0


def test_a_forked_child_that_accepts_makes_its_worker_ready(sidecar):
    run = sidecar(env={"FORK": "1"})
    assert run.wait("worker_ready")["by"] == "accept"
    assert run.get().split()[3] != str(run.workers()[0])
    assert run.stop() == 0


def test_sockets_from_systemd_are_taken_over(tmp_path):
    """LISTEN_FDS with LISTEN_PID: sidecar listens on what it was given, and its workers get it
    under their own pid.
    """
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        start = (
            "import os, sys; fd = int(sys.argv[1]); os.dup2(fd, 3, inheritable=True);"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='web');"
            "os.execv(sys.executable, [sys.executable, '-m', 'sidecar', 'run', '--', sys.executable, '-S', sys.argv[2]])"
        )
        command = [sys.executable, "-c", start, str(sock.fileno()), str(APPS / "server.py")]
        with subprocess.Popen(
            command, cwd=ROOT, pass_fds=[sock.fileno()], stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                for line in process.stderr:
                    if " serves after" in line:
                        break
                from tests.support import get

                assert "LISTEN_FDNAMES='web'" in get(port, "/env")
                assert f"SERVER_STARTER_PORT='127.0.0.1:{port}=3'" in get(port, "/env")
            finally:
                process.terminate()
                process.communicate()
            assert process.returncode == 0


def test_what_python_adds_to_its_own_environment_is_not_passed_on(sidecar, monkeypatch):
    """LC_CTYPE, where there is no locale: another program may take it for the user's word."""
    for name in ("LANG", "LC_ALL", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    run = sidecar()
    pid = run.wait("worker_started")["pid"]
    run.wait("serving")
    assert b"LC_CTYPE=" not in Path(f"/proc/{pid}/environ").read_bytes()
    monkeypatch.setenv("LC_CTYPE", "C.UTF-8")
    run = sidecar()
    pid = run.wait("worker_started")["pid"]
    run.wait("serving")
    assert b"LC_CTYPE=C.UTF-8" in Path(f"/proc/{pid}/environ").read_bytes()


def told(pid: int) -> dict[str, str]:
    """The environment that a process was started with."""
    block = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(entry.partition("=")[::2] for entry in block.split("\0") if entry)


def test_a_worker_that_is_started_again_is_told_how_many_there_are_now(sidecar):
    run = sidecar()
    run.wait("serving")
    run.signal("TTIN")
    second = run.wait("worker_ready", count=2)
    os.kill(second["pid"], signal.SIGKILL)
    third = run.wait("worker_ready", count=3)
    for each in (second, third):
        assert each["slot"] == 1
    environ = told(third["pid"])
    assert (environ["SIDECAR_WORKER"], environ["SIDECAR_WORKERS"]) == ("1", "2")
    assert run.stop() == 0


def test_checks_and_ready_commands_have_the_environment_and_no_sockets(sidecar, tmp_path):
    """Variables that speak of descriptors would send them to somebody else's."""
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "COLOUR").write_text("blue")
    run = sidecar(
        "--envdir", str(tmp_path / "env"), "--check", f"sh -c 'env > {tmp_path}/check; ls -l /proc/self/fd >> {tmp_path}/check'",
        "--ready", "command", "--ready-command", f"sh -c 'env > {tmp_path}/ready; ls -l /proc/self/fd >> {tmp_path}/ready'",
    )  # fmt: skip
    run.wait("serving")
    for name in ("check", "ready"):
        text = (tmp_path / name).read_text()
        assert "COLOUR=blue\n" in text
        for private in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "SERVER_STARTER_PORT"):
            assert private not in text
        assert "socket:" not in text
    assert run.stop() == 0


def test_a_ready_command_is_killed_when_its_worker_has_gone(sidecar, tmp_path):
    asked = tmp_path / "asked"
    run = sidecar(
        "--ready", "command", "--ready-command", f"sh -c 'echo $$ $SIDECAR_WORKER_PID >> {asked}; exec sleep 3600'",
        "--max-failures", "0",
    )  # fmt: skip
    until(lambda: asked.exists() and asked.read_text().endswith("\n"), "the ready command")
    command, worker = map(int, asked.read_text().split())
    os.kill(worker, signal.SIGKILL)
    run.wait("worker_died", pid=worker)
    until(lambda: not alive(command), "the ready command's end")
    assert run.stop() == 0


def test_the_environment_of_a_generation_that_has_gone_is_forgotten(sidecar, tmp_path):
    """A megabyte of variables, thirty times over."""
    for number in range(10):
        (tmp_path / f"BIG{number}").write_text("x" * 100_000)

    def held() -> int:
        lines = Path(f"/proc/{run.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    run = sidecar(
        "--envdir", str(tmp_path), "--ready", "interval", "--interval", "0s", port=False, program=("sleep", "3600")
    )  # fmt: skip
    run.wait("serving")
    run.swap(2)
    before = held()
    for number in range(3, 33):
        run.swap(number)
    assert held() - before < 15_000
    assert run.stop() == 0
