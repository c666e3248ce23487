"""How much later the first answer comes because of the supervisor: exec → first answer, less the
same of the server alone.

What is subtracted is the median of as many starts of the server alone, in an order drawn anew each
turn. `alone` here is the server alone less that median: what the machine's noise amounts to.
"""

import random
import socket
import statistics
import time

from bench.contestants import (
    BENCH,
    PYTHON,
    UNSHARE,
    Alone,
    Contestant,
    Module,
    NotMeasured,
    Sidecar,
    StartServer,
    cpu,
    may_unshare,
)
from bench.figures import Figure
from bench.image import Image
from bench.parts import Plan

PATIENCE = 10.0
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
#: PID 1 of a pid namespace. What it takes to make one is not counted: the program's exec is told by
#: who becomes it.
INSIDE = (*UNSHARE, PYTHON, "-I", "-S", str(BENCH / "apps/exec.py"))


def measure(plan: Plan) -> list[Figure]:
    script = Figure(
        "start-up", "exec → first answer, less the server's own", "ms", target=("≤", 45)
    )
    module = Figure("start-up", "… by `python -m sidecar`", "ms")
    image = Figure("start-up", "… installed as in the image (not editable, -I)", "ms")
    first = Figure("start-up", "… as in the image, as PID 1 (unshare --pid)", "ms")
    used = Figure("start-up", "CPU that the supervisor used until then", "ms")
    own = Figure("start-up", "(the server's own, subtracted)", "ms")
    with Image() as installed:
        trials = [
            (script, Alone),
            (script, Sidecar),
            (script, StartServer),
            (module, Module),
            (image, installed.sidecar),
            (own, Alone),
        ]
        if may_unshare():
            trials += [
                (first, lambda kind=kind: kind(inside=INSIDE))
                for kind in (Alone, installed.sidecar, StartServer)
            ]
        for turn in range(plan.starts + 1):
            for figure, make in random.sample(trials, len(trials)):
                contestant = make()
                took, cost = first_answer(contestant)
                # The first turn warms up: files come into memory.
                if turn:
                    figure.add(contestant.name, took)
                    if figure is script and contestant.name != "alone":
                        used.add(contestant.name, cost)
    less = statistics.median(own.runs["alone"])
    for figure in (script, module, image, first):
        figure.less(less)
    return [figure for figure in (script, module, image, first, used, own) if figure.runs]


def first_answer(contestant: Contestant) -> tuple[float, float]:
    """Milliseconds from its exec to the first answered request, and the CPU it had used by then."""
    with contestant:
        before = contestant.start()
        if contestant.inside:
            before = contestant.events.wait("exec").moment
        while True:
            try:
                with socket.create_connection(
                    ("127.0.0.1", contestant.port), timeout=PATIENCE
                ) as connection:
                    connection.send(REQUEST)
                    if connection.recv(4096):
                        return (time.monotonic() - before) * 1000.0, cpu(contestant.pid)
            except ConnectionRefusedError:
                if time.monotonic() > before + PATIENCE:
                    raise NotMeasured(
                        f"{contestant.name} did not bind within {PATIENCE:g} s: {contestant.complaints()}"
                    ) from None
                time.sleep(0.0002)
