"""How many workers of a coming generation fit into the memory beside the workers that are there
(--overlap auto). Pure.

Nobody knows beforehand how big a coming worker gets. It is taken to become as big as the biggest
worker of the last generations. Where the kernel has killed a process during a swap because memory
ran out, the next swap counts with workers of more than what did not fit then. Otherwise every
attempt would end in the same way, because only the old generation, which is smaller, can be
measured. A worker that is not ready yet is still growing: what it lacks of the biggest worker's size
is not free.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# How many generations are remembered: what an old release needed does not count for ever.
MAX_GENERATIONS = 5
# What is free differs a little from swap to swap: workers are taken to need this part (one eighth)
# more than what they did not fit into.
MARGIN_DIVISOR = 8


class Room:
    """What is known of the sizes (bytes) of workers, and of the swap that was begun last."""

    def __init__(self) -> None:
        #: By generation: the biggest worker seen, and what its workers did not fit into.
        self._biggest: dict[int, int] = {}
        self._did_not_fit: dict[int, int] = {}
        #: The swap begun last: its generation, free bytes, number of workers that were to fit, and
        #: how many processes the kernel had killed by then.
        self._begun: tuple[int, int, int, int] | None = None

    @property
    def begun(self) -> bool:
        """Whether a swap is going on from which something can be learnt."""
        return self._begun is not None

    def begin(
        self,
        generation: int,
        free: int,
        limit: int,
        existing: Sequence[tuple[int, int, bool]],
        size: int,
        oom_kills: int,
    ) -> tuple[int | None, str]:
        """How many of the `size` workers of `generation` fit (None if that cannot be told), and how
        that was calculated.

        `free` of `limit` bytes may be used. `existing` has the generation and the size (bytes) of
        each worker that is there, and whether it is ready. `oom_kills`: how many processes the kernel has killed so far
        because memory ran out.
        """
        self.end(oom_kills)  # a worker of the swap before may be there still
        for number, each, _ in existing:
            self._biggest[number] = max(each, self._biggest.get(number, 0))
        for known in (self._biggest, self._did_not_fit):
            for number in sorted(known)[:-MAX_GENERATIONS]:
                del known[number]
        held = sum(each for _, each, _ in existing)
        if not held:
            self._begun = None
            return None, ""
        need, reason = self._need({number for number, _, _ in existing})
        growth = sum(max(0, need - each) for _, each, ready in existing if not ready)
        fits = max(0, free - growth) // need
        if fits == 0 and need > free + held:
            # It would not fit alone either: to make room for it would leave nothing at all.
            fits = 1
        self._begun = (generation, free, min(fits or size, size), oom_kills)
        mib = 1 << 20
        if growth:
            reason += f"; workers that still start need {growth // mib} more"
        return (
            fits,
            f"of {limit // mib} MiB (the memory limit) {free // mib} are left, and {reason}",
        )

    def end(self, oom_kills: int) -> None:
        """Only one generation is left of the swap begun last: learn whether the kernel has killed
        meanwhile.
        """
        if self._begun is None:
            return
        generation, free, workers, before = self._begun
        self._begun = None
        if oom_kills > before:
            self._did_not_fit[generation] = free // workers

    def _need(self, existing: set[int]) -> tuple[int, str]:
        """What a worker takes (bytes), and the words for it."""
        seen = max(self._biggest, key=lambda number: (self._biggest[number], number))
        need = self._biggest[seen]
        verb = "takes" if seen in existing else f"of generation {seen} took"
        reason = f"a worker {verb} {need >> 20}"
        if self._did_not_fit:
            big = max(self._did_not_fit, key=lambda number: (self._did_not_fit[number], number))
            had = self._did_not_fit[big]
            if had + had // MARGIN_DIVISOR >= need:
                need = had + had // MARGIN_DIVISOR + 1
                reason = f"the kernel killed when generation {big} had {had >> 20} for each worker"
        return need, reason
