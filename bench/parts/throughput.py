"""Requests a second under a supervisor over those of the same server alone: nothing of sidecar is
in the way of the data.

All servers run side by side, idle but for the one that is loaded: 25 ms each, in an order drawn
anew each round; within a round each is compared with the server alone, and the median of 25 such
ratios is a run. (wrk cannot do less than a second a turn, and on a shared machine a server then
differs from itself by a fifth.) The CPU per request, of server and supervisor together, says the
same with less noise. `alone` is a second server alone over the first: it should be 1, and how far
off it is says how much to believe.
"""

import statistics
import subprocess

from bench.contestants import BENCH, ENVIRONMENT, PYTHON, Alone, NotMeasured, Sidecar, StartServer
from bench.figures import Figure
from bench.parts import Plan

CONNECTIONS = 16
SLICE = 0.025
ROUNDS = 25
#: Rounds at the beginning that are not counted: connections are new, caches are cold.
COLD = 2


def measure(plan: Plan) -> list[Figure]:
    figures = []
    with (
        Alone() as reference,
        Alone() as alone,
        Sidecar() as sidecar,
        StartServer() as start_server,
    ):
        everybody = [reference, alone, sidecar, start_server]
        for each in everybody:
            each.serve()
        targets = [
            f"{each.port}:{','.join(map(str, {each.pid, each.worker}))}" for each in everybody
        ]
        for kind in ("keep-alive", "one-shot"):
            ratio = Figure(
                "throughput",
                f"{kind}: requests/s over those of the server alone",
                "",
                target=("≥", 0.98),
            )
            cost = Figure("throughput", "… CPU per request over that of the server alone", "")
            rate = Figure("throughput", "(requests/s)", "1/s")
            figures += [ratio, cost, rate]
            for _ in range(plan.pairs):
                rows = hammer(kind, targets)
                for place, each in enumerate(everybody[1:], 1):
                    ratio.add(each.name, statistics.median(row[2 * place] / row[0] for row in rows))
                    cost.add(
                        each.name, statistics.median(row[2 * place + 1] / row[1] for row in rows)
                    )
                    rate.add(each.name, statistics.median(row[2 * place] for row in rows))
    return figures


def hammer(kind: str, targets: list[str]) -> list[list[float]]:
    """Load all the targets in turn; the rounds that apps/hammer.py prints, less the cold ones."""
    command = [
        PYTHON,
        "-I",
        BENCH / "apps/hammer.py",
        kind,
        str(CONNECTIONS),
        str(SLICE),
        str(ROUNDS + COLD),
        *targets,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    if done.returncode:
        raise NotMeasured(f"the load went wrong: {done.stderr}")
    return [[float(word) for word in line.split()] for line in done.stdout.splitlines()][COLD:]
