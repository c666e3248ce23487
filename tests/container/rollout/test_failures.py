"""What goes wrong in a rollout: each container is named, and nobody else is touched."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading

import pytest

from tests.container.containers import PYTHON_IMAGE
from tests.container.rollout.fleet import Fleet, Rollout, archive, outcomes
from tests.support import until

pytestmark = [pytest.mark.container, pytest.mark.timeout(300)]


def test_a_failed_reload_is_rolled_back_where_that_is_wanted(shop, release, tmp_path):
    before = shop.serves("1")
    was = shop.execute("1", "cat", "/srv/code/release.json")[1]
    status, report = Rollout(
        "--label",
        f"rollout={shop.label}",
        "--copy",
        release("worse", broken=["1"]),
        "--rollback",
        "--yes",
    ).end()
    found = shop.named(report)
    assert (status, report["failed"], report["untouched"]) == (1, 1, 2)
    assert found["1"]["files"] == "put back"
    # The container's own sidecar tries again after a while, with the files of before: a later
    # generation of the same.
    assert found["1"]["serves"] >= before[0]
    assert shop.serves("1")[1] == before[1]
    assert shop.execute("1", "cat", "/srv/code/release.json")[1] == was
    # What it came back to can be reloaded.
    assert shop.execute("1", "sidecar", "reload", "--wait")[0] == 0


def test_a_directory_that_is_not_there_is_named(shop, release):
    status, report = Rollout(
        "--label",
        f"rollout={shop.label}",
        "--copy",
        release("x").replace("/srv/code", "/srv/cod"),
        "--yes",
    ).end()
    assert (status, report["failed"], report["untouched"]) == (1, 1, 2)
    assert shop.named(report)["1"]["cause"] == "/srv/cod is no directory of the container"


def test_a_container_without_sidecar_is_named_before_anything_is_touched(engine, shop):
    before = shop.all_serve()
    other = Fleet(engine, PYTHON_IMAGE, shop.label)
    try:
        other.start(
            "none",
            command=["python3", "-c", "import time; print('up', flush=True); time.sleep(600)"],
        )
        rollout = Rollout("--label", f"rollout={shop.label}", "--yes")
        status, report = rollout.end()
        assert (status, report["failed"], report["untouched"], report["outcome"]) == (
            1,
            1,
            3,
            "stopped",
        )
        assert shop.named(report)["none"]["cause"] == "there is no sidecar in it"
        assert shop.all_serve() == before
        # One may fail: the others are done.
        status, report = Rollout(
            "--label", f"rollout={shop.label}", "--max-failures", "1", "--yes"
        ).end()
        assert (status, report["done"], report["failed"], report["outcome"]) == (1, 3, 1, "failed")
    finally:
        other.remove()


@pytest.fixture
def pair(fleets, request, release):
    """Two containers, and a rollout that is in the middle of the first one's reload."""
    fleet = fleets(f"pair{abs(hash(request.node.name)) % 10000}", "1", "2")
    begun = []

    def begin(*words: str, **environ: str) -> Rollout:
        rollout = Rollout(
            "--label",
            f"rollout={fleet.label}",
            "--copy",
            release("v2", waiting=["1"]),
            "--yes",
            *words,
            **environ,
        )
        begun.append(rollout)
        rollout.wait("step", step="reload")
        # It is asked for; and now it is under way. (A container that is frozen while the engine
        # starts an exec in it stays frozen: the engine holds a lock then, and neither unpauses nor
        # removes it.)
        until(
            lambda: str(fleet.containers["1"].top()).count("released.py") == 3,
            "sidecar, and a process of each generation",
        )
        return rollout

    yield fleet, begin
    for rollout in begun:
        rollout.process.kill()
        rollout.process.communicate()
    fleet.remove()


def test_one_that_vanishes_midway(pair):
    fleet, begin = pair
    rollout = begin("--max-failures", "1")
    fleet.containers["1"].remove(force=True)
    status, report = rollout.end()
    first, second = fleet.named(report).values()
    assert (status, first["outcome"], first["kind"], first["serves"]) == (
        1,
        "failed",
        "vanished",
        None,
    )
    assert second["outcome"] == "done"
    until(lambda: fleet.serves("2") == (2, "v2"), "the new version in the second")


def test_one_that_hangs_is_given_up_and_looked_at_again(pair, tmp_path):
    fleet, begin = pair
    rollout = begin("--timeout", "2s", TMPDIR=str(tmp_path))
    fleet.containers["1"].pause()
    status, report = rollout.end()
    assert not list(tmp_path.glob("sidecar-*"))
    fleet.containers["1"].unpause()
    first, second = fleet.named(report).values()
    assert (status, first["outcome"], first["kind"], first["serves"]) == (1, "failed", "hung", None)
    assert second["outcome"] == "untouched"


def test_a_reload_that_does_not_come_to_an_end_is_no_hang_and_the_old_generation_is_known_to_serve(
    pair,
):
    fleet, begin = pair
    status, report = begin("--timeout", "5s").end()  # one in which a busy engine answers
    first = fleet.named(report)["1"]
    assert (status, first["kind"], first["serves"], first["files"]) == (1, "timeout", 1, "new")
    assert fleet.serves("1") == (1, "v1")


def test_an_interrupt_lets_what_is_under_way_end(pair):
    fleet, begin = pair
    rollout = begin()
    rollout.process.send_signal(signal.SIGINT)
    assert "under way: " in rollout.wait("stopping")["text"]
    fleet.containers["1"].put_archive("/", archive(**{"code/go": ""}))
    status, report = rollout.end()
    assert (status, report["outcome"], outcomes(fleet, report)) == (
        1,
        "interrupted",
        {"1": "done", "2": "untouched"},
    )
    fleet.come_to_serve({"1": (2, "v2"), "2": (1, "v1")})


def test_a_second_interrupt_gives_it_up_and_says_who_serves_what(pair):
    fleet, begin = pair
    rollout = begin()
    rollout.process.send_signal(signal.SIGINT)
    rollout.wait("stopping")
    rollout.process.send_signal(signal.SIGTERM)
    status, report = rollout.end()
    first = fleet.named(report)["1"]
    assert (status, report["outcome"], first["kind"], first["serves"]) == (
        1,
        "interrupted",
        "interrupted",
        1,
    )


class Wire:
    """A unix socket in front of the engine's, that can be cut."""

    def __init__(self, path) -> None:
        self.path = str(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                server = socket.socket(socket.AF_UNIX)
                server.connect(
                    os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix(
                        "unix://"
                    )
                )
                self.sockets += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := one.recv(1 << 16):
                other.sendall(piece)
            other.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for each in list(self.sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def test_an_engine_that_is_lost_midway(pair, tmp_path):
    fleet, begin = pair
    wire = Wire(tmp_path / "engine.sock")
    try:
        rollout = begin("--max-failures", "5", DOCKER_HOST=f"unix://{wire.path}")
    finally:
        wire.cut()
    status, report = rollout.end()
    first, second = fleet.named(report).values()
    assert (status, report["outcome"], first["outcome"], first["kind"]) == (
        3,
        "lost",
        "failed",
        "lost",
    )
    assert (first["serves"], second["outcome"]) == (None, "untouched")


def test_an_engine_that_cannot_be_reached(tmp_path):
    rollout = Rollout("--label", "x=y", "--yes", DOCKER_HOST=f"unix://{tmp_path}/nobody")
    assert rollout.end()[0] == 3
    assert "the engine cannot be reached: No such file or directory" in rollout.errors


def test_nothing_that_is_like_that(engine):
    rollout = Rollout("--label", f"nobody={os.getpid()}", "--yes")
    assert (rollout.end()[0], rollout.errors) == (
        1,
        "sidecar rollout: no container that runs is like that\n",
    )
