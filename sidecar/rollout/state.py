"""Which container is next, which is given up, and when the rollout is over: facts in, orders out,
like the supervisor. Pure: `now` (seconds) comes in.

    waiting ──Begin──▶ under way ──Ended──▶ done │ failed
       └── at the end: untouched

A few are under way at a time. After more failures than are allowed nothing more is begun. What
is under way ends by itself, since nobody wants half a reload. The same holds after an interrupt, and
when the engine is lost; a second interrupt gives up what is under way.

The timeout is for each step (a hook, the copy, the reload) and not for the whole, so that a large
copy does not count as a hang.
"""

from __future__ import annotations

from sidecar.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.rollout.engine import Target

WAITING, UNDER_WAY, DONE, FAILED, UNTOUCHED = "waiting", "under way", "done", "failed", "untouched"
INFINITY = float("inf")

# After a failure of one of these kinds it is not known which generation serves.
UNSEEN_KINDS = ("vanished", "lost", "left", "hung", "unreachable", "interrupted", "error")


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


class StepStarted(Fact):
    """Its next step begins; `files`, if that is said, is whose files it has from now on."""

    step: str
    files: str = ""


class StatusRead(Fact):
    """Its status has been read: it serves this generation."""

    generation: int | None


class Ended(Fact):
    """It has ended: with success if `kind` is empty."""

    kind: str = ""
    cause: str = ""


class HookOutput(Fact):
    """One of its hooks has written these lines, which are only shown."""

    hook: str
    lines: list[str]


class Interrupted(Record):
    """Somebody wants the rollout to stop."""


# --- orders


class Begin(Record):
    """Start with this one."""

    id: str


class GiveUp(Record):
    """Do not wait for this one any longer."""

    id: str
    kind: str
    cause: str


Order = Begin | GiveUp


class RolloutState:
    """One rollout over its members, in their order. `timeout` is in seconds, for each step."""

    def __init__(
        self, members: Sequence[Member], parallel: int, max_failures: float, timeout: float
    ) -> None:
        self.members = {each.target.id: each for each in members}
        self.parallel, self.max_failures, self.timeout = parallel, max_failures, timeout
        self.interrupts = 0
        self.engine_lost = False

    def in_state(self, state: str) -> list[Member]:
        """The members in this state, in order."""
        return [each for each in self.members.values() if each.state == state]

    @property
    def stopping(self) -> bool:
        """Whether nothing more is to be begun."""
        return (
            self.engine_lost
            or self.interrupts > 0
            or len(self.in_state(FAILED)) > self.max_failures
        )

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for."""
        return not self.in_state(UNDER_WAY) and (self.stopping or not self.in_state(WAITING))

    def observe(self, fact: Record, now: float) -> None:
        """Write down what happened. A fact from a member that was given up comes too late."""
        if isinstance(fact, Interrupted):
            self.interrupts += 1
            return
        assert isinstance(fact, Fact)
        member = self.members[fact.id]
        if member.state != UNDER_WAY:
            return
        match fact:
            case StepStarted():
                member.step, member.since = fact.step, now
                member.files = fact.files or member.files
            case StatusRead():
                member.was = fact.generation if member.was is None else member.was
                member.serves = fact.generation
            case Ended():
                member.state = FAILED if fact.kind else DONE
                member.kind, member.cause = fact.kind, fact.cause
                self.engine_lost = self.engine_lost or fact.kind == "lost"
                if fact.kind in UNSEEN_KINDS:
                    member.serves = None

    def reconcile(self, now: float) -> list[Order]:
        """What is to be done now."""
        orders: list[Order] = []
        for member in self.in_state(UNDER_WAY):
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
            for member in self.in_state(WAITING)[: self.parallel - len(self.in_state(UNDER_WAY))]:
                member.state, member.since = UNDER_WAY, now
                orders.append(Begin(member.target.id))
        return orders

    @property
    def deadline(self) -> float:
        """When reconcile could next return something new without a fact."""
        return min(
            (each.since + self.timeout for each in self.in_state(UNDER_WAY)), default=INFINITY
        )

    def requeue_done(self) -> None:
        """Let those that are done wait again, for another phase."""
        for member in self.in_state(DONE):
            member.state = WAITING

    def mark_untouched(self) -> None:
        """The rollout is over: those that still wait were not touched."""
        for member in self.in_state(WAITING):
            member.state = UNTOUCHED
