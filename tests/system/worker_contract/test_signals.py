"""Which signals a worker gets."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.support import ROOT, until


def ignored_and_blocked(*prefix: str) -> dict[str, str]:
    """What a worker that is no Python program (and no shell, which clears its mask) starts with,
    seen by itself.
    """
    worker = ["--max-failures", "1", "--", "grep", "-E", "SigIgn|SigBlk", "/proc/self/status"]
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "sidecar", "run", *worker],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return dict(line.split(":\t") for line in done.stdout.splitlines())


def test_signals_are_as_sidecar_found_them():
    """Python ignores SIGPIPE and SIGXFSZ: the worker must not. What `nohup` ignores stays ignored,
    what was blocked stays blocked.
    """
    mine = dict(line.split(":\t") for line in open("/proc/self/status") if line.startswith("Sig"))
    python = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    before = int(mine["SigIgn"], 16) & ~python
    assert int(ignored_and_blocked()["SigIgn"], 16) == before
    assert int(ignored_and_blocked()["SigBlk"], 16) == 0
    hup = 1 << (signal.SIGHUP - 1)
    assert int(ignored_and_blocked("nohup")["SigIgn"], 16) == before | hup
    blocking = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); os.execv(sys.argv[1], sys.argv[1:])"
    assert int(ignored_and_blocked(sys.executable, "-c", blocking)["SigBlk"], 16) == 1 << (
        signal.SIGUSR1 - 1
    )


def test_usr1_goes_to_the_serving_workers_of_a_program_that_reopens_its_logs_on_it(sidecar):
    run = sidecar("--workers", "2", "--profile", "gunicorn")
    run.wait("worker_ready", count=2)
    run.signal("USR1")
    until(
        lambda: (
            {line for line in run.output if line.startswith("USR1")}
            == {f"USR1 {pid}" for pid in run.workers()}
        ),
        "USR1 in each",
    )
    assert run.get().startswith("hello")
    assert run.stop("QUIT") == 0


#: Says on stderr which of these signals it gets; of no other it has a handler.
TELLS = (
    "sh",
    "-c",
    'for name in WINCH CONT TERM; do trap "echo got $name >&2" $name; done;'
    " trap 'echo got TERM >&2; exit' TERM; while :; do sleep 0.05; done",
)


def test_usr1_goes_to_no_program_that_does_not_expect_it(sidecar):
    """Neither where nothing is known of the program, handler or not, nor where it has no handler."""
    run = sidecar()
    run.wait("serving")
    run.signal("USR1")
    run.swap(2)
    assert run.stop() == 0
    assert not [line for line in run.output if line.startswith("USR1")]
    run = sidecar("--ready", "interval", "--profile", "gunicorn", program=TELLS, port=False)
    run.wait("serving")
    run.signal("USR1")
    run.swap(2)
    assert run.seen("worker_died") == []
    assert run.stop() == 0


def test_winch_and_cont_are_not_passed_on(sidecar):
    """A resized terminal sends WINCH, and nginx drops its workers on it."""
    run = sidecar("--ready", "interval", program=TELLS, port=False)
    run.wait("serving")
    run.signal("WINCH")
    run.signal("CONT")
    run.swap(2)
    assert run.stop() == 0
    got = [line for line in run.output if line.startswith("got")]
    assert got == ["got TERM", "got TERM"]
