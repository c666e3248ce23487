"""A loop with a control socket, and clients of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from sidecar.control.server import ControlSocket
from tests.unit.control_server.peers import Loop, Peer


@pytest.fixture
def loop(tmp_path) -> Iterator[Loop]:
    it = Loop(ControlSocket.open(str(tmp_path / "control"), []))
    yield it
    it.end()


@pytest.fixture
def peer(loop) -> Iterator[Callable[[], Peer]]:
    peers: list[Peer] = []

    def make() -> Peer:
        peers.append(Peer(loop.control.path))
        return peers[-1]

    yield make
    for each in peers:
        each.sock.close()
