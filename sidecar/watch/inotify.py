"""inotify, by watchdog: in which directories something may have changed.

This is the only module that imports watchdog. It uses watchdog's class for an inotify instance,
InotifyFD, and reads it in the loop that waits for everything else: its thread is never started.
watchdog's emitters and observers are threads that make file events. Here events are only hints, so
they would cost without use. Measured with `python -m bench.watching` on a busy machine of two cores,
all in one run, medians of three (1,000 directories, a storm of 10,000 new files and 5,000 renames):

                                  system calls   InotifyFD   EventEmitter,    Observer,
                                  only           (this)      BaseObserver     as documented
    threads                       1              1           3                4
    wake-ups at rest              0              0           0                0
    latency of a notice           0.1 ms         0.2 ms      10 ms            10 ms
    CPU for the storm             60 ms          93 ms       250 ms           1060 ms
    context switches, storm       210            250         7900             2600
    last notice after the storm   0.4 ms         16 ms       88 ms            2.7 s
    overflow is reported          yes            yes         yes              no
    watch limit is reported       yes            yes         yes              no

So InotifyFD costs 33 ms more than the bare system calls where 10,000 files change, and saves us the
code for them. The emitter is slower because its events come one by one: the loop has to look twice.
Observer also watches what is ignored, and after an overflow on more than some 8,000 directories it
does not recover.

A watch is on an inode, not on a path: one may stand for several paths, and a path may come to lead
to another inode. So directories are watched by path again at each reading, which is idempotent, and
a watch that no path needs any more is removed.

A watch carries what depends on it: directories of the tree that are read again when something
happens in it (`trees`), and names in it that decide where something else leads (`names`): a symlink
on the way to a root, the target of a linked file.
"""

from __future__ import annotations

import errno
import os
import select
import tempfile
import warnings

from watchdog.observers.inotify_c import CallbackId, InotifyEvent, InotifyFD, Mask, WatchDescriptor
from watchdog.observers.inotify_c import InotifyConstants as In

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator

# Watching a path again is no mistake here.
warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)

_NAMES = (
    In.IN_CREATE
    | In.IN_MOVED_FROM
    | In.IN_MOVED_TO
    | In.IN_DELETE
    | In.IN_DELETE_SELF
    | In.IN_MOVE_SELF
)
_CONTENT = In.IN_MODIFY | In.IN_CLOSE_WRITE
_FLAGS = In.IN_ONLYDIR | In.IN_MASK_ADD | In.IN_EXCL_UNLINK
_BUFFER_BYTES = 1 << 18
_FEW_EVENTS = 1000  # a reading that brings fewer is the last one for now
_ID = CallbackId(0)  # all watches have the same callback


class Dependents:
    """What depends on one watched directory, and the path by which it was watched last."""

    __slots__ = ("names", "path", "trees")

    def __init__(self, path: str) -> None:
        self.path = path
        self.trees: set[str] = set()
        self.names: dict[str, set[str]] = {}


class Event:
    """Something happened to `name` in a directory with these dependents.

    An empty name means the directory itself. `dependents` is None if nothing depends on the watch
    any more.
    """

    __slots__ = ("_event", "dependents", "name")

    def __init__(self, event: InotifyEvent, dependents: Dependents | None) -> None:
        self._event, self.dependents = event, dependents
        self.name = os.fsdecode(event.name)

    @property
    def wd(self) -> int:
        """The number of the watch."""
        return self._event.wd

    @property
    def overflow(self) -> bool:
        """The kernel's queue was full: events were lost."""
        return self._event.is_queue_overflow

    @property
    def directory(self) -> bool:
        """It happened to a directory."""
        return self._event.is_directory or bool(self._event.mask & (In.IN_IGNORED | In.IN_UNMOUNT))

    @property
    def being_written(self) -> bool:
        """A file is being written; another event will tell when this has ended."""
        event = self._event
        return (event.is_modify or event.is_create) and not event.mask & In.IN_ISDIR

    @property
    def complete(self) -> bool:
        """A file is complete, or gone."""
        event = self._event
        return event.is_close_write or event.is_move or event.is_delete


class LimitReached(Exception):
    """No watch, or no inotify instance, is left; `sysctl` is the limit's name."""

    def __init__(self, sysctl: str) -> None:
        self.sysctl = sysctl
        super().__init__(sysctl)


class _Instance(InotifyFD):
    """watchdog's inotify instance, read by its owner: its thread is never started."""

    def __init__(self) -> None:
        super().__init__()
        self._is_reading = False  # so that close() closes the descriptor itself
        os.set_inheritable(self.fileno(), False)  # watchdog lets programs inherit it

    def fileno(self) -> int:
        """The descriptor to wait for. watchdog has no public name for it."""
        return self._inotify_fd


class Inotify:
    """An inotify instance and what its watches stand for.

    `fd` is readable when there is an event.
    """

    def __init__(self) -> None:
        """Raises LimitReached, or OSError where there is no inotify."""
        try:
            self._instance = _Instance()
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise LimitReached("fs.inotify.max_user_instances") from None
            raise
        self.fd = self._instance.fileno()
        self._ready = select.poll()
        self._ready.register(self.fd, select.POLLIN)
        self._watches: dict[int, Dependents] = {}
        self._trees: dict[str, int] = {}
        try:
            self._test()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove all watches, and close the descriptor."""
        self._instance.close()

    def __len__(self) -> int:
        return len(self._watches)

    def _test(self) -> None:
        """Cause an event and see it. Raises OSError if none comes, LimitReached.

        The kernel queues it before the call that caused it returns, so there is nothing to wait
        for.
        """
        try:
            directory = tempfile.mkdtemp(prefix="sidecar-")
        except OSError:  # nowhere to write: opening a directory is an event as well
            wd = self._add("/", In.IN_OPEN | In.IN_ONLYDIR)
            os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        else:
            probe = os.path.join(directory, "probe")
            try:
                wd = self._add(directory, In.IN_CLOSE_WRITE)
                os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            finally:
                for remove, path in ((os.unlink, probe), (os.rmdir, directory)):
                    try:
                        remove(path)
                    except OSError:
                        pass
        seen = [each for each in self._events() if each.wd == wd and not each.mask & In.IN_IGNORED]
        self._remove(wd)
        list(self._events())
        if not seen:
            raise OSError(errno.ENOTSUP, "a file that was written as a test caused no event")

    # What watchdog calls of its callbacks; the events themselves are read below.

    def on_event(self, event: InotifyEvent) -> None:
        """Nothing: see read()."""

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """The watched directory is gone, and with it the watch."""
        dependents = self._watches.pop(wd, None)
        for path in dependents.trees if dependents is not None else ():
            if self._trees.get(path) == wd:
                del self._trees[path]

    def on_queue_overflow(self) -> None:
        """Nothing: see read()."""

    def _add(self, path: str, mask: int) -> WatchDescriptor:
        """Raises LimitReached, OSError."""
        try:
            wd = self._instance.add_callback(os.fsencode(path), Mask(mask), self, _ID)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise LimitReached("fs.inotify.max_user_watches") from None
            raise OSError(error.errno, error.strerror, path) from None
        if wd == -1:  # how watchdog says EACCES
            self._remove(wd)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return wd

    def _remove(self, wd: int) -> None:
        self._instance.remove_callbacks([(WatchDescriptor(wd), _ID)])

    def watch(self, path: str, dependent: str = "") -> None:
        """Everything in directory `path` matters to the tree's directory `dependent` (itself, if
        empty). Raises LimitReached, OSError.
        """
        wd = self._add(path, _NAMES | _CONTENT | _FLAGS)
        if not dependent:
            known = self._trees.get(path)
            if known is not None and known != wd:
                self._unwatch(known, path)
            self._trees[path] = wd
        dependents = self._watches.setdefault(wd, Dependents(path))
        dependents.path = path
        dependents.trees.add(dependent or path)

    def watch_name(self, directory: str, name: str, dependent: str, content: bool = True) -> None:
        """What `name` in `directory` is matters to `dependent`; with `content` what is written to
        it as well.

        Raises LimitReached; a directory that cannot be watched is left out.
        """
        try:
            wd = self._add(directory, _NAMES | _FLAGS | (_CONTENT if content else 0))
        except OSError:
            return
        names = self._watches.setdefault(wd, Dependents(directory)).names
        names.setdefault(name, set()).add(dependent)

    def unwatch(self, path: str) -> None:
        """The directory is not part of the tree any more."""
        wd = self._trees.pop(path, None)
        if wd is not None:
            self._unwatch(wd, path)

    def _unwatch(self, wd: int, path: str) -> None:
        dependents = self._watches.get(wd)
        if dependents is not None:
            dependents.trees.discard(path)
            self._remove_unused(wd, dependents)

    def _remove_unused(self, wd: int, dependents: Dependents) -> None:
        if not dependents.trees and not dependents.names:
            del self._watches[wd]
            self._remove(wd)

    def forget_names(self, keep: str) -> None:
        """Forget every name but those of dependent `keep`: they are about to be watched again."""
        for each in self._watches.values():
            if each.names:
                each.names = {name: {keep} for name, who in each.names.items() if keep in who}

    def tidy(self, trees: Container[str]) -> None:
        """Remove what stands for other directories than these, and the watches that nothing depends
        on.
        """
        for path in [each for each in self._trees if each not in trees]:
            self.unwatch(path)
        for wd, dependents in list(self._watches.items()):
            self._remove_unused(wd, dependents)

    def read(self) -> Iterator[Event]:
        """What has happened since, without waiting."""
        for event in self._events():
            found = Event(event, self._watches.get(event.wd))
            if event.is_ignored:
                self._instance.handle_event(event)  # calls on_watch_deleted()
            yield found

    def _events(self) -> Iterator[InotifyEvent]:
        while self._ready.poll(0):
            events = self._instance.read_events(event_buffer_size=_BUFFER_BYTES)
            yield from events
            if len(events) < _FEW_EVENTS:
                return
