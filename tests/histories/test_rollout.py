"""The course of a rollout: facts in, orders out. Twenty lines of a clock, no engine."""

from __future__ import annotations

import pytest

from sidecar.rollout.engine import Target, natural_sort_key
from sidecar.rollout.state import (
    INFINITY,
    Begin,
    Ended,
    GiveUp,
    Interrupted,
    Member,
    RolloutState,
    StatusRead,
    StepStarted,
)
from sidecar.rollout.summary import summary, table


def rollout(
    count: int, parallel: int = 1, max_failures: float = 0, timeout: float = 10.0
) -> RolloutState:
    return RolloutState(
        [Member(Target(f"web-{number}", str(number))) for number in range(1, count + 1)],
        parallel,
        max_failures,
        timeout,
    )


def begun(it: RolloutState, now: float = 0.0) -> list[str]:
    """Who is begun now, and nothing else."""
    orders = it.reconcile(now)
    assert all(isinstance(each, Begin) for each in orders)
    return [each.id for each in orders]


def test_so_many_are_under_way_at_a_time_in_order():
    it = rollout(4, parallel=2)
    assert begun(it) == ["1", "2"]
    assert begun(it) == []
    it.observe(Ended("2"), 1.0)
    assert begun(it) == ["3"]
    it.observe(Ended("1"), 2.0)
    it.observe(Ended("3"), 2.0)
    assert begun(it) == ["4"]
    it.observe(Ended("4"), 3.0)
    assert it.over
    assert summary(it)["outcome"] == "done"


def test_after_a_failure_nothing_is_begun_and_what_is_under_way_is_waited_for():
    it = rollout(4, parallel=2)
    begun(it)
    it.observe(StatusRead("1", 7), 0.5)
    it.observe(Ended("1", "failed", "it broke"), 1.0)
    assert begun(it) == []
    assert not it.over
    it.observe(Ended("2"), 2.0)
    assert it.over
    it.mark_untouched()
    found = summary(it)
    assert (found["outcome"], found["done"], found["failed"], found["untouched"]) == (
        "stopped",
        1,
        1,
        2,
    )
    assert found["containers"][0] == {
        "name": "web-1", "id": "1", "outcome": "failed", "was": 7, "serves": 7, "kind": "failed", "cause": "it broke",
    }  # fmt: skip
    assert table(found) == [
        "CONTAINER  OUTCOME    SERVES",
        "web-1      failed     7       it broke",
        "web-2      done       -",
        "web-3      untouched  -",
        "web-4      untouched  -",
        "",
        "the rollout has stopped: 1 done, 1 failed, 2 untouched",
    ]


@pytest.mark.parametrize(("allowed", "tried"), [(0, 1), (1, 2), (2, 3), (3, 4), (4, 4)])
def test_it_goes_on_after_as_many_failures_as_are_allowed(allowed, tried):
    it = rollout(4, max_failures=allowed)
    count = 0
    while orders := begun(it):
        count += 1
        it.observe(Ended(orders[0], "failed"), 1.0)
    assert it.over
    assert count == tried


def test_the_time_is_each_steps_own_and_a_hang_is_given_up():
    it = rollout(2, parallel=2, timeout=10.0)
    begun(it, 0.0)
    assert it.deadline == 10.0
    it.observe(StepStarted("1", "copy /srv"), 8.0)
    assert it.deadline == 10.0
    it.observe(Ended("2"), 9.0)
    assert it.deadline == 18.0
    assert it.reconcile(17.9) == []
    assert it.reconcile(18.0) == [
        GiveUp("1", "hung", "nothing has been heard of it for 10 s: copy /srv")
    ]


def test_nobody_says_what_one_serves_that_was_lost_out_of_sight_and_what_it_says_later_is_not_heard():
    it = rollout(1)
    begun(it)
    it.observe(StatusRead("1", 3), 1.0)
    it.observe(Ended("1", "hung", "…"), 11.0)
    assert it.members["1"].serves is None
    it.observe(StatusRead("1", 4), 12.0)
    it.observe(Ended("1"), 12.0)
    assert (it.members["1"].state, it.members["1"].was, it.members["1"].serves) == (
        "failed",
        3,
        None,
    )


def test_a_lost_engine_ends_it_whatever_may_fail():
    it = rollout(3, max_failures=INFINITY)
    begun(it)
    it.observe(Ended("1", "lost", "…"), 1.0)
    assert begun(it) == []
    assert it.over
    it.mark_untouched()
    assert summary(it)["outcome"] == "lost"


def test_an_interrupt_begins_nothing_more_and_a_second_one_gives_up():
    it = rollout(3, parallel=2)
    begun(it)
    it.observe(Interrupted(), 1.0)
    it.observe(Ended("1"), 2.0)
    assert begun(it) == []
    assert not it.over
    it.observe(StepStarted("2", "reload"), 3.0)
    it.observe(Interrupted(), 3.0)
    assert it.reconcile(3.0) == [GiveUp("2", "interrupted", "interrupted: reload")]


def test_an_interrupt_before_the_first_begins_nothing():
    it = rollout(3)
    it.observe(Interrupted(), 0.0)
    assert begun(it) == []
    assert it.over


def test_at_rest_there_is_no_deadline():
    assert rollout(3).deadline == INFINITY


def test_names_are_sorted_as_people_count():
    names = ["web-10", "web-2", "web", "db-1", "web-1"]
    assert sorted(names, key=natural_sort_key) == ["db-1", "web", "web-1", "web-2", "web-10"]
    assert sorted(["a²", "a1", "1a"], key=natural_sort_key) == ["1a", "a1", "a²"]
