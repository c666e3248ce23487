"""--slow-start with the programs that know TTOU and TTIN: never more processes than before and one,
none lost, none forgotten.

Each worker process of a new generation waits at a gate of its own before it takes connections, so
that what happens between two of them is seen, whatever the machine does meanwhile.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from sidecar.system.accept_probe import accepting_pids
from tests.support import ROOT, Load, Sidecar, free_port, until

pytestmark = pytest.mark.servers

BIN = Path(sys.executable).parent
RU = str(ROOT / "examples" / "recipes" / "config.ru")
SIZE = 3

GATE_RB = """
gate = lambda do |number|
  generation = ENV["SERVER_STARTER_GENERATION"]
  sleep 0.005 until generation == "1" || File.exist?("{folder}/#{{generation}}-#{{number}}")
end
"""
UNICORN = GATE_RB + "worker_processes 3; after_fork {{ |_, worker| gate.call(worker.nr + 1) }}"
PUMA = (
    GATE_RB
    + "workers 3; threads 1, 4; worker_check_interval 1; on_worker_boot {{ |index| gate.call(index + 1) }}; bind '{url}'"
)
GUNICORN = """
import os, time
workers, control_socket_disable, wsgi_app = 3, True, "examples.hello.app:app"
def post_fork(server, worker):
    generation = os.environ["SERVER_STARTER_GENERATION"]
    while generation != "1" and not os.path.exists(f"{folder}/{{generation}}-{{worker.age}}"):
        time.sleep(0.005)
"""
PROGRAMS = {
    "unicorn": (("unicorn", "-c", "{config}", RU), UNICORN),
    "puma": (("puma", "-C", "{config}", RU), PUMA),
    "gunicorn": ((str(BIN / "gunicorn"), "--chdir", str(ROOT), "-c", "{config}"), GUNICORN),
}


class Running:
    """A program under sidecar, its gates, and the count of its processes that take connections."""

    def __init__(self, name: str, sidecar: type[Sidecar], folder: Path) -> None:
        words, text = PROGRAMS[name]
        if shutil.which(words[0]) is None:
            pytest.skip(f"{words[0]} is not installed")
        port = free_port()
        config = folder / ("config.py" if name == "gunicorn" else "config.rb")
        config.write_text(text.format(folder=folder, url=f"tcp://127.0.0.1:{port}"))
        self.folder = folder
        program = tuple(word.replace("{config}", str(config)) for word in words)
        # What the killed master leaves behind goes with its group, after this time.
        options = ("--slow-start", "--drain-timeout", "3s", "--port", f"127.0.0.1:{port},defer")
        self.sidecar = sidecar(
            *options,
            program=program,
            port=False,
            env={"GUNICORN_CMD_ARGS": "", "PYTHONPATH": str(ROOT)},
        )
        self.port = port
        self.most = 0
        self.known: dict[int, set[int]] = {}
        self.sidecar.wait("serving")
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        (self.inode,) = [
            int(row[9]) for row in rows if row[1] == f"0100007F:{port:04X}" and row[3] == "0A"
        ]  # that listens: proc(5)

    def leader(self, generation: int) -> int:
        return self.sidecar.wait("worker_started", generation=generation)["pid"]

    def open(self, generation: int, number: int) -> None:
        (self.folder / f"{generation}-{number}").touch()

    def until(self, *wanted: tuple[int, int]) -> None:
        """Wait until of each of these generations so many processes take connections."""

        def counted() -> bool:
            leaders = [self.leader(generation) for generation, _ in wanted]
            for leader in leaders:
                self.known[leader] = accepting_pids(
                    leader, {self.inode}, self.known.get(leader, ())
                )
            self.most = max(self.most, sum(len(self.known[leader]) for leader in leaders))
            return all(
                len(self.known[leader]) == count
                for leader, (_, count) in zip(leaders, wanted, strict=True)
            )

        until(counted, f"{wanted} (generation, processes); it was {self.known}\n{self.sidecar}")


@pytest.fixture(params=PROGRAMS)
def running(request, sidecar, tmp_path):
    return Running(request.param, sidecar, tmp_path)


def test_the_old_processes_leave_one_by_one_and_nothing_is_lost(running):
    run = running.sidecar
    with Load(running.port) as load:
        running.until((1, SIZE))
        run.signal("HUP")
        for number in range(1, SIZE):
            running.open(2, number)
            assert run.wait("worker_shrunk", number)["signal"] == "TTOU"
            running.until((1, SIZE - number), (2, number))
        assert run.seen("retiring") == []
        running.open(2, SIZE)
        run.wait("serving", generation=2)
        run.alone(2)
        running.until((2, SIZE))
    assert running.most <= SIZE + 1
    assert load.failures == []
    assert [each["left"] for each in run.seen("worker_shrunk")] == [2, 1]
    assert run.seen("worker_died") == []
    assert run.stop() == 0


def test_a_swap_that_fails_halfway_leaves_the_old_program_at_full_strength(running):
    """The new master is killed when two of its processes serve; the next one takes over as if
    nothing had been.
    """
    run = running.sidecar
    running.until((1, SIZE))
    run.signal("HUP")
    for number in range(1, SIZE):
        running.open(2, number)
        run.wait("worker_shrunk", number)
        running.until((1, SIZE - number), (2, number))
    os.kill(running.leader(2), signal.SIGKILL)
    run.wait("swap_failed")
    run.wait("worker_shrunk", SIZE - 1, signal="TTIN")
    running.until((1, SIZE))
    assert [each["left"] for each in run.seen("worker_shrunk")] == [2, 1, 2, 3]
    run.signal("HUP")
    for number in range(1, SIZE + 1):
        running.open(3, number)
    run.wait("serving", generation=3)
    run.alone(3)
    running.until((3, SIZE))
    assert running.sidecar.get()
    assert run.stop() == 0
