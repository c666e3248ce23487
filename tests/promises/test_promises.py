"""The promises hold in every schedule that is tried.

SIDECAR_SCHEDULES says how many (`make simulate` tries half a million); SIDECAR_SEED runs that one
alone. Every second one has the jobs of the host in it.
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

from .host_world import HostWorld, host_schedule
from .world import World, schedule

SCHEDULES = int(os.environ.get("SIDECAR_SCHEDULES", "10000"))
CHUNK = 250


def run(seed: int) -> World:
    """Run schedule `seed`, with jobs if the number is odd."""
    return host_schedule(seed) if seed % 2 else schedule(seed)


def try_chunk(first: int) -> tuple[int, int, Counter[str]]:
    """Run some schedules: (a seed that broke a promise or -1, how many moments were looked at, what
    was said, ordered and done how often).
    """
    moments = 0
    seen: Counter[str] = Counter()
    for seed in range(first, min(first + CHUNK, SCHEDULES)):
        try:
            world = run(seed)
        except Exception:
            return seed, moments, seen
        moments += world.steps
        if isinstance(world, HostWorld):
            seen.update(world.job_events)
        seen.update(
            each.event if isinstance(each, orders.LogEvent) else type(each).__name__
            for _, each in world.trace
        )
        seen["recovered"] += world.recovered
        seen["went back"] += any(getattr(each, "settings_from", 0) for _, each in world.trace)
        seen["degraded"] += any(
            isinstance(each, orders.LogEvent) and each.fields.get("degraded")
            for _, each in world.trace
        )
    return -1, moments, seen


@pytest.mark.timeout(0)
def test_every_promise_is_kept_in_every_schedule() -> None:
    """And the schedules are worth something: each kind of order, line and recovery occurs in a good
    many of them.
    """
    if "SIDECAR_SEED" in os.environ:
        run(int(os.environ["SIDECAR_SEED"]))
        return
    moments = 0
    seen: Counter[str] = Counter()
    with multiprocessing.get_context("fork").Pool() as pool:
        for broken, looked_at, what in pool.imap_unordered(try_chunk, range(0, SCHEDULES, CHUNK)):
            if broken >= 0:
                pool.terminate()
                run(broken)  # raises, with everything pytest shows of it
                pytest.fail(f"schedule {broken} broke a promise once, and not again")
            moments += looked_at
            seen += what
    print(f"{SCHEDULES} schedules, {moments} moments: {dict(seen.most_common())}")
    if SCHEDULES >= 5000:
        for often in (
            "Prepare", "Spawn", "Retire", "Kill", "ForwardSignal", "ForgetGeneration", "Exit",
            "swap_failed", "swap_superseded", "retry_scheduled", "gave_up", "serving", "worker_overdue", "readiness_probe_unavailable", "spawn_failed",
            "SettingsChanged", "worker_died", "worker_exited", "worker_killed", "scaled", "stopping", "stopped", "recovered", "degraded",
            "worker_shrunk", "recycling", "recycled",
        ):  # fmt: skip
            assert seen[often] >= SCHEDULES / 200, f"hardly ever: {often}"
        assert seen["went back"] >= SCHEDULES / 1000
        for often in (
            "watcher: started", "watcher: not started", "watcher: ended", "watcher: outdated",
            "log command: started", "log command: not started", "log command: ended",
            "reload: StartReader", "reload: DropReader", "reload: ParseAnswer", "reload: DropLookUp",
            "reload: PutInForce", "reload: RefuseReload",
            "ready command: started", "ready command: ended", "ready command: worker done",
            "upgrade: SayWaiting", "upgrade: StartCheck", "upgrade: BecomeNewVersion", "upgrade: FailUpgrade",
        ):  # fmt: skip
            assert seen[often] >= SCHEDULES / 500, f"hardly ever: {often}"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_every_promise_is_kept_whatever_hypothesis_thinks_of(dice: random.Random) -> None:
    """The same world with Hypothesis at the dice: it remembers what failed, and shrinks it."""
    World(dice).run()


@settings(max_examples=75, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_so_it_is_with_the_jobs_of_the_host(dice: random.Random) -> None:
    """The same, with jobs."""
    HostWorld(dice).run()


@pytest.mark.parametrize("seed", range(0, 200, 2))
def test_helpers_and_log_command_change_nothing_whatever_becomes_of_them(seed: int) -> None:
    """Every fact and order is the same as where there are none (promise 8)."""
    world = HostWorld(random.Random(seed), quiet=True).run()
    assert world.trace == schedule(seed).trace
