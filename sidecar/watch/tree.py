"""What is there, and what differs from what was last told.

A file is its stamp (size, mtime, ctime, inode) and, where known, a digest of its content. The same
stamp is the same file: any write moves the ctime. A stamp that differs means that somebody touched
it, and the digest says whether it matters:

    the size differs                    changed
    both digests are known              changed if they differ: a save of the same text, touch, cp -p, chmod do nothing
    else                                changed if mtime or inode differ: a chmod or a second link does nothing, touch counts

The digest of what *was* there must be known before somebody touches the file. So files of up to 1
MiB are read in advance: the first ones before the watch is said to stand, the others afterwards,
whenever there is nothing else to do, up to a budget. A digest counts only with the stamp that the
file had before and after it was read. Two writes within one tick of the kernel's clock leave the
same stamp: a file whose ctime is not older than the last look is read again (git's "racy" files).

Nothing that a scan finds is kept until it is accepted, which is when it has been told. A scan reads
the dirty directories, and what is new below them; or everything. Directories behind symlinks are
read as well, unless they lie in a tree anyway, lead to one of their own parents, or lie behind too
many links. A root may be a file: then it is taken for a directory that holds that file, whose name is
empty. File systems without files (/proc, /sys) are never entered.
"""

from __future__ import annotations

import errno
import hashlib
import marshal
import os
import stat
import struct
import time

from sidecar.watch.places import fileless, holder, mounts, trail
from sidecar.watch.rules import FILES, Rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sidecar.watch.inotify import Inotify

LARGEST = 1 << 20  # a file that is larger is not read
BUDGET = 256 << 20  # nor are more bytes than these after a change
AT_ONCE = 2000  # files that are read before the watch is said to stand,
AT_ONCE_BYTES = 16 << 20  # and bytes
SOON, SOON_BYTES = 100, 2 << 20  # the same, before a change is told
HOPS = 4  # symlinked directories on one path
MOST = 200_000  # directories

_STAMP = struct.Struct("<Qqqq")
_ALIKE = _STAMP.size
_RACY = 20_000_000  # ns; two ticks of the slowest kernel clock


class Directory:
    """A directory as it was read: entries of its files, identities of its subdirectories, ignored
    names (directories with a slash).
    """

    __slots__ = ("files", "hops", "identity", "ignored", "subdirs", "taken")

    def __init__(self, identity: tuple[int, int], taken: int, hops: int) -> None:
        self.identity, self.taken, self.hops = identity, taken, hops
        self.files: dict[str, bytes] = {}
        self.subdirs: dict[str, tuple[int, int]] = {}
        self.ignored: frozenset[str] | set[str] = frozenset()


class Scan:
    """What a scan found: directories read, directories gone, directories that may not be read."""

    def __init__(self) -> None:
        self.fresh: dict[str, Directory] = {}
        self.gone: set[str] = set()
        self.refused: dict[str, str] = {}
        self.full = False


class Difference:
    """A file that differs: its path, whether it was there before, and its new entry (None: gone)."""

    __slots__ = ("before", "entry", "path")

    def __init__(self, path: str, before: bool, entry: bytes | None) -> None:
        self.path, self.before, self.entry = path, before, entry

    @property
    def emptied(self) -> bool:
        """It has no content now."""
        return self.entry is not None and size(self.entry) == 0


def size(entry: bytes) -> int:
    return int(_STAMP.unpack_from(entry)[0])


def changed_at(entry: bytes) -> int:
    """The ctime, in ns."""
    return int(_STAMP.unpack_from(entry)[2])


def written_at(entry: bytes) -> int:
    """The mtime, in ns."""
    return int(_STAMP.unpack_from(entry)[1])


def differs(old: bytes, new: bytes) -> bool:
    """Whether the content of a file is another one, as far as the two entries tell."""
    if old == new:
        return False
    before, after = _STAMP.unpack_from(old), _STAMP.unpack_from(new)
    if before[0] != after[0]:
        return True
    if len(old) > _ALIKE and len(new) > _ALIKE:
        return old[_ALIKE:] != new[_ALIKE:]
    return (before[1], before[3]) != (after[1], after[3])


def stamp(status: os.stat_result) -> bytes:
    return _STAMP.pack(
        status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & 0x7FFFFFFFFFFFFFFF
    )


def digested(path: str) -> bytes | None:
    """The entry of a file with its digest; None if it cannot be read, is too large, or changes
    while it is read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            return None
        before = stamp(status)
        digest, left = hashlib.blake2b(digest_size=16), LARGEST + 1
        while left > 0 and (piece := os.read(fd, min(left, 1 << 17))):
            digest.update(piece)
            left -= len(piece)
        return before + digest.digest() if stamp(os.fstat(fd)) == before and left > 0 else None
    except OSError:
        return None
    finally:
        os.close(fd)


def _joined(directory: str, name: str) -> str:
    """The path of a file in a directory; a root that is a file has no name in itself."""
    return os.path.join(directory, name) if name else directory


class Tree:
    """What was last told of some roots. `alive` is called now and then during long work."""

    def __init__(
        self,
        roots: Sequence[str],
        ignore: Sequence[str] = (),
        only: Sequence[str] = (),
        apart: Sequence[str] = (),
        alive: Callable[[], object] = int,
        own: Sequence[str] = (),
    ) -> None:
        self.roots = {os.path.abspath(each): each for each in roots}
        self.rules = Rules(list(self.roots), ignore, only, apart, own)
        self.dirs: dict[str, Directory] = {}
        self.inotify: Inotify | None = None
        self._alive = alive
        self._rules_before: Rules | None = None
        self._undigested: list[str] = []
        self._read = 0
        self._crowded = False
        self._look_at_mounts()

    # -- looking

    def scan(self, dirty: Iterable[str] | None = None) -> Scan:
        """Read the directories that are dirty, or everything. Nothing is accepted yet. Raises
        inotify.LimitReached.
        """
        before = self.rules.copy()
        cached = self._rules_before is None and bool(self.dirs)
        found, learnt = self._scan(dirty if cached else None, cached)
        if learnt and cached:
            self._rules_before = before
            found, _ = self._scan(None, False)
        return found

    def _scan(self, dirty: Iterable[str] | None, cached: bool) -> tuple[Scan, bool]:
        found, learnt = Scan(), False
        found.full = dirty is None
        real = [(os.path.realpath(each), each) for each in self.roots]
        if found.full:
            self._look_at_mounts()
        if self.inotify is not None and found.full:
            self.inotify.forget_names(ENV)
        for root in self.roots:
            if self.inotify is not None and (found.full or root in (dirty or ())):
                for directory, name in trail(root):
                    self.inotify.watch_name(directory, name, root, content=os.path.isfile(root))
        stack = [
            (each, self._hops(each))
            for each in (self.roots if dirty is None else {self._known(each) for each in dirty})
            if each not in self.roots or not self.barren(each)
        ]
        while stack:
            path, hops = stack.pop()
            if path in found.fresh:
                continue
            if len(found.fresh) % 256 == 255:
                self._alive()
                if len(found.fresh) > MOST:
                    self._crowded = True
                    break
            old = self.dirs.get(path)
            try:
                new, news = self._directory(path, hops, old, cached, found, real)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    self._lose(path, found)
                else:  # what cannot be read has not changed, as far as we know
                    found.refused[path] = error.strerror or str(error)
                    self._keep(path, found)
                continue
            learnt |= news
            if learnt and cached:
                return found, True
            found.fresh[path] = new
            everything = found.full or old is None or old.identity != new.identity
            for name, identity in new.subdirs.items():
                sub = os.path.join(path, name)
                if (
                    everything
                    or (old is not None and old.subdirs.get(name) != identity)
                    or sub not in self.dirs
                ):
                    stack.append((sub, hops + (identity[0] < 0)))
            if old is not None and not found.full:
                for name in old.subdirs.keys() - new.subdirs.keys():
                    self._lose(os.path.join(path, name), found)
        if found.full:
            found.gone = self.dirs.keys() - found.fresh.keys()
        found.gone -= found.fresh.keys()
        return found, learnt

    def _look_at_mounts(self) -> None:
        """Learn where file systems without files are, by the names they have below the roots."""
        self._mounts = mounts()
        points = [point for point, kind in dict(self._mounts).items() if fileless(point, kind)]
        self.rules.mounts = frozenset(
            os.path.join(root, point[len(where) :])
            for root in self.roots
            for where in [os.path.realpath(root).rstrip("/") + "/"]
            for point in points
            if point.startswith(where)
        )

    def barren(self, path: str) -> str:
        """The type of the file system without files that a path leads to; "" if it leads elsewhere."""
        point, kind = holder(os.path.realpath(path), self._mounts)
        return kind if fileless(point, kind) else ""

    def _known(self, path: str) -> str:
        """The nearest directory, upwards, that is in the tree; or the root."""
        while path not in self.dirs and path not in self.roots and len(path) > 1:
            path = os.path.dirname(path)
        return path

    def _hops(self, path: str) -> int:
        known = self.dirs.get(path)
        return known.hops if known is not None else 0

    def _lose(self, path: str, found: Scan) -> None:
        """The directory is gone, with all that was known below it."""
        stack = [path]
        while stack:
            path = stack.pop()
            if (old := self.dirs.get(path)) is not None and path not in found.gone:
                found.gone.add(path)
                stack += [os.path.join(path, name) for name in old.subdirs]

    def _keep(self, path: str, found: Scan) -> None:
        """The directory stays what it was, with all that was known below it."""
        stack = [path]
        while stack:
            path = stack.pop()
            if (old := self.dirs.get(path)) is not None and path not in found.fresh:
                found.fresh[path] = old
                stack += [os.path.join(path, name) for name in old.subdirs]

    def _directory(
        self,
        path: str,
        hops: int,
        old: Directory | None,
        cached: bool,
        found: Scan,
        real: list[tuple[str, str]],
    ) -> tuple[Directory, bool]:
        """Read one directory; and whether its ignore files say something new. Raises OSError,
        inotify.LimitReached.
        """
        single = path in self.roots and os.path.isfile(path)
        if self.inotify is not None and not single:
            self.inotify.watch(path)
        status = os.stat(path)
        new = Directory(
            (status.st_dev, status.st_ino), time.clock_gettime_ns(time.CLOCK_REALTIME), hops
        )
        if single:
            known = old.files.get("") if old is not None else None
            new.files[""] = self._entry(path, status, known, old.taken if old is not None else 0)
            return new, False
        with os.scandir(path) as listing:
            entries = list(listing)
        learnt = self.rules.learn(path, {each.name for each in entries if each.name in FILES})
        old_names = old if cached else None
        root = self.rules.root(path) or path
        ignored: set[str] = set()
        place = ""
        for entry in entries:
            name, where = entry.name, entry.path
            try:
                link, directory = entry.is_symlink(), entry.is_dir()
            except OSError:  # a loop of links
                continue
            if self._ignored(root, where, name, directory, old_names):
                ignored.add(name + "/" if directory else name)
                continue
            if link and self.inotify is not None:
                place = place or os.path.realpath(path)
                for there, what in trail(os.path.join(place, name)):
                    self.inotify.watch_name(there, what, path)
            try:
                if directory:
                    if not link:
                        new.subdirs[name] = (status.st_dev, entry.inode())
                    elif (
                        identity := self._behind(entry, path, new, hops, found, real)
                    ) is not None:
                        new.subdirs[name] = identity
                elif entry.is_file():
                    known = old.files.get(name) if old is not None else None
                    new.files[name] = self._entry(
                        where, entry.stat(), known, old.taken if old is not None else 0
                    )
            except OSError:  # it has just gone, or is the end of a broken link
                continue
        if ignored:
            new.ignored = ignored
        return new, learnt

    def _ignored(
        self, root: str, path: str, name: str, directory: bool, old: Directory | None
    ) -> bool:
        """Whether the name is ignored, asked of the rules only if it is new."""
        if path in self.rules.mounts:
            return True
        if old is not None:
            if name in (old.subdirs if directory else old.files):
                return False
            if (name + "/" if directory else name) in old.ignored:
                return True
        return self.rules.ignored(root, path, directory)

    def _behind(
        self,
        entry: os.DirEntry[str],
        path: str,
        new: Directory,
        hops: int,
        found: Scan,
        real: list[tuple[str, str]],
    ) -> tuple[int, int] | None:
        """The identity of a directory behind a symlink, marked as such by its sign; None if it is
        not to be read.
        """
        status = entry.stat()
        identity = (status.st_dev, status.st_ino)
        if hops >= HOPS:
            return None
        above, holder = path, new
        while True:
            if holder.identity == identity:
                return None
            if above in self.roots or above == "/":
                break
            above = os.path.dirname(above)
            known = found.fresh.get(above) or self.dirs.get(above)
            if known is None:
                break
            holder = known
        target = os.path.realpath(entry.path)
        if self.barren(target):
            return None
        for where, root in real:
            if target == where or target.startswith(where.rstrip("/") + "/"):
                twin = root.rstrip("/") + target[len(where.rstrip("/")) :]
                if not self.rules.hidden(twin, True):
                    return None
        return (-1 - identity[0], identity[1])

    def _entry(self, path: str, status: os.stat_result, old: bytes | None, taken: int) -> bytes:
        now = stamp(status)
        if old is None:
            return now
        if old[:_ALIKE] == now and (len(old) == _ALIKE or status.st_ctime_ns < taken - _RACY):
            return old
        if len(old) > _ALIKE and size(old) == status.st_size:
            entry = digested(path) or now
            return old if entry == old else entry
        return now

    # -- judging

    def differences(self, found: Scan) -> list[Difference]:
        """The files that differ from what was last told, in order. What only the rules let appear
        or disappear is left out.
        """
        result = []
        for path, new in found.fresh.items():
            old = self.dirs.get(path)
            if old is new:
                continue
            before = old.files if old is not None else {}
            for name, entry in new.files.items():
                known = before.get(name)
                if known is None or (known is not entry and differs(known, entry)):
                    result.append(Difference(_joined(path, name), known is not None, entry))
            if before:
                result += [
                    Difference(_joined(path, name), True, None)
                    for name in before.keys() - new.files.keys()
                ]
        for path in found.gone:
            result += [
                Difference(_joined(path, name), True, None) for name in self.dirs[path].files
            ]
        if self._rules_before is not None:
            result = [
                each
                for each in result
                if not (self._rules_before if not each.before else self.rules).hidden(each.path)
            ]
        return sorted(result, key=lambda each: each.path)

    def appeared(self, found: Scan) -> list[str]:
        """The roots that were not there and are, or were and are not."""
        return [
            each
            for each in self.roots
            if (each in found.fresh) != (each in self.dirs)
            and (each in found.fresh or each in found.gone)
        ]

    def missing(self) -> list[str]:
        """The roots that were there when last told, and are not now."""
        return [each for each in self.roots if each in self.dirs and not os.path.exists(each)]

    def accept(self, found: Scan) -> None:
        """What was found is what is told from now on."""
        for path in found.gone:
            del self.dirs[path]
            self.rules.forget(path)
            if self.inotify is not None:
                self.inotify.unwatch(path)
        self.dirs.update(found.fresh)
        self._rules_before = None
        self._undigested += found.fresh
        self._read = 0
        if self.inotify is not None and found.full:
            self.inotify.tidy(self.dirs)

    def forget_since(self, since: int) -> set[str]:
        """Forget files that changed after `since` (ns), as if they had not been there; their
        directories.

        In a volume that a kubelet writes the mtime counts: variables.py says why.
        """
        result = set()
        volumes = {root for root in self.roots if os.path.islink(os.path.join(root, "..data"))}
        for path, directory in self.dirs.items():
            moment = written_at if self.rules.root(path) in volumes else changed_at
            late = [name for name, entry in directory.files.items() if moment(entry) > since]
            for name in late:
                del directory.files[name]
                result.add(path)
        return result

    def digest_first(self, found: Scan, differences: Sequence[Difference]) -> None:
        """Read a few of the files that are about to be told at once: they are likely to be touched
        again.
        """
        left = SOON_BYTES
        for each in differences[:SOON]:
            if (
                each.entry is not None
                and len(each.entry) == _ALIKE
                and (left := left - size(each.entry)) >= 0
            ):
                known = digested(each.path)
                if known is not None and known[:_ALIKE] == each.entry:
                    directory, name = (
                        (each.path, "") if each.path in found.fresh else os.path.split(each.path)
                    )
                    found.fresh[directory].files[name] = known

    def digest_some(self, files: int, most: int) -> bool:
        """Read up to that many files and bytes whose digest is not known yet; whether there is more
        to do.
        """
        while self._undigested:
            directory = self.dirs.get(path := self._undigested[-1])
            for name, entry in list(directory.files.items()) if directory is not None else ():
                if len(entry) > _ALIKE or (length := size(entry)) > LARGEST:
                    continue
                if self._read + length > BUDGET:
                    self._undigested.clear()
                    return False
                if files <= 0 or most <= 0:
                    return True
                files, most, self._read = files - 1, most - length, self._read + length
                known = digested(_joined(path, name))
                if directory is not None and known is not None and known[:_ALIKE] == entry:
                    directory.files[name] = known
            self._undigested.pop()
        return False

    # -- asking

    def shown(self, path: str) -> str:
        """A path as somebody would say it who named the root as it was named."""
        root = self.rules.root(path)
        return (
            path
            if root is None
            else os.path.normpath(
                os.path.join(self.roots[root], path[len(root.rstrip("/")) + 1 :] or ".")
            )
        )

    def matters(self, directory: str, name: str, is_directory: bool) -> bool:
        """Whether something that happened to this name in a directory of the tree can be a change."""
        if name in FILES:
            return True
        path = os.path.join(directory, name)
        return not self._ignored(
            self.rules.root(directory) or directory,
            path,
            name,
            is_directory,
            self.dirs.get(directory),
        )

    @property
    def crowded(self) -> bool:
        """There are more directories than are watched."""
        return self._crowded

    # -- keeping

    def dump(self) -> bytes:
        return marshal.dumps({path: (each.taken, each.files) for path, each in self.dirs.items()})

    def load(self, data: bytes) -> None:
        """Raises ValueError, EOFError, TypeError for what dump() has not made."""
        self.dirs = {}
        for path, (taken, files) in marshal.loads(data).items():  # noqa: S302  our own, by checksum
            self.dirs[path] = Directory((-1, -1), taken, 0)
            self.dirs[path].files = files


ENV = "\0env"
