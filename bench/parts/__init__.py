"""What is measured, a module a part. Each has `measure(plan)`, which returns its figures."""

from dataclasses import dataclass


@dataclass
class Plan:
    """How often each thing is measured."""

    swaps: int = 21
    pauses: int = 3
    failures: int = 3
    starts: int = 21
    rest: float = 20.0
    copies: int = 3
    pairs: int = 15
    imports: int = 11
    probes: int = 21
    saves: int = 5
    directories: tuple[int, ...] = (1_000, 10_000, 50_000)


QUICK = Plan(
    swaps=5,
    pauses=1,
    failures=1,
    starts=5,
    rest=5.0,
    copies=1,
    pairs=4,
    imports=3,
    probes=5,
    saves=2,
    directories=(1_000,),
)
