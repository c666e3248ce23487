"""Chance, for pauses that are not to fall together."""

from __future__ import annotations

import os


def chance() -> float:
    """A number in [0, 1), for jitter; the module `random` would cost 2 ms of start-up."""
    return int.from_bytes(os.urandom(4), "little") / 2**32
