"""A step of reconcile that raises keeps no other step from its own, and what was decided is done."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.core import (
    failures,
    recycling,
    retirement,
    scaling,
    slow_start,
    starting,
    supervisor,
    swaps,
    takeover,
    worker_events,
)
from sidecar.core.state import State
from sidecar.settings.table import Settings
from tests.histories.history import History

STEPS = {
    "check_start_deadlines": worker_events,
    "handle_failed_generation": failures,
    "stop_after_failures": failures,
    "take_over": takeover,
    "retire_surplus": scaling,
    "begin_swap": swaps,
    "make_room": starting,
    "start_missing_workers": starting,
    "rebalance_processes": slow_start,
    "recycle_oversize": recycling,
    "forward_signals": supervisor,
    "kill_overdue": retirement,
    "remove_finished": retirement,
}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a step raise until a moment: before it does anything, or after."""

    def plant(history: History, name: str, until: float, after: bool) -> None:
        real: Callable[[State, float], None] = getattr(STEPS[name], name)

        def step(state: State, now: float) -> None:
            if now < until and not after:
                raise RuntimeError
            real(state, now)
            if now < until:
                raise RuntimeError

        step.__name__ = name
        monkeypatch.setattr(STEPS[name], name, step)
        history.defective = True

    return plant


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", STEPS)
def test_a_stop_goes_on_whatever_step_is_broken_for_good(broken, name, after):
    history = History(Settings(workers=1, drain_timeout=2.0), prepare="later")
    history.play("0 start | prepare 1\n 0 prepared 1 | spawn 1/0=101\n 1 ready 101 | !serving")
    broken(history, name, float("inf"), after)
    given = []
    for moment, facts in ((2.0, "term"), (4.0, ""), (12.0, "")):
        while history.supervisor.deadline < moment:
            history.now = history.supervisor.deadline
            given += history._settle()
        history.now = moment
        if facts:
            history._fact(facts)
        given += history._settle()
    assert given[0] == "retire 101 TERM"
    assert ("kill 101" in given) is (name != "kill_overdue" or after)
    # Without a kill the supervisor waits for good: the host ends a stop that takes too long.
    assert ("exit 0" in given) is (name != "kill_overdue" or after)


def test_what_a_step_had_decided_before_it_raised_is_done(broken):
    history = History(Settings(workers=2), prepare="later")
    history.play("0 start | prepare 1")
    broken(history, "start_missing_workers", 1.0, after=True)
    history.play("0 prepared 1 | spawn 1/0=101, spawn 1/1=102, !internal_error")


def test_a_step_that_raises_once_is_taken_again_by_itself_and_said_once(broken):
    history = History(Settings(workers=1))
    broken(history, "start_missing_workers", 0.1, after=False)
    history.play(
        """
        0     start      | prepare 1, !internal_error
        0.25  -          | spawn 1/0=101
        1     ready 101  | !serving
        """
    )
    assert [fields["error"] for fields in history.what_was_said("internal_error")] == [
        "RuntimeError"
    ]


def test_a_failure_is_not_forgotten_by_a_step_that_raises(monkeypatch):
    history = History(Settings(workers=1))
    history.play(
        "0 start | prepare 1, spawn 1/0=101\n 1 ready 101 | !serving\n 2 hup | prepare 2, spawn 2/0=201"
    )
    real = takeover.is_only_one_ready

    def is_only_one_ready(state, coming):
        if history.now < 3.1:
            raise RuntimeError
        return real(state, coming)

    history.defective = True
    monkeypatch.setattr(takeover, "is_only_one_ready", is_only_one_ready)
    history.play("3 exit 201 1 | !internal_error\n 3.25 - | close 2, !swap_failed")


def test_a_defect_that_stays_is_said_ever_more_seldom(broken):
    history = History(Settings(workers=1))
    history.play("0 start | prepare 1, spawn 1/0=101\n 1 ready 101 | !serving")
    broken(history, "retire_surplus", float("inf"), after=False)
    tries = 0
    history.play("2 - |")
    while history.supervisor.deadline < 3600.0:
        history.now = history.supervisor.deadline
        assert history._settle() == []
        tries += 1
    assert 700 < tries < 800  # every five seconds in the end
    assert len(history.what_was_said("internal_error")) < 20
