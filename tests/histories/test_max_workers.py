"""TTIN makes a worker more, up to a bound and at a pace: a program may send it in a loop."""

from __future__ import annotations

from sidecar.settings.table import Settings
from tests.histories.history import play


def test_ttin_in_a_loop_ends_at_max_workers_and_that_is_said_once() -> None:
    history = play(Settings(workers=1, max_workers=2), """
        0    start             | prepare 1, spawn 1/0=101
        1    ready 101         | !serving
        2    ttin; ttin; ttin  | spawn 1/1=102, !scaled, !worker_limit_reached
        3    ready 102; ttin   |
        4    ttou              | retire 102 TERM
        5    exit 102 0        |
        6    ttin; ttin        | spawn 1/1=103, !worker_limit_reached
    """)  # fmt: skip
    assert len(history.what_was_said("worker_limit_reached")) == 2


def test_without_max_workers_ttin_has_a_bound_too() -> None:
    history = play(Settings(workers=1), "0 start | prepare 1, spawn 1/0=101\n1 ready 101 |")
    for _ in range(1000):
        history._fact("ttin")
    assert history.supervisor.size == 64
    history = play(Settings(workers=20), "")
    for _ in range(1000):
        history._fact("ttin")
    assert history.supervisor.size == 80


TEN = ", ".join(f"spawn 1/{slot}={101 + slot}" for slot in range(1, 11))
SERVES = "0 start | prepare 1, spawn 1/0=101\n1 ready 101 | !serving\n"


def test_ttin_makes_ten_workers_at_once_and_then_one_a_second() -> None:
    ttins = "; ".join(["ttin"] * 13)
    history = play(Settings(workers=1), f"""{SERVES}
        2    {ttins}           | {TEN}, !scaling_paced
        3    -                 | spawn 1/11=112
        4    -                 | spawn 1/12=113
        5    -                 | spawn 1/13=114
    """)  # fmt: skip
    (said,) = history.what_was_said("scaling_paced")
    assert said == {"waiting": 3, "pause": 1.0}


def test_ttin_and_ttou_in_turn_start_a_worker_a_second_at_most() -> None:
    """And whoever asks later does not wait for what came before."""
    history = play(Settings(workers=1), SERVES)
    before = len(history.spawns)
    for step in range(1000):
        history.now = 2 + step / 100
        history._fact("ttou" if step % 2 else "ttin")
        for text in history._settle():
            if text.startswith("retire"):
                history._fact(f"exit {text.split()[1]} 0")
                history._settle()
    assert 10 < len(history.spawns) - before <= 10 + 10
    assert len(history.what_was_said("scaling_paced")) == 1
    history.play(f"60 ttin | spawn 1/1={101 + len(history.spawns)}")


def test_what_a_command_asks_for_and_a_swap_are_not_paced() -> None:
    ttins = "; ".join(["ttin"] * 12)
    play(Settings(workers=1), f"""{SERVES}
        2    {ttins}              | {TEN}, !scaling_paced
        2.5  configured workers=20 | {", ".join(f"spawn 1/{slot}={101 + slot}" for slot in range(11, 20))}
    """)  # fmt: skip
    history = play(Settings(workers=1), f"{SERVES} 2 {ttins} | {TEN}, !scaling_paced")
    everybody = ", ".join(f"spawn 2/{slot}={201 + slot}" for slot in range(13))
    history.play(f"2.5 hup | prepare 2, spawn 1/11=112, spawn 1/12=113, {everybody}")


def test_a_slot_whose_old_worker_has_stayed_is_open() -> None:
    """Its worker would not be replaced by a swap, and answer with old code for ever."""
    ten, nine = "; ".join(["ttin"] * 10), "; ".join(["ttou"] * 9)
    retired = ", ".join(f"retire {pid} TERM" for pid in range(103, 112))
    left = "; ".join(f"exit {pid} 0" for pid in range(103, 112))
    play(Settings(workers=1, max_surge=0), f"""{SERVES}
        2    {ten}             | {TEN}
        2.1  ready 102; {nine} | {retired}
        2.2  {left}            |
        2.3  hup               | prepare 2, spawn 2/0=201, spawn 2/1=202
        2.4  exit 101 1        |
        2.5  ttou              | retire 202 TERM
        2.6  ttin              | spawn 2/1=203
    """)  # fmt: skip
