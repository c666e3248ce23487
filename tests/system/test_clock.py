"""The wall clock is for showing, never for deciding: it may jump at any moment (a suspended
machine, a correction, a wrong BIOS).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from tests.support import ROOT, Load, until

# Where the wall clock is read, and what for; everything else goes by the monotonic clock.
SHOWN = {
    "host/control_desk.py": "what happened when, for status",
    "host/events.py": "what happened when, for status",
    "host/watcher.py": "the watcher's first sight of files, whose times are of this clock",
    "log/writer.py": "the time at the beginning of a line",
}

# Processes beside PID 1.
HELPERS = ("watch", "admin", "rollout")

# A clock that is right at one look, a year fast at the next, and a year slow at the one after that.
MAD = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *now) {
    static int looks;
    int done = syscall(SYS_clock_gettime, id, now);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)
        now->tv_sec += (++looks % 3 - 1) * 31536000;
    return done;
}
"""


def test_the_wall_clock_is_read_for_showing_only():
    wall = re.compile(r"time\.time\(|CLOCK_REALTIME|gmtime\(\)|localtime\(|datetime|time\.ctime")
    package = ROOT / "sidecar"
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] not in HELPERS and wall.search(path.read_text())
    }
    assert found <= {*SHOWN, "control/client.py"}


def test_it_swaps_drains_and_stops_while_the_clock_jumps_by_years(sidecar, tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler, to make a clock that jumps")
    (tmp_path / "mad.c").write_text(MAD)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", tmp_path / "mad.so", tmp_path / "mad.c"], check=True
    )
    run = sidecar(
        "--workers", "2", "--min-uptime", "1s", env={"LD_PRELOAD": str(tmp_path / "mad.so")}
    )
    run.wait("serving")
    with Load(run.port) as load:
        for generation in range(2, 7):
            run.swap(generation)
        seen = load.answered
        until(lambda: load.answered > seen + 50, "fifty more answers")
    assert load.failures == []
    (first,) = run.seen("serving", generation=2)
    assert first["took"] < 60
    pid = run.workers()[0]
    os.kill(pid, 9)
    until(lambda: len(run.workers()) == 2 and pid not in run.workers(), "another in its place")
    assert run.stop() == 0
    times = {each["time"][:4] for each in run.events}
    assert len(times) >= 2, "the clock did not jump"
