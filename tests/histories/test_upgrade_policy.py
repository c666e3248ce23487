"""The stages of an upgrade in place (policies/upgrade.py)."""

from __future__ import annotations

import pytest

from sidecar.policies.upgrade import (
    BecomeNewVersion,
    FailUpgrade,
    SayWaiting,
    StartCheck,
    Step,
    UpgradePolicy,
)

NEVER = float("inf")
TOO_LONG = FailUpgrade("swaps have been going on for five minutes")


class Upgrade:
    """A policy, and what is told it by default: nothing else goes on."""

    def __init__(self, at: float = 0.0, only_check: bool = False) -> None:
        self.policy = UpgradePolicy()
        self.policy.requested(at, only_check)

    def at(
        self, now: float, *, coming: int = 0, reading: bool = False, stopping: bool = False
    ) -> Step | None:
        return self.policy.decide(now, coming=coming, reading=reading, stopping=stopping)

    def check(self, starts: float) -> Upgrade:
        """Have it begin its check."""
        assert self.at(starts) == StartCheck()
        self.policy.check_started(starts)
        return self


def test_without_a_swap_it_checks_and_becomes_the_new_version():
    upgrade = Upgrade().check(0.0)
    assert upgrade.at(1.0) is None
    assert upgrade.policy.deadline() == 60.0
    upgrade.policy.check_passed()
    assert upgrade.at(2.0) == BecomeNewVersion()


def test_nobody_has_asked():
    policy = UpgradePolicy()
    assert policy.decide(0.0, coming=0, reading=False, stopping=False) is None
    assert policy.deadline() == NEVER


def test_it_waits_for_a_swap_and_says_so_once():
    upgrade = Upgrade()
    assert upgrade.at(0.0, coming=2) == SayWaiting(2)
    assert upgrade.at(1.0, coming=2) is None
    assert upgrade.at(2.0, coming=3) is None
    assert upgrade.policy.deadline() == 300.0
    upgrade.check(3.0)


def test_it_waits_without_a_word_for_settings_that_are_being_read():
    upgrade = Upgrade()
    assert upgrade.at(0.0, reading=True) is None
    upgrade.check(1.0)


def test_swaps_without_an_end_end_it():
    upgrade = Upgrade()
    upgrade.at(0.0, coming=2)
    assert upgrade.at(299.0, coming=2) is None
    assert upgrade.at(300.0, coming=2) == TOO_LONG
    upgrade.policy.failed()
    assert upgrade.policy.deadline() == NEVER


def test_a_swap_that_begins_during_the_check_is_waited_for_and_the_check_is_done_again():
    upgrade = Upgrade().check(0.0)
    assert upgrade.at(1.0, coming=2) is None
    upgrade.policy.check_passed()
    assert upgrade.at(2.0, coming=2) == SayWaiting(2)
    # Not only for as long as the check could have taken.
    assert upgrade.at(61.0, coming=2) is None
    assert upgrade.at(62.0) == StartCheck()


def test_a_check_that_takes_too_long_ends_it():
    upgrade = Upgrade().check(10.0)
    assert upgrade.at(69.0) is None
    assert upgrade.at(70.0) == FailUpgrade(
        "the new version has not proved within a minute that it can start"
    )


def test_whoever_only_asks_whether_it_could_be_done_waits_for_no_swap():
    upgrade = Upgrade(only_check=True)
    assert upgrade.at(0.0, coming=2) == StartCheck()
    upgrade.policy.check_started(0.0)
    upgrade.policy.check_passed()
    assert not upgrade.policy.on_its_way
    assert upgrade.at(1.0) is None


@pytest.mark.parametrize("first", [True, False])
def test_one_upgrade_answers_all_who_ask_for_it(first):
    upgrade = Upgrade(only_check=first).check(0.0)
    upgrade.policy.requested(5.0, only_check=not first)
    assert upgrade.at(5.0) is None
    upgrade.policy.check_passed()
    assert upgrade.at(6.0) == BecomeNewVersion()


def test_who_asks_for_more_than_a_check_is_given_the_whole_time():
    upgrade = Upgrade(only_check=True).check(0.0)
    upgrade.policy.requested(50.0, only_check=False)
    upgrade.policy.check_passed()
    assert upgrade.at(51.0, coming=2) == SayWaiting(2)
    assert upgrade.at(349.0, coming=2) is None
    assert upgrade.at(350.0, coming=2) == TOO_LONG


@pytest.mark.parametrize("checking", [False, True])
def test_a_stop_ends_it_at_every_stage(checking):
    upgrade = Upgrade()
    if checking:
        upgrade.check(0.0)
    assert upgrade.at(1.0, stopping=True) == FailUpgrade("sidecar is stopping")


def test_a_stop_ends_it_when_it_is_proven():
    upgrade = Upgrade().check(0.0)
    upgrade.policy.check_passed()
    assert upgrade.at(1.0, stopping=True) == FailUpgrade("sidecar is stopping")


def test_the_next_one_begins_from_the_start():
    upgrade = Upgrade()
    upgrade.at(0.0, coming=2)
    upgrade.policy.failed()
    upgrade.policy.requested(400.0, only_check=False)
    assert upgrade.at(400.0, coming=3) == SayWaiting(3)
    assert upgrade.at(699.0, coming=3) is None
