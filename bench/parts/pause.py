"""What clients see of ten swaps under constant load (200 requests a second, each on a new
connection): the worst latency, and losses.

Windows with a swap and windows without one take turns in the same run, so both see the same noise
of the machine; the worst of the one less the worst of the other is what the swaps added.
"""

import statistics
import time

from bench.contestants import Alone, Contestant, Sidecar, StartServer
from bench.figures import Figure
from bench.load import Load, between, lost, prove, worst
from bench.parts import Plan

SWAPS = 10
#: The clients' first requests are not looked at.
WARM_UP = 0.3
#: A window holds a whole swap, and start_server's takes a second more.
WINDOWS = {Alone: 0.5, Sidecar: 0.5, StartServer: 1.5}
MS = 1000.0


def measure(plan: Plan) -> list[Figure]:
    added = Figure("pause", "worst latency over 10 swaps less that without", "ms", target=("≤", 10))
    swapped = Figure("pause", "… worst over 10 swaps", "ms")
    quiet = Figure("pause", "… worst over 10 windows without", "ms")
    typical = Figure("pause", "a single swap's worst less a quiet window's", "ms")
    failed = Figure("pause", "lost requests", "", target=("≤", 0), judged="sum")
    prove()
    for _ in range(plan.pauses):
        for kind in (Alone, Sidecar, StartServer):
            with kind() as contestant:
                contestant.serve()
                with_swap, without, losses = run(contestant, WINDOWS[kind])
                added.add(kind.name, (max(with_swap) - max(without)) * MS)
                swapped.add(kind.name, max(with_swap) * MS)
                quiet.add(kind.name, max(without) * MS)
                typical.add(
                    kind.name, (statistics.median(with_swap) - statistics.median(without)) * MS
                )
                failed.add(kind.name, losses)
    return [added, swapped, quiet, typical, failed]


def run(contestant: Contestant, window: float) -> tuple[list[float], list[float], int]:
    """Ten windows with a swap and ten without, in turn: the worst latency in each, and how many
    requests were lost in all.
    """
    swaps, pauses = [], []
    with Load(contestant.port, WARM_UP + 2 * SWAPS * window) as load:
        for number in range(2 * SWAPS):
            time.sleep(max(0.0, load.begin + WARM_UP + number * window - time.monotonic()))
            if number % 2:
                pauses.append(time.monotonic())
            else:
                swaps.append(contestant.swap().asked)
        requests = load.end()
    worsts = [
        [worst(between(requests, moment, moment + window)) for moment in moments]
        for moments in (swaps, pauses)
    ]
    return worsts[0], worsts[1], lost(requests)
