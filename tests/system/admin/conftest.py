"""A sidecar with an admin."""

from __future__ import annotations

import pytest

from tests.support import Sidecar
from tests.system.admin.asking import Admin


@pytest.fixture
def start(sidecar, tmp_path):
    """A sidecar with an admin on a port of its own."""

    def start(*options: str, **keywords: object) -> tuple[Sidecar, Admin]:
        run = sidecar(
            "--admin",
            "127.0.0.1:0",
            "--control",
            str(tmp_path / "control.sock"),
            *options,
            **keywords,
        )
        return run, Admin(run)

    return start
