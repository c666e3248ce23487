"""What a container may take is limited: memory, processes, disks. Each outcome has a name, and the
service goes on.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.support import until

from .containers import Load

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]


def generation_of(body: str) -> int:
    return json.loads(body)["generation"]


def limited(run_container, memory: int, heavy: int, *options: str, **more):
    """A container with that much memory, whose worker takes `heavy` of it (MiB)."""
    environment = {"HEAVY": str(heavy), "PYTHONDONTWRITEBYTECODE": "1"}
    limit = f"{memory}m"
    return run_container(
        *options,
        app="heavy.py",
        environment=environment,
        mem_limit=limit,
        memswap_limit=limit,
        **more,
    )


# --- old and new at once (--overlap)


def test_room_for_both_is_a_swap_as_ever(run_container):
    running = limited(run_container, 400, 60)
    running.wait_event("serving", generation=1)
    with Load(running.port, generation_of) as load:
        load.wait_for(1, 20)
        running.container.kill("HUP")
        load.wait_for(2, 20)
    assert not load.failed
    assert not running.events("overlap_skipped")
    assert not running.events("overlap_limited")


def test_room_for_one_more_swaps_slot_by_slot(run_container):
    running = limited(run_container, 330, 60, "--workers", "3")
    running.wait_event("serving", generation=1)
    running.wait_until(
        lambda: len(running.events("worker_ready", generation=1)) == 3, "all three are ready"
    )
    with Load(running.port, generation_of) as load:
        load.wait_for(1, 20)
        running.container.kill("HUP")
        running.wait_event("serving", generation=2)
        load.wait_for(2, 20)
    assert not load.failed
    (said,) = running.events("overlap_limited")
    assert said["surge"] == 1
    assert re.fullmatch(
        r"of 330 MiB \(the memory limit\) \d+ are left, and a worker takes \d+", said["why"]
    )
    assert not running.events("worker_died")
    assert not running.state["OOMKilled"]


def test_no_room_for_one_more_stops_and_starts_and_what_connects_meanwhile_waits(run_container):
    """Nothing is refused: the listener is there all the time. Without the guard, one of them dies
    of it (the test below).
    """
    running = limited(run_container, 150, 80)
    running.wait_event("serving", generation=1)
    with Load(running.port, generation_of) as load:
        load.wait_for(1, 20)
        running.container.kill("HUP")
        running.wait_event("serving", generation=2)
        load.wait_for(2, 20)
    assert not load.failed
    (said,) = running.events("overlap_skipped")
    assert said["level"] == "warning"
    assert "150 MiB" in said["why"]
    order = [
        event["event"]
        for event in running.events()
        if event["event"] in ("overlap_skipped", "worker_exited", "worker_started", "serving")
    ]
    assert order == [
        "worker_started",
        "serving",
        "overlap_skipped",
        "worker_exited",
        "worker_started",
        "serving",
    ]
    assert not running.state["OOMKilled"]


def test_overlap_always_risks_what_the_guard_avoids(run_container):
    """The control: one of the two is killed for memory. Which one is the kernel's choice; that it
    was is said, and something serves.
    """
    running = limited(run_container, 150, 80, "--overlap", "always", "--max-backoff", "200ms")
    running.wait_event("serving", generation=1)
    running.container.kill("HUP")
    died = running.wait_event("worker_died")
    assert "KILL" in died["cause"]
    assert "memory" in died["cause"]
    assert running.get()[0] == 200


def test_a_swap_to_bigger_workers_learns_from_a_kill(run_container):
    """Two of 60 MiB; of those that come, 120 MiB each, only one more fits beside the others."""
    running = run_container(
        "--workers", "2", "--envdir", "/env", app="heavy.py",
        environment={"HEAVY": "60", "PYTHONDONTWRITEBYTECODE": "1"}, mem_limit="390m",
        memswap_limit="390m", tmpfs={"/env": ""},
    )  # fmt: skip
    running.wait_event("serving", generation=1)
    running.container.exec_run(["sh", "-c", "echo 120 > /env/HEAVY"])
    with Load(running.port, generation_of) as load:
        load.wait_for(1, 20)
        running.container.kill("HUP")
        failed = running.wait_event("swap_failed")
        assert "no memory left" in failed["cause"]
        running.container.kill("HUP")
        running.wait_event("serving", generation=failed["generation"] + 1)
        load.wait_for(failed["generation"] + 1, 20)
    (said,) = running.events("overlap_limited")
    assert f"the kernel killed when generation {failed['generation']} had" in said["why"]


def test_overlap_never_stops_and_starts_whatever_there_is(run_container):
    running = run_container("--overlap", "never")
    running.wait_event("serving", generation=1)
    with Load(running.port, generation_of) as load:
        load.wait_for(1, 20)
        running.container.kill("HUP")
        load.wait_for(2, 20)
    assert not load.failed
    assert running.events("overlap_skipped")[0]["why"] == "--overlap never"


# --- memory


def test_a_worker_killed_for_memory_is_named_and_replaced(run_container):
    running = limited(run_container, 150, 20, "--workers", "2")
    running.wait_event("serving", generation=1)
    with pytest.raises(Exception, match=r".*"):
        running.get("/eat")
    died = running.wait_event("worker_died")
    assert died["cause"] == "killed by SIGKILL, probably because the container has no memory left"
    running.wait_until(
        lambda: len(running.events("worker_ready")) == 3, "another worker in its place"
    )
    for _ in range(20):
        assert running.get()[0] == 200
    status, said = running.container.exec_run(["sidecar", "status", "--json"])
    assert status == 0
    assert json.loads(said)["ready"]
    assert running.stop() == 0


# --- disks


FILES = ("--pid-file=/state/pid", "--status-file=/state/status")
FILL = """
with open("/state/fill", "wb", buffering=0) as file:
    while True:
        try:
            file.write(bytes(512))
        except OSError:
            break
"""


def test_a_full_disk_under_the_status_file_is_said_and_it_serves_on(run_container):
    running = run_container(*FILES, tmpfs={"/state": "size=16k,uid=1000"}, read_only=True)
    running.wait_event("serving", generation=1)
    running.python(FILL)
    with Load(running.port, generation_of) as load:
        running.container.kill("HUP")
        said = running.wait_event("action_failed", what="write --status-file /state/status")
        running.wait_event("serving", generation=2)
        load.wait_for(2, 20)
        running.python("import os; os.unlink('/state/fill')")
        running.container.kill("HUP")
        running.wait_event("serving", generation=3)
        load.wait_for(3, 20)
    assert not load.failed
    assert said["cause"] == "No space left on device"
    assert "3:" in running.python("print(open('/state/status').read())")
    assert running.stop() == 0


def test_a_full_disk_under_the_log_file_stops_neither_swap_nor_service(run_container):
    running = run_container(
        "--port", "8080", "--log-file", "/state/log", "--", "python3", "/apps/web.py", app="", entrypoint=["start_server"],
        tmpfs={"/state": "size=16k,uid=1000"}, read_only=True,
    )  # fmt: skip
    with Load(running.port, generation_of) as load:
        load.wait_for(1)
        running.python(FILL)
        running.container.kill("HUP")
        load.wait_for(2, 20)
        # Both serve until the new one has lived for its interval.
        until(
            lambda: all(running.get()[1]["generation"] == 2 for _ in range(20)), "the old one's end"
        )
    assert running.stop() == 0
