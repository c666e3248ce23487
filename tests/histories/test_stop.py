"""Histories of the stop, in every phase it can come in."""

from __future__ import annotations

from sidecar.settings.table import Settings

from .history import play


def test_stop_retires_everything_and_exits_with_the_last_of_them() -> None:
    play(Settings(workers=2, signal_on_term="QUIT"), """
        0     start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102 |
        10    term                 | retire 101 QUIT, retire 102 QUIT, !stopping
        11    exit 101 0           |
        12    exit 102 0           | close 1, exit 0, !stopped
        99    -                    |
    """)  # fmt: skip


def test_stop_kills_at_the_drain_timeout() -> None:
    play(Settings(drain_timeout=10.0), """
        0     start           | prepare 1, spawn 1/0=101
        1     ready 101       |
        10    term            | retire 101 TERM
        20    -               | kill 101
        20    killed 101 KILL | close 1, exit 0
    """)  # fmt: skip


def test_stop_leaves_what_cannot_be_killed_behind() -> None:
    history = play(Settings(drain_timeout=10.0), """
        0     start     | prepare 1, spawn 1/0=101
        1     ready 101 |
        10    term      | retire 101 TERM
        20    -         | kill 101
        23    -         | exit 0
    """)  # fmt: skip
    assert history.what_was_said("stopped")[0]["left"] == [101]


def test_stop_gives_a_lingering_group_what_is_left_of_its_time() -> None:
    play(Settings(drain_timeout=10.0), """
        0     start        | prepare 1, spawn 1/0=101
        1     ready 101    |
        10    term         | retire 101 TERM
        11    exit 101 0 + |
        20    -            | kill 101
        20    empty 101    | close 1, exit 0
    """)  # fmt: skip


def test_term_serves_on_for_the_lame_duck_time_and_int_does_not() -> None:
    play(Settings(lame_duck=5.0), """
        0     start     | prepare 1, spawn 1/0=101
        1     ready 101 |
        10    term      | !stopping
        15    -         | retire 101 TERM
    """)  # fmt: skip
    play(Settings(lame_duck=5.0), """
        0     start     | prepare 1, spawn 1/0=101
        1     ready 101 |
        10    int       | retire 101 TERM
    """)  # fmt: skip


def test_lame_duck_is_no_use_where_nothing_takes_connections() -> None:
    play(Settings(lame_duck=5.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     term       | retire 101 TERM
        3     -          | kill 101
        3     killed 101 KILL | close 1, exit 0
    """)  # fmt: skip


def test_second_term_skips_the_lame_duck_and_the_third_the_drain() -> None:
    play(Settings(lame_duck=60.0, drain_timeout=60.0), """
        0     start           | prepare 1, spawn 1/0=101
        1     ready 101       |
        10    term            |
        11    term            | retire 101 TERM
        12    term            | kill 101
        12    killed 101 KILL | close 1, exit 0
    """)  # fmt: skip


def test_int_after_term_skips_the_lame_duck() -> None:
    play(Settings(lame_duck=60.0), """
        0     start     | prepare 1, spawn 1/0=101
        1     ready 101 |
        10    term      |
        11    int       | retire 101 TERM
    """)  # fmt: skip


def test_second_term_skips_the_drain_where_there_is_no_lame_duck() -> None:
    play(Settings(drain_timeout=60.0), """
        0     start     | prepare 1, spawn 1/0=101
        1     ready 101 |
        10    term      | retire 101 TERM
        11    term      | kill 101
    """)  # fmt: skip


def test_the_same_signal_twice_at_once_is_one() -> None:
    """`timeout` sends TERM to its child and, a moment later, to the whole group."""
    play(Settings(drain_timeout=60.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        10    term; term | retire 101 TERM
        10.05 term       |
        10.2  term       | kill 101
    """)  # fmt: skip


def test_stop_signals_that_come_at_once_do_what_they_do_one_after_the_other() -> None:
    play(Settings(lame_duck=60.0), """
        0     start     | prepare 1, spawn 1/0=101
        1     ready 101 |
        10    term; int | retire 101 TERM
        11    int       | kill 101
    """)  # fmt: skip
    play(Settings(lame_duck=60.0), """
        0     start           | prepare 1, spawn 1/0=101
        1     ready 101       |
        10    int; term       | retire 101 TERM, kill 101
    """)  # fmt: skip


def test_stop_while_the_first_generation_prepares() -> None:
    play(Settings(), """
        0     start      | prepare 1
        1     term       | close 1, exit 0
        2     prepared 1 |
    """, prepare="later")  # fmt: skip


def test_stop_in_the_pause_before_a_retry() -> None:
    play(Settings(), """
        0     start      | prepare 1, spawn 1/0=101
        1     exit 101 1 | close 1, !retry_scheduled
        1.1   term       | exit 0
        99    -          |
    """)  # fmt: skip


def test_stop_during_a_swap_takes_both_generations_along() -> None:
    play(Settings(), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        10    hup        | prepare 2, spawn 2/0=201
        11    term       | retire 101 TERM, retire 201 TERM
        11.5  ready 201  |
        12    exit 201 0 | close 2
        13    exit 101 0 | close 1, exit 0
    """)  # fmt: skip


def test_lame_duck_during_a_swap_gives_the_coming_generation_up() -> None:
    play(Settings(lame_duck=5.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        10    hup        | prepare 2, spawn 2/0=201
        11    term       | retire 201 TERM
        12    exit 201 0 | close 2
        16    -          | retire 101 TERM
    """)  # fmt: skip


def test_lame_duck_during_a_rolling_swap_keeps_what_has_taken_over() -> None:
    play(Settings(workers=2, max_surge=1, lame_duck=5.0), """
        0     start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102 |
        10    hup                  | prepare 2, spawn 2/0=201
        11    ready 201            | retire 101 TERM
        12    exit 101 0           | spawn 2/1=202
        13    term                 | retire 202 TERM
        13.5  exit 202 0           |
        18    -                    | retire 102 TERM, retire 201 TERM
    """)  # fmt: skip


def test_stop_while_an_old_generation_drains_does_not_signal_it_again() -> None:
    play(Settings(drain_timeout=10.0), """
        0     start           | prepare 1, spawn 1/0=101
        1     ready 101       |
        10    hup             | prepare 2, spawn 2/0=201
        11    ready 201       | retire 101 TERM
        15    term            | retire 201 TERM
        21    -               | kill 101
        21    killed 101 KILL | close 1
        22    exit 201 0      | close 2, exit 0
    """)  # fmt: skip


def test_stop_in_a_crash_loop_starts_nothing_any_more() -> None:
    play(Settings(workers=2), """
        0     start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102 |
        2     exit 102 1           |
        2.1   int                  | retire 101 TERM
        9     exit 101 0           | close 1, exit 0
    """)  # fmt: skip


def test_crashed_slot_is_started_again_during_the_lame_duck_time() -> None:
    play(Settings(workers=2, lame_duck=5.0), """
        0     start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102 |
        50    term                 |
        51    exit 102 1           | spawn 1/1=103
        52    ready 103            |
        55    -                    | retire 101 TERM, retire 103 TERM
    """)  # fmt: skip


def test_lame_duck_ends_when_nothing_serves_any_more() -> None:
    play(Settings(lame_duck=5.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        50    term       |
        51    exit 101 1 | close 1, exit 0
    """)  # fmt: skip


def test_nothing_new_begins_once_a_stop_was_asked_for() -> None:
    play(Settings(lame_duck=5.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        50    term       |
        51    hup; watch |
        55    -          | retire 101 TERM
        56    hup; ttin  |
        57    exit 101 0 | close 1, exit 0
        58    hup; ttin; term |
    """)  # fmt: skip


def test_stop_and_the_last_exit_at_once() -> None:
    play(Settings(), """
        0     start            | prepare 1, spawn 1/0=101
        1     ready 101        |
        50    exit 101 1; term | close 1, exit 0
    """)  # fmt: skip


def test_nothing_is_said_after_exit() -> None:
    history = play(Settings(), """
        0     start            | prepare 1, spawn 1/0=101
        1     term             | retire 101 TERM
        1.2   term             | kill 101
        4.2   -                | exit 0
    """)  # fmt: skip
    before = len(history.said)
    history.play("""
        7     killed 101 KILL; ttin |
    """)
    assert len(history.said) == before


def test_no_swap_is_in_sight_any_more_once_sidecar_stops() -> None:
    """Neither one that waited nor one that is asked for now: `status` tells of the next swap."""
    history = play(Settings(start_timeout=5.0, lame_duck=10.0), """
        0    start     | prepare 1, spawn 1/0=101
        1    ready 101 | !serving
        20   hup       | prepare 2, spawn 2/0=201
        25   -         | retire 201 TERM, !swap_failed
        26   hup       |
    """)  # fmt: skip
    assert history.supervisor.pending_swap is not None
    history.play("26.5 term | !stopping")
    assert history.supervisor.pending_swap is None
    history.play("26.6 hup |\n26.8 exit 201 0 | close 2")
    assert history.supervisor.pending_swap is None
