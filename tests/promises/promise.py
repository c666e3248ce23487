"""What a promise is: something that watches a world and raises Broken when it is not kept.

A promise looks at every fact as it is told (`fact`), at each list of orders before it is performed
(`ordered`), and at the whole once reconcile has no more to say (`settled`). It knows the world's
book, never the supervisor's own state, except where it says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core import facts, orders

from .programs import Broken

if TYPE_CHECKING:
    from .world import World

# What the sum of floating-point moments may be off by.
BIT = 1e-6


class Promise:
    """Something that is to hold always."""

    name = ""

    def __init__(self, world: World) -> None:
        self.world = world

    def broken(self, how: str) -> Broken:
        """The error to raise."""
        return Broken(self.name, f"at {self.world.now:g} {how}")

    def fact(self, fact: facts.Fact) -> None:
        """A fact is being told; it is in the book already."""

    def ordered(self, given: list[orders.Order]) -> None:
        """These orders were given; nothing of them is in the book yet."""

    def settled(self) -> None:
        """There is nothing more to do for now."""


def said(given: list[orders.Order], *wanted: str) -> list[int]:
    """The generations of which one of these things was said."""
    return [
        order.fields["generation"]
        for order in given
        if isinstance(order, orders.LogEvent) and order.event in wanted
    ]


def was_said(given: list[orders.Order], event: str) -> bool:
    """Whether this was said at all."""
    return any(isinstance(order, orders.LogEvent) and order.event == event for order in given)
