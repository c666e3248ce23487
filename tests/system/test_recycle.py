"""--max-memory: a worker that holds more is replaced before the kernel kills it, and nobody
notices.
"""

from __future__ import annotations

import sys

import pytest

from tests.support import APPS, Load, until

EATER = (sys.executable, "-S", str(APPS / "eater.py"))
MIB = 2**20


def test_a_worker_that_has_eaten_too_much_is_replaced_without_a_lost_request(sidecar):
    run = sidecar("--max-memory", "100M", "--workers", "2", program=EATER)
    run.wait("worker_ready", 2)
    with Load(run.port, kept=0) as load:
        big = int(run.get(f"/eat?{120 * MIB}"))
        said = run.wait("recycling")
        assert said["pid"] == big
        assert 120 * MIB < said["memory"] < 200 * MIB
        assert said["limit"] == 100 * MIB
        told = run.wait("recycled")
        assert (told["pid"], told["slot"]) == (big, said["slot"])
        run.wait("worker_exited", pid=big)
    assert load.failures == []
    names = [
        each["event"]
        for each in run.events
        if each.get("pid") in (big, told["by"]) or each.get("by") == told["by"]
    ]
    assert names.index("recycling") < names.index("recycled") < names.index("worker_exited")
    assert len(run.workers()) == 2
    assert run.seen("swap_started")[1:] == [], "no generation was begun for it"
    assert run.stop() == 0


def test_a_program_that_is_bigger_than_the_limit_serves_and_is_told_of(sidecar):
    """It is paced: see tests/histories/test_recycle.py."""
    run = sidecar("--max-memory", "50M", program=EATER, env={"EATEN": str(80 * MIB)})
    run.wait("serving")
    with Load(run.port, kept=0) as load:
        told = run.wait("recycled", 2)
        assert told["pause"] > 0
        assert "is --max-memory too low for this program?" in told["message"]
    assert load.failures == []
    assert run.stop() == 0


def test_what_processes_share_is_counted_once(sidecar):
    """Two processes with 70 MiB in common hold less than 100 MiB; the resident memory of both is
    more.
    """
    from sidecar.system import resources

    run = sidecar(
        "--max-memory", "100M", program=EATER, env={"EATEN": str(70 * MIB), "FORKED": "1"}
    )
    run.wait("serving")
    until(lambda: (resources.memory(run.workers()[0]) or 0) > 140 * MIB, "both have it")
    try:
        open(f"/proc/{run.workers()[0]}/smaps_rollup").close()
    except OSError:
        pytest.skip("smaps_rollup is not there to be read")
    assert resources.more_than(100 * MIB, run.workers()[0]) == 0
    assert 70 * MIB < resources.more_than(60 * MIB, run.workers()[0]) < 100 * MIB
    assert run.stop() == 0
