"""Processes: start, signal, reap; each test has a ChildProcesses of its own in a child, because wait(2)
has one owner a process.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support import ROOT

PRELUDE = """
import os, signal, select, sys, time
from sidecar.system.signals import SignalPipe
from sidecar.system.procfs import descendants
from sidecar.system.child import Launch
from sidecar.system.descriptors import set_cloexec_on_inherited
from sidecar.system.processes import ChildProcesses
from sidecar.system.users import credentials
wakeup = SignalPipe()
workers = ChildProcesses(wakeup.mask, wakeup.dispositions)
def launch(*argv, **more):
    return workers.start(Launch(argv=argv, environment=dict(os.environ), **more))
def reaped(pid):
    ended, emptied = [], []
    while not any(each.pid == pid for each in ended):
        select.select([wakeup], [], [])
        wakeup.take()
        more, groups = workers.reap()
        ended += more
        emptied += groups
    return next(each for each in ended if each.pid == pid), emptied
"""


def run(code: str, *arguments: str) -> list[str]:
    """Run the code in a process of its own; the lines it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_child_that_ends_is_reaped_with_status_or_signal():
    assert run("""
        ended, _ = reaped(launch("sh", "-c", "exit 3"))
        print(ended.code, ended.signal, ended.start_error, ended.group_empty)
        pid = launch("sleep", "60")
        workers.signal(pid, "USR1")
        ended, _ = reaped(pid)
        print(ended.code, ended.signal)
    """) == ["3   True", "10 USR1"]


def test_however_many_have_ended_all_are_reaped_at_once():
    """One signal may stand for many ends."""
    assert run("""
        pids = [launch("true") for _ in range(20)]
        for pid in pids:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        print(sorted(each.pid for each in workers.reap()[0]) == sorted(pids))
    """) == ["True"]


def test_no_descriptor_is_left_of_a_process_that_runs_or_has_ended():
    """Neither where its program was seen to run nor where that was never looked at."""
    assert run("""
        def descriptors():
            return len(os.listdir("/proc/self/fd"))
        reaped(launch("true"))
        before = descriptors()
        for words in (["true"], ["no-such-program"]) * 3:
            reaped(launch(*words))
        pid = launch("sleep", "60")
        while not workers.has_executed(pid):
            time.sleep(0.001)
        print(descriptors() - before)
        workers.kill(pid)
        reaped(pid)
        print(descriptors() - before)
    """) == ["0", "0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start workers as another user")
def test_another_users_worker_has_that_users_groups_and_none_of_sidecars():
    assert run("""
        os.setgroups([4, 27])
        for user, group in (("12345", "54321"), ("nobody", "")):
            workers = ChildProcesses(wakeup.mask, wakeup.dispositions, credentials(user, group))
            print(end="", flush=True)
            reaped(launch("id", "-G"))
    """) == ["54321", "65534"]


def test_an_exec_that_fails_says_why_and_ends_as_a_shell_would(tmp_path):
    script = tmp_path / "script"
    script.write_text("no interpreter line\n")
    script.chmod(0o755)
    plain = tmp_path / "plain"
    plain.write_text("")
    lines = run(
        """
        for words in (["no-such-thing"], ["/no/such/thing"], [sys.argv[1]], [sys.argv[2]], ["true", "x" * (1 << 18)]):
            ended, _ = reaped(launch(*words))
            print(ended.code, ended.start_error)
        ended, _ = reaped(launch("true", directory="/no/such/directory"))
        print(ended.code, ended.start_error)
        """,
        str(script),
        str(plain),
    )
    assert lines == [
        "127 cannot run no-such-thing: not found",
        "127 cannot run /no/such/thing: not found",
        f"126 cannot run {script}: not a program (a script needs a #! line)",
        f"126 cannot run {plain}: permission denied",
        "126 cannot run true: its arguments and environment are too large together",
        "126 cannot enter /no/such/directory: no such file or directory",
    ]


def test_a_program_that_is_there_and_not_found_is_told_what_is_missing(tmp_path):
    """Windows' line ends, a byte order mark, an interpreter that is not installed."""
    for name, content in (
        ("crlf", b"#!/bin/sh\r\nexit 0\r\n"),
        ("bom", b"\xef\xbb\xbf#!/bin/sh\nexit 0\n"),
        ("lua", b"#! /usr/bin/lua5.9 -x\n"),
        ("musl", _linked_with("/lib/no-such-ld.so")),
    ):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o755)
    lines = run(
        """
        for name in ("crlf", "lua", "musl"):
            ended, _ = reaped(launch(f"{sys.argv[1]}/{name}"))
            print(ended.code, ended.start_error.partition(": ")[2])
        pid = workers.start(Launch(argv=("crlf",), environment={"PATH": "/usr/bin:" + sys.argv[1]}))
        print(reaped(pid)[0].start_error)
        ended, _ = reaped(launch(f"{sys.argv[1]}/bom"))
        print(ended.code, ended.start_error.partition(": ")[2])
        """,
        str(tmp_path),
    )
    crlf = "its interpreter '/bin/sh\\r' does not exist: save it with Unix line ends (it has CRLF)"
    assert lines == [
        f"127 {crlf}",
        "127 its interpreter '/usr/bin/lua5.9' does not exist",
        "127 it is there, but the loader that it was built for is not (another libc?)",
        f"cannot run crlf: {crlf}",
        "126 not a program: it begins with a byte order mark (BOM); save it without one",
    ]


def _linked_with(loader: str) -> bytes:
    """/bin/true, with the path of another loader in it."""
    program = Path("/bin/true").read_bytes()
    found = re.search(rb"/lib[\w/.-]*ld-linux[\w.-]*\x00", program)
    return program.replace(found[0], loader.encode().ljust(len(found[0]), b"\0"), 1)


def test_the_path_is_searched_in_the_environment_of_the_worker(tmp_path):
    """Not in sidecar's: an envdir may hold PATH. What is found but may not be run is 126 only if
    nothing else is found.
    """
    for directory, mode in (("first", 0o644), ("second", 0o755)):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "program").write_text("#!/bin/sh\nexit 7\n")
        (tmp_path / directory / "program").chmod(mode)
    assert run(
        """
        for path in (f"{sys.argv[1]}/first:{sys.argv[1]}/second", f"{sys.argv[1]}/first", f"{sys.argv[1]}/none"):
            pid = workers.start(Launch(argv=("program",), environment={"PATH": path}))
            print(reaped(pid)[0].code)
        """,
        str(tmp_path),
    ) == ["7", "126", "127"]


def test_a_group_outlives_its_leader_until_its_last_process_is_gone():
    assert run("""
        read, write = os.pipe()
        pid = launch("sh", "-c", "sleep 60 >/dev/null 2>&1 & exit 0")
        ended, emptied = reaped(pid)
        print(ended.group_empty, emptied == [])
        workers.kill(pid)
        while pid not in emptied:
            select.select([wakeup], [], [])
            wakeup.take()
            emptied += workers.reap()[1]
        print(emptied == [pid])
    """) == ["False True", "True"]


def test_an_adopted_orphan_is_reaped_and_is_nobodys_worker():
    assert run("""
        pid = launch("sh", "-c", "(setsid sh -c 'exit 5' & echo $! ) ; exit 0")
        seen = []
        while len(seen) < 2:
            select.select([wakeup], [], [])
            wakeup.take()
            seen += workers.reap()[0]
        orphan = next(each for each in seen if each.pid != pid)
        print(orphan.code, orphan.group_empty)
    """)[-1:] == ["5 True"]


def test_executed_tells_when_the_program_has_taken_over():
    assert run("""
        pid = launch("sleep", "60")
        while not workers.has_executed(pid):
            time.sleep(0.001)
        print(open(f"/proc/{pid}/comm").read().strip())
        workers.kill(pid)
        print(reaped(pid)[0].signal, workers.has_executed(pid))
    """) == ["sleep", "KILL True"]


def test_sweep_kills_what_is_left_below_wherever_it_went():
    assert run("""
        launch("sh", "-c", "setsid sh -c 'trap \\"\\" TERM; sleep 60 & wait' & sleep 60")
        while len(descendants(os.getpid())) < 4:
            time.sleep(0.005)
        while workers.kill_leftovers():
            workers.reap()
        print(descendants(os.getpid()))
    """) == ["[]"]


def test_signals_arrive_in_order_and_none_is_lost_in_a_flood():
    lines = run("""
        for name in ("HUP", "TTIN", "TERM", "HUP"):
            os.kill(os.getpid(), getattr(signal, "SIG" + name))
        print(*wakeup.take())
        print(wakeup.take())
        # The wake-up pipe is full: the names are noted all the same.
        os.set_blocking(wakeup._write, False)
        try:
            while True:
                os.write(wakeup._write, b"x" * 4096)
        except BlockingIOError:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        print(*wakeup.take())
    """)
    assert lines == ["HUP TTIN TERM HUP", "[]", "TERM"]


def test_descriptors_that_sidecar_was_started_with_are_sealed(tmp_path):
    """And closed standard ones are opened, lest a listener becomes somebody's output."""
    lines = run("""
        os.set_inheritable(os.dup2(1, 50), True)
        os.close(0)
        set_cloexec_on_inherited()
        print(os.get_inheritable(50), os.readlink("/proc/self/fd/0"))
    """)
    assert lines == ["False /dev/null"]


def test_a_worker_that_is_killed_before_it_has_a_group_is_killed():
    """kill() between fork and setsid finds no group yet: the process itself is meant."""
    assert (
        run("""
        for _ in range(50):
            pid = launch("sleep", "60")
            workers.kill(pid)
            print(reaped(pid)[0].signal)
    """)
        == ["KILL"] * 50
    )


def test_a_stranger_is_not_signalled_when_a_worker_has_gone():
    """A pid that does not exist any more is no error and nobody else's."""
    assert run("""
        ended, _ = reaped(launch("true"))
        workers.signal(ended.pid, "TERM")
        workers.kill(ended.pid)
        print("fine")
    """) == ["fine"]


def test_a_task_is_done_by_a_copy_that_has_nothing_open_but_its_output():
    """What it gives comes back as it was, and what it raises as a note without its text."""
    assert run("""
        import marshal, socket
        kept = [socket.socket() for _ in range(5)]
        def task():
            return {"open": sorted(map(int, os.listdir("/proc/self/fd"))), "pid": os.getpid(), "odd": "\\udcff", "none": None}
        mine, theirs = os.pipe()
        pid = workers.start(Launch(("it",), {}, [(theirs, 1)], as_sidecar_user=True, task=task))
        ended, _ = reaped(pid)
        found = marshal.loads(os.read(mine, 4096))
        # One is the report's, one lists the directory.
        print(found["open"][:3], len(found["open"]), found["pid"] == pid, ended.code, found["odd"] == "\\udcff")
        def wrong():
            raise KeyError("a secret")
        ended, _ = reaped(workers.start(Launch(("it",), {}, [(theirs, 1)], as_sidecar_user=True, task=wrong)))
        print(ended.code, ended.start_error)
    """) == ["[0, 1, 2] 5 True 0 True", "126 cannot do its task: KeyError"]
