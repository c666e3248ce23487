"""Promise 1, continuity, and promise 5, latest wins: swaps of a real program under a real load."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Load, until

SWAPS = 100


def test_a_hundred_swaps_lose_no_request_on_new_or_kept_connections(sidecar):
    """100 HUPs under constant load: every request is answered, none refused, reset or timed out, no
    kept connection cut.
    """
    run = sidecar("--workers", "2")
    run.wait("serving")
    with Load(run.port) as load:
        for number in range(2, SWAPS + 2):
            run.swap(number, gone=False)
    assert load.failures == []
    assert load.reopened == 0
    assert load.answered > SWAPS
    run.alone(SWAPS + 1)
    assert run.get().split()[1] == str(SWAPS + 1)
    assert run.stop() == 0


def test_what_connects_while_nobody_accepts_is_answered_by_the_next_worker(sidecar, tmp_path):
    """The accept queue outlives the workers: a crash delays a request, it does not refuse it."""
    (tmp_path / "CRASH").write_text("0.05")
    run = sidecar("--envdir", str(tmp_path), "--min-uptime", "0")
    run.wait("serving")
    run.wait("worker_died")
    (tmp_path / "CRASH").unlink()
    assert run.get().startswith("hello")


def test_a_request_in_flight_outlives_the_swap(sidecar):
    """The old worker finishes what it has begun, beside the new one."""
    run = sidecar()
    run.wait("serving")
    with Load(run.port, one_shot=3, kept=0, path="/slow?0.5") as load:
        run.swap(2, gone=False)
        run.swap(3, gone=False)
        answered = load.answered
        until(lambda: load.answered > answered + 6, "answers after the swaps")
    assert load.failures == []


def test_many_hups_at_once_are_one_or_two_swaps(sidecar, tmp_path):
    """Latest wins: what arrives during a swap is one more swap, and that one has the newest
    environment.
    """
    (tmp_path / "BOOT").write_text("0.3")
    (tmp_path / "GREETING").write_text("first")
    run = sidecar("--envdir", str(tmp_path))
    run.wait("serving")
    run.signal("HUP")
    run.wait("worker_started", generation=2)
    (tmp_path / "GREETING").write_text("last")
    for _ in range(20):
        run.signal("HUP")
    run.wait("serving", generation=3)
    run.alone(3)
    assert run.get().startswith("last 3 ")
    assert run.stop() == 0
    assert [each["generation"] for each in run.seen("swap_started")] == [1, 2, 3]


def test_a_rolling_swap_never_has_more_than_one_worker_extra(sidecar):
    """--max-surge 1: four workers are replaced one after another, each old one leaving before the
    next new one starts.
    """
    run = sidecar("--workers", "4", "--max-surge", "1")
    run.wait("worker_ready", count=4)
    with Load(run.port) as load:
        run.swap(2)
    assert load.failures == []
    alive = most = 0
    for event in run.events:
        alive += {"worker_started": 1, "worker_exited": -1, "worker_died": -1}.get(
            event["event"], 0
        )
        most = max(most, alive)
    assert most == 5
    assert {each["slot"] for each in run.seen("worker_started", generation=2)} == {0, 1, 2, 3}
    assert run.stop() == 0


def test_workers_are_added_and_taken_away_by_signal(sidecar):
    """TTIN and TTOU; the last worker stays."""
    run = sidecar()
    run.wait("serving")
    run.signal("TTIN")
    assert run.wait("worker_ready", slot=1)["generation"] == 1
    run.signal("TTOU")
    run.wait("worker_exited", slot=1)
    run.signal("TTOU")
    run.wait("scaled", workers=1, before=1)
    assert run.get().split()[2] == "0"
    assert len(run.workers()) == 1


def test_a_restart_at_an_interval_waits_its_time_and_goes_on(sidecar):
    """--enable-auto-restart: swap after swap without anybody asking, and without losing a request."""
    run = sidecar("--enable-auto-restart", "--auto-restart-interval", "200ms")
    run.wait("serving")
    with Load(run.port) as load:
        run.wait("serving", generation=4, trigger="interval")
    assert load.failures == []
    assert run.stop() == 0


def test_the_new_worker_gets_its_time_before_the_old_is_retired(sidecar, tmp_path):
    """--kill-old-delay: a new worker that dies within it fails the swap, and the old one is still
    there.
    """
    run = sidecar("--envdir", str(tmp_path), "--kill-old-delay", "30s")
    run.wait("serving")
    (tmp_path / "CRASH").write_text("0.1")
    run.signal("HUP")
    run.wait("worker_ready", generation=2)
    assert run.wait("swap_failed", generation=2)["cause"] == "exited with status 9"
    assert run.get().split()[1] == "1"
    assert run.seen("retiring") == []


def test_a_listener_shut_down_by_the_program_is_mended(sidecar, tmp_path):
    """A program that calls shutdown() on the shared socket (Sanic's main does) costs a moment, not
    the service.
    """
    (tmp_path / "SHUT").write_text("1")
    run = sidecar("--envdir", str(tmp_path))
    run.wait("serving")
    (tmp_path / "SHUT").unlink()
    run.swap(2)
    run.wait("worker_exited", generation=1)
    run.wait("listener_repaired")
    run.swap(3)
    assert run.get().split()[1] == "3"


def test_a_listener_shut_down_by_a_program_that_stays_a_while_is_mended_at_once(sidecar, tmp_path):
    """The old worker has a request to finish: who connects meanwhile is not refused."""
    (tmp_path / "SHUT").write_text("1")
    run = sidecar("--envdir", str(tmp_path))
    run.wait("serving")
    (tmp_path / "SHUT").unlink()
    (old,) = run.workers()
    with socket.create_connection(("127.0.0.1", run.port)) as busy:
        busy.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert busy.recv(1)
        run.swap(2, gone=False)
        run.wait("listener_repaired")
        for _ in range(10):
            assert run.get().split()[1] == "2"
        assert old in run.workers()
    assert run.stop() == 0


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a short name, because a unix socket's path may have 107 bytes. Ask for it
    before `sidecar`: one that runs puts its socket back while the directory is removed.
    """
    with tempfile.TemporaryDirectory(prefix="sl", dir="/tmp") as directory:
        yield Path(directory)


def test_a_removed_path_is_put_back_at_once(short, sidecar):
    """By hand, while nothing else happens; and when its directory has gone, as soon as it is back."""
    place = short / "in"
    place.mkdir()
    run = sidecar("--port", f"unix:{place}/s")
    run.wait("serving")

    def mended(count: int, sentence: str) -> None:
        assert sentence in run.wait("listener_repaired", count=count)["text"]

    def works() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{place}/s")
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b" 200 " in client.recv(4096)

    works()
    (place / "s").unlink()
    mended(1, "removed the socket's path; it is put back")
    works()
    (place / "s").rename(place / "other")
    mended(2, "it is put back")
    works()
    place.rename(short / "elsewhere")
    mended(3, "it cannot be repaired")
    (short / "elsewhere").rename(place)
    mended(4, "new connections reach it again")
    works()
    assert len(run.seen("swap_started")) == 1
    assert run.stop() == 0
    assert len(run.seen("listener_repaired")) == 4
    assert not (place / "s").exists()


def test_a_path_that_the_leaving_program_removes_is_put_back_while_it_drains(short, sidecar):
    """As gunicorn and php-fpm do: unlink first, then drain."""
    program = f"trap 'rm {short}/s; sleep 60 & wait $!' TERM; sleep 600 & wait $!"
    run = sidecar(
        "--port", f"unix:{short}/s", "--ready", "interval", "--interval", "10ms", "--drain-timeout", "60s",
        program=("bash", "-c", program),
    )  # fmt: skip
    run.wait("serving")
    (old,) = run.workers()
    run.swap(2, gone=False)
    run.wait("listener_repaired")
    assert old in run.workers()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{short}/s")


def test_a_crashed_worker_is_replaced_in_its_slot_while_the_others_serve(sidecar):
    """One of three dies: its slot is filled again in the same generation, nobody else is touched."""
    import os
    import signal

    run = sidecar("--workers", "3", "--min-uptime", "0")
    run.wait("worker_ready", count=3)
    victim = run.seen("worker_ready", slot=1)[0]["pid"]
    with Load(run.port, kept=0) as load:
        os.kill(victim, signal.SIGKILL)
        assert run.wait("worker_died")["cause"] == "killed by SIGKILL"
        assert run.wait("worker_ready", count=2, slot=1)["generation"] == 1
        answered = load.answered
        until(lambda: load.answered > answered + 5, "answers after the crash")
    # A connection the killed process held itself may have been cut; nothing else may.
    assert len(load.failures) <= 2
    assert len(run.seen("swap_started")) == 1


@pytest.mark.parametrize(
    "options",
    [(), ("--slow-start",), ("--ready", "notify"), ("--ready", "command", "--ready-command", "true")],
    ids=["plain", "slow start", "notify", "command"],
)  # fmt: skip
def test_idle_means_idle(short, sidecar, options):
    """Promise 4: at rest, and while requests come in, PID 1 has one thread and is not woken at all
    (the wait here is the thing measured).
    """
    env = {"NOTIFY": "1"} if "notify" in options else {}
    run = sidecar("--workers", "2", "--port", f"unix:{short}/s", *options, env=env)
    run.wait("worker_ready", count=2)
    run.swap(2)
    run.get()

    def status() -> dict[str, str]:
        lines = open(f"/proc/{run.pid}/status").read().splitlines()
        return dict(line.split(":\t", 1) for line in lines)

    def switches() -> int:
        assert status()["Threads"].strip() == "1"
        return int(status()["voluntary_ctxt_switches"])

    def rests() -> bool:
        before = switches()
        time.sleep(0.2)
        return status()["State"].startswith("S") and switches() == before

    until(rests, "the loop's first rest")
    before = switches()
    for number in range(50):
        run.get()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{short}/s")
        (short / f"{number}").touch()
        (short / f"{number}").unlink()
    time.sleep(3)
    assert switches() == before
