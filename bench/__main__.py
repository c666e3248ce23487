"""The figures of sidecar beside Debian's start_server: `python -m bench [--quick] [--json FILE]
[PART ...]`; see docs/bench.md.

Exit status: 0 all was measured (whether the targets are met or not: this is no test); 1 something
could not be; 3 no start_server.
"""

import argparse
import compileall
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench import contestants
from bench.figures import Figure, table
from bench.parts import QUICK, Plan

PARTS = ("swap", "pause", "failure", "startup", "rest", "throughput", "bill", "control", "devloop")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__.split("\n")[0],
        epilog=f"parts: {' '.join(PARTS)}",
    )
    parser.add_argument("part", nargs="*", help="what to measure (everything)")
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every run to FILE too")
    chosen = parser.parse_args()
    if unknown := set(chosen.part) - set(PARTS):
        parser.error(
            f"there is no part {', '.join(sorted(unknown))}; say one of {', '.join(PARTS)}"
        )
    if missing := contestants.install_start_server():
        print(f"bench: {missing}", file=sys.stderr)
        return 3
    contestants.adopt()
    # So that what was started is ended, as it is on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # As every start but the first finds it, whatever PYTHONDONTWRITEBYTECODE says here.
    compileall.compile_dir(contestants.ROOT / "sidecar", quiet=1)
    plan = QUICK if chosen.quick else Plan()
    figures: list[Figure] = []
    failed = []
    machine = describe()
    begin, stolen = time.monotonic(), steal()
    for part in chosen.part or PARTS:
        print(f"bench: {part} …", file=sys.stderr, flush=True)
        try:
            figures += importlib.import_module(f"bench.parts.{part}").measure(plan)
        except (contestants.NotMeasured, OSError) as error:
            failed.append(f"{part}: not measured: {error}")
        finally:
            failed += [
                f"{part}: left a process behind, killed now: {process}"
                for process in contestants.leftovers()
            ]
    took = time.monotonic() - begin
    machine["took"] = (
        f"{took:.0f} s, {100 * (steal() - stolen) / took / (os.cpu_count() or 1):.1f} % of it stolen by other machines"
    )
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), end="\n\n")
    print(table(figures), end="\n\n")
    print(
        "A cell is the median (least–most) of the runs; ✓ and ✗ say whether sidecar's median, or (max) or (sum), meets the target."
    )
    for each in figures:
        if each.note:
            print(f"{each.part}: {each.note}")
    for line in failed:
        print(f"bench: {line}", file=sys.stderr)
    if chosen.json:
        everything = {
            "machine": machine,
            "figures": [each.plain() for each in figures],
            "failed": failed,
        }
        chosen.json.write_text(json.dumps(everything, ensure_ascii=False, indent=1) + "\n")
    return 1 if failed else 0


def describe() -> dict[str, str]:
    """What a reader has to know of where this was measured."""
    return {
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} when it began",
        "python": platform.python_version(),
        "start_server": subprocess.run(
            [contestants.START_SERVER, "--version"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "pid 1": "in a pid namespace (unshare)"
        if contestants.may_unshare()
        else "no: pid namespaces cannot be made here",
    }


def steal() -> float:
    """Seconds of CPU that the hypervisor has given to others."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
