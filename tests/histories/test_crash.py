"""Histories of workers that die unasked, linger, or take no connections in time; of the pace of
what follows; and of size.
"""

from __future__ import annotations

import pytest

from sidecar.core import facts
from sidecar.settings.table import START_SERVER, Settings

from .history import History, play

# --- the first start


def test_first_start_that_fails_is_tried_again_and_in_the_end_given_up_with_the_programs_own_status() -> (
    None
):
    history = play(Settings(max_failures=3), """
        0     start      | prepare 1, spawn 1/0=101
        1     exit 101 1 | close 1, !swap_failed, !retry_scheduled
        1.25  -          | prepare 2, spawn 2/0=201
        2     exit 201 1 | close 2, !retry_scheduled
        2.5   -          | prepare 3, spawn 3/0=301
        3     exit 301 7 | close 3, exit 7, !gave_up
        99    -          |
    """)  # fmt: skip
    assert history.what_was_said("gave_up")[0]["status"] == 7


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("exit 101 1", 1),
        ("exit 101 0", 1),
        ("exit 101 127", 127),
        ("killed 101 SEGV", 139),
        ("killed 101 KILL", 137),
    ],
)
def test_status_sidecar_gives_up_with(end: str, status: int) -> None:
    play(Settings(max_failures=1), f"""
        0     start | prepare 1, spawn 1/0=101
        1     {end} | close 1, exit {status}
    """)  # fmt: skip


def test_a_program_that_is_not_there_is_not_tried_again_unless_for_ever() -> None:
    play(Settings(max_failures=5), """
        0     start      | prepare 1, spawn 1/0=101
        1     absent 101 | close 1, exit 127
    """)  # fmt: skip
    play(Settings(max_failures=0), """
        0     start      | prepare 1, spawn 1/0=101
        1     absent 101 | close 1, !retry_scheduled
        1.25  -          | prepare 2, spawn 2/0=201
    """)  # fmt: skip
    play(Settings(max_failures=1), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        2     hup        | prepare 2, spawn 2/0=201
        3     absent 201 | close 2, !swap_failed, !worker_died
    """)  # fmt: skip


def test_giving_up_for_want_of_readiness_leaves_nothing_running() -> None:
    play(Settings(max_failures=1, start_timeout=5.0, workers=2), """
        0     start           | prepare 1, spawn 1/0=101, spawn 1/1=102
        5     -               | retire 101 TERM, retire 102 TERM, !gave_up
        6     exit 102 0      |
        7     -               | kill 101
        7     killed 101 KILL | close 1, exit 1
    """)  # fmt: skip


def test_giving_up_when_preparation_fails() -> None:
    play(Settings(max_failures=1), """
        0     start        | prepare 1
        1     unprepared 1 | close 1, exit 1
    """, prepare="later")  # fmt: skip


def test_without_max_failures_it_is_tried_for_ever() -> None:
    play(Settings(max_failures=0, max_backoff=0.25), """
        0     start      | prepare 1, spawn 1/0=101
        1     exit 101 1 | close 1
        1.25  -          | prepare 2, spawn 2/0=201
        2     exit 201 1 | close 2
        2.25  -          | prepare 3, spawn 3/0=301
        3     exit 301 1 | close 3
        3.25  -          | prepare 4, spawn 4/0=401
        4     exit 401 1 | close 4
        4.25  -          | prepare 5, spawn 5/0=501
        5     exit 501 1 | close 5
        5.25  -          | prepare 6, spawn 6/0=601
    """)  # fmt: skip


def test_what_served_once_and_never_starts_again_is_given_up() -> None:
    """So that an orchestrator hears of it: a container that ends is started anew, with pauses."""
    history = play(Settings(max_failures=2, min_uptime=10.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  | !serving
        50    exit 101 1 | prepare 2, spawn 2/0=201
        51    exit 201 7 | close 2, !swap_failed, !retry_scheduled
        51.25 -          | prepare 3, spawn 3/0=301
        52    exit 301 7 | close 1, close 3, exit 7, !gave_up
    """)  # fmt: skip
    assert [each["again"] for each in history.what_was_said("swap_failed")] == [0.25, None]
    assert history.what_was_said("gave_up") == [
        {"failures": 2, "cause": "exited with status 7 before it was ready", "status": 7}
    ]


def test_who_takes_over_and_dies_soon_again_and_again_is_given_up() -> None:
    """Taking over may be easy: with the readiness of an interval it is being alive."""
    history = play(Settings(max_failures=3, min_uptime=10.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     -          | !serving
        2     exit 101 3 | !retry_scheduled
        2.25  -          | prepare 2, spawn 2/0=201
        3.25  -          | close 1, !serving
        4     exit 201 3 | !retry_scheduled
        4.5   -          | prepare 3, spawn 3/0=301
        5.5   -          | close 2, !serving
        6     exit 301 3 | close 3, exit 3, !gave_up
    """, readiness="interval")  # fmt: skip
    assert history.what_was_said("gave_up")[0]["status"] == 3


def test_generation_that_holds_out_begins_the_count_anew() -> None:
    play(Settings(max_failures=2, min_uptime=10.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     exit 101 1 | close 1, !retry_scheduled
        1.25  -          | prepare 2, spawn 2/0=201
        2     ready 201  | !serving
        100   hup        | prepare 3, spawn 3/0=301
        101   ready 301  | retire 201 TERM
        101   exit 201 0 | close 2
        102   exit 301 1 | !retry_scheduled
        102.5 -          | prepare 4, spawn 4/0=401
        103   ready 401  | close 3
        200   exit 401 1 | prepare 5, spawn 5/0=501
        201   exit 501 1 | close 5, !retry_scheduled
        201.25 -         | prepare 6, spawn 6/0=601
        202   exit 601 1 | close 4, close 6, exit 1
    """)  # fmt: skip


def test_nothing_is_given_up_while_a_worker_is_being_started_again() -> None:
    play(Settings(max_failures=1, workers=2), """
        0     start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102 |
        50    exit 102 1           | spawn 1/1=103
        50    exit 101 1           | spawn 1/0=104
        51    hup                  | prepare 2, spawn 2/0=201, spawn 2/1=202
        52    exit 201 1           | retire 202 TERM, !swap_failed
        52    exit 202 1           | close 2
        52.25 -                    | prepare 3 like 1, spawn 3/0=301, spawn 3/1=302
        53    ready 103            |
    """)  # fmt: skip


def test_failures_are_no_reason_to_give_up_while_something_serves() -> None:
    play(Settings(max_failures=1), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        2     hup        | prepare 2, spawn 2/0=201
        3     exit 201 1 | close 2, !swap_failed
    """)  # fmt: skip


# --- a worker of the serving generation dies


def test_one_of_several_is_started_again_from_the_same_generation() -> None:
    play(Settings(workers=3, min_uptime=10.0), """
        0     start                           | prepare 1, spawn 1/0=101, spawn 1/1=102, spawn 1/2=103
        1     ready 101; ready 102; ready 103 |
        50    exit 102 1                      | spawn 1/1=104, !worker_died
        51    ready 104                       |
        99    -                               |
    """)  # fmt: skip


def test_one_that_is_started_again_is_told_how_many_workers_there_are_now() -> None:
    history = play(Settings(workers=2), """
        0     start                           | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102            |
        2     ttin                            | spawn 1/2=103
        3     ready 103                       |
        50    exit 102 1                      | spawn 1/1=104
    """)  # fmt: skip
    assert [each.workers for each in history.spawns] == [2, 2, 3, 3]


def test_one_that_dies_while_a_check_runs_is_started_again_meanwhile() -> None:
    play(Settings(workers=2), """
        0     start                | prepare 1
        0     prepared 1           | spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102 |
        50    hup                  | prepare 2
        51    exit 101 1           | spawn 1/0=103
        52    prepared 2           | spawn 2/0=201, spawn 2/1=202
    """, prepare="later")  # fmt: skip


def test_the_only_one_is_started_again_as_a_new_generation() -> None:
    play(Settings(min_uptime=10.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        50    exit 101 1 | prepare 2, spawn 2/0=201
        51    ready 201  | close 1, !serving
    """)  # fmt: skip


def test_crash_loop_of_one_slot_is_paced_with_growing_pauses_until_it_has_lived_long_enough() -> (
    None
):
    play(Settings(workers=2, min_uptime=10.0, max_backoff=1.5), """
        0     start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102 |
        2     exit 102 1           |
        2.25  -                    | spawn 1/1=103
        3     ready 103            |
        4     exit 103 1           |
        4.5   -                    | spawn 1/1=104
        5     exit 104 1           |
        6     -                    | spawn 1/1=105
        6     exit 105 1           |
        7.5   -                    | spawn 1/1=106
        8     ready 106            |
        18    exit 106 1           | spawn 1/1=107
        19    ready 107            |
        20    exit 107 1           |
        20.25 -                    | spawn 1/1=108
    """)  # fmt: skip


def test_crash_loop_of_the_only_worker_is_paced_across_generations() -> None:
    play(Settings(min_uptime=10.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        2     exit 101 1 | !retry_scheduled
        2.25  -          | prepare 2, spawn 2/0=201
        3     ready 201  | close 1
        4     exit 201 1 | !retry_scheduled
        4.5   -          | prepare 3, spawn 3/0=301
        5     exit 301 1 | close 3, !swap_failed, !retry_scheduled
        6     -          | prepare 4, spawn 4/0=401
        7     ready 401  | close 2
        17    exit 401 1 | prepare 5, spawn 5/0=501
    """)  # fmt: skip


def test_a_pause_is_never_nothing_whatever_the_settings() -> None:
    play(Settings(min_uptime=0.0, max_backoff=0.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        1.01  exit 101 1 |
        1.26  -          | prepare 2, spawn 2/0=201
        1.27  ready 201  | close 1
        1.28  exit 201 1 |
        1.53  -          | prepare 3, spawn 3/0=301
        2     ready 301  | close 2
        3     exit 301 1 | prepare 4, spawn 4/0=401
    """)  # fmt: skip


def test_no_process_can_be_made_for_a_slot_it_is_tried_again_paced() -> None:
    play(Settings(workers=2), """
        0     start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102 |
        50    exit 102 1; refuse 2 | spawn 1/1 refused, !spawn_failed
        50.25 -                    | spawn 1/1 refused
        50.75 -                    | spawn 1/1=103
    """)  # fmt: skip


def test_all_of_several_die_while_one_is_being_started_again() -> None:
    play(Settings(workers=2), """
        0     start                  | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102   |
        50    exit 102 1             | spawn 1/1=103
        51    exit 101 1             | spawn 1/0=104
        52    exit 103 1; exit 104 1 | prepare 2, spawn 2/0=201, spawn 2/1=202
    """)  # fmt: skip


def test_worker_started_again_that_is_never_ready_counts_as_a_quick_failure() -> None:
    play(Settings(workers=2, start_timeout=5.0, min_uptime=10.0), """
        0     start                  | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102   |
        50    exit 102 1             | spawn 1/1=103
        52    exit 101 1             | spawn 1/0=104
        55    -                      | retire 103 TERM, !worker_overdue
        55.1  exit 103 0             |
        55.25 -                      | spawn 1/1=105
        57    -                      | retire 104 TERM
        57.1  exit 104 0             |
        57.25 -                      | spawn 1/0=106
        60.25 -                      | retire 105 TERM
        60.3  exit 105 0             |
        60.75 -                      | spawn 1/1=107
    """)  # fmt: skip


def test_last_worker_that_is_never_ready_is_followed_by_a_generation_after_a_pause() -> None:
    play(Settings(workers=2, start_timeout=5.0, min_uptime=10.0), """
        0     start                  | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102   |
        2     exit 102 1             |
        2.25  -                      | spawn 1/1=103
        3     exit 101 1             |
        3.25  -                      | spawn 1/0=104
        4     exit 104 1             |
        4.5   -                      | spawn 1/0=105
        5     exit 105 1             |
        6     -                      | spawn 1/0=106
        6.5   exit 106 1             |
        7.25  -                      | retire 103 TERM, !retry_scheduled
        7.5   exit 103 0             | prepare 2, spawn 2/0=201, spawn 2/1=202
    """)  # fmt: skip


def test_retry_that_waits_for_its_turn_does_not_keep_the_restart_of_what_has_died_waiting() -> None:
    play(Settings(min_uptime=5.0, entry_point=START_SERVER), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        10    hup        | prepare 2, spawn 2/0=201
        10    exit 201 1 | close 2
        10.25 -          | prepare 3, spawn 3/0=301
        10.25 exit 301 1 | close 3
        10.75 -          | prepare 4, spawn 4/0=401
        11    exit 401 1 | close 4, !retry_scheduled
        11.1  exit 101 1 | prepare 5, spawn 5/0=501
        11.2  exit 501 1 | close 5, !retry_scheduled
        11.45 -          | prepare 6, spawn 6/0=601
        12    ready 601  | close 1
    """)  # fmt: skip


# --- the leader leaves, its group stays


def test_processes_of_the_group_that_live_on_get_the_rest_of_the_drain_time() -> None:
    play(Settings(drain_timeout=10.0), """
        0     start        | prepare 1, spawn 1/0=101
        1     ready 101    |
        20    hup          | prepare 2, spawn 2/0=201
        21    ready 201    | retire 101 TERM
        25    exit 101 0 + | !worker_exited
        31    -            | kill 101
        31    empty 101    | close 1
    """)  # fmt: skip


def test_generation_is_closed_as_soon_as_the_group_is_empty() -> None:
    play(Settings(drain_timeout=10.0), """
        0     start        | prepare 1, spawn 1/0=101
        1     ready 101    |
        20    hup          | prepare 2, spawn 2/0=201
        21    ready 201    | retire 101 TERM
        25    exit 101 0 + |
        26    empty 101    | close 1
    """)  # fmt: skip


def test_leader_that_dies_unasked_leaves_its_group_a_whole_drain_time_and_its_slot_is_filled() -> (
    None
):
    play(Settings(workers=2, drain_timeout=10.0), """
        0     start                  | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102   |
        20    exit 101 1 +           | retire-group 101 TERM, spawn 1/0=103, !leader_exited
        21    ready 103              |
        30    -                      | kill 101, !worker_killed
        30    empty 101              |
    """)  # fmt: skip


def test_program_that_daemonizes_is_not_taken_for_ready_and_what_it_left_is_asked_to_leave() -> (
    None
):
    play(Settings(), """
        0     start        | prepare 1, spawn 1/0=101
        1     exit 101 0 + | retire-group 101 TERM, !swap_failed
        3     -            | prepare 2, kill 101, spawn 2/0=201
        3     empty 101    | close 1
    """)  # fmt: skip


@pytest.mark.parametrize("end", ["killed 101 QUIT +", "exit 101 131 QUIT +", "exit 101 1 +"])
def test_what_outlives_a_leader_that_cannot_have_told_it_is_asked_to_leave_once(end: str) -> None:
    history = play(Settings(command=("/bin/sh", "-c", "server; :"), signal_on_hup="QUIT"), f"""
        0     start        | prepare 1, spawn 1/0=101
        1     ready 101    |
        20    hup          | prepare 2, spawn 2/0=201
        21    ready 201    | retire 101 QUIT
        22    {end}        | retire-group 101 QUIT
        23    hup          | prepare 3, spawn 3/0=301
        24    ready 301    | retire 201 QUIT
        24    killed 201 QUIT | close 2
        46    -            | kill 101
        46    empty 101    | close 1
    """)  # fmt: skip
    said = history.what_was_said("leader_exited")
    assert [(each["pid"], each["signal"], each["kill_in"], each["shell"]) for each in said] == [
        (101, "QUIT", 24.0, True)
    ]
    assert [(each["after"], each["leader"]) for each in history.what_was_said("worker_killed")] == [
        (25.0, False)
    ]


def test_group_is_not_asked_again_where_its_leader_was_and_left_by_itself() -> None:
    history = play(Settings(), """
        0     start        | prepare 1, spawn 1/0=101
        1     ready 101    |
        20    hup          | prepare 2, spawn 2/0=201
        21    ready 201    | retire 101 TERM
        22    exit 101 0 + | !leader_exited
        25    empty 101    | close 1
    """)  # fmt: skip
    assert history.what_was_said("leader_exited")[0]["signal"] == ""


def test_what_has_left_the_group_is_asked_also_where_its_leader_left_by_itself() -> None:
    history = play(Settings(command=("sh", "-c", "setsid helper & exec server")), """
        0     start              | prepare 1, spawn 1/0=101
        1     ready 101          |
        20    hup                | prepare 2, spawn 2/0=201
        21    ready 201          | retire 101 TERM
        22    exit 101 0 + stray | retire-group 101 TERM, !leader_exited
        46    -                  | kill 101
        46    empty 101          | close 1
    """)  # fmt: skip
    (said,) = history.what_was_said("leader_exited")
    assert (said["strays"], said["shell"]) == ([1010], False)


def test_exit_status_that_stands_for_the_signal_that_was_sent_is_a_clean_leave() -> None:
    history = play(Settings(workers=2), """
        0     start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102 |
        20    ttou                 | retire 102 TERM
        21    exit 102 143 TERM    | !worker_exited
        22    hup                  | prepare 2, spawn 2/0=201
        23    ready 201            | retire 101 TERM
        24    exit 101 131 QUIT    | close 1, !worker_died
        30    exit 201 143 TERM    | !worker_died
    """)  # fmt: skip
    assert [each["pid"] for each in history.what_was_said("worker_died")] == [101, 201]


def test_worker_that_does_not_leave_is_killed_after_the_drain_timeout() -> None:
    play(Settings(drain_timeout=10.0), """
        0     start           | prepare 1, spawn 1/0=101
        1     ready 101       |
        20    hup             | prepare 2, spawn 2/0=201
        21    ready 201       | retire 101 TERM
        31    -               | kill 101, !worker_killed
        31    killed 101 KILL | close 1, !worker_exited
    """)  # fmt: skip


def test_drain_timeout_of_zero_kills_at_once() -> None:
    play(Settings(drain_timeout=0.0), """
        0     start           | prepare 1, spawn 1/0=101
        1     ready 101       |
        20    hup             | prepare 2, spawn 2/0=201
        21    ready 201       | retire 101 TERM, kill 101
    """)  # fmt: skip


def test_exit_of_a_process_nobody_knows_is_not_mistaken_for_a_workers() -> None:
    play(Settings(), """
        0     start                   | prepare 1, spawn 1/0=101
        1     ready 101               |
        20    exit 999 1              |
        21    empty 998; ready 997    |
    """)  # fmt: skip


# --- readiness


def test_interval_readiness_is_being_alive_for_the_interval() -> None:
    play(Settings(interval=3.0), """
        0     start       | prepare 1, spawn 1/0=101
        3     -           | !worker_ready, !serving
        20    hup         | prepare 2, spawn 2/0=201
        23    -           | retire 101 TERM
    """, readiness="interval")  # fmt: skip


def test_interval_counts_from_the_moment_at_which_the_program_runs() -> None:
    """Until then the process is a copy of sidecar: one whose program cannot be run is never ready."""
    history = play(Settings(interval=0.5, workers=2), """
        0     start        | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     -            |
        2     executed 101 |
        2.5   -            | !worker_ready, !serving
        3     exit 102 127 | !worker_died
        3.25  -            | spawn 1/1=103
    """, readiness="interval", execute="later")  # fmt: skip
    assert [each["pid"] for each in history.what_was_said("worker_ready")] == [101]


def test_program_that_cannot_be_run_for_a_hung_file_system_fails_in_time() -> None:
    for readiness in ("interval", "accept"):
        history = play(Settings(interval=0.5, start_timeout=5.0), """
            0     start        | prepare 1, spawn 1/0=101
            5     -            | retire 101 TERM, !worker_overdue, !swap_failed
        """, readiness=readiness, execute="later")  # fmt: skip
        (failed,) = history.what_was_said("swap_failed")
        assert failed["cause"] == "its program could not be run within 5 s (a hung file system?)"


def test_look_that_is_forbidden_falls_back_to_the_interval_and_is_said_once() -> None:
    history = play(Settings(workers=2, interval=3.0), """
        0     start                        | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     forbidden 101; forbidden 102 | !readiness_probe_unavailable
        3     -                            | !serving
    """)  # fmt: skip
    assert len(history.what_was_said("readiness_probe_unavailable")) == 1


# --- size


def test_one_worker_more_and_one_fewer() -> None:
    play(Settings(workers=1), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        2     ttin       | spawn 1/1=102, !scaled
        3     ready 102  |
        4     ttou       | retire 102 TERM
        5     exit 102 0 |
    """)  # fmt: skip


def test_never_fewer_than_one() -> None:
    history = play(Settings(workers=2), """
        0     start                  | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102   |
        2     ttou; ttou; ttou       | retire 102 TERM
        3     ttin                   | spawn 1/1=103
    """)  # fmt: skip
    assert history.supervisor.size == 2


def test_fewer_workers_never_takes_the_last_ready_one() -> None:
    play(Settings(workers=2), """
        0     start                  | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 102              | !serving
        2     ttou                   |
        3     ready 101              | retire 102 TERM
    """)  # fmt: skip


def test_fewer_workers_keeps_one_ready_and_only_one_until_a_wanted_slot_is_ready() -> None:
    play(Settings(workers=4), """
        0     start                           | prepare 1, spawn 1/0=101, spawn 1/1=102, spawn 1/2=103, spawn 1/3=104
        1     ready 102; ready 103; ready 104 | !serving
        2     ttou; ttou; ttou                | retire 103 TERM, retire 104 TERM
        3     ready 101                       | retire 102 TERM
    """)  # fmt: skip


def test_fewer_workers_while_the_wanted_slot_is_down_does_not_block_a_rolling_swap() -> None:
    play(Settings(workers=3, max_surge=1), """
        0     start                           | prepare 1, spawn 1/0=101, spawn 1/1=102, spawn 1/2=103
        1     ready 101; ready 102; ready 103 | !serving
        2     exit 101 1                      |
        2.1   hup; ttou; ttou                 | retire 103 TERM, prepare 2
        2.2   exit 103 0                      | spawn 2/0=201
        3     ready 201                       | retire 102 TERM, !serving
    """)  # fmt: skip


def test_fewer_workers_during_a_swap_shrinks_both_generations() -> None:
    play(Settings(workers=2), """
        0     start                  | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102   |
        2     hup                    | prepare 2, spawn 2/0=201, spawn 2/1=202
        3     ttou                   | retire 102 TERM, retire 202 TERM
        4     exit 102 0; exit 202 0 |
        5     ready 201              | retire 101 TERM, !serving
    """)  # fmt: skip


def test_fewer_workers_does_not_take_the_old_one_before_kill_old_delay_is_over() -> None:
    play(Settings(workers=2, kill_old_delay=5.0), """
        0     start                  | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102   |
        2     hup                    | prepare 2, spawn 2/0=201, spawn 2/1=202
        3     exit 101 1             |
        4     ready 201; ttou        | retire 202 TERM
        5     exit 202 0             |
        9     -                      | retire 102 TERM, !serving
    """)  # fmt: skip


def test_more_workers_during_a_swap_are_waited_for() -> None:
    play(Settings(workers=1), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        2     hup        | prepare 2, spawn 2/0=201
        3     ttin       | spawn 2/1=202
        4     ready 201  |
        5     ready 202  | retire 101 TERM, !serving
    """)  # fmt: skip


# --- what is passed on, and what can be seen


def test_signal_is_passed_to_the_serving_workers_only() -> None:
    play(Settings(workers=2), """
        0     start                  | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102   |
        2     hup                    | prepare 2, spawn 2/0=201, spawn 2/1=202
        3     ready 201; ready 202   | retire 101 TERM, retire 102 TERM
        4     usr1                   | pass 201 USR1, pass 202 USR1
    """)  # fmt: skip


def test_signal_is_not_passed_to_a_worker_that_is_still_starting_it_would_die_of_it() -> None:
    play(Settings(), """
        0     start      | prepare 1, spawn 1/0=101
        1     usr1       |
        2     ready 101  |
        3     hup        | prepare 2, spawn 2/0=201
        4     usr1       | pass 101 USR1
    """)  # fmt: skip


def test_status_rows_are_the_workers_that_were_ever_ready() -> None:
    history = History(Settings())
    history.play("""
        0     start      | prepare 1, spawn 1/0=101
    """)
    assert history.supervisor.status_rows() == []
    history.play("""
        1     ready 101  |
        2     hup        | prepare 2, spawn 2/0=201
    """)
    assert history.supervisor.status_rows() == [(1, 101)]
    history.play("""
        3     ready 201  | retire 101 TERM
    """)
    assert history.supervisor.status_rows() == [(1, 101), (2, 201)]
    history.play("""
        4     exit 101 0 | close 1
    """)
    assert history.supervisor.status_rows() == [(2, 201)]


def test_exit_says_how_long_it_lived_and_what_it_died_of() -> None:
    history = play(Settings(), """
        0     start           | prepare 1, spawn 1/0=101
        1     ready 101       |
        50    killed 101 SEGV | prepare 2, spawn 2/0=201
    """)  # fmt: skip
    (died,) = history.what_was_said("worker_died")
    assert died["cause"] == "killed by SIGSEGV"
    assert died["lived"] == 50


def test_note_of_an_exec_that_failed_is_the_cause() -> None:
    assert facts.WorkerExited(1, 127, note="no such program: x").cause == "no such program: x"
