"""The restarts of a process that has to run all the time (policies/restart.py)."""

from __future__ import annotations

import pytest

from sidecar.policies.restart import RestartPolicy

NEVER = float("inf")


def ends(policy: RestartPolicy, lives: float, times: int) -> list[float]:
    """Start it whenever it is due, and have it end after so many seconds: the pauses."""
    pauses = []
    for _ in range(times):
        now = policy.start_at
        policy.started(now)
        pauses.append(policy.ended(now + lives, 0.0))
    return pauses


def test_one_that_ends_at_once_is_started_again_after_growing_pauses():
    assert ends(RestartPolicy(0.0), 0.0, 8) == [0.25, 0.5, 1, 2, 4, 5, 5, 5]


def test_a_long_life_begins_the_pauses_anew():
    policy = RestartPolicy(0.0, min_pause_s=0.1)
    assert ends(policy, 9.9, 3) == [0.25, 0.5, 1]
    assert ends(policy, 10.0, 2) == pytest.approx([0.1, 0.1])
    assert ends(policy, 0.0, 1) == [0.25]


def test_one_that_cannot_be_started_has_not_lived_long():
    policy = RestartPolicy(0.0)
    policy.started(0.0)
    policy.ended(100.0, 0.0)
    assert [policy.ended(100.0, 0.0), policy.ended(100.25, 0.0)] == [0.25, 0.5]


def test_the_pause_is_shortened_by_up_to_half():
    policy = RestartPolicy(0.0)
    policy.started(0.0)
    assert policy.ended(1.0, 0.999) == pytest.approx(0.125, abs=0.001)


def test_while_it_runs_nothing_is_due():
    policy = RestartPolicy(5.0)
    assert policy.deadline(stopping=False) == 5.0
    policy.started(5.0)
    assert policy.deadline(stopping=False) == NEVER
    policy.ended(6.0, 0.0)
    assert policy.deadline(stopping=False) == 6.25


def test_in_a_stop_only_what_is_needed_until_the_end_is_started():
    assert RestartPolicy(0.0).deadline(stopping=True) == NEVER
    assert RestartPolicy(0.0, runs_during_stop=True).deadline(stopping=True) == 0.0


def test_one_that_another_version_has_started_is_replaced_at_once():
    policy = RestartPolicy(0.0)
    policy.started(0.0)
    policy.taken_over()
    assert policy.ended(1.0, 0.0) == 0.0
    assert policy.start_at == 1.0
    policy.started(1.0)
    assert policy.ended(1.0, 0.0) == 0.25  # only once


def test_one_that_waits_for_its_start_waits_on_in_another_version():
    policy = RestartPolicy(0.0)
    policy.started(0.0)
    policy.ended(1.0, 0.0)
    policy.taken_over()
    assert policy.start_at == 1.25


def test_one_that_was_lost_is_started_at_once_and_one_that_waits_waits_on():
    policy = RestartPolicy(0.0)
    policy.started(0.0)
    policy.lost(3.0)
    assert policy.start_at == 3.0
    policy.ended(3.0, 0.0)
    policy.lost(3.1)
    assert policy.start_at == 3.25
