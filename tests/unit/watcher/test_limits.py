"""What the watcher costs, and what ends it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.watch.watcher import LONGEST_S
from tests.saves import in_place
from tests.support import PATIENCE, until
from tests.unit.watcher.watching import LONG, Watcher, asleep, names, nothing_more, status, switches


@pytest.mark.parametrize(("what", "left"), [("watches", 300), ("instances", 0)])
def test_without_inotify_it_polls(
    start: Callable[..., Watcher], tmp_path: Path, what: str, left: int
) -> None:
    limit = f"/proc/sys/user/max_inotify_{what}"
    probe = ["unshare", "-Ur", "sh", "-c", f"echo {left} >{limit}"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    tree = tmp_path / "tree"
    for number in range(1000):
        (tree / f"d{number}").mkdir(parents=True)
        (tree / f"d{number}" / "f").write_text("old")
    watcher = start(
        [tree],
        settle=LONG,
        prefix=("unshare", "-Ur", "sh", "-c", f'echo {left} >{limit}; exec "$@"', "-"),
    )
    event = watcher.watching()
    assert (event["mode"], event["directories"]) == ("poll", 1001)
    assert f"user.max_inotify_{what}" in event["why"]
    for number in range(0, 1000, 100):
        (tree / f"d{number}" / "f").write_text("new")
    assert names(tree, watcher.changed()) == [f"d{number}/f" for number in range(0, 1000, 100)]
    nothing_more(watcher, tree)


def test_a_storm_is_few_changes_and_little_memory(
    start: Callable[..., Watcher], tree: Path
) -> None:
    """Few, however long it takes and however often a busy machine interrupts it: each time that
    LONGEST_S is over, something is told.
    """
    watcher = start([tree], settle=1.0)
    watcher.watching()
    until(lambda: asleep(watcher.pid), "rest")
    before, begun = status(watcher.pid, "VmHWM"), time.monotonic()
    for number in range(50_000):
        os.rename(tree / f"{number % 2}", tree / f"{1 - number % 2}") if number else (
            tree / "1"
        ).write_text("x")
    (tree / "app.py").write_text("the last\n")
    until(lambda: any("app.py" in each for each in watcher.told()), "the last file")
    most = 3 + (time.monotonic() - begun) / LONGEST_S
    assert len([each for each in watcher.events if each["event"] == "changed"]) <= most
    assert status(watcher.pid, "VmHWM") - before < 20_000


def test_at_rest_it_wakes_up_less_than_once_a_second(
    start: Callable[..., Watcher], tree: Path
) -> None:
    envdir = tree.parent / "env"
    envdir.mkdir()
    watcher = start([tree], env=[str(envdir)])
    watcher.watching()
    until(lambda: asleep(watcher.pid), "rest")
    before, begun = switches(watcher.pid), time.monotonic()
    time.sleep(5)
    assert (switches(watcher.pid) - before) / (time.monotonic() - begun) <= 1


def test_it_ends_with_sidecar(start: Callable[..., Watcher], tree: Path) -> None:
    watcher = start([tree])
    watcher.watching()
    for name in ("INT", "HUP", "QUIT"):  # what a terminal sends to everybody
        os.kill(watcher.pid, signal.Signals[f"SIG{name}"])
    in_place(tree)
    watcher.changed()
    assert watcher.close() == 0


def test_one_that_hangs_ends_itself(start: Callable[..., Watcher], tree: Path) -> None:
    """The alarm is the kernel's: here it is sent by hand, while Python does not run."""
    watcher = start([tree])
    watcher.watching()
    os.kill(watcher.pid, signal.SIGSTOP)
    os.kill(watcher.pid, signal.SIGALRM)
    os.kill(watcher.pid, signal.SIGCONT)
    assert watcher.process.wait(PATIENCE) == -signal.SIGALRM
