"""How many workers of a coming generation fit beside those that are there (--overlap auto). Pure.

How big the coming ones get, nobody knows before. So it goes by the biggest worker of the last
generations; and where the kernel has killed for want of memory in a swap, by what did not fit then:
the next one counts with workers of more than that. Else each try would end in the same way, since
the old generation, which is smaller, is what can be measured. A worker there that is not ready yet
is still growing: what it lacks of the biggest one's size is not free.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# So many generations are remembered: what an old release needed does not count for ever.
KEPT = 5
# What is left differs a little from swap to swap: workers are taken to need this part more than what
# they did not fit into.
MARGIN = 8


class Room:
    """What is known of the sizes (bytes) of workers, and of the swap that was begun last."""

    def __init__(self) -> None:
        #: By generation: the biggest worker seen, and what its workers did not fit into.
        self._seen: dict[int, int] = {}
        self._more_than: dict[int, int] = {}
        self._begun: tuple[int, int, int, int] | None = None

    @property
    def begun(self) -> bool:
        """Whether a swap is under way of which something can be learnt."""
        return self._begun is not None

    def begin(
        self,
        generation: int,
        left: int,
        limit: int,
        there: Sequence[tuple[int, int, bool]],
        size: int,
        kills: int,
    ) -> tuple[int | None, str]:
        """A generation of `size` workers is to start, `left` of `limit` may be taken, `there` are
        the workers' generations and sizes, and whether each is ready: how many fit beside them, and
        why. None: not to be seen.

        `kills`: how many processes the kernel has killed for want of memory so far.
        """
        self.ended(kills)  # of the one before something is there still
        for number, each, _ in there:
            self._seen[number] = max(each, self._seen.get(number, 0))
        for kept in (self._seen, self._more_than):
            for number in sorted(kept)[:-KEPT]:
                del kept[number]
        held = sum(each for _, each, _ in there)
        if not held:
            self._begun = None
            return None, ""
        need, why = self._need({number for number, _, _ in there})
        growth = sum(max(0, need - each) for _, each, ready in there if not ready)
        fits = max(0, left - growth) // need
        if fits == 0 and need > left + held:
            # It would not fit alone either: whoever makes room for it has nothing at all.
            fits = 1
        self._begun = (generation, left, min(fits or size, size), kills)
        mib = 1 << 20
        if growth:
            why += f"; workers that still start need {growth // mib} more"
        return fits, f"of {limit // mib} MiB (the memory limit) {left // mib} are left, and {why}"

    def ended(self, kills: int) -> None:
        """Only one generation is left of the swap begun last: has the kernel killed meanwhile?"""
        if self._begun is None:
            return
        generation, left, workers, before = self._begun
        self._begun = None
        if kills > before:
            self._more_than[generation] = left // workers

    def _need(self, there: set[int]) -> tuple[int, str]:
        """What a worker takes, and the words for it."""
        seen = max(self._seen, key=lambda number: (self._seen[number], number))
        need = self._seen[seen]
        why = f"a worker {'takes' if seen in there else f'of generation {seen} took'} {need >> 20}"
        if self._more_than:
            big = max(self._more_than, key=lambda number: (self._more_than[number], number))
            had = self._more_than[big]
            if had + had // MARGIN >= need:
                need = had + had // MARGIN + 1
                why = f"the kernel killed when generation {big} had {had >> 20} for each worker"
        return need, why
