"""A sidecar that runs from an installed version."""

from __future__ import annotations

import pytest

from tests.support import Sidecar
from tests.system.upgrade.installed import Installed


@pytest.fixture
def installed(tmp_path) -> Installed:
    return Installed(tmp_path / "site")


@pytest.fixture
def start(sidecar, installed, tmp_path):
    """Start the sidecar that is installed there, with a control socket of its own."""

    def make(*options: str, **more: object) -> Sidecar:
        environ = {"PYTHONPATH": str(installed.where), **more.pop("env", {})}
        run = sidecar(
            "--control", str(tmp_path / "control"), *options, env=environ, cwd=tmp_path, **more
        )
        run.wait("serving")
        run.wait(
            "worker_ready",
            int(options[options.index("--workers") + 1]) if "--workers" in options else 1,
        )
        return run

    return make
