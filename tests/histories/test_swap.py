"""Histories of a first start and of swaps: one that goes well, and each way in which one fails."""

from __future__ import annotations

import pytest

from sidecar.core import facts
from sidecar.settings.table import START_SERVER, Settings

from .history import History, play


def test_first_start_is_serving_with_the_first_ready_worker() -> None:
    play(Settings(workers=2), """
        0    start       | prepare 1, spawn 1/0=101, spawn 1/1=102, !swap_started
        1    ready 102   | !serving
        2    ready 101   | !worker_ready
    """)  # fmt: skip


def test_swap_retires_the_old_when_every_new_slot_is_ready() -> None:
    play(Settings(workers=2), """
        0    start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1    ready 101; ready 102 | !serving
        9    hup                  | prepare 2, spawn 2/0=201, spawn 2/1=202
        10   ready 202            |
        11   ready 201            | retire 101 TERM, retire 102 TERM, !serving
        12   exit 101 0           |
        13   killed 102 TERM      | close 1
    """)  # fmt: skip


def test_dying_of_the_signal_we_sent_is_a_clean_leave_and_any_other_end_is_not() -> None:
    history = play(Settings(workers=2), """
        0    start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1    ready 101; ready 102 |
        9    hup                  | prepare 2, spawn 2/0=201, spawn 2/1=202
        10   ready 202; ready 201 | retire 101 TERM, retire 102 TERM
        12   killed 101 TERM      |
        13   killed 102 SEGV      | close 1
    """)  # fmt: skip
    assert [each["pid"] for each in history.what_was_said("worker_exited")] == [101]
    assert [each["pid"] for each in history.what_was_said("worker_died")] == [102]


def test_swap_retires_with_the_signal_set_for_it() -> None:
    play(Settings(signal_on_hup="QUIT", signal_on_term="INT"), """
        0    start     | prepare 1, spawn 1/0=101
        1    ready 101 |
        9    hup       | prepare 2, spawn 2/0=201
        10   ready 201 | retire 101 QUIT
        11   exit 101 0| close 1
        12   term      | retire 201 INT
    """)  # fmt: skip


def test_new_worker_that_exits_before_it_is_ready_fails_the_swap_whatever_its_code() -> None:
    for end in ("exit 201 0", "exit 201 1", "killed 201 SEGV"):
        history = play(Settings(workers=2), f"""
            0    start                | prepare 1, spawn 1/0=101, spawn 1/1=102
            1    ready 101; ready 102 |
            9    hup                  | prepare 2, spawn 2/0=201, spawn 2/1=202
            10   ready 202            |
            11   {end}                | retire 202 TERM, !swap_failed
            11.1 exit 202 0           | close 2
        """)  # fmt: skip
        (failed,) = history.what_was_said("swap_failed")
        assert failed["generation"] == 2
        assert failed["trigger"] == "HUP"
        assert failed["lasted"] == 2
        assert failed["still"] == [1]
        assert not failed["degraded"]
        assert "before it was ready" in failed["cause"]


def test_new_worker_that_is_not_ready_in_time_fails_the_swap_and_is_killed_soon_if_it_does_not_leave() -> (
    None
):
    history = play(Settings(start_timeout=5.0), """
        0    start     | prepare 1, spawn 1/0=101
        1    ready 101 |
        9    hup       | prepare 2, spawn 2/0=201
        14   -         | retire 201 TERM, !worker_overdue, !swap_failed
        15   hup       |
        16   -         | prepare 3, kill 201, spawn 3/0=301
        16   killed 201 KILL | close 2
        17   ready 301 | retire 101 TERM, !serving
    """)  # fmt: skip
    (failed,) = history.what_was_said("swap_failed")
    assert failed["cause"] == "not ready within 5 s (readiness accept)"


@pytest.mark.parametrize("readiness", ["notify", "command"])
def test_new_worker_that_nobody_has_looked_at_may_have_connections_and_has_the_drain_time(
    readiness: str,
) -> None:
    """Its program has the listeners from its start on. The next attempt does not wait for all of it."""
    play(Settings(start_timeout=5.0, drain_timeout=10.0), """
        0    start      | prepare 1, spawn 1/0=101
        1    ready 101  |
        10   hup        | prepare 2, spawn 2/0=201
        15   -          | retire 201 TERM, !swap_failed
        16   hup        |
        17   -          | prepare 3, spawn 3/0=301
        18   ready 301  | retire 101 TERM
        18   exit 101 0 | close 1
        25   -          | kill 201
    """, readiness=readiness)  # fmt: skip


def test_new_worker_that_time_alone_would_make_ready_has_the_drain_time_when_it_is_given_up() -> (
    None
):
    settings = Settings(workers=2, interval=4.0, drain_timeout=10.0)
    play(settings, """
        0    start      | prepare 1, spawn 1/0=101, spawn 1/1=102
        4    -          |
        10   hup        | prepare 2, spawn 2/0=201, spawn 2/1=202
        11   exit 202 1 | retire 201 TERM, !swap_failed
        21   -          | kill 201
    """, readiness="interval")  # fmt: skip


def test_new_worker_whose_program_does_not_run_yet_has_no_connections() -> None:
    play(Settings(workers=2, interval=4.0, drain_timeout=10.0), """
        0    start                      | prepare 1, spawn 1/0=101, spawn 1/1=102
        0    executed 101; executed 102 |
        4    -                          |
        10   hup                        | prepare 2, spawn 2/0=201, spawn 2/1=202
        11   exit 202 1                 | retire 201 TERM, !swap_failed
        13   -                          | kill 201
    """, readiness="interval", execute="later")  # fmt: skip


def test_what_a_stop_finds_starting_may_have_connections_where_nobody_has_looked() -> None:
    play(Settings(interval=4.0, drain_timeout=10.0), """
        0    start      | prepare 1, spawn 1/0=101
        4    -          |
        10   hup        | prepare 2, spawn 2/0=201
        11   term       | retire 101 TERM, retire 201 TERM
        12   exit 101 0 | close 1
        21   -          | kill 201
        21   killed 201 KILL | close 2, exit 0
    """, readiness="interval")  # fmt: skip


def test_new_worker_that_dies_within_kill_old_delay_fails_the_swap_and_the_old_one_stays() -> None:
    play(Settings(kill_old_delay=3.0), """
        0    start      | prepare 1, spawn 1/0=101
        1    ready 101  | !serving
        9    hup        | prepare 2, spawn 2/0=201
        10   ready 201  |
        12   exit 201 1 | close 2, !swap_failed
        12.25 hup       | prepare 3, spawn 3/0=301
        13   ready 301  |
        16   -          | retire 101 TERM, !serving
        17   exit 101 0 | close 1
    """)  # fmt: skip


def test_kill_old_delay_counts_from_the_last_slot_that_got_ready() -> None:
    play(Settings(workers=2, kill_old_delay=3.0), """
        0    start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1    ready 101; ready 102 |
        9    hup                  | prepare 2, spawn 2/0=201, spawn 2/1=202
        10   ready 201            |
        12   ready 202            |
        15   -                    | retire 101 TERM, retire 102 TERM
    """)  # fmt: skip


def test_failed_preparation_keeps_the_old_and_starts_nothing() -> None:
    history = play(Settings(), """
        0    start        | prepare 1
        1    prepared 1   | spawn 1/0=101
        2    ready 101    | !serving
        9    watch        | prepare 2
        10   unprepared 2 | close 2, !swap_failed
        99   -            |
    """, prepare="later")  # fmt: skip
    (failed,) = history.what_was_said("swap_failed")
    assert failed["cause"] == "the check exited with status 3"


def test_answer_to_a_preparation_that_was_given_up_is_no_answer_to_the_next() -> None:
    play(Settings(), """
        0    start        | prepare 1
        1    prepared 1   | spawn 1/0=101
        2    ready 101    |
        9    watch        | prepare 2
        10   watch        | prepare 3, close 2
        11   prepared 2   |
        12   unprepared 2 |
        13   prepared 3   | spawn 3/0=301
    """, prepare="later")  # fmt: skip


@pytest.mark.parametrize("trigger", ["hup", "command", "key", "watch", "envdir"])
def test_swap_that_was_asked_for_and_failed_is_not_tried_again_while_something_serves(
    trigger: str,
) -> None:
    history = play(Settings(), f"""
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        10    {trigger}  | prepare 2, spawn 2/0=201
        11    exit 201 1 | close 2, !swap_failed
        9999  -          |
        9999  {trigger}  | prepare 3, spawn 3/0=301
        10001 ready 301  | retire 101 TERM
    """)  # fmt: skip
    assert [each["again"] for each in history.what_was_said("swap_failed")] == [None]
    assert history.what_was_said("retry_scheduled") == []


def test_automatic_restart_that_failed_waits_for_its_next_interval() -> None:
    history = play(Settings(enable_auto_restart=True, auto_restart_interval=100.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        101   -          | prepare 2, spawn 2/0=201, !interval_due
        103   exit 201 1 | close 2, !swap_failed
        203   -          | prepare 3, spawn 3/0=301, !interval_due
        204   ready 301  | retire 101 TERM
    """)  # fmt: skip
    assert [each["again"] for each in history.what_was_said("swap_failed")] == [100.0]


def test_failed_swap_does_not_put_the_automatic_restart_off_unless_that_is_over() -> None:
    history = play(Settings(enable_auto_restart=True, auto_restart_interval=100.0), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        50    hup        | prepare 2, spawn 2/0=201
        51    exit 201 1 | close 2
        99    hup        | prepare 3, spawn 3/0=301
        102   exit 301 1 | close 3
        202   -          | prepare 4, spawn 4/0=401, !interval_due
    """)  # fmt: skip
    assert [each["again"] for each in history.what_was_said("swap_failed")] == [50.0, 100.0]


def test_failed_swap_whose_successor_was_asked_for_meanwhile_says_when_it_begins() -> None:
    history = play(Settings(), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        10    hup        | prepare 2, spawn 2/0=201
        11    hup        |
        12    exit 201 1 | prepare 3, close 2, spawn 3/0=301
    """)  # fmt: skip
    assert [each["again"] for each in history.what_was_said("swap_failed")] == [0.0]


def test_swap_for_a_broken_listener_is_tried_again() -> None:
    """Nobody has asked for it, and who connects reaches nobody until it is done."""
    history = play(Settings(), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        10    listener   | prepare 2, spawn 2/0=201
        11    exit 201 1 | close 2, !swap_failed, !retry_scheduled
        11.25 -          | prepare 3, spawn 3/0=301
    """)  # fmt: skip
    assert [each["again"] for each in history.what_was_said("swap_failed")] == [0.25]


def test_server_starter_tries_a_failed_swap_again_after_growing_pauses() -> None:
    play(Settings(max_backoff=1.5, entry_point=START_SERVER), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        10    hup        | prepare 2, spawn 2/0=201
        10    exit 201 1 | close 2, !retry_scheduled
        10.25 -          | prepare 3, spawn 3/0=301
        10.25 exit 301 1 | close 3, !retry_scheduled
        10.75 -          | prepare 4, spawn 4/0=401
        10.75 exit 401 1 | close 4, !retry_scheduled
        11.75 -          | prepare 5, spawn 5/0=501
        11.75 exit 501 1 | close 5, !retry_scheduled
        13.25 -          | prepare 6, spawn 6/0=601
        13.25 exit 601 1 | close 6, !retry_scheduled
        14.75 -          | prepare 7, spawn 7/0=701
        15    ready 701  | retire 101 TERM, !serving
    """)  # fmt: skip


def test_pauses_between_retries_begin_anew_once_a_swap_has_held_out() -> None:
    play(Settings(min_uptime=5.0, entry_point=START_SERVER), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        10    hup        | prepare 2, spawn 2/0=201
        10    exit 201 1 | close 2
        10.25 -          | prepare 3, spawn 3/0=301
        10.25 exit 301 1 | close 3
        10.75 -          | prepare 4, spawn 4/0=401
        11    ready 401  | retire 101 TERM, !serving
        11    exit 101 0 | close 1
        20    hup        | prepare 5, spawn 5/0=501
        20    exit 501 1 | close 5
        20.25 -          | prepare 6, spawn 6/0=601
        20.25 exit 601 1 | close 6
        20.75 -          | prepare 7, spawn 7/0=701
    """)  # fmt: skip


def test_pauses_go_on_growing_if_a_swap_has_not_held_out() -> None:
    play(Settings(min_uptime=50.0, entry_point=START_SERVER), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        10    hup        | prepare 2, spawn 2/0=201
        10    exit 201 1 | close 2
        10.25 -          | prepare 3, spawn 3/0=301
        11    ready 301  | retire 101 TERM, !serving
        11    exit 101 0 | close 1
        20    hup        | prepare 4, spawn 4/0=401
        20    exit 401 1 | close 4
        20.5  -          | prepare 5, spawn 5/0=501
    """)  # fmt: skip


def test_jitter_shortens_a_pause_by_up_to_half() -> None:
    play(Settings(), """
        0      start      | prepare 1, spawn 1/0=101
        1      exit 101 1 | close 1
        1.1875 -          | prepare 2, spawn 2/0=201
    """, chance=0.5)  # fmt: skip


def test_hup_during_a_pause_starts_at_once() -> None:
    play(Settings(entry_point=START_SERVER), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        10    hup        | prepare 2, spawn 2/0=201
        10    exit 201 1 | close 2, !retry_scheduled
        10.1  hup        | prepare 3, spawn 3/0=301
        11    ready 301  | retire 101 TERM
        11    exit 101 0 | close 1
        99    -          |
    """)  # fmt: skip


def test_failed_swap_is_tried_again_when_nothing_serves() -> None:
    play(Settings(), """
        0     start      | prepare 1, spawn 1/0=101
        1     ready 101  |
        20    watch      | prepare 2, spawn 2/0=201
        21    exit 101 0 |
        22    exit 201 1 | close 2, !swap_failed, !retry_scheduled
        22.25 -          | prepare 3 like 1, spawn 3/0=301
        23    ready 301  | close 1, !serving
    """)  # fmt: skip


def test_generation_still_starting_is_given_up_when_the_code_changes_again() -> None:
    play(Settings(), """
        0    start      | prepare 1, spawn 1/0=101
        1    ready 101  |
        10   watch      | prepare 2, spawn 2/0=201
        11   watch      | retire 201 TERM, !swap_superseded
        12   watch      |
        12.5 exit 201 0 | prepare 3, close 2, spawn 3/0=301
        13   ready 301  | retire 101 TERM, !serving
        14   exit 101 0 | close 1
    """)  # fmt: skip


def test_never_three_generations_start_a_given_up_one_is_killed_before_the_next_begins() -> None:
    play(Settings(), """
        0    start      | prepare 1, spawn 1/0=101
        1    ready 101  |
        10   watch      | prepare 2, spawn 2/0=201
        11   watch      | retire 201 TERM
        13   -          | prepare 3, kill 201, spawn 3/0=301
        13   killed 201 KILL | close 2
    """)  # fmt: skip


def test_half_started_generation_is_not_given_up_for_a_hup() -> None:
    play(Settings(), """
        0    start      | prepare 1, spawn 1/0=101
        1    ready 101  |
        10   watch      | prepare 2, spawn 2/0=201
        11   hup        |
        12   ready 201  | retire 101 TERM, prepare 3, spawn 3/0=301, !serving
        13   exit 101 0 | close 1
        14   ready 301  | retire 201 TERM, !serving
    """)  # fmt: skip


def test_three_hups_during_a_swap_make_one_more() -> None:
    play(Settings(), """
        0    start         | prepare 1, spawn 1/0=101
        1    ready 101     |
        10   hup           | prepare 2, spawn 2/0=201
        11   hup           |
        12   hup; hup      |
        13   ready 201     | retire 101 TERM, prepare 3, spawn 3/0=301
        14   exit 101 0    | close 1
        15   ready 301     | retire 201 TERM
        16   exit 201 0    | close 2
        99   -             |
    """)  # fmt: skip


def test_watch_is_not_forgotten_when_a_hup_comes_after_it() -> None:
    play(Settings(), """
        0    start      | prepare 1, spawn 1/0=101
        1    ready 101  |
        10   hup        | prepare 2, spawn 2/0=201
        11   watch; hup | retire 201 TERM, !swap_superseded
        11.1 exit 201 0 | prepare 3, close 2, spawn 3/0=301
    """)  # fmt: skip


def test_changed_envdir_waits_for_its_splay_and_a_hup_does_not() -> None:
    history = play(
        Settings(workers=1, env_splay=30.0),
        """
        0    start        | prepare 1, spawn 1/0=101
        1    ready 101    |
        10   envdir       |
        25   -            | prepare 2, spawn 2/0=201
        26   ready 201    | retire 101 TERM
        27   exit 101 0   | close 1
        40   envdir       |
        41   hup          | prepare 3, spawn 3/0=301
        42   ready 301    | retire 201 TERM
        43   exit 201 0   | close 2
        """,
        chance=0.5,
    )
    assert [each["trigger"] for each in history.what_was_said("swap_started")] == [
        "start",
        "envdir",
        "HUP",
    ]


def test_coming_generation_is_given_up_when_the_splay_is_over_not_before() -> None:
    play(
        Settings(workers=1, env_splay=4.0),
        """
        0    start        | prepare 1, spawn 1/0=101
        1    ready 101    |
        10   hup          | prepare 2, spawn 2/0=201
        11   envdir       |
        13   -            | retire 201 TERM, !swap_superseded
        14   killed 201 TERM | prepare 3, close 2, spawn 3/0=301
        """,
        chance=0.5,
    )


def test_last_worker_dies_during_the_splay_of_a_changed_envdir() -> None:
    # Found by the simulation: the restart after the crash forgot the change.
    history = History(Settings(workers=1, env_splay=30.0), chance=0.5)
    history.play(
        """
        0    start        | prepare 1, spawn 1/0=101
        1    ready 101    |
        """
    )
    history.supervisor.observe(facts.SwapTriggered("envdir", True, ("GREETING",)), 10.0)
    history.play("20   exit 101 1   | prepare 2, spawn 2/0=201")
    assert [each["changed"] for each in history.what_was_said("swap_started")] == [[], ["GREETING"]]


def test_no_process_can_be_made_the_swap_fails_and_the_old_serves() -> None:
    history = play(Settings(workers=2), """
        0     start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102 |
        10    hup; refuse 1        | prepare 2, spawn 2/0 refused, spawn 2/1=201, retire 201 TERM, !spawn_failed, !swap_failed
        10.1  exit 201 0           | close 2
        99    -                    |
    """)  # fmt: skip
    assert "EAGAIN" in history.what_was_said("swap_failed")[0]["cause"]


def test_new_generation_takes_over_early_when_the_old_has_died() -> None:
    play(Settings(workers=2, kill_old_delay=5.0), """
        0     start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102 |
        10    hup                  | prepare 2, spawn 2/0=201, spawn 2/1=202
        11    ready 201            |
        12    exit 101 1           |
        13    exit 102 1           | close 1, !serving
        14    ready 202            |
    """)  # fmt: skip


def test_new_generation_with_a_slot_missing_is_better_than_none() -> None:
    play(Settings(workers=2, kill_old_delay=5.0), """
        0     start                  | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102   |
        10    hup                    | prepare 2, spawn 2/0=201, spawn 2/1=202
        11    ready 201              |
        12    exit 101 1; exit 102 1; exit 202 1 | spawn 2/1=203, close 1, !serving
        12.1  exit 203 1             |
        12.35 -                      | spawn 2/1=204
    """)  # fmt: skip


# --- a rolling swap


def test_rolling_swap_replaces_four_workers_one_by_one() -> None:
    play(Settings(workers=4, max_surge=1), """
        0    start      | prepare 1, spawn 1/0=101, spawn 1/1=102, spawn 1/2=103, spawn 1/3=104
        1    ready 101; ready 102; ready 103; ready 104 |
        10   hup        | prepare 2, spawn 2/0=201
        11   ready 201  | retire 101 TERM, !retiring
        12   exit 101 0 | spawn 2/1=202
        13   ready 202  | retire 102 TERM
        14   exit 102 0 | spawn 2/2=203
        15   ready 203  | retire 103 TERM
        16   exit 103 0 | spawn 2/3=204
        17   ready 204  | retire 104 TERM, !serving
        18   exit 104 0 | close 1
    """)  # fmt: skip


def test_rolling_swap_counts_what_still_drains() -> None:
    play(Settings(workers=2, max_surge=1, drain_timeout=5.0), """
        0    start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1    ready 101; ready 102 |
        10   hup                  | prepare 2, spawn 2/0=201
        11   ready 201            | retire 101 TERM
        16   -                    | kill 101
        16.1 killed 101 KILL      | spawn 2/1=202
    """)  # fmt: skip


def test_rolling_swap_does_not_wait_for_ever_for_what_cannot_be_killed() -> None:
    play(Settings(workers=1, max_surge=1, drain_timeout=5.0), """
        0    start                | prepare 1, spawn 1/0=101
        1    ready 101            |
        10   hup                  | prepare 2, spawn 2/0=201
        11   ready 201            | retire 101 TERM, !serving
        12   hup                  | prepare 3
        16   -                    | kill 101
        19   -                    | spawn 3/0=301
    """)  # fmt: skip


def test_rolling_swap_waits_kill_old_delay_in_each_round() -> None:
    play(Settings(workers=2, max_surge=1, kill_old_delay=2.0), """
        0    start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1    ready 101; ready 102 |
        10   hup                  | prepare 2, spawn 2/0=201
        11   ready 201            |
        13   -                    | retire 101 TERM
        14   exit 101 0           | spawn 2/1=202
        15   ready 202            |
        17   -                    | retire 102 TERM, !serving
    """)  # fmt: skip


def test_rolling_swap_that_fails_halfway_keeps_what_has_taken_over_for_the_next() -> None:
    history = play(Settings(workers=4, max_surge=1), """
        0     start      | prepare 1, spawn 1/0=101, spawn 1/1=102, spawn 1/2=103, spawn 1/3=104
        1     ready 101; ready 102; ready 103; ready 104 |
        10    hup        | prepare 2, spawn 2/0=201
        11    ready 201  | retire 101 TERM
        12    exit 101 0 | spawn 2/1=202
        13    exit 202 1 | !swap_failed
        13.25 hup        | prepare 3, spawn 3/0=301
        14    ready 301  | retire 201 TERM
        15    exit 201 0 | spawn 3/1=302, close 2
        16    ready 302  | retire 102 TERM
        17    exit 102 0 | spawn 3/2=303
        18    ready 303  | retire 103 TERM
        19    exit 103 0 | spawn 3/3=304
        20    ready 304  | retire 104 TERM, !serving
        21    exit 104 0 | close 1
    """)  # fmt: skip
    (failed,) = history.what_was_said("swap_failed")
    assert failed["degraded"]
    assert failed["still"] == [1]


def test_rolling_swap_retires_also_who_was_being_started_again_in_the_slot() -> None:
    play(Settings(workers=2, max_surge=1), """
        0    start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1    ready 101; ready 102 |
        50   exit 101 1           | spawn 1/0=103
        51   hup                  | prepare 2, spawn 2/0=201
        52   ready 201            | retire 103 TERM
        53   exit 103 0           | spawn 2/1=202
    """)  # fmt: skip


def test_the_latest_names_are_told_of_more_than_anybody_wants_to_read() -> None:
    history = play(Settings(), """
        0    start     | prepare 1, spawn 1/0=101
        1    ready 101 | !serving
    """)  # fmt: skip
    names = tuple(f"file{number:02}" for number in range(25))
    for each in (names[:3], names[3:20], names[20:]):
        history.supervisor.observe(facts.SwapTriggered("watch", True, each), 10.0)
    history.play("10 - | prepare 2, spawn 2/0=201")
    assert history.what_was_said("swap_started")[-1]["changed"] == [*names[5:]]


def test_rolling_swap_that_has_taken_over_something_is_not_superseded() -> None:
    play(Settings(workers=2, max_surge=1), """
        0    start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1    ready 101; ready 102 |
        10   watch                | prepare 2, spawn 2/0=201
        11   ready 201            | retire 101 TERM
        12   exit 101 0           | spawn 2/1=202
        13   watch                |
        14   ready 202            | retire 102 TERM, prepare 3, !serving
        15   exit 102 0           | spawn 3/0=301, close 1
    """)  # fmt: skip


def test_rolling_swap_is_superseded_when_what_it_has_taken_over_is_not_wanted_any_more() -> None:
    play(Settings(workers=1, max_surge=1), """
        0    start      | prepare 1, spawn 1/0=101
        1    ready 101  |
        2    hup        | prepare 2, spawn 2/0=201
        3    ready 201  | retire 101 TERM, !serving
        4    watch      | prepare 3
        5    ttin       | spawn 3/1=301
        6    ready 301  |
        7    ttou       | retire 301 TERM
        8    watch      | prepare 4, !swap_superseded
    """)  # fmt: skip


def test_lost_slot_of_a_degraded_generation_is_filled_from_the_serving_one() -> None:
    play(Settings(workers=2, max_surge=1), """
        0     start                | prepare 1, spawn 1/0=101, spawn 1/1=102
        1     ready 101; ready 102 |
        10    watch                | prepare 2, spawn 2/0=201
        11    ready 201            | retire 101 TERM
        12    exit 101 0           | spawn 2/1=202
        13    exit 202 1           | !swap_failed
        20    exit 201 1           | close 2
        20.25 -                    | spawn 1/0=103
    """)  # fmt: skip


# --- the automatic restart


def test_automatic_restart_comes_an_interval_after_the_last_swap_and_up_to_a_tenth_later() -> None:
    settings = Settings(enable_auto_restart=True, auto_restart_interval=100.0)
    play(settings, """
        0    start      | prepare 1, spawn 1/0=101
        1    ready 101  |
        101  -          | prepare 2, spawn 2/0=201
        103  ready 201  | retire 101 TERM, !serving
        104  exit 101 0 | close 1
        203  -          | prepare 3, spawn 3/0=301
    """)  # fmt: skip
    play(settings, """
        0    start      | prepare 1, spawn 1/0=101
        1    ready 101  |
        106  -          | prepare 2, spawn 2/0=201
    """, chance=0.5)  # fmt: skip


def test_automatic_restart_is_put_off_by_any_swap() -> None:
    play(Settings(enable_auto_restart=True, auto_restart_interval=100.0), """
        0    start      | prepare 1, spawn 1/0=101
        1    ready 101  |
        90   hup        | prepare 2, spawn 2/0=201
        110  ready 201  | retire 101 TERM, !serving
        111  exit 101 0 | close 1
        210  -          | prepare 3, spawn 3/0=301
    """)  # fmt: skip


def test_automatic_restart_waits_for_what_drains_but_not_for_ever() -> None:
    settings = Settings(enable_auto_restart=True, auto_restart_interval=10.0, drain_timeout=60.0)
    play(settings, """
        0    start      | prepare 1, spawn 1/0=101
        1    ready 101  |
        5    hup        | prepare 2, spawn 2/0=201
        6    ready 201  | retire 101 TERM
        20   exit 101 0 | prepare 3, close 1, spawn 3/0=301
    """)  # fmt: skip
    play(settings, """
        0    start      | prepare 1, spawn 1/0=101
        1    ready 101  |
        5    hup        | prepare 2, spawn 2/0=201
        6    ready 201  | retire 101 TERM
        26   -          | prepare 3, spawn 3/0=301
    """)  # fmt: skip


def test_what_a_new_environment_says_of_the_pace_counts_from_its_generation_on() -> None:
    settings = Settings(
        enable_auto_restart=True, auto_restart_interval=100.0, entry_point=START_SERVER
    )
    play(settings, """
        0    start                       | prepare 1
        0    pace on 50 0; prepared 1    | spawn 1/0=101
        1    ready 101                   |
        51   -                           | prepare 2
        51   pace off 50 20; prepared 2  | spawn 2/0=201
        60   ready 201                   | !retire_delayed
        80   -                           | retire 101 TERM, !retiring, !serving
        81   exit 101 0                  | close 1
        990  hup                         | prepare 3
        990  pace on 500 0; prepared 3   | spawn 3/0=301
        999  exit 301 1                  | close 3, !swap_failed
        999.25 -                         | prepare 4
        999.25 prepared 4                | spawn 4/0=401
        1000 ready 401                   | retire 201 TERM, !serving
        1001 exit 201 0                  | close 2
        1500 -                           | prepare 5
    """, prepare="later")  # fmt: skip


def test_who_asked_for_a_swap_hears_of_its_end_also_if_the_old_worker_has_died_meanwhile() -> None:
    for delay in (0.0, 5.0):
        history = play(Settings(kill_old_delay=delay), """
            0  start        | prepare 1, spawn 1/0=101
            1  ready 101    | !serving
            2  hup          | prepare 2, spawn 2/0=201
            3  killed 101 KILL | !worker_died
            4  ready 201    | close 1, !retiring, !serving
        """)  # fmt: skip
        assert history.what_was_said("retiring") == [
            {"generation": 2, "pids": [], "signal": "TERM", "delay": 0.0}
        ]
    history = play(Settings(kill_old_delay=5.0), """
        0  start        | prepare 1, spawn 1/0=101
        1  ready 101    | !serving
        2  hup          | prepare 2, spawn 2/0=201
        3  ready 201    | !retire_delayed
        4  killed 101 KILL | close 1, !worker_died, !retiring, !serving
    """)  # fmt: skip
    assert history.what_was_said("retiring") == [
        {"generation": 2, "pids": [], "signal": "TERM", "delay": 5.0}
    ]
    assert not play(Settings(), """
        0    start        | prepare 1, spawn 1/0=101
        1    ready 101    | !serving
        20   exit 101 1   | prepare 2, spawn 2/0=201
        21   ready 201    | close 1, !serving
    """).what_was_said("retiring")  # fmt: skip


def test_a_preparation_that_does_not_end_fails_like_a_worker_that_is_never_ready() -> None:
    play(Settings(start_timeout=30.0), """
        0     start      | prepare 1
        1     prepared 1 | spawn 1/0=101
        2     ready 101  |
        10    hup        | prepare 2
        40    -          | close 2, !swap_failed
        40.1  prepared 2 |
    """, prepare="later")  # fmt: skip


@pytest.mark.parametrize("left", ["+", "+ stray"])
def test_program_that_daemonizes_is_told_so(left: str) -> None:
    """The parent exits with 0, and the child lives on: a supervised program has to stay."""
    history = play(Settings(), f"""
        0     start             | prepare 1, spawn 1/0=101
        1     ready 101         | !serving
        9     hup               | prepare 2, spawn 2/0=201
        9.5   exit 201 0 {left} | retire-group 201 TERM, !swap_failed
    """)  # fmt: skip
    assert history.what_was_said("swap_failed")[0]["cause"] == (
        "exited with status 0 before it was ready and left processes behind"
        " (the program seems to daemonize: run it in the foreground)"
    )


@pytest.mark.parametrize("end", ["exit 201 0", "exit 201 1 +", "killed 201 SEGV +"])
def test_program_that_fails_is_not_said_to_daemonize(end: str) -> None:
    history = play(Settings(), """
        0     start     | prepare 1, spawn 1/0=101
        1     ready 101 | !serving
        9     hup       | prepare 2, spawn 2/0=201
    """)  # fmt: skip
    history.now = 9.5
    history._fact(end)
    history._settle()
    assert "daemonize" not in history.what_was_said("swap_failed")[0]["cause"]
