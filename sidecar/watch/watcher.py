"""The loop: waits for inotify, lets what is dirty settle, compares, reports.

A burst begins with the first event that can matter. It is looked at when it has been quiet for the
settle time, at the latest LONGEST_S after it began. It is prolonged while

    a file is open for writing        its close or rename will be seen; for a limited time, since
                                      logs are never closed
    something happens during the look
    `.git/index.lock` is there        a checkout is under way
    files are only gone               an editor may be about to put the new one in place
    a root is gone                    somebody is about to put another in its place
    two looks differ (polling)

At rest there is one wake-up every TICK_S. Then the roots are looked at, since no event says that a
path leads elsewhere, and the safety scan, the polling and the slow reading of the envdirs are done
if they are due.

A process that hangs is of no use and cannot say so. So each turn puts off an alarm, which ends the
process with its stack on stderr; the kernel delivers it to a process whose Python hangs as well.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import select
import signal
import time

from sidecar.watch.burst import FEW_PATHS, OPEN_FILE_TIMEOUT_S, Burst
from sidecar.watch.env_watch import EnvWatch
from sidecar.watch.envdirs import Envdirs, EnvState
from sidecar.watch.mounts import silent_mounts
from sidecar.watch.notices import Notices, limit_text
from sidecar.watch.output import send
from sidecar.watch.saved_state import SavedState
from sidecar.watch.scanner import ENVDIRS, Scan
from sidecar.watch.tree import START_DIGEST_BYTES, START_DIGEST_FILES, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.watch.inotify import Event, Inotify
    from sidecar.watch.tree import Difference

SETTLE_FEW_S, SETTLE_MANY_S = 0.05, 0.2
LONGEST_S = 5.0
TICK_S = 1.25
SAFETY_INTERVAL_S = 30.0
# The time to the next scan is at least its cost times this: 1 % and 2 % of a core.
SAFETY_COST_FACTOR, POLL_COST_FACTOR = 100, 50
ENV_INTERVAL_S = 60.0
HUNG_AFTER_S = 90  # a whole number
MAX_DIRTY = 1000  # more directories than these are a full scan
REST_DIGEST_FILES, REST_DIGEST_BYTES = 64, 4 << 20  # in one turn at rest


class Watcher:
    """The watcher of one sidecar. `config` is described in __main__.py."""

    def __init__(self, config: dict[str, object]) -> None:
        """Raises ValueError."""
        self._config = config
        self._settle_s = _number(config.get("settle"))
        roots, ignore, only, apart = (
            _strings(config, name) for name in ("watch", "ignore", "only", "env")
        )
        self._tree = Tree(roots, ignore, only, apart, put_off_alarm, _strings(config, "own"))
        self._notices = Notices(self._tree)
        self._settings_file = str(config.get("settings") or "")
        self._mode, self._mode_reason = str(config.get("mode") or "auto"), ""
        self._polling = False
        self._inotify: Inotify | None = None
        memory = config.get("memory")
        self._saved = SavedState(memory if isinstance(memory, int) else None)
        whole, lenient = bool(config.get("env_whole")), bool(config.get("env_lenient"))
        envdirs = Envdirs(_strings(config, "env"), whole, lenient, os.urandom(32))
        interval_s = max(TICK_S, _number(config.get("env_poll")) or ENV_INTERVAL_S)
        self._env = EnvWatch(envdirs, interval_s)
        self._burst = Burst()
        self._dirty: set[str] = set()
        self._all_dirty = False
        self._scan_cost_s = 0.0
        self._next_scan = 0.0
        self._digesting = True
        self._refused: set[str] = set()
        self._rest, self._busy = select.poll(), select.poll()

    # -- the loop

    def run(self) -> None:
        """Watch until standard input ends."""
        for poll in (self._rest, self._busy):
            poll.register(0, select.POLLIN)
        self._begin()
        tick = time.monotonic() + TICK_S
        while True:
            put_off_alarm()
            if self._wait(tick):
                return
            self._read_events()
            now = time.monotonic()
            if _passed(self._deadline(), now):
                self._look(now)
            if _passed(self._env.deadline(), now):
                self._read_env()
            if now >= tick:
                self._on_tick(now)
                tick = time.monotonic() + TICK_S
            if self._digesting and self._burst.first is None:
                self._digest()

    def _wait(self, tick: float) -> bool:
        """Wait until something happens or is due; whether standard input has ended."""
        now = time.monotonic()
        deadlines = [each for each in (self._deadline(), self._env.deadline()) if each is not None]
        # In a burst the queue is looked at in steps: a thousand events cost one wake-up.
        if deadlines:
            step_s = max(0.01, self._settle_time_s() / 5)
            until, poll = min(*deadlines, now + step_s, tick), self._busy
        else:
            until, poll = now if self._digesting else tick, self._rest
        ready = poll.poll(max(0, (until - now) * 1000 + 0.5))
        return any(fd == 0 and not os.read(0, 4096) for fd, _ in ready)

    def _deadline(self) -> float | None:
        return self._burst.deadline(self._settle_time_s(), LONGEST_S)

    def _settle_time_s(self) -> float:
        usual = SETTLE_MANY_S if self._burst.many or self._burst.held else SETTLE_FEW_S
        if self._settle_s is None:
            return usual
        return max(usual, self._settle_s) if self._burst.held else self._settle_s

    def _digest(self) -> None:
        self._digesting = self._tree.digest_some(REST_DIGEST_FILES, REST_DIGEST_BYTES)
        if not self._digesting:
            self._save()

    # -- the beginning

    def _begin(self) -> None:
        """Find out what is there, and report what has changed while no watcher ran."""
        since_ns = int((_number(self._config.get("since")) or 0) * 1e9)
        known, used = self._load()
        self._choose_mode()
        found, _ = self._scan(None)
        if not known:
            self._tree.accept(found)
            late = self._tree.forget_since(since_ns) if since_ns else set()
            if late:
                self._dirty |= late
                self._burst.note(time.monotonic(), many=len(late) > FEW_PATHS)
        self._digesting = self._tree.digest_some(START_DIGEST_FILES, START_DIGEST_BYTES)
        self._watch_env()  # before the reading, so that what happens meanwhile is seen
        reported = self._env.state
        self._env.read()
        now = time.monotonic()
        self._next_scan = now + self._interval_s()
        self._env.schedule(now, self._is_env_blind())
        if not known and self._burst.first is None:
            # From here on nothing is missed, even if this process is killed before its next line.
            self._save()
        self._send_watching()
        self._notices.on_begin()
        if known:
            self._compare_with_saved(found, reported)
        else:
            self._report_unknown(used, since_ns)
        if not self._burst.first:
            self._save()

    def _compare_with_saved(self, found: Scan, reported: EnvState) -> None:
        """Begin bursts for what differs from what the watcher before has reported."""
        if self._tree.differences(found) or self._tree.appeared(found):
            self._all_dirty = True
            self._burst.note(time.monotonic(), many=True)
        else:
            self._tree.accept(found)
        if self._env.state != reported:
            self._env.state = reported
            self._env.burst.note(time.monotonic())

    def _report_unknown(self, used: bool, since_ns: int) -> None:
        """Report what may have changed, where it is not known what was reported before. `used` says
        that something was.
        """
        if used and self._tree.roots:
            send("changed", paths=[], count=0, settings=bool(self._settings_file))
        late, names = self._env.changed_since(since_ns)
        if self._env.used and (used or late or self._env.state.error):
            self._env.send([] if used else names)

    def _choose_mode(self) -> None:
        """Decide between inotify and polling."""
        mode = self._mode
        try:
            from sidecar.watch.inotify import Inotify  # noqa: PLC0415  40 ms and 5 MB, for those who use it

            if mode != "poll" or self._env.used:
                self._inotify = Inotify()
                self._rest.register(self._inotify.fd, select.POLLIN)
        except Exception as error:
            self._give_up_inotify(error)
            return
        if mode == "poll":
            self._polling, self._mode_reason = True, "--watch-mode poll"
        elif mode == "auto":
            for root in self._tree.roots:
                for point, kind in silent_mounts(root):
                    if not self._tree.rules.hidden(point, True):
                        self._polling = True
                        self._mode_reason = (
                            f"inotify tells nothing on {point}: "
                            f"its file system, {kind}, is changed by others"
                        )
        self._tree.inotify = None if self._polling else self._inotify

    def _give_up_inotify(self, error: Exception) -> None:
        """Poll from now on."""
        sysctl = getattr(error, "sysctl", "")
        if self._inotify is not None:
            self._rest.unregister(self._inotify.fd)
            self._inotify.close()
        self._inotify = self._tree.inotify = None
        self._polling = True
        reason = getattr(error, "strerror", None) or error
        self._mode_reason = limit_text(sysctl) if sysctl else f"inotify cannot be used: {reason}"

    # -- at rest

    def _on_tick(self, now: float) -> None:
        """Do what is due at rest."""
        if self._burst.first is None:
            if now >= self._next_scan and self._tree.roots:
                self._scan_all()
            for root in self._tree.roots:
                if root not in self._refused and not self._is_same_root(root):
                    self._dirty.add(root)
                    self._burst.note(now, many=True)
        self._env.on_tick(now)
        self._notices.on_tick()

    def _is_same_root(self, root: str) -> bool:
        """Whether a root's path still leads to the directory that is known."""
        known = self._tree.dirs.get(root)
        try:
            status = os.stat(root)
        except OSError:
            return known is None
        return known is not None and known.identity == (status.st_dev, status.st_ino)

    def _scan_all(self) -> None:
        """The safety scan, or a poll: what differs begins a burst."""
        found, mode_changed = self._scan(None)
        differences = self._tree.differences(found)
        if differences or self._tree.appeared(found):
            self._all_dirty = True
            self._burst.note(time.monotonic(), many=len(differences) > FEW_PATHS)
            self._burst.seen = _signature(differences)
        else:
            self._tree.accept(found)
            self._digesting = True
        if mode_changed:
            self._send_watching()
        self._next_scan = time.monotonic() + self._interval_s()

    def _interval_s(self) -> float:
        """How long until the next full scan."""
        if self._polling:
            return max(TICK_S, self._scan_cost_s * POLL_COST_FACTOR)
        return max(SAFETY_INTERVAL_S, self._scan_cost_s * SAFETY_COST_FACTOR)

    # -- what inotify says

    def _read_events(self) -> None:
        if self._inotify is None:
            return
        now = time.monotonic()
        for event in self._inotify.read():
            if event.overflow:
                self._all_dirty = True
                self._burst.note(now, many=True)
                if self._env.used:
                    self._env.burst.note(now)
            else:
                self._on_event(event, now)

    def _on_event(self, event: Event, now: float) -> None:
        """Mark what depends on it as dirty."""
        trees = self._dependent_trees(event)
        if ENVDIRS in trees:
            trees.discard(ENVDIRS)
            self._env.burst.note(now)
            self._env.burst.note_writing(event, now)
        if not trees:
            return
        self._burst.note(now, event.directory)
        self._burst.note_writing(event, now)
        self._burst.note_path(event)
        self._dirty |= trees
        if not event.name:
            self._dirty |= {os.path.dirname(each) for each in trees}
        if len(self._dirty) > MAX_DIRTY:
            self._all_dirty = True
            self._dirty.clear()

    def _dependent_trees(self, event: Event) -> set[str]:
        """The directories that have to be read again."""
        watched, name = event.dependents, event.name
        if watched is None:
            return set()
        if not name:
            return watched.trees.union(*watched.names.values())
        trees = {
            each
            for each in watched.trees
            if each == ENVDIRS or self._tree.matters(each, name, event.directory)
        }
        return trees | watched.names.get(name, set())

    # -- looking and reporting

    def _scan(self, dirty: set[str] | None) -> tuple[Scan, bool]:
        """Look at what is dirty; and whether the mode has changed. Remembers the cost of a full
        look.
        """
        mode_changed = False
        while True:
            wall, cpu = time.monotonic(), time.process_time()
            try:
                found = self._tree.scan(None if self._polling else dirty)
                break
            except Exception as error:
                if not getattr(error, "sysctl", "") or self._polling:
                    raise
                self._give_up_inotify(error)
                mode_changed = True
        if found.full:
            self._scan_cost_s = max(time.process_time() - cpu, (time.monotonic() - wall) / 4)
        refused = found.refused.keys()
        self._notices.on_scan({each: found.refused[each] for each in refused - self._refused})
        self._refused = set(refused) if found.full else self._refused | refused
        return found, mode_changed

    def _look(self, now: float) -> None:
        """The burst has settled, or has gone on for too long."""
        burst = self._burst
        assert burst.first is not None
        latest = now >= burst.first + LONGEST_S
        if not latest and self._is_git_busy():
            burst.last = now
            return
        found, mode_changed = self._scan(None if self._all_dirty else self._dirty)
        if mode_changed:
            self._all_dirty = True
            self._send_watching()
        last, burst.last = burst.last, -1.0
        self._read_events()
        if burst.last >= 0 and not latest:
            return
        burst.last = last
        differences = self._tree.differences(found)
        appeared = self._tree.appeared(found)
        if not latest and self._is_unfinished(differences, bool(appeared)):
            burst.last = time.monotonic()
            return
        if differences or appeared:
            self._tree.digest_reported(found, differences)
            self._report(differences, appeared)
        self._tree.accept(found)
        self._dirty.clear()
        self._all_dirty = False
        burst.clear()
        self._digesting = True
        if found.full:
            self._next_scan = time.monotonic() + self._interval_s()
        if differences or appeared:
            self._save()

    def _is_unfinished(self, differences: list[Difference], appeared: bool) -> bool:
        """Whether this is a state in between, as far as that can be known."""
        burst = self._burst
        if self._tree.missing():
            return True
        if differences and all(each.entry is None for each in differences) and not burst.held:
            burst.held = True
            return True
        if not self._polling or not (differences or appeared):
            return False
        before, burst.seen = burst.seen, _signature(differences)
        assert burst.first is not None
        emptied = any(each.emptied and each.before for each in differences)
        if emptied and time.monotonic() < burst.first + OPEN_FILE_TIMEOUT_S:
            return True
        return before != burst.seen

    def _is_git_busy(self) -> bool:
        """Whether git is changing a root's files right now. An old lock is that of a git that died."""
        for root in self._tree.roots:
            try:
                locked_at = os.lstat(os.path.join(root, ".git", "index.lock")).st_mtime
            except OSError:
                continue
            if time.time() - locked_at < LONGEST_S:
                return True
        return False

    def _report(self, differences: list[Difference], appeared: list[str]) -> None:
        found = [each.path for each in differences] or appeared
        paths = sorted({self._tree.display_path(each) for each in found})
        settings = self._has_settings_file(differences)
        send("changed", paths=paths, count=len(paths), settings=settings)
        self._notices.on_changed(differences)

    def _has_settings_file(self, differences: list[Difference]) -> bool:
        """Whether sidecar's settings file is among what differs."""
        if not self._settings_file:
            return False
        wanted = os.path.realpath(self._settings_file)
        names = (os.path.basename(self._settings_file), os.path.basename(wanted))
        return any(
            each.path.endswith(names) and os.path.realpath(each.path) == wanted
            for each in differences
        )

    def _send_watching(self) -> None:
        send(
            "watching",
            roots=list(self._tree.roots.values()),
            directories=len(self._tree.dirs),
            mode="poll" if self._polling else "inotify",
            why=self._mode_reason,
        )

    # -- the envdirs

    def _is_env_blind(self) -> bool:
        """Whether changes of the envdirs are found by reading alone."""
        return self._inotify is None or self._mode == "poll"

    def _watch_env(self) -> None:
        """Watch the envdirs, if inotify is used and has watches left."""
        self._env.remember_identity()
        if self._inotify is None:
            return
        try:
            self._env.watch(self._inotify)
        except Exception as error:
            if not getattr(error, "sysctl", ""):
                raise
            was_polling = self._polling
            self._give_up_inotify(error)
            if self._tree.roots and not was_polling:
                self._all_dirty = True
                self._send_watching()

    def _read_env(self) -> None:
        """The envdirs have settled: read them, and report what differs."""
        self._env.burst.clear()
        self._watch_env()
        before = self._env.state
        self._env.read()
        self._env.schedule(time.monotonic(), self._is_env_blind())
        if self._env.state != before:
            self._env.send(self._env.state.changed_names(before))
            self._save()

    # -- what is saved

    def _settings_digest(self) -> bytes:
        """What the saved state is for: with other settings it says nothing."""
        keys = ("watch", "ignore", "only", "env", "env_whole", "env_lenient")
        text = json.dumps([os.getcwd(), *(self._config.get(each) for each in keys)])
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    def _save(self) -> None:
        env = self._env.state
        state = (self._settings_digest(), self._env.key, env.error, env.digests, self._tree.dump())
        self._saved.save(marshal.dumps(state))

    def _load(self) -> tuple[bool, bool]:
        """Whether it is known what was last reported; and whether anything was reported at all."""
        content, used = self._saved.load()
        if content is None:
            return False, used
        try:
            settings, key, error, digests, tree = marshal.loads(content)  # noqa: S302  our own, by checksum
            if settings != self._settings_digest():
                return False, False
            self._tree.load(tree)
            self._env.restore(key, EnvState(error, digests))
        except (ValueError, EOFError, TypeError, AttributeError):
            self._tree.dirs = {}
            return False, True
        return True, True


def put_off_alarm() -> None:
    """The process does not hang: end it only after HUNG_AFTER_S from now."""
    signal.alarm(HUNG_AFTER_S)


def _passed(deadline: float | None, now: float) -> bool:
    return deadline is not None and now >= deadline


def _signature(differences: list[Difference]) -> object:
    return [(each.path, each.entry) for each in differences]


def _strings(config: dict[str, object], name: str) -> list[str]:
    value = config.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{name} is not a list of texts")
    return value


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
