"""Every row of docs/start_server.md has a test in this folder, by its name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from tests.system.start_server.starter import SHOWN, rows


def test_every_row_of_the_table_has_a_test_and_every_claim_a_row():
    there: set[str] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        there |= {*vars(import_module(f"{__package__}.{path.stem}"))}
    table = rows()
    assert len(table) == len({*table}), "a row's name is to be found but once"
    assert {*SHOWN} == {*table}
    assert {name for names in SHOWN.values() for name in names} <= there
