"""Histories of a slow start: the old program has a process less for every new one, and gets them
back when nothing comes of it.
"""

from __future__ import annotations

from sidecar.settings.table import Settings

from .history import play

SLOW = Settings(slow_start=True, start_timeout=20.0)


def test_the_old_has_one_fewer_for_each_new_one_and_the_retire_signal_at_the_end() -> None:
    history = play(SLOW, """
        0    start                              | prepare 1, spawn 1/0=101
        1    ready 101; takes 101 1             | !serving
        9    hup                                | prepare 2, spawn 2/0=201
        10   takes 101 3; takes 201 0           |
        11   takes 101 3; ready 201; takes 201 1| pass 101 TTOU, !worker_shrunk
        12   takes 201 2                        | pass 101 TTOU
        13   takes 201 2                        |
        14   takes 201 3                        | retire 101 TERM, !serving
        15   exit 101 0                         | close 1
        99   -                                  |
    """)  # fmt: skip
    assert [
        (each["signal"], each["left"], each["had"], each["new"])
        for each in history.what_was_said("worker_shrunk")
    ] == [
        ("TTOU", 2, 3, 1),
        ("TTOU", 1, 3, 2),
    ]


def test_a_program_of_one_process_is_replaced_as_ever() -> None:
    play(SLOW, """
        0    start                    | prepare 1, spawn 1/0=101
        1    ready 101; takes 101 1   | !serving
        9    hup                      | prepare 2, spawn 2/0=201
        10   takes 101 1; takes 201 0 |
        11   ready 201; takes 201 1   | retire 101 TERM, !serving
    """)  # fmt: skip


def test_signals_are_apart_because_two_that_wait_are_one() -> None:
    play(SLOW, """
        0    start                              | prepare 1, spawn 1/0=101
        1    ready 101; takes 101 1             | !serving
        9    hup                                | prepare 2, spawn 2/0=201
        11   takes 101 6; ready 201; takes 201 3| pass 101 TTOU
        11.1 -                                  | pass 101 TTOU
        11.2 -                                  | pass 101 TTOU
        12   takes 201 6                        | retire 101 TERM, !serving
    """)  # fmt: skip


def test_a_smaller_successor_takes_over_when_no_further_process_has_come_for_the_start_timeout() -> (
    None
):
    play(SLOW, """
        0    start                              | prepare 1, spawn 1/0=101
        1    ready 101; takes 101 1             | !serving
        9    hup                                | prepare 2, spawn 2/0=201
        11   takes 101 4; ready 201; takes 201 1| pass 101 TTOU
        12   takes 201 2                        | pass 101 TTOU
        32   -                                  | retire 101 TERM, !serving
    """)  # fmt: skip


def test_kill_old_delay_counts_from_the_last_process() -> None:
    play(SLOW.replace(kill_old_delay=3.0), """
        0    start                              | prepare 1, spawn 1/0=101
        1    ready 101; takes 101 1             | !serving
        9    hup                                | prepare 2, spawn 2/0=201
        11   takes 101 2; ready 201; takes 201 1| pass 101 TTOU
        12   takes 201 2                        | !retire_delayed
        15   -                                  | retire 101 TERM, !serving
    """)  # fmt: skip


def test_when_the_new_one_dies_the_old_gets_back_all_that_it_gave() -> None:
    play(SLOW, """
        0    start                              | prepare 1, spawn 1/0=101
        1    ready 101; takes 101 1             | !serving
        9    hup                                | prepare 2, spawn 2/0=201
        11   takes 101 4; ready 201; takes 201 1| pass 101 TTOU
        12   takes 201 2                        | pass 101 TTOU
        13   exit 201 1                         | pass 101 TTIN, close 2, !swap_failed
        13.1 -                                  | pass 101 TTIN
        13.25 hup                               | prepare 3, spawn 3/0=301
        14   takes 101 4; ready 301; takes 301 1| pass 101 TTOU
        15   takes 301 4                        | retire 101 TERM, !serving
    """)  # fmt: skip


def test_a_swap_that_is_superseded_gives_back_too_and_the_next_begins_with_all() -> None:
    play(SLOW, """
        0    start                              | prepare 1, spawn 1/0=101
        1    ready 101; takes 101 1             | !serving
        9    hup                                | prepare 2, spawn 2/0=201
        11   takes 101 3; ready 201; takes 201 1| pass 101 TTOU
        12   watch                              | retire 201 TERM, prepare 3, pass 101 TTIN, spawn 3/0=301, !swap_superseded
        12.5 exit 201 0                         | close 2
        13   ready 301; takes 301 1             | pass 101 TTOU
    """)  # fmt: skip


def test_one_slot_that_fails_brings_the_other_slots_old_worker_back_to_strength() -> None:
    play(SLOW.replace(workers=2), """
        0    start                                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1    ready 101; ready 102                 | !serving
        9    hup                                  | prepare 2, spawn 2/0=201, spawn 2/1=202
        11   takes 101 2; ready 201; takes 201 1  | pass 101 TTOU
        12   takes 201 2                          |
        13   exit 202 1                           | retire 201 TERM, pass 101 TTIN, !swap_failed
    """)  # fmt: skip


def test_new_processes_that_fall_away_are_made_up_for_by_the_old() -> None:
    play(SLOW, """
        0    start                              | prepare 1, spawn 1/0=101
        1    ready 101; takes 101 1             | !serving
        9    hup                                | prepare 2, spawn 2/0=201
        11   takes 101 4; ready 201; takes 201 1| pass 101 TTOU
        12   takes 201 2                        | pass 101 TTOU
        13   takes 201 1                        | pass 101 TTIN
        14   takes 201 2                        | pass 101 TTOU
    """)  # fmt: skip


def test_what_serves_alone_since_the_old_one_died_waits_for_no_further_process() -> None:
    play(SLOW, """
        0    start                              | prepare 1, spawn 1/0=101
        1    ready 101; takes 101 1             | !serving
        9    hup                                | prepare 2, spawn 2/0=201
        11   takes 101 4; ready 201; takes 201 1| pass 101 TTOU
        12   exit 101 1                         | close 1, !serving
        99   -                                  |
    """)  # fmt: skip


def test_a_stop_gives_back_for_the_lame_duck_time_only() -> None:
    start = """
        0    start                              | prepare 1, spawn 1/0=101
        1    ready 101; takes 101 1             | !serving
        9    hup                                | prepare 2, spawn 2/0=201
        11   takes 101 4; ready 201; takes 201 1| pass 101 TTOU
    """
    play(SLOW.replace(lame_duck=5.0), start + """
        12   term                               | retire 201 TERM, pass 101 TTIN
        17   -                                  | retire 101 TERM
    """)  # fmt: skip
    play(
        SLOW,
        f"{start}\n        12   term                               | retire 101 TERM, retire 201 TERM",
    )


def test_a_program_that_cannot_be_seen_any_more_is_not_waited_for() -> None:
    play(SLOW.replace(interval=1.0), """
        0    start                              | prepare 1, spawn 1/0=101
        1    ready 101; takes 101 1             | !serving
        9    hup                                | prepare 2, spawn 2/0=201
        11   takes 101 4; ready 201; takes 201 1| pass 101 TTOU
        12   forbidden 201                      | retire 101 TERM, !serving
    """)  # fmt: skip
