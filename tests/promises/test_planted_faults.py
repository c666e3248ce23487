"""Is the simulation any good? Each test plants a fault in the core on purpose and wants to see a
promise broken by it.

A fault is planted by putting a function, a method or a constant of the core in the place of another
one; `planted_faults.py` has the list. `python -m tests.promises.test_planted_faults` writes the
table in tests/README.md anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.core.model import IllegalMove

from .planted_faults import FAULTS, Fault
from .programs import Broken
from .world import schedule

# Within how many schedules a fault has to be found.
ENOUGH = 2500

README = Path(__file__).parent.parent / "README.md"
HEADING = "## Planted faults"
HEAD = "| planted | found by | schedule |\n| --- | --- | ---: |\n"


def caught(fault: Fault) -> tuple[str, int, str]:
    """The promise that was broken, in which schedule, and how."""
    with fault.planted():
        for seed in range(fault.first, fault.first + ENOUGH):
            try:
                schedule(seed)
            except Broken as broken:
                return broken.promise, seed, broken.how
            except IllegalMove as broken:
                return "Legal moves", seed, str(broken)
    return "none", ENOUGH, ""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_planted_fault_is_caught(fault: Fault) -> None:
    promise, seed, how = caught(fault)
    assert promise in fault.promises, f"caught by {promise} in schedule {seed}: {how}"


def table() -> list[list[str]]:
    """The rows of the table in tests/README.md."""
    text = README.read_text().partition(HEADING)[2].partition(HEAD)[2].partition("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line]


def test_readme_lists_the_planted_faults_and_what_may_find_them() -> None:
    rows = table()
    assert [what for what, _, _ in rows] == [fault.what for fault in FAULTS]
    for (_, promise, _), fault in zip(rows, FAULTS, strict=True):
        assert promise in fault.promises, fault.what


def test_a_fault_is_gone_when_it_was_looked_for() -> None:
    before = [getattr(owner, name) for fault in FAULTS for owner, name, _ in fault.changes]
    for fault in FAULTS:
        with fault.planted():
            pass
    assert before == [getattr(owner, name) for fault in FAULTS for owner, name, _ in fault.changes]


def write_table() -> None:
    """Look for each fault and write the table anew."""
    rows = []
    for fault in FAULTS:
        promise, seed, _ = caught(fault)
        rows.append(f"| {fault.what} | {promise} | {seed} |\n")
        print(rows[-1], end="", flush=True)
    page = README.read_text()
    before, _, rest = page.partition(HEADING)
    intro, _, old = rest.partition(HEAD)
    after = old.partition("\n\n")[2]
    new = f"{before}{HEADING}{intro}{HEAD}{''.join(rows)}" + (f"\n{after}" if after else "")
    README.write_text(new)


if __name__ == "__main__":
    write_table()
