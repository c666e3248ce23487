"""Where the system says no: it is said as what it is, nothing else suffers, and a stop ends."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import PATIENCE, ROOT, SERVER, marked, until
from tests.system.test_planted import Planted

SIDECAR = (sys.executable, "-m", "sidecar")


def no_descriptors(run) -> tuple[int, int]:
    """Let sidecar open nothing more; the limit that it had."""
    before = resource.prlimit(run.pid, resource.RLIMIT_NOFILE)
    # The lowest limit under which nothing is free: numbers below it may be.
    lowest = next(
        number for number in range(3, 1024) if not os.path.lexists(f"/proc/{run.pid}/fd/{number}")
    )
    resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (lowest, before[1]))
    return before


def test_without_descriptors_only_the_weighing_suffers(sidecar):
    run = sidecar("--max-memory", "1G", "--drain-timeout", "20")
    run.wait("serving")
    before = no_descriptors(run)
    said = run.wait("action_failed", what="look at the workers' memory")
    assert said["cause"] == "Too many open files"
    run.signal("HUP")
    run.wait("swap_failed")  # no process can be made, and that is said
    assert run.get().startswith("hello 1")
    resource.prlimit(run.pid, resource.RLIMIT_NOFILE, before)
    number = run.seen("swap_started")[-1]["generation"] + 1
    run.signal("HUP")
    until(lambda: run.seen("serving")[-1]["generation"] >= number, "a swap")
    assert len(run.seen("action_failed", what="look at the workers' memory")) < 5
    assert run.stop() == 0


ESCAPED = "import os, sys, subprocess, time; subprocess.Popen([sys.executable, '-c', 'import os, time; os.setsid(); time.sleep(3600)']); exec(open(sys.argv[1]).read())"


def test_a_stop_without_descriptors_leaves_nothing(sidecar):
    program = (sys.executable, "-S", "-c", ESCAPED, SERVER[-1])
    run = sidecar(program=program)
    run.wait("serving")
    until(lambda: len(marked(run.mark)) >= 3, "the process that escapes")
    no_descriptors(run)
    assert run.stop() == 0  # and nothing is left of it


def test_a_control_client_that_cannot_be_taken_is_said_once(sidecar):
    run = sidecar()
    run.wait("serving")
    path = run.wait("control_socket_opened")["path"]
    before = no_descriptors(run)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(path)
        said = run.wait("action_failed", what="take a client at the control socket")
        assert said["cause"] == "Too many open files"
        resource.prlimit(run.pid, resource.RLIMIT_NOFILE, before)
        sock.sendall(b'{"command": "health"}\n')
        assert b'"done": 0' in sock.recv(1000)
    assert len(run.seen("action_failed")) == 1
    assert run.stop() == 0


def test_a_start_without_descriptors_says_so_in_a_sentence():
    refused = subprocess.run(
        [*SIDECAR, "run", "--port", "127.0.0.1:0", "--control", "none", "--", *SERVER],
        cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8)), timeout=PATIENCE,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "too many open files" in refused.stderr.lower()
    assert "ulimit -n" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('port: "a\\0b:0"', "port: it holds a NUL character"),
        ('port: "unix:/tmp/x,owner=a\\0b"', "port: it holds a NUL character"),
        ('command: ["true", "a\\0b"]', "command: it holds a NUL character"),
        ('dir: "/\\ud800"', "sidecar.yml"),
    ],
)
def test_what_no_file_or_argument_can_hold_is_refused_where_it_is_written(tmp_path, line, words):
    file = tmp_path / "sidecar.yml"
    file.write_text(line + "\n")
    for command in (["run", "--config", str(file)], ["check", "--config", str(file)]):
        refused = subprocess.run(
            [*SIDECAR, *command, "--", *SERVER],
            cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
        assert refused.returncode == 2
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_user_that_only_looks_like_a_number_is_refused():
    refused = subprocess.run(
        [*SIDECAR, "run", "--user", "²", "--control", "none", "--", *SERVER],
        cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "there is no such user" in refused.stderr


def reload(run) -> subprocess.CompletedProcess:
    path = run.wait("control_socket_opened")["path"]
    return subprocess.run(
        [*SIDECAR, "reload", "--wait", "--control", path],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def test_a_reload_that_is_waited_for_ends_whatever_the_file_says(sidecar, tmp_path):
    file = tmp_path / "sidecar.yml"
    file.write_text("lame-duck: 0\n")
    run = sidecar("--config", str(file))
    run.wait("serving")
    for line in ('port: "a\\0b:0"', 'port: "unix:/tmp/x,owner=a\\0b"'):
        file.write_text(line + "\n")
        answer = reload(run)
        assert answer.returncode == 1
        assert "NUL" in answer.stdout + answer.stderr
    assert run.stop() == 0


@pytest.mark.parametrize(
    "entry",
    [
        "sidecar.host.settings_reload:SettingsReload._configure",
        "sidecar.host.settings_reload:SettingsReload._reader_ended",
    ],
)
def test_a_reload_that_is_waited_for_ends_in_a_defect(tmp_path, entry):
    file, armed = tmp_path / "sidecar.yml", tmp_path / "armed"
    file.write_text("lame-duck: 0\n")
    run = Planted(
        "--config", str(file), "--control", str(tmp_path / "control"),
        env={"PLANT": entry, "WHEN": "before", "ARMED": str(armed)},
    )  # fmt: skip
    try:
        run.wait("serving")
        armed.touch()
        answer = reload(run)
        assert answer.returncode == (1 if entry.endswith("_configure") else 0), answer
        if answer.returncode:
            assert "a defect in sidecar" in answer.stdout + answer.stderr
        assert run.get().startswith("hello")
    finally:
        run.clean_up()


# kill(2) says no: to the workers, and to what is left at the end.
NO_KILLING = """
import os, sys
if "run" in sys.orig_argv:
    def no(*_):
        raise PermissionError(1, "Operation not permitted")
    os.killpg = no
    real = os.kill
    os.kill = lambda pid, number: real(pid, number) if number in (0, 17) else no()
"""


def test_a_stop_is_over_in_its_time_where_nothing_can_be_killed(sidecar, tmp_path):
    """`sidecar check` says how long a stop may take. A log command waits for the workers' end."""
    (tmp_path / "sitecustomize.py").write_text(NO_KILLING)
    log = tmp_path / "log"
    run = sidecar(
        "--drain-timeout", "3", "--log-file", f"| cat > {log}", "--control", "none",
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    until(lambda: log.exists() and '"serving"' in log.read_text(), "it serves")
    began = time.monotonic()
    run.signal("TERM")
    run.process.wait(PATIENCE)
    # 16.6 s it was once; half as much again as was promised is for a busy machine.
    assert time.monotonic() - began < 1.5 * (3.0 + 5.0)
    assert '"stopped"' in log.read_text()
    assert '"worker_killed"' in log.read_text()


DOORS = {"sidecar.cli.main": ("run",), "sidecar.start_server.main": ("--port=0",)}
# Nothing can be opened any more from here on, neither a file nor a directory.
FULL = """
import importlib, resource, sys
main = importlib.import_module(sys.argv[1]).main
resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
sys.exit(main(sys.argv[2:]))
"""


def started(code: str, *words: str, path: str) -> subprocess.CompletedProcess[str]:
    """A Python that runs the code, with sidecar from this path; nothing of it is imported before."""
    return subprocess.run(
        [sys.executable, "-c", code, *words], env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}, cwd="/",
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_a_start_that_can_open_no_module_says_so_in_a_sentence(door):
    refused = started(FULL, door, *DOORS[door], "--", *SERVER, path=str(ROOT))
    (line,) = refused.stderr.splitlines()
    assert line.removeprefix("sidecar: ").startswith("cannot start: too many open files (")
    assert "ulimit -n" in line
    assert refused.returncode == (255 if "start_server" in door else 1)


def damaged(path: Path) -> str:
    path.write_text("def half(")
    return f"{path}:1 is damaged"


def missing(path: Path) -> str:
    path.unlink()
    return "sidecar.host.loop"


def unreadable(path: Path) -> str:
    path.unlink()
    path.symlink_to("/proc/self/mem")  # reading it fails, also for root
    return f"input/output error ({str(path)!r})"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("harm", [damaged, missing, unreadable])
def test_a_module_that_cannot_be_imported_is_named_in_a_sentence(door, harm, tmp_path):
    shutil.copytree(
        ROOT / "sidecar", tmp_path / "sidecar", ignore=shutil.ignore_patterns("__pycache__")
    )
    part = harm(tmp_path / "sidecar" / "host" / "loop.py")
    code = f"import sys; from {door} import main; sys.exit(main(sys.argv[1:]))"
    refused = started(code, *DOORS[door], "--", *SERVER, path=str(tmp_path))
    line = refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr
    assert line.removeprefix("sidecar: ").startswith("cannot start: ")
    assert part in line
    assert refused.returncode == (255 if "start_server" in door else 1)
