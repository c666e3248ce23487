"""Reading the settings again while sidecar runs: what is wrong changes nothing, what is right is put
in force and a swap follows.

The file is read by a process of its own; what may block (names in --port, an envdir) is looked up by
another. Whoever asked for the reload hears of its end, whatever it is: "settings_read" or
"reload_rejected".
"""

from __future__ import annotations

import time

from sidecar.base.errors import SidecarError, StartError
from sidecar.core import facts
from sidecar.host import helpers
from sidecar.host.tail import Tail
from sidecar.settings.table import LISTEN, PROGRAM, READY, TABLE
from sidecar.system.child import Launch
from sidecar.system.listeners import Listeners
from sidecar.system.sockets import look_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from sidecar.host.job import Tools
    from sidecar.settings.table import Setting, Settings
    from sidecar.system.child import Place
    from sidecar.system.processes import Ended
    from sidecar.system.sockets import LookedUp

    # What is to be remarked, and what puts the settings in force at a moment.
    Prepared = tuple[list[str], Callable[[float], None]]

    class Source(Protocol):
        """Where the settings come from, to be asked again."""

        @property
        def file(self) -> str:
            """The settings file, "" if there is none."""

        @property
        def reader(self) -> tuple[str, ...]:
            """The command of the process that reads it."""

        def remarks(self, of: Settings) -> list[str]:
            """What was said and may be meant otherwise."""

        def settings(self, answer: str) -> Settings:
            """What comes of that process's output. Raises SettingsError."""

    class Host(Protocol):
        """What a reload needs of the host, beside the tools of every job."""

        def settings_in_force(self) -> Settings:
            """The settings of now."""

        def listener_sets(self) -> Sequence[Listeners]:
            """Every set of listeners that some generation may still use."""

        def envdir_problem(self, of: Settings) -> str:
            """What is wrong with their envdir, "" if nothing is. May block."""

        def prepare(self, change: Change, found: Mapping[str, LookedUp]) -> Prepared:
            """Make everything that these settings need and that may fail; `found` is what the names
            in their listeners mean. Raises SidecarError or OSError; all is as it was then.
            """

        def hide(self, values: Iterable[str]) -> None:
            """These values are secret from now on."""

        def mask(self, text: str) -> str:
            """The text without a secret value."""

        def reload_refused(self) -> None:
            """There will be no swap: for whoever counts on one."""


# What is said of a refused reload is no longer than this (characters).
MAX_REFUSAL_CHARACTERS = 1500


class SettingsRead:
    """The settings file while its reader runs. `again`: for which trigger it is to be read once
    more, "" if it is not.
    """

    __slots__ = ("again", "cause", "changed", "looks_up", "pid", "tail", "trigger", "until")

    def __init__(self, trigger: str, until: float, changed: tuple[str, ...] = ()) -> None:
        self.trigger = trigger
        #: What the swap that follows is told to have changed.
        self.changed = changed
        self.until = until
        self.tail: Tail | None = None
        self.pid = 0
        #: The process that looks up what it says, once it has been read.
        self.looks_up = 0
        self.again = ""
        #: Why it came to nothing.
        self.cause = ""


class Change:
    """From the settings in force, `old`, to `new` ones, which keep what cannot change while sidecar
    runs. `fixed` are the settings that differed and were kept, `names` the fields that change.
    """

    __slots__ = ("fixed", "names", "new", "old")

    def __init__(self, old: Settings, new: Settings) -> None:
        self.fixed: list[Setting] = [
            each
            for each in TABLE.values()
            if each.fixed and getattr(new, each.name) != getattr(old, each.name)
        ]
        self.old = old
        self.new = new.replace(**{each.name: getattr(old, each.name) for each in self.fixed})
        self.names = [
            name
            for name in new.FIELDS
            if name not in ("config", "secret", "hide")
            and getattr(self.new, name) != getattr(old, name)
        ]

    def supersedes(self) -> bool:
        """Whether what a coming generation is made of has changed under it."""
        groups = {TABLE[name].group for name in self.names if name in TABLE}
        return not groups.isdisjoint((LISTEN, PROGRAM, READY)) or not {
            "command",
            "check",
        }.isdisjoint(self.names)


class SettingsReload:
    """The job that reads the settings again. `delegate` has work done elsewhere and is Delegation's
    `start`, `drop` its `drop`.
    """

    def __init__(
        self,
        tools: Tools,
        host: Host,
        source: Source | None,
        environment: Mapping[str, str],
        place: Callable[[], Place],
        delegate: Callable[[Callable[[], Any], Callable[[Any, str], None], float], int],
        drop: Callable[[int], None],
    ) -> None:
        self._tools = tools
        self._host = host
        self._source = source
        self._environment = environment
        self._place = place
        self._delegate = delegate
        self._drop = drop
        self._read: SettingsRead | None = None
        #: What was wrong with the settings when they were last read.
        self.problems: tuple[str, ...] = ()

    def under_way(self) -> bool:
        """Whether the settings are being read."""
        return self._read is not None

    def request(self, trigger: str, now: float, changed: tuple[str, ...] = ()) -> None:
        """Have the settings file read, and once more if that is under way already. What it said
        before is not looked up any more.
        """
        if self._read is not None and self._read.looks_up:
            changed = (*self._read.changed, *changed)
            self._drop(self._read.looks_up)
            self._read = None
        if self._read is not None:
            self._read.again = trigger
            self._read.changed += changed
        elif self._source is not None:
            self._start(self._source, trigger, now, changed)

    def deadline(self) -> float:
        """When the reader has taken too long."""
        return self._read.until if self._read is not None else float("inf")

    def on_deadline(self, now: float) -> None:
        """Give up reading."""
        read = self._read
        if read is None:
            return
        if read.pid:
            # Not waited for: what hangs in a system call cannot be killed either.
            read.cause = f"took longer than {helpers.ANSWER_TIMEOUT_S:g} s"
            self._tools.abandon(read.pid)
        self._was_read(read, now)

    def on_exit(self, ended: Ended, now: float) -> None:
        """The reader has ended."""
        read = self._read
        if read is None or read.pid != ended.pid:
            return
        if ended.code or ended.signal:
            read.cause = read.cause or ended.note or "failed"
        self._was_read(read, now)

    def _start(
        self, source: Source, trigger: str, now: float, changed: tuple[str, ...] = ()
    ) -> None:
        read = self._read = SettingsRead(trigger, now + helpers.ANSWER_TIMEOUT_S, changed)
        try:
            read.tail = Tail(helpers.MAX_ANSWER_BYTES)
            launch = Launch(
                source.reader,
                helpers.environment(self._environment),
                [(read.tail.write, 1)],
                own=True,
                place=self._place(),
            )
            read.pid = self._tools.start(launch, self)
            self._tools.collect(read.tail)
        except OSError as error:
            # Refused in the next turn: whoever asked for this is not listening yet.
            read.cause = f"could not be started: {error.strerror}"
            read.until = now
            if read.pid:
                self._tools.abandon(read.pid)
                read.pid = 0

    def _was_read(self, read: SettingsRead, now: float) -> None:
        """The reader has ended, with what it had to say or `read.cause`."""
        self._read = None
        answer = self._tools.last_words(read.tail) if read.tail is not None else ""
        if self._source is None or self._tools.stopping():
            return
        if read.again:
            self._start(self._source, read.again, now, read.changed)
            return
        try:
            if read.cause:
                raise StartError(f"{self._source.file}: its reader {read.cause}")
            new = self._source.settings(answer)
            self._host.hide(new.hide)
            if self._look_up(read, new, now):
                return
        except Exception as error:
            self._refuse_for(error, now)
            return
        self._take(read, new, {}, now)

    def _look_up(self, read: SettingsRead, new: Settings, now: float) -> bool:
        """Have done elsewhere what may take long with these settings: look up the names in their
        listeners, read their envdir. Whether there is any such. Raises OSError.
        """
        old = self._host.settings_in_force()
        sets = self._host.listener_sets()
        unknown = Listeners.to_look_up(new.port, sets) if new.port != old.port else []
        envdirs = (new.envdir, new.envdir_format) != (old.envdir, old.envdir_format)
        envdirs = envdirs and bool(new.envdir)
        if not unknown and not envdirs:
            return False
        work = [f"--port {each.spec}" for each in unknown]
        work += [f"--envdir {each}" for each in new.envdir if envdirs]

        def task() -> tuple[dict[str, LookedUp], str]:
            found = {each.spec: look_up(each) for each in unknown}
            return found, self._host.envdir_problem(new) if envdirs else ""

        def done(answer: tuple[dict[str, LookedUp], str] | None, cause: str) -> None:
            then = time.monotonic()
            self._read = None
            if self._tools.stopping():
                return
            if answer is None:
                self._refuse([f"{', '.join(work)}: could not be looked up: {cause}"])
            elif answer[1]:
                self._refuse([answer[1]])
            else:
                self._take(read, new, answer[0], then)

        read.looks_up = self._delegate(task, done, now)
        read.pid, read.tail, read.until = 0, None, float("inf")
        self._read = read
        return True

    def _take(
        self, read: SettingsRead, new: Settings, found: Mapping[str, LookedUp], now: float
    ) -> None:
        """Put the settings in force, or refuse them."""
        try:
            change, prepared = self._configure(new, found)
        except Exception as error:
            self._refuse_for(error, now)
        else:
            self._put_in_force(read, change, prepared, now)

    def _configure(self, new: Settings, found: Mapping[str, LookedUp]) -> tuple[Change, Prepared]:
        """What changes with these settings, with everything made that may fail. Raises SidecarError
        or OSError; all is as it was then.
        """
        change = Change(self._host.settings_in_force(), new)
        return change, self._host.prepare(change, found)

    def _put_in_force(
        self, read: SettingsRead, change: Change, prepared: Prepared, now: float
    ) -> None:
        """Go by settings that nothing stands against. Nothing here may fail: half of them would be
        in force.
        """
        remarks, put_in_force = prepared
        self.problems = ()
        names = [name.replace("_", "-") for name in change.names]
        self._tools.say("settings_read", {"file": change.new.config, "changed": names})
        if change.fixed:
            fixed = ", ".join(each.key for each in change.fixed)
            remarks.append(
                f"{fixed}: this cannot change while sidecar runs, and stays as it is until sidecar"
                " is started anew"
            )
        for remark in remarks:
            self._tools.say("notice", {"text": remark})
        put_in_force(now)
        # A changed file supersedes a coming generation in any case; a time or a signal does not.
        supersedes = change.supersedes() or read.trigger == "watch"
        self._tools.observe(facts.SwapTriggered(read.trigger, supersedes, read.changed), now)

    def _refuse_for(self, error: Exception, now: float) -> None:
        """Whoever asked for these settings hears of their end, whatever it is."""
        if isinstance(error, (SidecarError, OSError)):
            self._refuse(getattr(error, "problems", None) or [str(error)])
        else:
            self._tools.note_defect("take the settings", error, now)
            self._refuse(["a defect in sidecar; its log says where"])

    def _refuse(self, problems: Iterable[str]) -> None:
        self.problems = tuple(map(self._host.mask, problems))
        self._host.reload_refused()
        cause = "; ".join(self.problems)[:MAX_REFUSAL_CHARACTERS]
        self._tools.say("reload_rejected", {"cause": cause})
