"""Random numbers for jitter: pauses that would otherwise end at the same moment."""

from __future__ import annotations

import os


def random_fraction() -> float:
    """A random number in [0, 1). Not from the module `random`: it costs 2 ms of start-up."""
    return int.from_bytes(os.urandom(4), "little") / 2**32
