"""What becomes of requests to read the settings again (policies/reload.py)."""

from __future__ import annotations

import pytest

from sidecar.policies.reload import (
    DropLookUp,
    DropReader,
    ParseAnswer,
    PutInForce,
    RefuseReload,
    ReloadPolicy,
    StartReader,
)

NEVER = float("inf")


def reading(trigger: str = "signal", *changed: str) -> ReloadPolicy:
    """A policy whose reader was started at 0."""
    policy = ReloadPolicy()
    policy.requested(trigger, changed)
    assert policy.decide(0.0, stopping=False) == [StartReader()]
    return policy


def parsed(policy: ReloadPolicy) -> ReloadPolicy:
    """The same after its reader has answered."""
    policy.reader_ended()
    assert policy.decide(1.0, stopping=False) == [ParseAnswer()]
    return policy


def looking_up(policy: ReloadPolicy) -> ReloadPolicy:
    """The same while something is looked up for its settings."""
    parsed(policy).look_up_started()
    assert policy.decide(1.0, stopping=False) == []
    return policy


def test_what_needs_no_looking_up_is_put_in_force_at_once():
    policy = parsed(reading())
    policy.look_up_ended()
    assert policy.decide(1.0, stopping=False) == [PutInForce("signal", (), False)]
    assert not policy.under_way


def test_what_is_looked_up_is_waited_for():
    policy = looking_up(reading())
    assert policy.deadline() == NEVER  # who looks up has a deadline of its own
    policy.look_up_ended()
    assert policy.decide(2.0, stopping=False) == [PutInForce("signal", (), False)]


def test_requests_during_a_reading_are_one_more_reading_with_the_latest_trigger():
    policy = reading("watch", "a")
    policy.requested("signal")
    policy.requested("command", ("b",))
    assert policy.decide(0.5, stopping=False) == []  # the first is not disturbed
    policy.reader_ended()
    assert policy.decide(1.0, stopping=False) == [StartReader()]
    parsed(policy).look_up_ended()
    # A file has changed: a generation that is coming may have the old one.
    assert policy.decide(2.0, stopping=False) == [PutInForce("command", ("a", "b"), True)]


def test_what_was_wrong_before_the_latest_request_is_not_said():
    policy = reading()
    policy.requested("signal")
    policy.reader_ended("the reader failed")
    assert policy.decide(1.0, stopping=False) == [StartReader()]


def test_a_request_while_something_is_looked_up_ends_that():
    policy = looking_up(reading("watch", "a"))
    policy.requested("signal")
    assert policy.decide(2.0, stopping=False) == [DropLookUp(), StartReader()]
    assert policy.deadline() == 22.0
    parsed(policy).look_up_ended()
    assert policy.decide(3.0, stopping=False) == [PutInForce("signal", ("a",), True)]


def test_only_a_changed_file_supersedes():
    policy = parsed(reading("watch"))
    policy.look_up_ended()
    assert policy.decide(1.0, stopping=False) == [PutInForce("watch", (), True)]
    policy.requested("signal")
    assert policy.decide(2.0, stopping=False) == [StartReader()]
    parsed(policy).look_up_ended()
    assert policy.decide(3.0, stopping=False) == [PutInForce("signal", (), False)]


@pytest.mark.parametrize("stage", ["reading", "looking up"])
def test_what_cannot_be_read_or_looked_up_is_refused(stage):
    policy = reading()
    if stage == "reading":
        policy.reader_ended("no")
    else:
        looking_up(policy).look_up_ended("no")
    assert policy.decide(2.0, stopping=False) == [RefuseReload("no")]
    assert not policy.under_way


def test_a_reader_that_takes_too_long_is_not_waited_for():
    policy = reading()
    assert policy.deadline() == 20.0
    assert policy.decide(19.0, stopping=False) == []
    assert policy.decide(20.0, stopping=False) == [DropReader()]
    assert policy.decide(20.0, stopping=False) == []
    policy.reader_ended("too late")
    assert policy.decide(20.0, stopping=False) == [RefuseReload("too late")]


def test_one_that_cannot_be_started_is_refused_in_the_next_turn():
    policy = reading()
    policy.reader_not_started("no process", 0.0)
    assert policy.deadline() == 0.0
    assert policy.decide(0.0, stopping=False) == [RefuseReload("no process")]


def test_another_request_before_that_is_said_is_another_attempt():
    policy = reading()
    policy.reader_not_started("no process", 0.0)
    policy.requested("signal")
    assert policy.decide(0.0, stopping=False) == [StartReader()]
    assert policy.deadline() == 20.0


@pytest.mark.parametrize("stage", ["requested", "reading", "looking up"])
def test_in_a_stop_nothing_is_read_and_nothing_is_put_in_force(stage):
    policy = ReloadPolicy()
    if stage == "requested":
        policy.requested("signal")
    elif stage == "reading":
        policy = reading()
        policy.requested("signal")
        policy.reader_ended()
    else:
        looking_up(policy := reading()).look_up_ended()
    assert policy.decide(2.0, stopping=True) == []
    assert not policy.under_way
