"""The bill of start-up: what PID 1's imports cost, module by module, so that a dear one is seen the
day it comes in.
"""

import statistics
import subprocess
import time

from bench.contestants import ENVIRONMENT
from bench.figures import Figure
from bench.image import Image
from bench.parts import Plan

IMPORT = "import sidecar.cli.main, sidecar.host.startup"
DEAREST = 8


def measure(plan: Plan) -> list[Figure]:
    bare = Figure("bill", "a bare `python -I -c pass`", "ms")
    whole = Figure("bill", f"`{IMPORT}`, exec to exit, less that", "ms")
    own = Figure("bill", "… sidecar's own modules (-X importtime, which slows)", "ms")
    others = Figure("bill", "… the standard library's", "ms")
    costs: dict[str, list[float]] = {}
    with Image() as installed:
        known = set(imports(installed.python, "pass"))
        for _ in range(plan.imports):
            nothing = elapsed(installed.python, "pass")
            bare.add("alone", nothing)
            whole.add("sidecar", elapsed(installed.python, IMPORT) - nothing)
            paid = {
                name: cost
                for name, cost in imports(installed.python, IMPORT).items()
                if name not in known
            }
            mine = sum(cost for name, cost in paid.items() if name.split(".")[0] == "sidecar")
            own.add("sidecar", mine)
            others.add("sidecar", sum(paid.values()) - mine)
            for name, cost in paid.items():
                costs.setdefault(name, []).append(cost)
    medians = sorted(
        ((statistics.median(each), name) for name, each in costs.items()), reverse=True
    )
    own.note = f"the dearest of {len(medians)} modules (ms): " + ", ".join(
        f"{name} {cost:.2f}" for cost, name in medians[:DEAREST]
    )
    return [bare, whole, own, others]


def elapsed(python: str, code: str) -> float:
    before = time.monotonic()
    subprocess.run([python, "-I", "-c", code], check=True, env=ENVIRONMENT)
    return (time.monotonic() - before) * 1000.0


def imports(python: str, code: str) -> dict[str, float]:
    """Every module that the code imports, with the milliseconds of its own (less those that it
    imports in turn).
    """
    command = [python, "-I", "-X", "importtime", "-c", code]
    lines = subprocess.run(
        command, check=True, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ).stderr.splitlines()
    fields = [
        line.removeprefix("import time:").split("|")
        for line in lines
        if line.startswith("import time:")
    ]
    return {name.strip(): int(cost) / 1000.0 for cost, _, name in fields if cost.strip().isdigit()}
