"""How long a swap takes: HUP sent → the old generation has exited, less what the server itself
needs to boot.

The boot (exec → takes connections) is measured alone before each swap, on the same kind of
inherited listener; the median of all these is what is subtracted. `alone` swaps by hand, told by
the new server when it is ready: what is left there is the old one's way out.
"""

import statistics
import time

from bench.contestants import Alone, Sidecar, StartServer, cpu
from bench.figures import Figure
from bench.parts import Plan

MS = 1000.0


def measure(plan: Plan) -> list[Figure]:
    latency = Figure("swap", "HUP → old generation gone, less boot", "ms", target=("≤", 20))
    first = Figure("swap", "… HUP → new server's first line, less the same alone", "ms")
    told = Figure("swap", "… new one takes connections → old one told", "ms")
    out = Figure("swap", "… old one told → gone", "ms")
    used = Figure("swap", "CPU that the supervisor used for it", "ms")
    boot = Figure("swap", "(the server's boot, subtracted)", "ms")
    with Alone() as booting, Alone() as hand, Sidecar() as sidecar, StartServer() as start_server:
        booting.boot()
        lines: list[float] = []
        contestants = (hand, sidecar, start_server)
        for each in contestants:
            each.serve()
        for _ in range(plan.swaps):
            for each in contestants:
                line, ready = booting.boot()
                lines.append(line * MS)
                boot.add("alone", ready * MS)
                before = cpu(each.pid) if each is not hand else 0.0
                swap = each.swap()
                latency.add(each.name, (swap.gone - swap.asked) * MS)
                first.add(each.name, (swap.main - swap.asked) * MS)
                told.add(each.name, (swap.term - swap.listening) * MS)
                out.add(each.name, (swap.gone - swap.term) * MS)
                if each is not hand:
                    time.sleep(0.1)  # it has yet to reap the old one and to write its lines
                    used.add(each.name, cpu(each.pid) - before)
    latency.less(statistics.median(boot.runs["alone"]))
    first.less(statistics.median(lines))
    return [latency, first, told, out, used, boot]
