"""What the supervisor costs while nothing happens: threads, wake-ups, CPU and memory, as PID 1 of a
pid namespace.

The wake-ups are the context switches, voluntary or not, that /proc/PID/status counts; reading it
does not wake the process. That they are counted at all is made sure of at the end, by a signal.
`alone` is a Python that has imported nothing and waits.
"""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from bench.contestants import (
    PYTHON,
    UNSHARE,
    Alone,
    Contestant,
    NotMeasured,
    StartServer,
    cpu,
    inner,
    may_unshare,
)
from bench.figures import Figure
from bench.image import Image
from bench.parts import Plan

MANY = 8
SETTLES = 3.0


@dataclass
class Usage:
    """What a process has used so far."""

    threads: int
    wakeups: int
    cpu_ms: float
    rss_mb: float

    @classmethod
    def of(cls, pid: int) -> "Usage":
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        # Both belong to the main thread, which is where a supervisor sleeps; another thread shows
        # in `threads`.
        wakeups = int(status["voluntary_ctxt_switches"]) + int(status["nonvoluntary_ctxt_switches"])
        return cls(
            int(status["Threads"]), wakeups, cpu(pid), int(status["VmRSS"].split()[0]) / 1024
        )


class Idle(Alone):
    """The least that a Python can be."""

    def command(self) -> tuple[str, ...]:
        return (
            PYTHON,
            "-I",
            "-c",
            "import _signal; stop = {_signal.SIGTERM}; _signal.pthread_sigmask(_signal.SIG_BLOCK, stop); _signal.sigwait(stop)",
        )


def measure(plan: Plan) -> list[Figure]:
    seconds = f"{plan.rest:g} s"
    figures = {
        "threads": Figure("rest", "threads", "", target=("≤", 1), judged="max"),
        "wakeups": Figure("rest", f"wake-ups in {seconds}", "", target=("≤", 0), judged="max"),
        "cpu_ms": Figure("rest", f"CPU in {seconds}", "ms", target=("≤", 0), judged="max"),
        "rss_mb": Figure("rest", "memory (VmRSS)", "MB", target=("≤", 13)),
    }
    many = Figure("rest", f"… with {MANY} workers", "MB", target=("≤", 13))
    busy = Figure(
        "rest", f"wake-ups in {seconds} with {MANY} workers", "", target=("≤", 0), judged="max"
    )
    inside = UNSHARE if may_unshare() else ()
    with Image() as installed, contextlib.ExitStack() as stack:
        everybody: list[tuple[Contestant, int]] = []
        for _ in range(plan.copies):
            kinds = (
                Idle(inside=inside),
                installed.sidecar(inside=inside),
                StartServer(inside=inside),
            )
            for contestant, workers in [(kind, 1) for kind in kinds] + [
                (installed.sidecar(workers=MANY, inside=inside), MANY)
            ]:
                before = stack.enter_context(contestant).start()
                if not isinstance(contestant, Idle):
                    contestant.events.wait("listening", after=before)
                everybody.append((contestant, workers))
        time.sleep(SETTLES)
        pids = [inner(contestant.pid) for contestant, _ in everybody]
        first = [Usage.of(pid) for pid in pids]
        time.sleep(plan.rest)
        last = [Usage.of(pid) for pid in pids]
        for (contestant, workers), before, after in zip(everybody, first, last, strict=True):
            used = Usage(
                after.threads,
                after.wakeups - before.wakeups,
                after.cpu_ms - before.cpu_ms,
                after.rss_mb,
            )
            if workers == MANY:
                many.add(contestant.name, used.rss_mb)
                busy.add(contestant.name, used.wakeups)
            else:
                for name, figure in figures.items():
                    figure.add(contestant.name, getattr(used, name))
        for (contestant, _), pid in zip(everybody, pids, strict=True):
            if contestant.name == "sidecar":
                prove(pid)
    return [*figures.values(), busy, many]


def prove(pid: int) -> None:
    """A signal that is passed on has to be seen as a wake-up."""
    before = Usage.of(pid)
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.2)
    if Usage.of(pid).wakeups <= before.wakeups:
        raise NotMeasured("wake-ups are not counted here: a signal was not seen as one")
