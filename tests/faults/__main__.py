"""`make faults`: many cases, and a table of what did not hold.

    python -m tests.faults [--cases N] [--jobs N] [--seed N] [--moment NAME] [--call NAME]

First it looks which system calls sidecar makes in each moment. Of all cases that follow from them N
are taken (400; 0: all), the same ones for the same seed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.faults import harness


def trial(case: harness.Case) -> tuple[harness.Case, list[str]]:
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        try:
            return case, harness.play(case, Path(directory) / "life")
        except Exception as error:  # the harness's own, or a program that is no more
            return case, [f"the harness: {type(error).__name__} {error}"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--moment", default="")
    parser.add_argument("--call", default="")
    chosen = parser.parse_args()
    if reason := harness.why_not():
        print(f"faults: {reason}")
        return 1
    began = time.monotonic()
    listed = []
    for moment in (harness.START, *harness.MOMENTS):
        if chosen.moment in ("", moment):
            with tempfile.TemporaryDirectory(prefix="faults-") as directory:
                found = harness.counts(moment, Path(directory) / "life")
            listed += harness.cases(moment, found)
            print(f"{moment}: {sum(found.values())} system calls, {len(found)} different")
    listed = [case for case in listed if chosen.call in ("", case.call)]
    every = len(listed)
    random.Random(chosen.seed).shuffle(listed)
    if chosen.cases:
        listed = listed[: chosen.cases]
    print(f"{len(listed)} of {every} cases, seed {chosen.seed}", flush=True)
    broken, window = [], 0
    with ProcessPoolExecutor(chosen.jobs) as pool:
        for done in as_completed([pool.submit(trial, case) for case in listed]):
            case, sentences = done.result()
            if sentences and sentences[0].startswith(harness.WINDOW):
                window += 1
            elif sentences:
                broken.append((case, sentences))
                print(f"{case!s:<40} {'; '.join(sentences)}", flush=True)
    took = time.monotonic() - began
    held = len(listed) - len(broken) - window
    print(f"{len(listed)} cases in {took:.0f} s: {held} held, {len(broken)} did not;")
    print(f"{window} upgrades ended in the loader or the interpreter (docs/upgrade.md, Limits)")
    for case, sentences in sorted(broken):
        print(f"  {case!s:<40} {'; '.join(sentences)[:300]}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
