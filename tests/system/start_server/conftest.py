"""What the tests of start_server share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import free_port
from tests.system.start_server.starter import PERL, Starter


@pytest.fixture
def starter(tmp_path):
    """Makes start_servers, ours unless said otherwise; everything they have started ends with the
    test.
    """
    running: list[Starter] = []

    def make(*options: str, kind: str = "ours", where: Path = tmp_path / "ours", **more) -> Starter:
        running.append(Starter(kind, where, *options, **more))
        return running[-1]

    yield make
    for each in running:
        each.clean_up()


@pytest.fixture
def pair(starter, tmp_path):
    """Makes a Perl start_server and one of ours, given the same; {0} … stand for free ports.
    `before` gets each one's directory ready.
    """
    if not Path(PERL).exists():
        pytest.skip(f"needs {PERL} (Debian: libserver-starter-perl)")

    def make(*options: str, before=lambda where: None, ours=(), **more) -> tuple[Starter, Starter]:
        made = []
        for kind in ("perl", "ours"):
            where = tmp_path / kind
            where.mkdir()
            before(where)
            ports = [free_port() for _ in range(3)]
            words = [option.format(*ports) for option in options] + (
                list(ours) if kind == "ours" else []
            )
            made.append(starter(*words, kind=kind, where=where, **more))
            made[-1].ports = ports
        return made[0], made[1]

    return make
