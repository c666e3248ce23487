"""Histories of generations that time alone made ready, and that die soon: the way back to the
settings and environment of the last that held out. And of what serves and dies after what was asked
for has been refused.
"""

from __future__ import annotations

import pytest

from sidecar.core import facts, orders
from sidecar.settings.address import parse
from sidecar.settings.table import START_SERVER, Settings

from .history import History, play

SETTINGS = Settings(min_uptime=10.0, interval=1.0)

# Generation 1 has held out; 2 was asked for, and has taken over.
TAKEN_OVER = """
        0     start      | prepare 1, spawn 1/0=101
        1     -          | !serving
        20    hup        | prepare 2, spawn 2/0=201
        21    -          | retire 101 TERM, !serving
        21.5  exit 101 0 | close 1
"""


def taken_over(settings: Settings = SETTINGS) -> History:
    return play(settings, TAKEN_OVER, readiness="interval")


def test_what_died_soon_is_followed_by_the_last_that_held_out_once() -> None:
    taken_over().play("""
        22    exit 201 1 | !retry_scheduled
        22.25 -          | prepare 3 like 1, spawn 3/0=301
        23.25 -          | close 2, !serving
        24    exit 301 1 | !retry_scheduled
        24.5  -          | prepare 4, spawn 4/0=401
        25.5  -          | close 3, !serving
        26    exit 401 1 | !retry_scheduled
        27    -          | prepare 5, spawn 5/0=501
    """)


def test_what_went_back_and_failed_before_it_was_ready_is_not_gone_back_to_again() -> None:
    taken_over().play("""
        22    exit 201 1 | !retry_scheduled
        22.25 -          | prepare 3 like 1, spawn 3/0=301
        22.5  exit 301 1 | close 3, !swap_failed
        23    -          | prepare 4, spawn 4/0=401
        24    -          | close 2
        25    exit 401 1 |
        26    -          | prepare 5, spawn 5/0=501
    """)


def test_what_went_back_and_held_out_is_begun_again_as_it_was() -> None:
    """And a swap that is asked for gets what there is now; if that dies soon, there is a way back."""
    taken_over().play("""
        22    exit 201 1 |
        22.25 -          | prepare 3 like 1, spawn 3/0=301
        23.25 -          | close 2
        50    exit 301 1 | prepare 4 like 3, spawn 4/0=401
        51    -          | close 3
        80    hup        | prepare 5, spawn 5/0=501
        81    -          | retire 401 TERM
        81    exit 401 0 | close 4
        82    exit 501 1 |
        82.25 -          | prepare 6 like 4, spawn 6/0=601
    """)


def test_the_way_back_leads_over_what_has_not_held_out() -> None:
    taken_over().play("""
        22    hup        | prepare 3, spawn 3/0=301
        23    -          | retire 201 TERM
        23    exit 201 0 | close 2
        24    exit 301 1 |
        24.25 -          | prepare 4 like 1, spawn 4/0=401
    """)


def test_the_last_that_held_out_may_still_be_draining() -> None:
    play(SETTINGS, """
        0     start      | prepare 1, spawn 1/0=101
        1     -          |
        20    hup        | prepare 2, spawn 2/0=201
        21    -          | retire 101 TERM
        22    exit 201 1 |
        22.25 -          | prepare 3 like 1, spawn 3/0=301
        22.5  exit 101 0 | close 1
        23.25 -          | close 2
    """, readiness="interval")  # fmt: skip


def test_all_workers_have_to_be_lost() -> None:
    play(SETTINGS.replace(workers=2), """
        0     start                  | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     -                      |
        20    hup                    | prepare 2, spawn 2/0=201, spawn 2/1=202
        21    -                      | retire 101 TERM, retire 102 TERM
        21    exit 101 0; exit 102 0 | close 1
        22    exit 201 1             |
        22.1  exit 202 1             |
        22.35 -                      | prepare 3 like 1, spawn 3/0=301, spawn 3/1=302
    """, readiness="interval")  # fmt: skip


def test_it_has_taken_over_by_time_also_where_the_system_forbids_the_look() -> None:
    play(SETTINGS, """
        0     start         | prepare 1, spawn 1/0=101
        1     ready 101     |
        20    hup           | prepare 2, spawn 2/0=201
        20.5  forbidden 201 |
        21    -             | retire 101 TERM
        21    exit 101 0    | close 1
        22    exit 201 1    |
        22.25 -             | prepare 3 like 1, spawn 3/0=301
    """)  # fmt: skip


@pytest.mark.parametrize("readiness", ["accept", "notify", "command"])
def test_what_was_seen_to_be_ready_is_begun_again_with_what_there_is_now(readiness: str) -> None:
    play(SETTINGS, """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        20    hup        | prepare 2, spawn 2/0=201
        21    ready 201  | retire 101 TERM
        21    exit 101 0 | close 1
        22    exit 201 1 |
        22.25 -          | prepare 3, spawn 3/0=301
    """, readiness=readiness)  # fmt: skip


def test_what_had_held_out_is_begun_again_with_what_there_is_now() -> None:
    taken_over().play("""
        31    exit 201 1 | prepare 3, spawn 3/0=301
    """)


def test_where_nothing_has_held_out_there_is_no_way_back() -> None:
    play(SETTINGS, """
        0     start      | prepare 1, spawn 1/0=101
        1     -          |
        5     hup        | prepare 2, spawn 2/0=201
        6     -          | retire 101 TERM
        6     exit 101 0 | close 1
        7     exit 201 1 |
        7.25  -          | prepare 3, spawn 3/0=301
    """, readiness="interval")  # fmt: skip


@pytest.mark.parametrize("asked", ["hup", "command", "watch", "envdir"])
def test_a_swap_that_is_asked_for_meanwhile_gets_what_there_is_now(asked: str) -> None:
    taken_over().play(f"""
        22    exit 201 1 |
        22.1  {asked}    | prepare 3, spawn 3/0=301
        23.1  -          | close 2
        24    exit 301 1 |
        24.5  -          | prepare 4 like 1, spawn 4/0=401
    """)


def test_an_envdir_that_waits_for_its_splay_is_asked_for_as_well() -> None:
    History(SETTINGS.replace(env_splay=60.0), readiness="interval", chance=0.5).play("""
        0      start      | prepare 1, spawn 1/0=101
        1      -          |
        20     hup        | prepare 2, spawn 2/0=201
        21     -          | retire 101 TERM
        21     exit 101 0 | close 1
        22     envdir; exit 201 1 |
        22.1875 -         | prepare 3, spawn 3/0=301
    """)


def test_a_swap_that_is_asked_for_while_it_goes_back_leaves_the_way_open() -> None:
    taken_over().play("""
        22    exit 201 1 |
        22.25 -          | prepare 3 like 1, spawn 3/0=301
        22.5  hup        |
        23.25 -          | prepare 4, close 2, spawn 4/0=401
        24.25 -          | retire 301 TERM
        24.25 exit 301 0 | close 3
        25    exit 401 1 |
        25.5  -          | prepare 5 like 1, spawn 5/0=501
    """)


def test_a_stop_meanwhile_ends_it() -> None:
    taken_over().play("""
        22    exit 201 1 |
        22.1  term       | close 2, exit 0
    """)


def test_other_addresses_bar_the_way_and_that_is_said() -> None:
    history = taken_over()
    other = history.supervisor.settings.replace(port=(parse("127.0.0.1:1"),))
    history.supervisor.settings = other
    history.play("""
        22    exit 201 1 | !revert_impossible
        22.25 -          | prepare 3, spawn 3/0=301
    """)
    assert history.what_was_said("revert_impossible") == [{"generation": 2, "like": 1}]


def test_start_server_does_not_go_back() -> None:
    taken_over(SETTINGS.replace(entry_point=START_SERVER)).play("""
        22    exit 201 1 |
        22.25 -          | prepare 3, spawn 3/0=301
    """)


# --- what was asked for has been refused

# Generation 1 serves; 2 was asked for, and has failed.
REFUSED = """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  | !serving
        20    hup        | prepare 2, spawn 2/0=201
        21    exit 201 1 | close 2, !swap_failed
"""


def refused(settings: Settings = SETTINGS) -> History:
    return play(settings, REFUSED)


def test_what_serves_and_dies_after_a_refusal_is_begun_again_as_it_was() -> None:
    """As often as it takes, and also if that dies soon."""
    refused().play("""
        30    killed 101 KILL | prepare 3 like 1, spawn 3/0=301
        31    exit 301 1      | close 3, !swap_failed, !retry_scheduled
        31.25 -               | prepare 4 like 1, spawn 4/0=401
        32    ready 401       | close 1, !serving
        33    exit 401 1      | !retry_scheduled
        33.5  -               | prepare 5 like 4, spawn 5/0=501
    """)


def test_it_is_told_what_was_refused() -> None:
    history = refused()
    history.supervisor.observe(facts.WorkerExited(101, 9, "KILL"), 30.0)
    prepare = [
        each for each in history.supervisor.reconcile(30.0) if isinstance(each, orders.Prepare)
    ]
    assert [(each.settings_from, each.rejected) for each in prepare] == [(1, 2)]


@pytest.mark.parametrize("asked", ["hup", "command", "watch", "envdir"])
def test_a_swap_that_is_asked_for_after_a_refusal_gets_what_there_is_now(asked: str) -> None:
    """And once that serves, a crash is followed by what there is now again."""
    refused().play(f"""
        30    killed 101 KILL; {asked} | prepare 3, spawn 3/0=301
        31    ready 301                | close 1, !serving
        50    exit 301 1               | prepare 4, spawn 4/0=401
    """)


def test_what_fails_when_nothing_serves_any_more_is_followed_by_what_served() -> None:
    history = play(SETTINGS, """
        0     start           | prepare 1, spawn 1/0=101
        1     ready 101       | !serving
        20    hup             | prepare 2, spawn 2/0=201
        21    killed 101 KILL |
        22    exit 201 1      | close 2, !swap_failed, !retry_scheduled
        22.25 -               | prepare 3 like 1, spawn 3/0=301
        23    ready 301       | close 1, !serving
    """)  # fmt: skip
    assert [each["trigger"] for each in history.what_was_said("retry_scheduled")] == ["crash"]


def test_what_made_room_for_one_that_fails_comes_back() -> None:
    play(SETTINGS.replace(overlap="never"), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  | !serving
        20    hup        | prepare 2, retire 101 TERM, !overlap_skipped
        21    exit 101 0 | spawn 2/0=201
        22    exit 201 1 | close 2, !swap_failed
        22.25 -          | prepare 3 like 1, spawn 3/0=301
    """)  # fmt: skip


def test_a_broken_listener_after_a_refusal_brings_what_serves() -> None:
    refused().play("""
        30    listener  | prepare 3 like 1, spawn 3/0=301
        31    ready 301 | retire 101 TERM, !serving
    """)


def test_a_refusal_is_of_what_was_asked_for() -> None:
    """What follows a crash by itself and fails may do better the next time."""
    play(SETTINGS, """
        0     start           | prepare 1, spawn 1/0=101
        1     ready 101       | !serving
        20    killed 101 KILL | prepare 2, spawn 2/0=201
        21    exit 201 1      | close 2, !swap_failed
        21.25 -               | prepare 3, spawn 3/0=301
    """)  # fmt: skip


def test_other_addresses_do_not_bar_the_way_to_what_serves() -> None:
    history = refused()
    other = history.supervisor.settings.replace(port=(parse("127.0.0.1:1"),))
    history.supervisor.settings = other
    history.play("""
        30    killed 101 KILL | prepare 3 like 1, spawn 3/0=301
    """)


def test_start_server_tries_what_was_refused_again() -> None:
    refused(SETTINGS.replace(entry_point=START_SERVER)).play("""
        21.25 -               | prepare 3, spawn 3/0=301
        22    killed 101 KILL |
        23    exit 301 1      | close 3, !swap_failed
        23.5  -               | prepare 4, spawn 4/0=401
    """)
