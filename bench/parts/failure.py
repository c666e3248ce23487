"""A bad deploy under the same load: from the HUP on, every new generation dies 1.5 s into its boot.

Counted is what was due within 2.5 s of the HUP and was not answered within a second. start_server
has retired the old generation by the time the new one dies; sidecar has not, as the new one was
never ready. `alone` leaves the old one be, as it should.
"""

import os
import signal
import time

from bench.contestants import Alone, Contestant, Sidecar, StartServer
from bench.figures import Figure
from bench.load import Load, between, lost, prove, worst
from bench.parts import Plan

LOOK_AT = 2.5
WARM_UP = 0.3


def measure(plan: Plan) -> list[Figure]:
    failed = Figure(
        "failure",
        "lost of 500 requests while a new generation dies",
        "",
        target=("≤", 0),
        judged="sum",
    )
    longest = Figure("failure", "… longest wait (1 s and more: lost)", "ms")
    prove()
    for _ in range(plan.failures):
        for kind in (Alone, Sidecar, StartServer):
            with kind("dies") as contestant:
                contestant.serve()
                with Load(contestant.port, WARM_UP + LOOK_AT) as load:
                    time.sleep(load.begin + WARM_UP - time.monotonic())
                    asked = deploy(contestant)
                    contestant.events.wait("died", after=asked)
                    requests = between(load.end(), asked, asked + LOOK_AT)
                failed.add(kind.name, lost(requests))
                longest.add(kind.name, worst(requests) * 1000.0)
    return [failed, longest]


def deploy(contestant: Contestant) -> float:
    """Ask for the swap that will fail; the moment before."""
    if isinstance(contestant, Alone):
        return contestant.start_beside()
    asked = time.monotonic()
    os.kill(contestant.pid, signal.SIGHUP)
    return asked
