"""What happened while nobody watched is told by the next watcher, and nothing twice."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.saves import in_place
from tests.support import until
from tests.unit.watcher.watching import Watcher, asleep, exchange, names, nothing_more, switches

REALTIME_COARSE = 5  # linux/time.h; what the kernel stamps files with


def test_what_changed_since_the_program_was_started(
    start: Callable[..., Watcher], tree: Path
) -> None:
    until(
        lambda: (
            time.clock_gettime(REALTIME_COARSE)
            > (tree / "pkg" / "deep" / "leaf.py").stat().st_ctime + 0.02
        ),
        "a tick",
    )
    since = time.clock_gettime(REALTIME_COARSE)
    until(lambda: time.clock_gettime(REALTIME_COARSE) > since + 0.02, "another tick")
    in_place(tree)
    watcher = start([tree], since=since)
    watcher.watching()
    assert names(tree, watcher.changed()) == ["app.py"]
    nothing_more(watcher, tree)


def test_killed_ten_times_while_files_change_nothing_is_missed(
    start: Callable[..., Watcher], tree: Path, memory: int
) -> None:
    """Killed at once after a save, after it was told, and with saves in between; and nothing is
    told that has not changed.
    """
    written, told = set(), set()

    def write(name: str) -> None:
        (tree / "pkg" / name).write_text(f"{time.monotonic()}")
        written.add(f"pkg/{name}")

    first = start([tree], memory=memory)
    first.watching()
    watcher = first
    for number in range(10):
        write(f"a{number}.py")
        if number % 3 == 1:
            until(
                lambda watcher=watcher, name=f"a{number}.py": any(
                    name in each for each in watcher.told()
                ),
                "what was saved",
            )
        elif number % 3 == 2:
            turns = switches(watcher.pid) + number
            until(lambda watcher=watcher, turns=turns: switches(watcher.pid) > turns, "some turns")
        watcher.kill()
        told |= watcher.told()
        write(f"b{number}.py")
        write("every.py")
        watcher = start([tree], memory=memory)
    until(
        lambda: set(names(tree, list(told | watcher.told()))) >= written,
        "everything that was saved",
    )
    assert set(names(tree, list(told | watcher.told()))) == written


@pytest.mark.parametrize("seed", range(3))
def test_after_any_history_nothing_is_left_untold(
    start: Callable[..., Watcher], tree: Path, memory: int, seed: int
) -> None:
    """What was told last is kept; a second watcher reads everything anew and compares: it must find
    what is there.
    """
    dice = random.Random(seed)
    outside = tree.parent / "outside"
    outside.mkdir()
    watcher = start([tree], memory=memory)
    watcher.watching()
    for number in range(150):
        directories = [Path(each) for each, _, _ in os.walk(tree)]
        files = [Path(each) / name for each, _, found in os.walk(tree) for name in found]
        # The root itself is seldom moved: afterwards little is left.
        here, there, name = (
            dice.choice(directories[dice.random() > 0.02 :] or [tree]),
            dice.choice(directories),
            f"n{dice.randrange(6)}",
        )
        kind = dice.randrange(9)
        try:
            match kind if here != tree or dice.random() < 0.1 else kind % 3:
                case 0 | 1:
                    (here / name).write_text("x" * dice.randrange(3))
                case 2:
                    (here / name / "deep").mkdir(parents=True)
                    (here / name / "deep" / "file").write_text(f"{number}")
                case 3:
                    os.rename(here, there / name)
                case 4:
                    os.rename(here, outside / f"{number}")
                case 5:
                    os.rename(dice.choice(list(outside.iterdir())), there / name)
                case 6:
                    exchange(here, there)
                case 7:
                    (here / name).symlink_to(dice.choice([there, *files, outside]))
                case 8:
                    dice.choice(files).unlink()
        except (OSError, IndexError, pytest.skip.Exception):
            continue
        if dice.random() < 0.1:
            until(lambda: asleep(watcher.pid, 0.05), "a rest")
        tree.mkdir(exist_ok=True)
    until(
        lambda: asleep(watcher.pid, 0.5), "rest"
    )  # only a few paths are told at once: this one by itself
    (tree / "end").write_text("end")
    until(lambda: any(each.endswith("/end") for each in watcher.told()), "the last file")
    until(lambda: asleep(watcher.pid), "rest")
    watcher.kill()
    again = start([tree], memory=memory, mode="poll")
    again.watching()
    (tree / "end").write_text("another")
    assert names(tree, again.changed()) == ["end"]


def test_a_memory_that_cannot_be_read_says_so(
    start: Callable[..., Watcher], tree: Path, memory: int
) -> None:
    os.pwrite(memory, b"half a stat", 0)
    watcher = start([tree], memory=memory)
    watcher.watching()
    assert watcher.changed() == []
    nothing_more(watcher, tree)


def test_nothing_is_told_anew_after_a_restart_without_changes(
    start: Callable[..., Watcher], tree: Path, memory: int
) -> None:
    watcher = start([tree], memory=memory)
    watcher.watching()
    in_place(tree)
    watcher.changed()
    nothing_more(watcher, tree)
    until(lambda: asleep(watcher.pid), "the end of its work")
    watcher.kill()
    again = start([tree], memory=memory)
    again.watching()
    nothing_more(again, tree)
