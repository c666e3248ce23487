"""Which sidecar a command asks; no impostor is believed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import PATIENCE, ROOT, SERVER, Sidecar, open_to_others, until
from tests.system.control.asking import ask, environment


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
