"""Reading the settings again while sidecar runs: what is wrong changes nothing, what is right is put
in force and a swap follows.

The file is read by a process of its own; what may block (names in --port, an envdir) is looked up by
another. policies/reload.py decides what follows when. Whoever asked for the reload hears of its end,
whatever it is: "settings_read" or "reload_rejected".
"""

from __future__ import annotations

import time

from sidecar.base.errors import SidecarError
from sidecar.core import facts
from sidecar.host import helpers
from sidecar.host.tail import Tail
from sidecar.policies import reload as policy
from sidecar.settings.table import LISTEN, PROGRAM, READY, TABLE
from sidecar.system.child import Launch
from sidecar.system.listeners import Listeners
from sidecar.system.socket_address import look_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from sidecar.host.job import Tools
    from sidecar.settings.table import Setting, Settings
    from sidecar.system.child import StartDirectory
    from sidecar.system.processes import Ended
    from sidecar.system.socket_address import Lookup

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

        @property
        def redactions(self) -> tuple[str, ...]:
            """The texts in the last settings that may not be shown."""

        def remarks(self, settings: Settings) -> list[str]:
            """What is set in the settings and was perhaps not meant so."""

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

        def prepare(self, change: Change, found: Mapping[str, Lookup]) -> Prepared:
            """Make everything that these settings need and that may fail; `found` is what the names
            in their listeners mean. Raises SidecarError or OSError; all is as it was then.
            """

        def hide(self, values: Iterable[str]) -> None:
            """These values are secret from now on."""

        def mask(self, text: str) -> str:
            """The text without a secret value."""

        def reload_refused(self) -> None:
            """There will be no swap: for whoever counts on one."""


# The cause of a rejected reload in the log is no longer than this.
MAX_REFUSAL_CHARACTERS = 1500


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
            if name != "config" and getattr(self.new, name) != getattr(old, name)
        ]

    def supersedes(self) -> bool:
        """Whether what a coming generation is made of has changed under it."""
        groups = {TABLE[name].group for name in self.names if name in TABLE}
        return not groups.isdisjoint((LISTEN, PROGRAM, READY)) or not {
            "command",
            "check",
        }.isdisjoint(self.names)


class SettingsReload:
    """The job that reads the settings again. `delegate` and `drop` are `start` and `drop` of
    Delegation.
    """

    def __init__(
        self,
        tools: Tools,
        host: Host,
        source: Source | None,
        environment: Mapping[str, str],
        place: Callable[[], StartDirectory],
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
        self._policy = policy.ReloadPolicy()
        #: The reader, 0 if none runs, and what it writes.
        self._reader_pid = 0
        self._tail: Tail | None = None
        self._answer = ""
        self._look_up_pid = 0
        #: What was read last, and what the names in its listeners mean.
        self._new: Settings | None = None
        self._found: Mapping[str, Lookup] = {}
        #: What was wrong with the settings when they were last read.
        self.problems: tuple[str, ...] = ()

    @property
    def _known_source(self) -> Source:
        """Where the settings come from, known whenever a reading is under way."""
        assert self._source is not None
        return self._source

    def under_way(self) -> bool:
        """Whether the settings are being read."""
        return self._policy.under_way

    def request(self, trigger: str, now: float, changed: tuple[str, ...] = ()) -> None:
        """Have the settings file read, and once more if that is under way already."""
        if self._source is not None:
            self._policy.requested(trigger, changed)
            self._advance(now)

    def deadline(self) -> float:
        """When the reader has taken too long."""
        return self._policy.deadline()

    def on_deadline(self, now: float) -> None:
        """Give up reading."""
        self._advance(now)

    def on_exit(self, ended: Ended, now: float) -> None:
        """The reader has ended."""
        if self._reader_pid != ended.pid:
            return
        failed = ended.code or ended.signal
        self._reader_ended(ended.start_error or "failed" if failed else "", now)

    def _advance(self, now: float) -> None:
        """Do what there is to do now. Whoever has asked hears of an internal error, too."""
        for step in self._policy.decide(now, stopping=self._tools.stopping()):
            try:
                self._do(step, now)
            except Exception as error:
                self._policy.finished()
                self._refuse_for(error, now)

    def _do(self, step: policy.Step, now: float) -> None:
        match step:
            case policy.StartReader():
                self._start_reader(now)
            case policy.DropReader():
                if self._reader_pid:
                    # Not waited for: what hangs in a system call cannot be killed.
                    self._tools.abandon(self._reader_pid)
                self._reader_ended(f"took longer than {policy.MAX_READ_S:g} s", now)
            case policy.ParseAnswer():
                self._parse_answer(now)
            case policy.DropLookUp():
                self._drop(self._look_up_pid)
            case policy.PutInForce():
                change, prepared = self._configure()
                self._put_in_force(step, change, prepared, now)
            case policy.RefuseReload():
                self._refuse([step.cause])

    def _start_reader(self, now: float) -> None:
        source = self._known_source
        try:
            self._tail = Tail(helpers.MAX_ANSWER_BYTES)
            launch = Launch(
                source.reader,
                helpers.environment(self._environment),
                [(self._tail.write, 1)],
                as_sidecar_user=True,
                start_directory=self._place(),
            )
            self._reader_pid = self._tools.start(launch, self)
            self._tools.collect(self._tail)
        except OSError as error:
            if self._reader_pid:
                self._tools.abandon(self._reader_pid)
                self._reader_pid = 0
            self._take_answer()
            cause = f"{source.file}: its reader could not be started: {error.strerror}"
            self._policy.reader_not_started(cause, now)

    def _reader_ended(self, cause: str, now: float) -> None:
        """Go on without a reader; `cause` says why there is no answer, "" if there is one."""
        self._answer = self._take_answer()
        self._reader_pid = 0
        self._policy.reader_ended(f"{self._known_source.file}: its reader {cause}" if cause else "")
        self._advance(now)

    def _take_answer(self) -> str:
        """What the reader has written; nothing more is kept. May be called again if it raised."""
        if self._tail is None:
            return ""
        answer = self._tools.last_words(self._tail)
        self._tail = None
        return answer

    def _parse_answer(self, now: float) -> None:
        """Make settings of what was read, and have done elsewhere what may take long with them.
        Raises SettingsError or OSError.
        """
        self._new, self._found = self._known_source.settings(self._answer), {}
        self._host.hide(self._known_source.redactions)
        self._look_up(self._new, now)
        self._advance(now)

    def _look_up(self, new: Settings, now: float) -> None:
        """Look up the names in the settings' listeners and read their envdir, where these are other
        ones than before. Raises OSError.
        """
        old = self._host.settings_in_force()
        sets = self._host.listener_sets()
        unknown = Listeners.needing_lookup(new.port, sets) if new.port != old.port else []
        envdirs = (new.envdir, new.envdir_format) != (old.envdir, old.envdir_format)
        envdirs = envdirs and bool(new.envdir)
        if not unknown and not envdirs:
            self._policy.look_up_ended()
            return
        work = [f"--port {each.spec}" for each in unknown]
        work += [f"--envdir {each}" for each in new.envdir if envdirs]

        def task() -> tuple[dict[str, Lookup], str]:
            found = {each.spec: look_up(each) for each in unknown}
            return found, self._host.envdir_problem(new) if envdirs else ""

        def done(answer: tuple[dict[str, Lookup], str] | None, cause: str) -> None:
            self._found, problem = answer or ({}, "")
            if answer is None:
                problem = f"{', '.join(work)}: could not be looked up: {cause}"
            self._policy.look_up_ended(problem)
            self._advance(time.monotonic())

        self._look_up_pid = self._delegate(task, done, now)
        self._policy.look_up_started()

    def _configure(self) -> tuple[Change, Prepared]:
        """What changes with the settings that were read last, with everything made that may fail.
        Raises SidecarError or OSError; all is as it was then.
        """
        assert self._new is not None
        change = Change(self._host.settings_in_force(), self._new)
        return change, self._host.prepare(change, self._found)

    def _put_in_force(
        self, step: policy.PutInForce, change: Change, prepared: Prepared, now: float
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
        supersedes = change.supersedes() or step.supersedes
        self._tools.observe(facts.SwapTriggered(step.trigger, supersedes, step.changed), now)

    def _refuse_for(self, error: Exception, now: float) -> None:
        """Say why these settings are not put in force."""
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
