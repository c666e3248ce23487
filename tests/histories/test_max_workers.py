"""TTIN makes a worker more, up to a bound: a program may send it in a loop."""

from __future__ import annotations

from sidecar.settings.table import Settings
from tests.histories.history import play


def test_ttin_in_a_loop_ends_at_max_workers_and_that_is_said_once() -> None:
    history = play(Settings(workers=1, max_workers=2), """
        0    start             | prepare 1, spawn 1/0=101
        1    ready 101         | !serving
        2    ttin; ttin; ttin  | spawn 1/1=102, !resized, !enough_workers
        3    ready 102; ttin   |
        4    ttou              | retire 102 TERM
        5    exit 102 0        |
        6    ttin; ttin        | spawn 1/1=103, !enough_workers
    """)  # fmt: skip
    assert len(history.what_was_said("enough_workers")) == 2


def test_without_max_workers_ttin_has_a_bound_too() -> None:
    history = play(Settings(workers=1), "0 start | prepare 1, spawn 1/0=101\n1 ready 101 |")
    for _ in range(1000):
        history._fact("ttin")
    assert history.supervisor.size == 64
    history = play(Settings(workers=20), "")
    for _ in range(1000):
        history._fact("ttin")
    assert history.supervisor.size == 80
