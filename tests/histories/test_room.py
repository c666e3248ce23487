"""How many workers fit beside those that are there: sizes in, a number and its reason out."""

from __future__ import annotations

from sidecar.core.room import MAX_GENERATIONS, Room

MIB = 1 << 20


class Told:
    """A container of 400 MiB, in MiB; `kills` is what the kernel counts."""

    def __init__(self) -> None:
        self.room, self.kills, self.generation = Room(), 0, 1

    def swap(
        self,
        *sizes: int,
        left: int,
        killed: bool = False,
        of: int | None = None,
        starting: tuple[int, ...] = (),
    ) -> int:
        """A swap from a generation whose workers have these sizes, and those that are `starting`
        theirs: how many fit. `killed`: and the kernel kills in it.
        """
        old, self.generation = self.generation if of is None else of, self.generation + 1
        there = [(old, each * MIB, True) for each in sizes]
        there += [(old, each * MIB, False) for each in starting]
        fits, self.why = self.room.begin(
            self.generation, left * MIB, 400 * MIB, there, len(sizes), self.kills
        )
        self.kills += killed
        self.room.end(self.kills)
        assert fits is not None
        return fits


def test_what_is_left_is_divided_by_the_biggest_worker_there() -> None:
    told = Told()
    assert told.swap(40, 60, left=130) == 2
    assert told.why == "of 400 MiB (the memory limit) 130 are left, and a worker takes 60"
    assert told.swap(50, left=40) == 0


def test_a_worker_that_still_starts_will_grow() -> None:
    """What it lacks of the biggest one's size is not free."""
    told = Told()
    assert told.swap(69, left=156, starting=(20, 20)) == 0
    assert told.why.endswith("a worker takes 69; workers that still start need 98 more")
    assert told.swap(69, left=170, starting=(20, 20)) == 1
    assert told.swap(69, 20, 20, left=156) == 2


def test_the_biggest_worker_of_the_last_generations_counts_until_it_is_forgotten() -> None:
    """A young one is small yet."""
    told = Told()
    assert told.swap(100, left=220) == 2
    assert told.swap(20, 20, left=220) == 2
    assert told.why.endswith("a worker of generation 1 took 100")
    for _ in range(MAX_GENERATIONS):
        fits = told.swap(20, 20, left=220)
    assert fits == 11


def test_a_kill_teaches_that_what_was_left_did_not_do() -> None:
    told = Told()
    assert told.swap(50, 50, left=200, killed=True) == 4  # two were started, of more than 100 each
    assert told.swap(50, 50, left=203, killed=True, of=1) == 1
    assert told.why == (
        "of 400 MiB (the memory limit) 203 are left, "
        "and the kernel killed when generation 2 had 100 for each worker"
    )
    assert (
        told.swap(50, 50, left=200, of=1) == 0
    )  # more than 200, and 300 are there without the old
    assert told.swap(50, 50, left=205, of=1) == 0  # what is left is never quite the same
    assert told.swap(50, 50, left=230, of=1) == 1


def test_where_it_would_not_fit_alone_either_nobody_makes_room_for_it() -> None:
    """Else nothing would serve, and each try would be another outage."""
    told = Told()
    assert told.swap(50, left=300, killed=True) == 6
    assert told.swap(50, left=200, of=1) == 1


def test_a_kill_at_another_time_teaches_nothing() -> None:
    told = Told()
    assert told.swap(50, left=200) == 4
    told.kills += 1
    told.room.end(told.kills)
    assert told.swap(50, left=200) == 4


def test_a_kill_in_a_swap_that_the_next_one_finds_unfinished_counts() -> None:
    told = Told()
    told.room.begin(2, 200 * MIB, 400 * MIB, [(1, 50 * MIB, True)] * 2, 2, 0)
    told.kills = 1
    assert told.swap(50, 50, left=200, of=1) == 1


def test_what_cannot_be_seen_is_no_number() -> None:
    room = Room()
    assert room.begin(2, 100, 400, [(1, 0, True)], 1, 0) == (None, "")
    assert not room.begun
