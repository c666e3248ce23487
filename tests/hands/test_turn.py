"""A turn of the loop, by hand: what happens at the same moment."""

from __future__ import annotations

import os
import selectors
import time

from sidecar.host import Host, chance
from sidecar.settings import Settings
from sidecar.supervisor import Supervisor


def test_what_was_closed_earlier_in_a_turn_is_not_read_in_it():
    """A child's end, seen first, closes the pipe that the child's last words are in: both were ready when the loop woke up."""
    host = Host(Settings(command=("x",)), {})
    host.supervisor = Supervisor(host.settings, time.monotonic(), chance)
    host.supervisor.exited = True
    host.selector = selectors.DefaultSelector()
    pipes = [os.pipe(), os.pipe()]
    read: list[int] = []

    def heed(mine: int, other: int) -> None:
        read.append(mine)
        host.selector.unregister(other)
        os.close(other)

    (first, _), (second, _) = pipes
    host._listen_to(first, lambda _: heed(first, second))
    host._listen_to(second, lambda _: heed(second, first))
    for _, write in pipes:
        os.write(write, b"x")
    host._turn()
    assert len(read) == 1
    host.selector.close()
    for fd in [*read, *(write for _, write in pipes)]:
        os.close(fd)
