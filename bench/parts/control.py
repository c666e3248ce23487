"""What asking costs: `sidecar health`, which probes run every few seconds, beside a bare
interpreter; and `status` with many workers.

The probe is measured as each kind of installation has it. Ratios are made within a turn, in an
order drawn anew.
"""

import contextlib
import json
import os
import random
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

from bench.contestants import ENVIRONMENT, PATIENCE, PYTHON, NotMeasured
from bench.figures import Figure
from bench.image import Image
from bench.parts import Plan

MANY = 200
PROGRAM = (PYTHON, "-I", "-S", "-c", "import signal; signal.pause()")
# What pip makes of an entry point.
PIPS = """\
import re
import sys
from sidecar.cli.main import main
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit(main())
"""


def measure(plan: Plan) -> list[Figure]:
    bare = Figure("control", "a bare `python -I -c pass`, exec to exit", "ms")
    probe = Figure("control", "`sidecar health` as in the image, over that", "", target=("≤", 2))
    pips = Figure("control", "… by the script that pip makes", "")
    module = Figure("control", "… by `python -m sidecar`", "")
    slow = Figure("control", "… when it is not ready, which takes the long way", "")
    status = Figure(
        "control", f"`status` with {MANY} workers, asked and answered", "ms", target=("≤", 50)
    )
    few = Figure("control", "… with 2", "ms")
    with Image() as installed, tempfile.TemporaryDirectory(prefix="sidecar-bench-") as place:
        script = os.path.join(place, "pips.py")
        with open(script, "w") as file:
            file.write(PIPS)
        ways = [
            (probe, [str(installed.script), "health"]),
            (pips, [installed.python, "-I", script, "health"]),
            (module, [installed.python, "-I", "-m", "sidecar", "health"]),
        ]
        with running(str(installed.script), f"{place}/two", 2) as path:
            environ = {**ENVIRONMENT, "SIDECAR_CONTROL": path}
            for turn in range(plan.probes + 1):
                took: dict[str, float] = {}
                trials = [
                    ("bare", [installed.python, "-I", "-c", "pass"]),
                    *((each.name, words) for each, words in ways),
                ]
                for name, words in random.sample(trials, len(trials)):
                    took[name] = elapsed(words, environ, 0)
                if turn:
                    bare.add("alone", took["bare"])
                    for each, _ in ways:
                        each.add("sidecar", took[each.name] / took["bare"])
            answers(path, 2, few, plan.probes)
        with running(
            str(installed.script),
            f"{place}/none",
            1,
            "--ready",
            "command",
            "--ready-command",
            "false",
        ) as path:
            for _ in range(plan.probes):
                nothing = elapsed([installed.python, "-I", "-c", "pass"], ENVIRONMENT, 0)
                slow.add(
                    "sidecar",
                    elapsed(
                        [str(installed.script), "health"],
                        {**ENVIRONMENT, "SIDECAR_CONTROL": path},
                        1,
                    )
                    / nothing,
                )
        with running(str(installed.script), f"{place}/many", MANY) as path:
            answers(path, MANY, status, plan.probes)
    return [bare, probe, pips, module, slow, status, few]


@contextlib.contextmanager
def running(script: str, path: str, workers: int, *options: str) -> Iterator[str]:
    """A sidecar with so many workers; where it listens."""
    ready = options or ("--ready", "interval", "--interval", "0")
    words = [script, "run", "--control", path, "--workers", str(workers), *ready, "--", *PROGRAM]
    with subprocess.Popen(
        words, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until = time.monotonic() + PATIENCE
            while not os.path.exists(path) or (not options and asked(path)["state"] != "serving"):
                if time.monotonic() > until:
                    raise NotMeasured(f"sidecar with {workers} workers does not serve")
                time.sleep(0.05)
            yield path
        finally:
            process.terminate()
            process.wait(PATIENCE)


def elapsed(words: list[str], environ: dict[str, str], status: int) -> float:
    before = time.monotonic()
    done = subprocess.run(
        words, env=environ, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    if done.returncode != status:
        raise NotMeasured(f"{' '.join(words)} ended with {done.returncode}, not {status}")
    return (time.monotonic() - before) * 1000.0


def asked(path: str) -> dict:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(path)
        sock.sendall(b'{"command": "status"}\n')
        return json.loads(sock.makefile("rb").readline())


def answers(path: str, workers: int, figure: Figure, times: int) -> None:
    for _ in range(times):
        before = time.monotonic()
        found = sum(len(each["workers"]) for each in asked(path)["generations"])
        if found != workers:
            raise NotMeasured(f"status knows {found} workers of {workers}")
        figure.add("sidecar", (time.monotonic() - before) * 1000.0)
