"""The loop: waits for notices, lets what is dirty settle, compares, tells.

A burst begins with the first notice that can matter and is looked at when it has been quiet for the
settle time, at the latest LONGEST after it began. It is prolonged while

    a file is open for writing        its close or rename will be told; at most WRITING, for logs that are never closed
    something happens while it is looked at
    `.git/index.lock` is there        a checkout is under way
    files are only gone               an editor may be about to put the new one in place
    a root is gone                    somebody is about to put another in its place
    two looks differ (polling)

At rest there is one wake-up every TICK: the roots are looked at (a stat each: no notice tells that
a path leads elsewhere), and with it come the safety scan, the polling and the slow reading of the
envdirs when they are due.

A process that hangs is of no use and cannot say so: an alarm that is put off at each turn ends it,
with its stack on stderr. The kernel delivers it to a process whose Python is stuck as well.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import re
import select
import signal
import stat
import time

from sidecar.watch.memory import Memory
from sidecar.watch.places import blind, trail, writer
from sidecar.watch.tree import AT_ONCE, AT_ONCE_BYTES, ENV, LARGEST, Scan, Tree
from sidecar.watch.variables import State, Variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.watch.inotify import Event, Inotify
    from sidecar.watch.tree import Difference

FEW = 3  # paths
SETTLE_FEW, SETTLE_MANY, SETTLE_ENV = 0.05, 0.2, 0.05
LONGEST, LONGEST_ENV = 5.0, 2.0
WRITING = 1.0
TICK = 1.25
SAFETY = 30.0
SAFETY_SHARE, POLL_SHARE = (
    100,
    50,
)  # a scan's cost times this is the least time to the next: 1 % and 2 % of a core
ENV_POLL_BLIND = 2.0
HUNG = 90  # whole seconds
# What stops a program in a debugger that reads the terminal, by the ending of a file's name.
STOPS = {
    ".py": re.compile(
        r"^[ \t]*(?:import i?pdb; *)?(?:breakpoint\(|i?pdb\.set_trace\()", re.MULTILINE
    ),
    ".rb": re.compile(r"^[ \t]*(?:binding\.(?:irb|pry|break)\b|byebug\b|debugger\b)", re.MULTILINE),
}
LINE, PATHS = 3900, 20
# Changes of one path in so many bursts, each so soon after the one before, are said: where the
# program has it open for writing; else.
REPEATED, REPEATED_UNSEEN, SOON = 4, 12, 10.0


class Burst:
    """What has become dirty and has not been looked at. Times are monotonic."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.first: float | None = None
        self.last = 0.0
        self.paths: set[tuple[int, str]] = set()
        self.many = False
        self.writing: dict[tuple[int, str], float] = {}
        self.held = False
        self.seen: object = None

    def note(self, now: float, many: bool = False) -> None:
        self.first = now if self.first is None else self.first
        self.last = now
        self.many |= many

    def deadline(self, settle: float, longest: float) -> float | None:
        """When to look."""
        if self.first is None:
            return None
        quiet = self.last + settle
        if self.writing:
            quiet = max(quiet, max(self.writing.values()) + WRITING)
        return min(quiet, self.first + longest)


class Watcher:
    """The watcher of one sidecar. `config` is described in __main__.py."""

    def __init__(self, config: dict[str, object]) -> None:
        self._config = config
        self._settle = _number(config.get("settle"))
        roots, ignore, only, apart = (
            _strings(config, name) for name in ("watch", "ignore", "only", "env")
        )
        self._tree = Tree(roots, ignore, only, apart, alive, _strings(config, "own"))
        self._settings_file = str(config.get("settings") or "")
        self._mode, self._why = str(config.get("mode") or "auto"), ""
        self._polling = False
        self._inotify: Inotify | None = None
        memory = config.get("memory")
        self._memory = Memory(memory if isinstance(memory, int) else None)
        self._key = os.urandom(32)
        self._env_poll = max(TICK, _number(config.get("env_poll")) or 60.0)
        self._env_state = State("", {})
        self._code, self._env = Burst(), Burst()
        self._dirty: set[str] = set()
        self._full = False
        self._cost = 0.0
        self._next_scan = self._next_env = 0.0
        self._env_identity: object = None
        self._digesting = True
        self._refused: set[str] = set()
        self._repeats: dict[str, tuple[int, float]] = {}
        self._remarked: set[str] = set()
        self._rest, self._busy = select.poll(), select.poll()

    # -- the loop

    def run(self) -> None:
        """Until standard input ends."""
        for poll in (self._rest, self._busy):
            poll.register(0, select.POLLIN)
        self._begin()
        tick = time.monotonic() + TICK
        while True:
            alive()
            now = time.monotonic()
            code, env = self._deadlines()
            busy = code is not None or env is not None
            if busy:
                quantum = max(0.01, self._settle_time() / 5)
                until = min(each for each in (code, env, now + quantum, tick) if each is not None)
            else:
                until = now if self._digesting else tick
            # In a burst the queue is looked at in steps: a thousand notices cost one wake-up.
            for fd, _ in (self._busy if busy else self._rest).poll(
                max(0, (until - now) * 1000 + 0.5)
            ):
                if fd == 0 and not os.read(0, 4096):
                    return
            self._listen()
            now = time.monotonic()
            code, env = self._deadlines()
            if code is not None and now >= code:
                self._look(now)
            if env is not None and now >= env:
                self._read_env()
            if now >= tick:
                self._tick(now)
                tick = time.monotonic() + TICK
            if self._digesting and self._code.first is None:
                self._digesting = self._tree.digest_some(64, 4 << 20)
                if not self._digesting:
                    self._keep()

    def _deadlines(self) -> tuple[float | None, float | None]:
        return self._code.deadline(self._settle_time(), LONGEST), self._env.deadline(
            SETTLE_ENV, LONGEST_ENV
        )

    def _settle_time(self) -> float:
        usual = SETTLE_MANY if self._code.many or self._code.held else SETTLE_FEW
        return (
            usual
            if self._settle is None
            else max(usual, self._settle)
            if self._code.held
            else self._settle
        )

    def _begin(self) -> None:
        since = int((_number(self._config.get("since")) or 0) * 1e9)
        known, used = self._recall()
        self._env_watched = Variables(
            _strings(self._config, "env"),
            bool(self._config.get("env_whole")),
            bool(self._config.get("env_lenient")),
            self._key,
        )
        self._choose()
        found, _ = self._scan(None)
        if not known:
            self._tree.accept(found)
            late = self._tree.forget_since(since) if since else set()
            if late:
                self._note_dirty(late)
        self._digesting = self._tree.digest_some(AT_ONCE, AT_ONCE_BYTES)
        self._arm_env()  # first: what happens while it is read will be heard
        told, self._env_state = self._env_state, self._env_watched.read(self._env_state)
        self._next_scan = time.monotonic() + self._interval()
        self._next_env = time.monotonic() + self._env_interval()
        if not known and self._code.first is None:
            # from here on nothing is missed, even if this one is killed before its next line
            self._keep()
        self._watching()
        for root, shown in self._tree.roots.items():
            if kind := self._tree.barren(root):
                self._remark(root, f"{shown} is a {kind} file system, so nothing is watched there")
            elif os.path.exists(root) and not os.path.isfile(root) and not os.path.isdir(root):
                self._remark(
                    root, f"{shown} is neither directory nor file, so nothing is watched there"
                )
            elif root == "/":
                self._remark(root, "/ is watched, the whole system: say --watch DIR for less")
        if known:
            if self._tree.differences(found) or self._tree.appeared(found):
                self._full = True
                self._code.note(time.monotonic(), many=True)
            else:
                self._tree.accept(found)
            if self._env_state != told:
                self._env_state = told
                self._env.note(time.monotonic())
        else:
            if used and self._tree.roots:
                say("changed", paths=[], count=0, settings=bool(self._settings_file))
            late_env, names = self._env_watched.since(since) if since else (False, [])
            if self._env_watched.directories and (used or late_env or self._env_state.error):
                self._say_env([] if used else names)
        if not self._code.first:
            self._keep()

    def _tick(self, now: float) -> None:
        """What is due at rest."""
        if self._code.first is None:
            if now >= self._next_scan and self._tree.roots:
                self._scan_all()
            for root in self._tree.roots:
                known = self._tree.dirs.get(root)
                try:
                    status = os.stat(root)
                    same = known is not None and known.identity == (status.st_dev, status.st_ino)
                except OSError:
                    same = known is None
                if not same and root not in self._refused:
                    self._dirty.add(root)
                    self._code.note(now, many=True)
        due = now >= self._next_env
        if (
            self._env_watched.directories
            and self._env.first is None
            and (due or self._env_watched.identity() != self._env_identity)
        ):
            self._env.note(now - SETTLE_ENV if due else now)
        self._check_size()

    def _check_size(self) -> None:
        if self._tree.crowded:
            self._remark(
                "directories",
                "there are more directories than are watched (200,000): ignore some with --watch-ignore",
            )

    # -- what inotify says

    def _listen(self) -> None:
        if self._inotify is None:
            return
        now = time.monotonic()
        for event in self._inotify.read():
            self._hear(event, now)

    def _hear(self, event: Event, now: float) -> None:
        if event.overflow:
            self._full = True
            self._code.note(now, many=True)
            if self._env_watched.directories:
                self._env.note(now)
            return
        watch = event.dependents
        if watch is None:
            return
        name = event.name
        trees = {
            each
            for each in watch.trees
            if not name or each == ENV or self._tree.matters(each, name, event.directory)
        }
        for dependents in [watch.names.get(name, set())] if name else list(watch.names.values()):
            trees |= dependents
        if ENV in trees:
            trees.discard(ENV)
            self._env.note(now)
            self._pending(self._env, event, now)
        if not trees:
            return
        self._code.note(now, event.directory)
        self._pending(self._code, event, now)
        for each in trees:
            self._dirty.add(each)
            if not name:
                self._dirty.add(os.path.dirname(each))
        if len(self._dirty) > 1000:
            self._full = True
            self._dirty.clear()
        if len(self._code.paths) <= FEW:
            self._code.paths.add((event.wd, name))
            self._code.many |= len(self._code.paths) > FEW

    def _pending(self, burst: Burst, event: Event, now: float) -> None:
        """Keep in mind which files are being written."""
        key = (event.wd, event.name)
        if event.complete:
            burst.writing.pop(key, None)
        elif (
            event.being_written
            and event.dependents
            and key not in burst.writing
            and len(burst.writing) < 100
        ):
            try:
                status = os.lstat(os.path.join(event.dependents.path, event.name))
            except OSError:
                return
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:  # a link is made, not written
                burst.writing[key] = now

    # -- looking and telling

    def _choose(self) -> None:
        """Decide between inotify and polling."""
        mode = self._mode
        try:
            from sidecar.watch.inotify import Inotify  # noqa: PLC0415  40 ms and 5 MB, for those who use it

            if mode != "poll" or self._env_watched.directories:
                self._inotify = Inotify()
                self._rest.register(self._inotify.fd, select.POLLIN)
        except Exception as error:
            self._exhausted(error)
            return
        self._polling, self._why = mode == "poll", "--watch-mode poll" if mode == "poll" else ""
        if mode == "auto":
            for root in self._tree.roots:
                for point, kind in blind(root):
                    if not self._tree.rules.hidden(point, True):
                        self._polling, self._why = (
                            True,
                            f"inotify tells nothing on {point}: its file system, {kind}, is changed by others",
                        )
        self._tree.inotify = None if self._polling else self._inotify

    def _exhausted(self, error: Exception) -> None:
        """Poll from now on."""
        sysctl = getattr(error, "sysctl", "")
        if self._inotify is not None:
            self._rest.unregister(self._inotify.fd)
            self._inotify.close()
        self._inotify = self._tree.inotify = None
        self._polling = True
        self._why = (
            _limit(sysctl)
            if sysctl
            else f"inotify cannot be used: {getattr(error, 'strerror', None) or error}"
        )

    def _scan(self, dirty: set[str] | None) -> tuple[Scan, bool]:
        """Look at what is dirty; and whether the mode has changed. Keeps the cost of a full look in
        mind.
        """
        changed = False
        while True:
            wall, cpu = time.monotonic(), time.process_time()
            try:
                found = self._tree.scan(None if self._polling else dirty)
                break
            except Exception as error:
                if not getattr(error, "sysctl", "") or self._polling:
                    raise
                self._exhausted(error)
                changed = True
        if found.full:
            self._cost = max(time.process_time() - cpu, (time.monotonic() - wall) / 4)
        for path in found.refused.keys() - self._refused:
            self._remark(
                path,
                f"{self._tree.shown(path)} cannot be read ({found.refused[path]}), so changes in it are not seen",
            )
        self._refused = (
            self._refused | found.refused.keys() if not found.full else set(found.refused)
        )
        return found, changed

    def _interval(self) -> float:
        return (
            max(TICK, self._cost * POLL_SHARE)
            if self._polling
            else max(SAFETY, self._cost * SAFETY_SHARE)
        )

    def _env_interval(self) -> float:
        return (
            self._env_poll
            if self._inotify is not None and self._mode != "poll"
            else min(self._env_poll, ENV_POLL_BLIND)
        )

    def _scan_all(self) -> None:
        """The safety scan, or a poll: what differs begins a burst."""
        found, changed = self._scan(None)
        differences = self._tree.differences(found)
        if differences or self._tree.appeared(found):
            self._full = True
            self._code.note(time.monotonic(), many=len(differences) > FEW)
            self._code.seen = _signature(differences)
        else:
            self._tree.accept(found)
            self._digesting = True
        if changed:
            self._watching()
        self._next_scan = time.monotonic() + self._interval()

    def _look(self, now: float) -> None:
        """The burst has settled, or has gone on for too long."""
        burst = self._code
        assert burst.first is not None
        latest = now >= burst.first + LONGEST
        if not latest and self._locked():
            burst.last = now
            return
        found, changed = self._scan(None if self._full else self._dirty)
        if changed:
            self._full = True
            self._watching()
        last, burst.last = burst.last, -1.0
        self._listen()
        if burst.last >= 0 and not latest:
            return
        burst.last = last
        differences = self._tree.differences(found)
        appeared = self._tree.appeared(found)
        if not latest and self._unfinished(differences, bool(appeared)):
            burst.last = time.monotonic()
            return
        if differences or appeared:
            self._tree.digest_first(found, differences)
            self._tell(differences, appeared)
        self._tree.accept(found)
        self._dirty.clear()
        self._full = False
        burst.clear()
        self._digesting = True
        if found.full:
            self._next_scan = time.monotonic() + self._interval()
        if differences or appeared:
            self._keep()

    def _unfinished(self, differences: list[Difference], appeared: bool) -> bool:
        """Whether this is a state in between, as far as can be told."""
        burst = self._code
        if self._tree.missing():
            return True
        if differences and all(each.entry is None for each in differences) and not burst.held:
            burst.held = True
            return True
        if not self._polling or not (differences or appeared):
            return False
        before, burst.seen = burst.seen, _signature(differences)
        assert burst.first is not None
        emptied = (
            any(each.emptied and each.before for each in differences)
            and time.monotonic() < burst.first + WRITING
        )
        return emptied or before != burst.seen

    def _locked(self) -> bool:
        """Whether git is changing a root's files right now. A lock that is old is a dead git's."""
        for root in self._tree.roots:
            try:
                if (
                    time.time() - os.lstat(os.path.join(root, ".git", "index.lock")).st_mtime
                    < LONGEST
                ):
                    return True
            except OSError:
                continue
        return False

    def _tell(self, differences: list[Difference], appeared: list[str]) -> None:
        paths = [self._tree.shown(each.path) for each in differences] or [
            self._tree.shown(each) for each in appeared
        ]
        told = sorted(set(paths))
        say("changed", paths=told, count=len(told), settings=self._of_settings(differences))
        now = time.monotonic()
        before, self._repeats = self._repeats, {}
        for each in differences[:PATHS]:
            path = self._tree.shown(each.path)
            if line := breakpoint_in(each.path) if each.entry is not None else 0:
                self._remark(
                    f"{path}: breakpoint",
                    f"{path}:{line} stops in a debugger, which has no terminal under sidecar: use remote-pdb (docs/dev-loop.md)",
                )
            count, when = before.get(path, (0, now))
            count = count + 1 if now - when <= SOON else 1
            self._repeats[path] = (count, now)
            pid = writer(each.path) if count >= REPEATED and path not in self._remarked else 0
            if pid or count >= REPEATED_UNSEEN:
                pattern = each.path.removeprefix(
                    (self._tree.rules.root(each.path) or "").rstrip("/")
                )
                who = (
                    f"process {pid} of the program has it open for writing"
                    if pid
                    else "if the program writes it itself"
                )
                self._remark(
                    path,
                    f"{path} has changed {count} times in a row, each soon after the last: {who}; ignore it (--watch-ignore '{pattern}')",
                )

    def _of_settings(self, differences: list[Difference]) -> bool:
        """Whether sidecar's settings file is among what differs."""
        if not self._settings_file:
            return False
        wanted = os.path.realpath(self._settings_file)
        names = (os.path.basename(self._settings_file), os.path.basename(wanted))
        return any(
            each.path.endswith(names) and os.path.realpath(each.path) == wanted
            for each in differences
        )

    def _watching(self) -> None:
        say(
            "watching",
            roots=list(self._tree.roots.values()),
            directories=len(self._tree.dirs),
            mode="poll" if self._polling else "inotify",
            why=self._why,
        )

    def _remark(self, about: str, text: str) -> None:
        """Once for each subject."""
        if about not in self._remarked and len(self._remarked) < 100:
            self._remarked.add(about)
            say("notice", text=text)

    def _note_dirty(self, paths: set[str]) -> None:
        self._dirty |= paths
        self._code.note(time.monotonic(), many=len(paths) > FEW)

    # -- the envdirs

    def _arm_env(self) -> None:
        self._env_identity = self._env_watched.identity()
        if self._inotify is None:
            return
        try:
            for place in self._env_watched.places():
                for directory, name in trail(place):
                    self._inotify.watch_name(directory, name, ENV)
            for each in self._env_watched.directories:
                for path in (each, os.path.join(each, "..data")):
                    if os.path.isdir(path):
                        self._inotify.watch(os.path.abspath(path), ENV)
        except OSError:
            return  # what cannot be watched is read now and then
        except Exception as error:
            if not getattr(error, "sysctl", ""):
                raise
            was = self._polling
            self._exhausted(error)
            if self._tree.roots and not was:
                self._full = True
                self._watching()

    def _read_env(self) -> None:
        self._env.clear()
        self._arm_env()
        before, self._env_state = self._env_state, self._env_watched.read(self._env_state)
        self._next_env = time.monotonic() + self._env_interval()
        if self._env_state != before:
            self._say_env(self._env_state.names(before))
            self._keep()

    def _say_env(self, names: list[str]) -> None:
        say("env", names=names, error=self._env_state.error)

    # -- the memory

    def _settings(self) -> bytes:
        """What the memory is for: with other settings it says nothing."""
        keys = ("watch", "ignore", "only", "env", "env_whole", "env_lenient")
        text = json.dumps([os.getcwd(), *(self._config.get(each) for each in keys)])
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    def _keep(self) -> None:
        state = (
            self._settings(),
            self._key,
            self._env_state.error,
            self._env_state.digests,
            self._tree.dump(),
        )
        self._memory.keep(marshal.dumps(state))

    def _recall(self) -> tuple[bool, bool]:
        """Whether it is known what was last told; and whether something was told at all."""
        content, used = self._memory.load()
        if content is None:
            return False, used
        try:
            settings, key, error, digests, tree = marshal.loads(content)  # noqa: S302  our own, by checksum
            if settings != self._settings():
                return False, False
            self._tree.load(tree)
            self._key, self._env_state = key, State(error, digests)
        except (ValueError, EOFError, TypeError, AttributeError):
            self._tree.dirs = {}
            return False, True
        return True, True


def say(event: str, **fields: object) -> None:
    """One line to PID 1. Lists are cut so that it is written at once, and never half. Raises
    OSError.
    """
    lists = {
        name: value[:PATHS] if name == "paths" else value
        for name, value in fields.items()
        if isinstance(value, list)
    }
    texts = {name: value[:1000] for name, value in fields.items() if isinstance(value, str)}
    while True:
        line = json.dumps({"event": event, **fields, **texts, **lists}).encode() + b"\n"
        if len(line) <= LINE:
            break
        longest = max(lists, key=lambda each: len(json.dumps(lists[each])), default="")
        if longest and lists[longest]:
            lists[longest] = lists[longest][:-1]
        else:
            texts = {name: value[: len(value) // 2] for name, value in texts.items()}
    os.write(1, line)


def alive() -> None:
    """Put the alarm off."""
    signal.alarm(HUNG)


def breakpoint_in(path: str) -> int:
    """The line of a Python or Ruby program that stops it in a debugger of the terminal's; 0 if none
    does.
    """
    found = STOPS.get(os.path.splitext(path)[1])
    if found is None or os.environ.get("PYTHONBREAKPOINT"):
        return 0
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(LARGEST)
    except OSError:
        return 0
    first = found.search(text)
    return text.count("\n", 0, first.start()) + 1 if first else 0


def _signature(differences: list[Difference]) -> object:
    return [(each.path, each.entry) for each in differences]


def _strings(config: dict[str, object], name: str) -> list[str]:
    value = config.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{name} is not a list of texts")
    return value


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _limit(sysctl: str) -> str:
    """A sentence on a limit that is reached, with its present value and who can raise it."""
    what = "watch" if sysctl.endswith("watches") else "instance"
    mine = sysctl.replace("fs.inotify.max_user_", "user.max_inotify_")
    values = []
    for each in (sysctl, mine):
        try:
            with open("/proc/sys/" + each.replace(".", "/"), encoding="ascii") as file:
                values.append((int(file.read()), each))
        except (OSError, ValueError):
            continue
    value, name = min(values, default=(0, sysctl), key=lambda each: (each[0], each[1] != sysctl))
    return f"no inotify {what} is left: raise the sysctl {name}" + (
        f", it is {value}" if value else ""
    )
