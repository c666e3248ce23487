"""Who is next, who is given up, and when it is over: facts in, orders out, like the supervisor.
Pure: `now` (seconds) comes in.

    waiting ──Begin──▶ under way ──Ended──▶ done │ failed
       └── at the end: untouched

A few are under way at a time. After more failures than are allowed nothing more is begun; what is
under way ends by itself, since half a reload is nothing that anybody wants. So it is after an
interrupt, and when the engine is lost; a second interrupt gives up what is under way.

Time is given to each step (a hook, the copy, the reload …) and not to the whole, so a large copy is
no hang.
"""

from __future__ import annotations

from sidecar.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.rollout.fleet import Target

WAITING, UNDER_WAY, DONE, FAILED, UNTOUCHED = "waiting", "under way", "done", "failed", "untouched"
INF = float("inf")

# Ends at which nobody saw what serves now.
UNSEEN = ("vanished", "lost", "left", "hung", "unreachable", "interrupted", "error")


class Member:
    """A container in this rollout. `was` and `serves` are generations, None where unknown; `files`
    says whose files it has.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.state = WAITING
        self.step = ""
        self.since = 0.0
        self.was: int | None = None
        self.serves: int | None = None
        self.kind = ""
        self.cause = ""
        self.files = ""


# --- facts


class Fact(Record):
    """Something that happened to the container with this id."""

    id: str


class Stepped(Fact):
    """Its next step begins; `files`, if that is said, is whose files it has from now on."""

    step: str
    files: str = ""


class Looked(Fact):
    """It serves this generation."""

    generation: int | None


class Ended(Fact):
    """It is through: well, if `kind` is ""."""

    kind: str = ""
    cause: str = ""


class Said(Fact):
    """A hook of its has written these lines; nothing follows from it but that they are shown."""

    hook: str
    lines: list[str]


class Interrupted(Record):
    """Somebody wants it to stop."""


# --- orders


class Begin(Record):
    """Start with this one."""

    id: str


class GiveUp(Record):
    """It does not come to an end; nobody waits for it any more."""

    id: str
    kind: str
    cause: str


class Course:
    """The course of one rollout over its members, in their order."""

    def __init__(
        self, members: Sequence[Member], parallel: int, max_failures: float, timeout: float
    ) -> None:
        self.members = {each.target.id: each for each in members}
        self.parallel, self.max_failures, self.timeout = parallel, max_failures, timeout
        self.interrupts = 0
        self.lost = False

    def of(self, state: str) -> list[Member]:
        """The members in this state, in order."""
        return [each for each in self.members.values() if each.state == state]

    @property
    def stopping(self) -> bool:
        """Whether nothing more is to be begun."""
        return self.lost or self.interrupts > 0 or len(self.of(FAILED)) > self.max_failures

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for."""
        return not self.of(UNDER_WAY) and (self.stopping or not self.of(WAITING))

    def observe(self, fact: Record, now: float) -> None:
        """Write down what happened. What comes from a member that was given up is too late."""
        if isinstance(fact, Interrupted):
            self.interrupts += 1
            return
        assert isinstance(fact, Fact)
        member = self.members[fact.id]
        if member.state != UNDER_WAY:
            return
        if isinstance(fact, Stepped):
            member.step, member.since = fact.step, now
            member.files = fact.files or member.files
        elif isinstance(fact, Looked):
            member.was = fact.generation if member.was is None else member.was
            member.serves = fact.generation
        elif isinstance(fact, Ended):
            member.state = FAILED if fact.kind else DONE
            member.kind, member.cause = fact.kind, fact.cause
            self.lost = self.lost or fact.kind == "lost"
            if fact.kind in UNSEEN:
                member.serves = None

    def reconcile(self, now: float) -> list[Begin | GiveUp]:
        """What is to be done now."""
        orders: list[Begin | GiveUp] = []
        for member in self.of(UNDER_WAY):
            if self.interrupts > 1:
                orders.append(
                    GiveUp(member.target.id, "interrupted", f"interrupted: {member.step}")
                )
            elif now >= member.since + self.timeout:
                orders.append(
                    GiveUp(
                        member.target.id,
                        "hung",
                        f"nothing has been heard of it for {self.timeout:g} s: {member.step}",
                    )
                )
        if not orders and not self.stopping:
            for member in self.of(WAITING)[: self.parallel - len(self.of(UNDER_WAY))]:
                member.state, member.since = UNDER_WAY, now
                orders.append(Begin(member.target.id))
        return orders

    @property
    def deadline(self) -> float:
        """The next moment at which reconcile could say something new by itself."""
        return min((each.since + self.timeout for each in self.of(UNDER_WAY)), default=INF)

    def again(self) -> None:
        """Those that are done wait for another course."""
        for member in self.of(DONE):
            member.state = WAITING

    def end(self) -> None:
        """Nothing more comes: who waits was not touched."""
        for member in self.of(WAITING):
            member.state = UNTOUCHED
