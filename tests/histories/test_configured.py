"""Histories: the settings are read anew while sidecar runs."""

from __future__ import annotations

from sidecar.settings.table import Settings

from .history import play


def test_the_old_generation_is_asked_with_its_own_signal_and_the_next_with_the_new_one() -> None:
    """nginx drains on QUIT, what came before it on TERM: the settings of now are not those a
    program was begun with.
    """
    play(
        Settings(),
        """
        0    start                                    | prepare 1, spawn 1/0=101
        1    ready 101                                | !serving
        2    configured signal_on_hup=QUIT; hup       | prepare 2, spawn 2/0=201
        3    ready 201                                | retire 101 TERM
        4    exit 101 0                               | close 1
        5    hup                                      | prepare 3, spawn 3/0=301
        6    ready 301                                | retire 201 QUIT
        """,
    )


def test_a_stop_asks_each_generation_with_its_own_signal() -> None:
    play(
        Settings(),
        """
        0    start                                    | prepare 1, spawn 1/0=101
        1    ready 101                                | !serving
        2    configured signal_on_term=QUIT; hup      | prepare 2, spawn 2/0=201
        3    term                                     | retire 101 TERM, retire 201 QUIT
        """,
    )


def test_workers_in_the_file_are_a_wish_when_they_have_changed_and_only_then() -> None:
    """What TTIN has made of the number stays until the file says another one."""
    play(
        Settings(workers=2),
        """
        0    start                          | prepare 1, spawn 1/0=101, spawn 1/1=102
        1    ready 101; ready 102           | !serving
        2    ttin                           | !scaled, spawn 1/2=103
        3    ready 103                      |
        4    configured drain_timeout=9     |
        5    configured workers=1           | !scaled, retire 102 TERM, retire 103 TERM
        """,
    )


def test_a_drain_that_has_begun_keeps_its_bound() -> None:
    play(
        Settings(drain_timeout=20.0),
        """
        0    start                          | prepare 1, spawn 1/0=101
        1    ready 101                      | !serving
        2    hup                            | prepare 2, spawn 2/0=201
        3    ready 201                      | retire 101 TERM
        4    configured drain_timeout=1     |
        23   -                              | kill 101
        """,
    )


def test_a_shorter_pause_holds_from_the_next_failure_on() -> None:
    play(
        Settings(max_failures=0, max_backoff=0.5),
        """
        0    start                          | prepare 1, spawn 1/0=101
        1    exit 101 1                     | close 1, !retry_scheduled
        1.25 -                              | prepare 2, spawn 2/0=201
        2    exit 201 1                     | close 2, !retry_scheduled
        2    configured max_backoff=0.25    |
        2.5  -                              | prepare 3, spawn 3/0=301
        3    exit 301 1                     | close 3, !retry_scheduled
        3.25 -                              | prepare 4, spawn 4/0=401
        """,
    )


def test_the_automatic_restart_is_switched_on_and_off_and_counts_from_then() -> None:
    play(
        Settings(),
        """
        0    start                                                          | prepare 1, spawn 1/0=101
        1    ready 101                                                      | !serving
        50   configured enable_auto_restart=yes auto_restart_interval=10    |
        60   -                                                              | prepare 2, spawn 2/0=201, !interval_due
        61   ready 201                                                      | retire 101 TERM
        62   exit 101 0                                                     | close 1
        65   configured enable_auto_restart=no                              |
        99   -                                                              |
        """,
    )


def test_settings_read_during_a_stop_change_nothing_about_it() -> None:
    play(
        Settings(drain_timeout=5.0),
        """
        0    start                                 | prepare 1, spawn 1/0=101
        1    ready 101                             | !serving
        2    term                                  | retire 101 TERM
        3    configured drain_timeout=60; hup      |
        7    -                                     | kill 101
        8    killed 101 KILL                       | close 1, exit 0
        """,
    )


def test_fewer_failures_allowed_from_now_on_are_counted_from_the_next_failure() -> None:
    """Whoever has the settings read is not told of an end for what failed before."""
    play(Settings(max_failures=5), """
        0    start                          | prepare 1, spawn 1/0=101
        1    exit 101 1                     | close 1, !retry_scheduled
        1.25 -                              | prepare 2, spawn 2/0=201
        2    exit 201 1                     | close 2, !retry_scheduled
        2.1  configured max_failures=1; hup | prepare 3, spawn 3/0=301
        3    exit 301 7                     | close 3, exit 7, !gave_up
    """)  # fmt: skip
