"""What becomes of requests to read the settings again: one reading answers all of them.

A reading has two stages: a process reads the settings file; then another process looks up what may
block (names in listeners, an envdir), if the settings need that. A request that comes in meanwhile
has the file read once more, and only what was read last counts.

Pure: all moments are seconds on the caller's clock. The caller tells what has happened
(`requested`, `reader_ended`, `look_up_ended` and so on), does what `decide` returns, and asks again
at `deadline` at the latest.
"""

from __future__ import annotations

from sidecar.base.record import Record

MAX_READ_S = 20.0

IDLE, REQUESTED, READING, READ, PARSING, LOOKING_UP, PARSED = (
    "idle", "requested", "reading", "read", "parsing", "looking up", "parsed",
)  # fmt: skip


class StartReader(Record):
    """Have the settings file read."""


class DropReader(Record):
    """The reader has taken too long: nobody waits for it any more. Tell `reader_ended` why there is
    no answer.
    """


class ParseAnswer(Record):
    """Make settings of what was read, and begin to look up what they need: tell
    `look_up_started` or, where nothing has to be looked up, `look_up_ended`.
    """


class DropLookUp(Record):
    """Nobody waits any more for what is being looked up."""


class PutInForce(Record):
    """Go by the settings, if nothing stands against them.

    `trigger` is the one of the last request, `changed` what all requests said had changed, and
    `supersedes` whether a coming generation has to make way for the swap that follows.
    """

    trigger: str
    changed: tuple[str, ...]
    supersedes: bool


class RefuseReload(Record):
    """Say why there are no new settings; all stays as it is."""

    cause: str


Step = StartReader | DropReader | ParseAnswer | DropLookUp | PutInForce | RefuseReload


class ReloadPolicy:
    """One reading at a time."""

    __slots__ = ("_again", "_cause", "_changed", "_stage", "_supersedes", "_trigger", "_until")

    def __init__(self) -> None:
        self._stage, self._cause, self._trigger = IDLE, "", ""
        self._changed: tuple[str, ...] = ()
        self._supersedes = self._again = False
        self._until = float("inf")

    @property
    def under_way(self) -> bool:
        """Whether somebody waits for settings to be read."""
        return self._stage != IDLE

    def requested(self, trigger: str, changed: tuple[str, ...] = ()) -> None:
        """Somebody wants the settings to be read again; `changed` are the files that have
        changed.
        """
        if self._stage == IDLE:
            self._stage = REQUESTED
        else:
            self._again = True
        self._trigger = trigger
        self._changed += changed
        # A changed file replaces a coming generation in any case; a time or a signal does not.
        self._supersedes |= trigger == "watch"

    def reader_not_started(self, cause: str, now: float) -> None:
        """The reader could not be started. That is said in the next turn: whoever has asked is not
        listening yet.
        """
        self._cause, self._until = cause, now

    def reader_ended(self, cause: str = "") -> None:
        """The reader has ended; `cause` says why there is no answer, "" if there is one."""
        self._stage, self._cause = READ, cause

    def look_up_started(self) -> None:
        """A process looks up what the settings need."""
        self._stage = LOOKING_UP

    def look_up_ended(self, cause: str = "") -> None:
        """It has ended; `cause` says why there is no answer, "" if there is one."""
        self._stage, self._cause = PARSED, cause

    def finished(self) -> None:
        """The request is answered: the settings were put in force or refused."""
        self._stage, self._again, self._cause, self._until = IDLE, False, "", float("inf")
        self._trigger, self._changed, self._supersedes = "", (), False

    def deadline(self) -> float:
        """When the reader has taken too long."""
        return self._until if self._stage == READING else float("inf")

    def decide(self, now: float, *, stopping: bool) -> list[Step]:
        """What to do now, in order. `stopping`: sidecar stops, and reads no settings any more."""
        if self._stage == READING and self._until <= now:
            if not self._cause:
                self._until = float("inf")
                return [DropReader()]
            self._stage = READ
        if self._stage in (IDLE, READING, PARSING):
            return []
        if stopping and self._stage != LOOKING_UP:
            self.finished()
            return []
        if self._again or self._stage == REQUESTED:
            dropped: list[Step] = [DropLookUp()] if self._stage == LOOKING_UP else []
            self._stage, self._again, self._cause = READING, False, ""
            self._until = now + MAX_READ_S
            return [*dropped, StartReader()]
        if self._stage == LOOKING_UP:
            return []
        if self._stage == READ and not self._cause:
            self._stage = PARSING
            return [ParseAnswer()]
        step = (
            RefuseReload(self._cause)
            if self._cause
            else PutInForce(self._trigger, self._changed, self._supersedes)
        )
        self.finished()
        return [step]
