"""A worker that holds more memory than it may: another takes its place, before it leaves."""

from __future__ import annotations

from sidecar.settings.table import Settings

from .history import History, play

LIMITED = Settings(max_memory=2**29)


def test_another_worker_is_started_beside_it_and_it_leaves_once_that_is_ready():
    run = play(LIMITED, """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  | !serving
        1000  big 101    | spawn 1/0=102, !recycling
        1001  big 101    |
        1002  ready 102  | retire 101 TERM, !recycled
        1003  exit 101 0 | !worker_exited
    """)  # fmt: skip
    assert run.what_was_said("recycled")[0] | {"lived": 0} == {
        "generation": 1, "slot": 0, "pid": 101, "by": 102, "memory": 2**30, "lived": 0, "pause": 0,
    }  # fmt: skip


def test_one_slot_at_a_time_the_biggest_first():
    run = History(LIMITED.replace(workers=3)).play("""
        0     start                           | prepare 1, spawn 1/0=101, spawn 1/1=102, spawn 1/2=103
        1     ready 101; ready 102; ready 103 | !serving
        1000  big 103; big 101                | spawn 1/0=104
        1001  big 102                         |
        1002  ready 104                       | retire 101 TERM, spawn 1/1=105
        1003  ready 105                       | retire 102 TERM, spawn 1/2=106
        1004  ready 106                       | retire 103 TERM
    """)  # fmt: skip
    assert [each["slot"] for each in run.what_was_said("recycled")] == [0, 1, 2]


def test_a_replacement_that_dies_is_paced_and_the_big_one_stays():
    play(LIMITED, """
        0       start      | prepare 1, spawn 1/0=101
        1       ready 101  | !serving
        1000    big 101    | spawn 1/0=102
        1000.5  exit 102 1 | !worker_died
        1000.75 -          | spawn 1/0=103
        1000.8  exit 103 1 | !worker_died
        1001.3  -          | spawn 1/0=104
        1002    ready 104  | retire 101 TERM
    """)  # fmt: skip


def test_a_program_that_just_is_too_big_is_recycled_ever_more_seldom():
    run = play(LIMITED, """
        0    start              | prepare 1, spawn 1/0=101
        1    ready 101          | !serving
        6    big 101            | spawn 1/0=102
        7    ready 102          | retire 101 TERM, !recycled
        7.1  exit 101 0         |
        7.2  big 102            |
        7.25 -                  | spawn 1/0=103
        8    ready 103          | retire 102 TERM
        8.1  big 103; exit 102 0 |
        8.5  -                  | spawn 1/0=104
        9    ready 104          | retire 103 TERM
        9.1  big 104; exit 103 0 |
        10   -                  | spawn 1/0=105
        11   ready 105          | retire 104 TERM
    """)  # fmt: skip
    assert [each["pause"] for each in run.what_was_said("recycled")] == [0.25, 0.5, 1.0, 2.0]


def test_one_that_lived_long_is_recycled_at_once_and_the_pauses_are_forgotten():
    run = play(LIMITED, """
        0    start              | prepare 1, spawn 1/0=101
        1    ready 101          | !serving
        6    big 101            | spawn 1/0=102
        7    ready 102          | retire 101 TERM
        7.1  exit 101 0         |
        700  big 102            | spawn 1/0=103
        701  ready 103          | retire 102 TERM
        701.1 exit 102 0        |
        1400 big 103            | spawn 1/0=104
        1401 ready 104          | retire 103 TERM
    """)  # fmt: skip
    assert [each["pause"] for each in run.what_was_said("recycled")] == [0.25, 0.0, 0.0]


def test_kill_old_delay_is_waited_for():
    play(LIMITED.replace(kill_old_delay=5.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  | !serving
        1000  big 101    | spawn 1/0=102
        1001  ready 102  |
        1006  -          | retire 101 TERM
    """)  # fmt: skip


def test_the_one_that_died_while_its_successor_started_is_not_missed():
    play(LIMITED, """
        0     start          | prepare 1, spawn 1/0=101
        1     ready 101      | !serving
        1000  big 101        | spawn 1/0=102
        1001  killed 101 KILL | !worker_died
        1002  ready 102      | !worker_ready
    """)  # fmt: skip


def test_a_swap_meanwhile_takes_over_from_both():
    play(LIMITED, """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  | !serving
        1000  big 101    | spawn 1/0=102
        1001  hup        | prepare 2, spawn 2/0=201
        1002  ready 201  | retire 101 TERM, retire 102 TERM, !serving
    """)  # fmt: skip


def test_nothing_is_recycled_during_a_swap_or_in_favour_of_a_generation_that_may_fail():
    play(LIMITED.replace(kill_old_delay=5.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  | !serving
        1000  hup        | prepare 2, spawn 2/0=201
        1001  big 101    |
        1002  ready 201  |
        1003  exit 201 1 | !swap_failed, spawn 1/0=102, close 2
        1004  ready 102  |
        1009  -          | retire 101 TERM
    """)  # fmt: skip


def test_nothing_is_recycled_while_a_swap_waits_for_the_end_of_one_that_failed():
    """The swap will replace it anyway."""
    play(LIMITED.replace(start_timeout=5.0), """
        0      start           | prepare 1, spawn 1/0=101
        1      ready 101       | !serving
        1000   hup             | prepare 2, spawn 2/0=201
        1005   -               | retire 201 TERM, !swap_failed
        1006   hup             |
        1006.5 big 101         |
        1007   -               | prepare 3, kill 201, spawn 3/0=301
        1007   killed 201 KILL | close 2
        1008   ready 301       | retire 101 TERM, !serving
    """)  # fmt: skip


def test_with_max_surge_a_successor_that_is_ready_makes_room():
    play(LIMITED.replace(max_surge=1), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  | !serving
        1000  big 101    | spawn 1/0=102
        1001  hup        | prepare 2
        1002  ready 102  | retire 101 TERM
        1003  exit 101 0 | spawn 2/0=201
        1004  ready 201  | retire 102 TERM, !serving
    """)  # fmt: skip


def test_one_that_is_to_leave_anyway_is_not_replaced():
    play(LIMITED.replace(workers=2), """
        0     start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102 | !serving
        1000  ttou                 | retire 102 TERM
        1001  big 102              |
        1002  term                 | retire 101 TERM, !stopping
        1003  big 101              |
    """)  # fmt: skip


def test_one_whose_slot_goes_while_its_successor_starts():
    play(LIMITED.replace(workers=2), """
        0     start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102 | !serving
        1000  big 102              | spawn 1/1=103
        1001  ttou                 | retire 102 TERM, retire 103 TERM
    """)  # fmt: skip


def test_a_stop_meanwhile_is_a_stop():
    play(LIMITED.replace(lame_duck=10.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  | !serving
        1000  big 101    | spawn 1/0=102
        1001  term       | !stopping
        1002  ready 102  | retire 101 TERM
        1003  big 102    |
        1011  -          | retire 102 TERM
    """)  # fmt: skip
