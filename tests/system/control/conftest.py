"""Sidecars with a control socket, and commands under way that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support import Sidecar
from tests.system.control.asking import Asking


@pytest.fixture
def start(sidecar, tmp_path) -> Callable[..., Sidecar]:
    """Starts a sidecar that listens at tmp_path/control (`run.control`)."""

    def make(*options: str, control: str = str(tmp_path / "control"), **more: object) -> Sidecar:
        run = sidecar("--control", control, *options, **more)
        run.control = control
        return run

    return make


@pytest.fixture
def run(start) -> Sidecar:
    """One that serves, with two workers."""
    made = start("--workers", "2")
    made.wait("worker_ready", count=2)
    made.wait("serving")
    return made


@pytest.fixture
def asking() -> Iterator[Callable[..., Asking]]:
    made: list[Asking] = []

    def make(run: Sidecar, *words: str, **popen: object) -> Asking:
        made.append(Asking(run, *words, **popen))
        return made[-1]

    yield make
    for each in made:
        each.process.kill()
        each.process.communicate()
