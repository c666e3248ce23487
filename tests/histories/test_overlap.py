"""Old and new workers at once, as far as the memory allows (--overlap)."""

from __future__ import annotations

import pytest

from sidecar.base.errors import SettingsError
from sidecar.settings.resolve import resolve
from sidecar.settings.table import Settings

from .history import play

BEFORE = """
    0    start                | prepare 1
    0    prepared 1           | spawn 1/0=101, spawn 1/1=102
    1    ready 101; ready 102 | !serving
    10   hup                  | prepare 2
"""


def test_room_for_all_is_a_swap_as_ever() -> None:
    history = play(Settings(workers=2), BEFORE + """
        10.1 prepared 2 2         | spawn 2/0=201, spawn 2/1=202
        11   ready 201; ready 202 | retire 101 TERM, retire 102 TERM, !serving
    """, prepare="later")  # fmt: skip
    assert history.what_was_said("overlap_limited") == []


def test_room_for_one_more_is_a_swap_slot_by_slot() -> None:
    history = play(Settings(workers=2), BEFORE + """
        10.1 prepared 2 1 | spawn 2/0=201, !overlap_limited
        11   ready 201    | retire 101 TERM
        12   exit 101 0   | spawn 2/1=202
        13   ready 202    | retire 102 TERM, !serving
    """, prepare="later")  # fmt: skip
    (said,) = history.what_was_said("overlap_limited")
    assert (said["surge"], said["why"]) == (1, "the limit")


def test_room_for_none_is_a_stop_and_then_a_start_and_says_so() -> None:
    history = play(Settings(workers=2), BEFORE + """
        10.1 prepared 2 0 | retire 101 TERM, retire 102 TERM, !overlap_skipped
        11   exit 101 0   |
        12   exit 102 0   | spawn 2/0=201, spawn 2/1=202
        13   ready 201    | close 1, !serving
    """, prepare="later")  # fmt: skip
    (said,) = history.what_was_said("overlap_skipped")
    assert (said["pids"], said["why"]) == ([101, 102], "the limit")


def test_what_does_not_leave_to_make_room_is_killed_after_the_drain_time() -> None:
    play(Settings(workers=1, overlap="never", drain_timeout=5.0), """
        0    start           | prepare 1, spawn 1/0=101
        1    ready 101       |
        10   hup             | prepare 2, retire 101 TERM, !overlap_skipped
        15   -               | kill 101
        15.1 killed 101 KILL | spawn 2/0=201
    """)  # fmt: skip


def test_a_check_that_fails_comes_before_any_room_is_made() -> None:
    play(Settings(workers=2, overlap="never"), BEFORE + """
        10.1 unprepared 2 | close 2, !swap_failed
    """, prepare="later")  # fmt: skip


def test_after_a_stop_and_start_that_failed_it_is_tried_again() -> None:
    play(Settings(workers=1, overlap="never"), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        20    watch      | prepare 2, retire 101 TERM
        21    exit 101 0 | spawn 2/0=201
        22    exit 201 1 | close 2, !swap_failed, !retry_scheduled
        22.25 -          | prepare 3 like 1, spawn 3/0=301
        23    ready 301  | close 1, !serving
    """)  # fmt: skip


def test_overlap_always_asks_for_no_room() -> None:
    play(Settings(workers=2, overlap="always"), BEFORE + """
        10.1 prepared 2 0 | spawn 2/0=201, spawn 2/1=202
    """, prepare="later")  # fmt: skip


def test_a_smaller_max_surge_stays_what_it_is() -> None:
    history = play(Settings(workers=3, max_surge=1), """
        0    start                           | prepare 1
        0    prepared 1                      | spawn 1/0=101, spawn 1/1=102, spawn 1/2=103
        1    ready 101; ready 102; ready 103 |
        10   hup                             | prepare 2
        10.1 prepared 2 2                    | spawn 2/0=201
    """, prepare="later")  # fmt: skip
    assert history.what_was_said("overlap_limited") == []


def test_a_generation_begun_while_the_one_before_makes_room_waits_for_it_too() -> None:
    play(Settings(workers=1), """
        0    start        | prepare 1
        0    prepared 1   | spawn 1/0=101
        1    ready 101    |
        10   watch        | prepare 2
        10.1 prepared 2 0 | retire 101 TERM
        11   watch        | prepare 3, close 2, !swap_superseded
        11.1 prepared 3 0 |
        12   exit 101 0   | spawn 3/0=301
    """, prepare="later")  # fmt: skip


def test_a_swap_goes_by_the_settings_it_was_begun_with_and_the_next_by_those_of_now() -> None:
    """Who makes room is asked with the signal of its own program."""
    play(Settings(), """
        0    start                                            | prepare 1, spawn 1/0=101
        1    ready 101                                        | !serving
        2    hup                                              | prepare 2, spawn 2/0=201
        3    configured overlap=never signal_on_hup=QUIT; hup |
        4    ready 201                                        | retire 101 TERM, prepare 3, retire 201 TERM, !serving, !overlap_skipped
        5    exit 101 0                                       | close 1
        6    exit 201 0                                       | spawn 3/0=301
        7    ready 301                                        | close 2, !serving
        8    hup                                              | prepare 4, retire 301 QUIT, !overlap_skipped
    """)  # fmt: skip


@pytest.mark.parametrize("other", [("slow_start", "yes"), ("max_surge", "1")])
def test_never_is_not_for_who_wants_both_at_once(other: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match="not with --overlap never"):
        resolve([("overlap", "never"), other], {}, ["program"]).checked()
