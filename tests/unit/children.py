"""Do something in a process of its own: as somebody who may less, or because it changes the
process.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import IO

NOBODY = 65534


def started(work: Callable[[], str]) -> IO[str]:
    """Start a process that does `work` and ends: what it returns can be read, or the traceback if
    it raises.
    """
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            os.close(reader)
            try:
                said = work()
            except BaseException:
                said = traceback.format_exc()
            os.write(writer, said.encode())
        finally:
            os._exit(0)
    os.close(writer)
    return open(reader, encoding="utf-8")


def in_child(work: Callable[[], str]) -> str:
    """What `work` returns in a process of its own."""
    with started(work) as answer:
        said = answer.read()
    os.wait()
    return said


def as_nobody(work: Callable[[], str]) -> str:
    """What `work` returns in a process that may read no more than its mode says: root may read
    anything.
    """

    def unprivileged() -> str:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        return work()

    return in_child(unprivileged)
