"""When --ready-command is run (policies/ready_command.py)."""

from __future__ import annotations

import pytest

from sidecar.policies.ready_command import ReadyCommandPolicy

NEVER = float("inf")
PID = 101


def asked(*pids: int) -> ReadyCommandPolicy:
    """A policy of workers that were started at 0."""
    policy = ReadyCommandPolicy()
    for pid in pids or (PID,):
        policy.worker_started(pid, 0.0)
    return policy


def test_it_is_run_at_once_and_once_at_a_time():
    policy = asked()
    assert (policy.deadline(), policy.decide(0.0)) == (0.0, [PID])
    policy.command_started(PID)
    assert (policy.deadline(), policy.decide(9.0)) == (NEVER, [])


def test_a_no_is_asked_again_ever_less_often():
    policy = asked()
    now, pauses = 0.0, []
    for _ in range(9):
        policy.command_started(PID)
        policy.command_said_no(PID, now)
        assert policy.decide(now) == []
        pauses.append(policy.deadline() - now)
        now = policy.deadline()
        assert policy.decide(now) == [PID]
    assert pauses == pytest.approx([0.1, 0.15, 0.225, 0.3375, 0.50625, 0.759375, 1, 1, 1])


def test_one_that_cannot_be_started_is_paced_like_a_no():
    policy = asked()
    policy.command_said_no(PID, 0.0)
    assert policy.deadline() == pytest.approx(0.1)


def test_each_worker_has_its_own_pace():
    policy = asked(101, 102)
    policy.command_started(101)
    assert policy.decide(0.0) == [102]
    policy.command_said_no(101, 5.0)
    assert policy.decide(5.0) == [102]
    assert policy.decide(5.1) == [101, 102]


def test_one_that_is_ready_or_has_gone_is_not_asked_for():
    policy = asked()
    policy.command_started(PID)
    policy.worker_done(PID)
    policy.command_said_no(PID, 1.0)  # it had been on its way
    policy.command_doubted(PID, 1.0)
    assert PID not in policy
    assert (policy.deadline(), policy.decide(9.0), policy.is_doubted(PID)) == (NEVER, [], False)


def test_a_yes_that_was_not_believed_is_asked_again_and_remembered():
    policy = asked()
    policy.command_started(PID)
    policy.command_doubted(PID, 0.0)
    assert policy.deadline() == pytest.approx(0.1)
    policy.command_started(PID)
    policy.command_said_no(PID, 1.0)
    assert policy.is_doubted(PID)
