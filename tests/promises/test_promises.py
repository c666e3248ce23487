"""The promises hold in every schedule that is tried.

SIDECAR_SCHEDULES says how many (`make simulate` tries half a million); SIDECAR_SEED runs that one
alone.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.core import orders

from .world import World, schedule

SCHEDULES = int(os.environ.get("SIDECAR_SCHEDULES", "10000"))
CHUNK = 250


def try_chunk(first: int) -> tuple[int, int, Counter[str]]:
    """Run some schedules: (a seed that broke a promise or -1, how many moments were looked at, what
    was said and ordered how often).
    """
    moments = 0
    seen: Counter[str] = Counter()
    for seed in range(first, min(first + CHUNK, SCHEDULES)):
        try:
            world = schedule(seed)
        except Exception:
            return seed, moments, seen
        moments += world.steps
        seen.update(
            each.event if isinstance(each, orders.Say) else type(each).__name__
            for _, each in world.trace
        )
        seen["recovered"] += world.recovered
        seen["went back"] += any(getattr(each, "like", 0) for _, each in world.trace)
        seen["degraded"] += any(
            isinstance(each, orders.Say) and each.fields.get("degraded") for _, each in world.trace
        )
    return -1, moments, seen


@pytest.mark.timeout(0)
def test_every_promise_is_kept_in_every_schedule() -> None:
    """And the schedules are worth something: each kind of order, line and recovery occurs in a good
    many of them.
    """
    if "SIDECAR_SEED" in os.environ:
        schedule(int(os.environ["SIDECAR_SEED"]))
        return
    moments = 0
    seen: Counter[str] = Counter()
    with multiprocessing.get_context("fork").Pool() as pool:
        for broken, looked_at, what in pool.imap_unordered(try_chunk, range(0, SCHEDULES, CHUNK)):
            if broken >= 0:
                pool.terminate()
                schedule(broken)  # raises, with everything pytest shows of it
                pytest.fail(f"schedule {broken} broke a promise once, and not again")
            moments += looked_at
            seen += what
    print(f"{SCHEDULES} schedules, {moments} moments: {dict(seen.most_common())}")
    if SCHEDULES >= 5000:
        for often in (
            "Prepare", "Spawn", "Retire", "Kill", "Pass", "Close", "Exit",
            "swap_failed", "swap_superseded", "retry_scheduled", "gave_up", "serving", "worker_overdue", "readiness_probe_unavailable", "spawn_failed",
            "Configured", "worker_died", "worker_exited", "worker_killed", "scaled", "stopping", "stopped", "recovered", "degraded",
            "worker_shrunk", "recycling", "recycled",
        ):  # fmt: skip
            assert seen[often] >= SCHEDULES / 200, f"hardly ever: {often}"
        assert seen["went back"] >= SCHEDULES / 1000


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_every_promise_is_kept_whatever_hypothesis_thinks_of(dice: random.Random) -> None:
    """The same world with Hypothesis at the dice: it remembers what failed, and shrinks it."""
    World(dice).run()
