"""One scan of the tree: reads the directories that are dirty and what is new below them, or all.

Directories behind symlinks are read as well, unless they lie in a tree anyway, lead to one of their
own parents, or lie behind too many links. A root may be a file: then it is taken for a directory
that holds that file, whose name is empty. File systems without files (/proc, /sys) are never
entered.
"""

from __future__ import annotations

import errno
import os
import time

from sidecar.watch import entries
from sidecar.watch.rules import IGNORE_FILES
from sidecar.watch.symlinks import deciding_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.watch.tree import Tree

MAX_LINKED_DIRECTORIES = 4  # on one path
MAX_DIRECTORIES = 200_000
ALARM_DIRECTORIES = 256  # after so many, the alarm is put off

ENVDIRS = "\0env"
"""Stands for the envdirs among what depends on an inotify watch."""


class Directory:
    """A directory as it was read.

    It has the entries of its files, the identities (device, inode) of its subdirectories, and the
    ignored names, directories with a slash. `links` is how many symlinks to directories lead to it;
    `read_ns` is the wall-clock time of the reading.
    """

    __slots__ = ("files", "identity", "ignored", "links", "read_ns", "subdirs")

    def __init__(self, identity: tuple[int, int], read_ns: int, links: int) -> None:
        self.identity, self.read_ns, self.links = identity, read_ns, links
        self.files: dict[str, bytes] = {}
        self.subdirs: dict[str, tuple[int, int]] = {}
        self.ignored: frozenset[str] | set[str] = frozenset()


class Scan:
    """What a scan has found: directories that were read, that are gone, that may not be read.

    `refused` has the reason for each; `full` says that everything was read.
    """

    def __init__(self, full: bool) -> None:
        self.full = full
        self.fresh: dict[str, Directory] = {}
        self.gone: set[str] = set()
        self.refused: dict[str, str] = {}


class Scanner:
    """One scan. `dirty` is None for a full one.

    With `cached`, a name that was judged by the ignore rules before is not judged again.
    """

    def __init__(self, tree: Tree, dirty: Iterable[str] | None, cached: bool) -> None:
        self._tree, self._cached = tree, cached
        self._dirty = None if dirty is None else set(dirty)
        self._found = Scan(dirty is None)
        self._real_roots = [(os.path.realpath(each), each) for each in tree.roots]
        self._real_path = ("", "")
        #: An ignore file says something else than before.
        self.rules_changed = False

    def run(self) -> Scan:
        """Scan. Raises inotify.LimitReached.

        With `cached`, the result is worth nothing if rules_changed is true.
        """
        tree, found = self._tree, self._found
        if found.full:
            tree.read_mounts()
        self._watch_roots()
        stack = self._start()
        while stack and not self._too_many():
            path, links = stack.pop()
            if path in found.fresh:
                continue
            stack += self._visit(path, links)
            if self.rules_changed and self._cached:
                return found
        if found.full:
            found.gone = tree.dirs.keys() - found.fresh.keys()
        found.gone -= found.fresh.keys()
        return found

    def _watch_roots(self) -> None:
        """Watch the names that decide where the roots are."""
        inotify = self._tree.inotify
        if inotify is None:
            return
        if self._found.full:
            inotify.forget_names(ENVDIRS)
        for root in self._tree.roots:
            if self._dirty is None or root in self._dirty:
                for directory, name in deciding_names(root):
                    inotify.watch_name(directory, name, root, content=os.path.isfile(root))

    def _start(self) -> list[tuple[str, int]]:
        """The directories to begin with, and how many links lead to each."""
        tree = self._tree
        first = tree.roots if self._dirty is None else {self._known(each) for each in self._dirty}
        return [
            (each, known.links if (known := tree.dirs.get(each)) is not None else 0)
            for each in first
            if each not in tree.roots or not tree.fileless_type(each)
        ]

    def _known(self, path: str) -> str:
        """The nearest directory, upwards, that is in the tree; or the root."""
        tree = self._tree
        while path not in tree.dirs and path not in tree.roots and len(path) > 1:
            path = os.path.dirname(path)
        return path

    def _too_many(self) -> bool:
        count = len(self._found.fresh)
        if count % ALARM_DIRECTORIES == ALARM_DIRECTORIES - 1:
            self._tree.put_off_alarm()
            if count > MAX_DIRECTORIES:
                self._tree.too_large = True
                return True
        return False

    def _visit(self, path: str, links: int) -> list[tuple[str, int]]:
        """Read one directory; the subdirectories to be read next, with how many links lead there."""
        tree, found = self._tree, self._found
        old = tree.dirs.get(path)
        try:
            new = self._read(path, links, old)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                self._mark_gone(path)
            else:  # what cannot be read has not changed, as far as we know
                found.refused[path] = error.strerror or str(error)
                self._keep(path)
            return []
        if self.rules_changed and self._cached:
            return []
        found.fresh[path] = new
        if old is not None and not found.full:
            for name in old.subdirs.keys() - new.subdirs.keys():
                self._mark_gone(os.path.join(path, name))
        everything = found.full or old is None or old.identity != new.identity
        return [
            (sub, links + (identity[0] < 0))
            for name, identity in new.subdirs.items()
            if (sub := os.path.join(path, name)) not in tree.dirs
            or everything
            or (old is not None and old.subdirs.get(name) != identity)
        ]

    def _mark_gone(self, path: str) -> None:
        """The directory is gone, with all that was known below it."""
        stack = [path]
        while stack:
            path = stack.pop()
            old = self._tree.dirs.get(path)
            if old is not None and path not in self._found.gone:
                self._found.gone.add(path)
                stack += [os.path.join(path, name) for name in old.subdirs]

    def _keep(self, path: str) -> None:
        """The directory stays what it was, with all that was known below it."""
        stack = [path]
        while stack:
            path = stack.pop()
            old = self._tree.dirs.get(path)
            if old is not None and path not in self._found.fresh:
                self._found.fresh[path] = old
                stack += [os.path.join(path, name) for name in old.subdirs]

    def _read(self, path: str, links: int, old: Directory | None) -> Directory:
        """Read one directory. Raises OSError, inotify.LimitReached."""
        tree = self._tree
        single = path in tree.roots and os.path.isfile(path)
        if tree.inotify is not None and not single:
            tree.inotify.watch(path)
        status = os.stat(path)
        now_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
        new = Directory((status.st_dev, status.st_ino), now_ns, links)
        if single:
            new.files[""] = _updated(path, "", status, old)
        else:
            self._list(path, new, old)
        return new

    def _list(self, path: str, new: Directory, old: Directory | None) -> None:
        """Fill in what is in the directory. Raises OSError, inotify.LimitReached."""
        rules = self._tree.rules
        with os.scandir(path) as listing:
            found = list(listing)
        names = {each.name for each in found if each.name in IGNORE_FILES}
        self.rules_changed |= rules.learn(path, names)
        judged = old if self._cached else None
        root = rules.root(path) or path
        ignored: set[str] = set()
        for entry in found:
            name = entry.name
            try:
                directory = entry.is_dir()
                if self._tree.ignored(root, entry.path, name, directory, judged):
                    ignored.add(name + "/" if directory else name)
                    continue
                if entry.is_symlink():
                    self._watch_link(path, name)
                if directory:
                    self._take_directory(entry, path, new)
                elif entry.is_file():
                    new.files[name] = _updated(entry.path, name, entry.stat(), old)
            except OSError:  # a loop of links, the end of a broken link, or it has just gone
                continue
        if ignored:
            new.ignored = ignored

    def _watch_link(self, path: str, name: str) -> None:
        """Watch what decides where a symlink in a directory leads."""
        inotify = self._tree.inotify
        if inotify is None:
            return
        if self._real_path[0] != path:
            self._real_path = (path, os.path.realpath(path))
        for directory, what in deciding_names(os.path.join(self._real_path[1], name)):
            inotify.watch_name(directory, what, path)

    def _take_directory(self, entry: os.DirEntry[str], path: str, new: Directory) -> None:
        """Take up a subdirectory of `path`, which is being read into `new`. Raises OSError."""
        if not entry.is_symlink():
            new.subdirs[entry.name] = (new.identity[0], entry.inode())
        elif (identity := self._behind_link(entry, path, new)) is not None:
            new.subdirs[entry.name] = identity

    def _behind_link(
        self, entry: os.DirEntry[str], path: str, new: Directory
    ) -> tuple[int, int] | None:
        """The identity of a directory behind a symlink, marked as such by its sign.

        None if it is not to be read. Raises OSError.
        """
        status = entry.stat()
        identity = (status.st_dev, status.st_ino)
        if new.links >= MAX_LINKED_DIRECTORIES or self._is_above(identity, path, new):
            return None
        target = os.path.realpath(entry.path)
        if self._tree.fileless_type(target):
            return None
        for real, root in self._real_roots:
            if target == real or target.startswith(real.rstrip("/") + "/"):
                inside = root.rstrip("/") + target[len(real.rstrip("/")) :]
                if not self._tree.rules.hidden(inside, True):
                    return None  # it is read there
        return (-1 - identity[0], identity[1])

    def _is_above(self, identity: tuple[int, int], path: str, new: Directory) -> bool:
        """Whether this is the directory that is being read, or one of those above it."""
        tree = self._tree
        known: Directory | None = new
        while known is not None:
            if known.identity == identity:
                return True
            if path in tree.roots or path == "/":
                return False
            path = os.path.dirname(path)
            known = self._found.fresh.get(path) or tree.dirs.get(path)
        return False


def _updated(path: str, name: str, status: os.stat_result, old: Directory | None) -> bytes:
    if old is None:
        return entries.stamp(status)
    return entries.updated(path, status, old.files.get(name), old.read_ns)
