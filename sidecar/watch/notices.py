"""inotify: in which directories something may have changed.

Only watchdog's binding of the system calls is used (see the package's head). A watch is on an
inode, not on a path: one may stand for several paths, and a path may come to lead to another inode.
So directories are armed by path again at each reading, which is idempotent and costs 3 µs, and a
watch that no path needs any more is removed.

A watch carries what depends on it: directories of the tree that are read anew when something
happens in it (`trees`), and names in it that decide where something else leads (`names`): a link on
the way to a root, the target of a linked file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import tempfile

from watchdog.observers.inotify_c import InotifyConstants as In
from watchdog.observers.inotify_c import (
    Mask,
    WatchDescriptor,
    inotify_add_watch,
    inotify_init,
    inotify_rm_watch,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator

_NAMES = (
    In.IN_CREATE
    | In.IN_MOVED_FROM
    | In.IN_MOVED_TO
    | In.IN_DELETE
    | In.IN_DELETE_SELF
    | In.IN_MOVE_SELF
)
_CONTENT = In.IN_MODIFY | In.IN_CLOSE_WRITE
_HOW = In.IN_ONLYDIR | In.IN_MASK_ADD | In.IN_EXCL_UNLINK
_EVENT = struct.Struct("iIII")
_BUFFER = 1 << 18


class Watch:
    """What depends on one watched directory, and the path by which it was armed. ENV as a tree
    stands for the envdirs.
    """

    __slots__ = ("names", "place", "trees")

    def __init__(self, place: str) -> None:
        self.place = place
        self.trees: set[str] = set()
        self.names: dict[str, set[str]] = {}


class Notice:
    """Something happened to `name` (empty: to the directory itself) in a directory with these
    dependents.
    """

    __slots__ = ("mask", "name", "watch", "wd")

    def __init__(self, wd: int, mask: int, name: str, watch: Watch | None) -> None:
        self.wd, self.mask, self.name, self.watch = wd, mask, name, watch

    @property
    def lost(self) -> bool:
        """The queue was full."""
        return bool(self.mask & In.IN_Q_OVERFLOW)

    @property
    def directory(self) -> bool:
        """It happened to a directory."""
        return bool(
            self.mask
            & (In.IN_ISDIR | In.IN_DELETE_SELF | In.IN_MOVE_SELF | In.IN_IGNORED | In.IN_UNMOUNT)
        )

    @property
    def opened(self) -> bool:
        """A file is being written: its end will be told."""
        return bool(self.mask & (In.IN_MODIFY | In.IN_CREATE)) and not self.mask & In.IN_ISDIR

    @property
    def ended(self) -> bool:
        """A file is whole, or gone."""
        return bool(
            self.mask & (In.IN_CLOSE_WRITE | In.IN_MOVED_FROM | In.IN_MOVED_TO | In.IN_DELETE)
        )


class Exhausted(Exception):
    """No watch, or no inotify instance, is left; `sysctl` is the limit's name."""

    def __init__(self, sysctl: str) -> None:
        self.sysctl = sysctl
        super().__init__(sysctl)


class Notices:
    """An inotify instance and what its watches stand for. `fd` is readable when there is a notice."""

    def __init__(self) -> None:
        """Raises Exhausted, or OSError where there is no inotify."""
        self.fd = inotify_init()
        if self.fd == -1:
            number = ctypes.get_errno()
            if number == errno.EMFILE:
                raise Exhausted("fs.inotify.max_user_instances")
            raise OSError(number, os.strerror(number))
        os.set_inheritable(self.fd, False)
        os.set_blocking(self.fd, False)
        self._watches: dict[int, Watch] = {}
        self._trees: dict[str, int] = {}
        try:
            self._try()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self.fd)

    def __len__(self) -> int:
        return len(self._watches)

    def _try(self) -> None:
        """See an event come. The kernel queues it before the call that caused it returns, so
        nothing is waited for.
        """
        try:
            place = tempfile.mkdtemp(prefix="sidecar-")
        except OSError:  # nowhere to write: opening a directory is an event as well
            wd = self._add("/", In.IN_OPEN | In.IN_ONLYDIR)
            os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        else:
            probe = os.path.join(place, "probe")
            try:
                wd = self._add(place, In.IN_CLOSE_WRITE)
                os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            finally:
                for remove, path in ((os.unlink, probe), (os.rmdir, place)):
                    try:
                        remove(path)
                    except OSError:
                        pass
        heard = [
            each
            for each in self.read()
            if (each.wd == wd and not each.directory) or each.mask & In.IN_OPEN
        ]
        inotify_rm_watch(self.fd, WatchDescriptor(wd))
        list(self.read())
        if not heard:
            raise OSError(errno.ENOTSUP, "a file that was written to try it gave no event")

    def _add(self, path: str, mask: int) -> int:
        """Raises Exhausted, OSError."""
        wd = int(inotify_add_watch(self.fd, os.fsencode(path), Mask(mask)))
        if wd == -1:
            number = ctypes.get_errno()
            if number == errno.ENOSPC:
                raise Exhausted("fs.inotify.max_user_watches")
            raise OSError(number, os.strerror(number), path)
        return wd

    def arm(self, path: str, dependent: str = "") -> None:
        """Everything in directory `path` matters to the tree's directory `dependent` (itself, if
        empty). Raises Exhausted, OSError.
        """
        wd = self._add(path, _NAMES | _CONTENT | _HOW)
        if not dependent:
            known = self._trees.get(path)
            if known is not None and known != wd:
                self._leave(known, path)
            self._trees[path] = wd
        watch = self._watches.setdefault(wd, Watch(path))
        watch.place = path
        watch.trees.add(dependent or path)

    def arm_name(self, directory: str, name: str, dependent: str, content: bool = True) -> None:
        """What `name` in `directory` is matters to `dependent`; with `content` what is written to
        it as well.

        Raises Exhausted; a refusal counts for nothing.
        """
        try:
            wd = self._add(directory, _NAMES | _HOW | (_CONTENT if content else 0))
        except OSError:
            return
        self._watches.setdefault(wd, Watch(directory)).names.setdefault(name, set()).add(dependent)

    def leave(self, path: str) -> None:
        """The directory is not part of the tree any more."""
        wd = self._trees.pop(path, None)
        if wd is not None:
            self._leave(wd, path)

    def _leave(self, wd: int, path: str) -> None:
        watch = self._watches.get(wd)
        if watch is not None:
            watch.trees.discard(path)
            self._drop_unused(wd, watch)

    def _drop_unused(self, wd: int, watch: Watch) -> None:
        if not watch.trees and not watch.names:
            del self._watches[wd]
            inotify_rm_watch(self.fd, WatchDescriptor(wd))

    def forget_names(self, keep: str) -> None:
        """Forget every name but those of dependent `keep`: they are about to be armed again."""
        for watch in self._watches.values():
            if watch.names:
                watch.names = {name: {keep} for name, who in watch.names.items() if keep in who}

    def tidy(self, trees: Container[str]) -> None:
        """Remove what stands for other directories than these, and the watches that nothing depends
        on.
        """
        for path in [each for each in self._trees if each not in trees]:
            self.leave(path)
        for wd, watch in list(self._watches.items()):
            self._drop_unused(wd, watch)

    def read(self) -> Iterator[Notice]:
        """What has happened since, without waiting."""
        while True:
            try:
                data = os.read(self.fd, _BUFFER)
            except BlockingIOError:
                return
            at = 0
            while at + _EVENT.size <= len(data):
                wd, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size
                name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
                at += length
                watch = self._watches.get(wd)
                if mask & In.IN_IGNORED and watch is not None:
                    del self._watches[wd]
                    for path in watch.trees:
                        if self._trees.get(path) == wd:
                            del self._trees[path]
                yield Notice(wd, mask, name, watch)
            if len(data) < _BUFFER // 2:
                return
