"""Listeners that are closed at the end of each test."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator

import pytest

from sidecar.settings import address
from sidecar.system.listeners import Listeners
from tests.unit.listeners.sockets import Open


@pytest.fixture
def run() -> Iterator[str]:
    """A directory with a short name, because a unix socket's path may have 107 bytes."""
    directory = tempfile.mkdtemp(prefix="sl", dir="/tmp")
    os.chmod(directory, 0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def listen() -> Iterator[Open]:
    opened: list[Listeners] = []

    def listen(
        *specs: str,
        backlog: int | None = None,
        inherited: tuple[tuple[socket.socket, str], ...] = (),
    ) -> Listeners:
        listeners = Listeners.open(
            [address.parse(spec) for spec in specs], backlog=backlog, inherited=inherited
        )
        opened.append(listeners)
        return listeners

    yield listen
    for listeners in opened:
        listeners.close()
