"""All promises that a world watches."""

from __future__ import annotations

from .pace_promises import NoSpin, Persistence, Recycling, WayBack
from .promise import Promise
from .stop_promises import DrainEnds, Orderly, StopEnds
from .swap_promises import Continuity, LatestWins, NoBadGeneration, Overlap, SlowStart, Surge

PROMISES: list[type[Promise]] = [
    Orderly, Continuity, NoBadGeneration, StopEnds, DrainEnds, NoSpin, LatestWins, Surge, Overlap, Persistence, SlowStart, Recycling, WayBack,
]  # fmt: skip
