"""What is there, and what differs from what was last reported.

entries.py says when a file counts as changed. The digest of what *was* there must be known before
somebody touches the file, so files of up to 1 MiB are read in advance: the first ones before the
watcher says that it watches, the others afterwards, whenever there is nothing else to do, up to a
budget.

Nothing that a scan finds is kept until it is accepted, which is when it has been reported.
"""

from __future__ import annotations

import marshal
import os

from sidecar.watch import entries
from sidecar.watch.mounts import holder, is_fileless, mounts
from sidecar.watch.rules import IGNORE_FILES, Rules
from sidecar.watch.scanner import Directory, Scan, Scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sidecar.watch.inotify import Inotify

MAX_DIGESTED_BYTES = 256 << 20  # no more are read after a change
START_DIGEST_FILES, START_DIGEST_BYTES = 2000, 16 << 20  # before the watcher says that it watches
REPORT_DIGEST_FILES, REPORT_DIGEST_BYTES = 100, 2 << 20  # before a change is reported


class Difference:
    """A file that differs: its path, whether it was there before, and its new entry (None: gone)."""

    __slots__ = ("before", "entry", "path")

    def __init__(self, path: str, before: bool, entry: bytes | None) -> None:
        self.path, self.before, self.entry = path, before, entry

    @property
    def emptied(self) -> bool:
        """It has no content now."""
        return self.entry is not None and entries.size_bytes(self.entry) == 0


def _joined(directory: str, name: str) -> str:
    """The path of a file in a directory; a root that is a file has no name in itself."""
    return os.path.join(directory, name) if name else directory


class Tree:
    """What was last reported of some roots. `put_off_alarm` is called now and then during long work.

    The other arguments are those of Rules.
    """

    def __init__(
        self,
        roots: Sequence[str],
        ignore: Sequence[str] = (),
        only: Sequence[str] = (),
        apart: Sequence[str] = (),
        put_off_alarm: Callable[[], object] = int,
        own: Sequence[str] = (),
    ) -> None:
        self.roots = {os.path.abspath(each): each for each in roots}
        self.rules = Rules(list(self.roots), ignore, only, apart, own)
        self.dirs: dict[str, Directory] = {}
        self.inotify: Inotify | None = None
        self.put_off_alarm = put_off_alarm
        #: There are more directories than are watched.
        self.too_large = False
        self._rules_before: Rules | None = None
        self._undigested: list[str] = []
        self._digested_bytes = 0
        self.read_mounts()

    # -- looking

    def scan(self, dirty: Iterable[str] | None = None) -> Scan:
        """Read the directories that are dirty, or everything. Nothing is accepted yet. Raises
        inotify.LimitReached.
        """
        before = self.rules.copy()
        cached = self._rules_before is None and bool(self.dirs)
        scanner = Scanner(self, dirty if cached else None, cached)
        found = scanner.run()
        if scanner.rules_changed and cached:
            self._rules_before = before
            found = Scanner(self, None, False).run()
        return found

    def read_mounts(self) -> None:
        """Learn where file systems without files are, by the names they have below the roots."""
        self._mounts = mounts()
        points = [point for point, kind in dict(self._mounts).items() if is_fileless(point, kind)]
        self.rules.mounts = frozenset(
            os.path.join(root, point[len(real) :])
            for root in self.roots
            for real in [os.path.realpath(root).rstrip("/") + "/"]
            for point in points
            if point.startswith(real)
        )

    def fileless_type(self, path: str) -> str:
        """The type of the file system without files that a path leads to; "" if there are files."""
        point, kind = holder(os.path.realpath(path), self._mounts)
        return kind if is_fileless(point, kind) else ""

    # -- comparing

    def differences(self, found: Scan) -> list[Difference]:
        """The files that differ from what was last reported, in order. What only the rules let
        appear or disappear is left out.
        """
        result = []
        for path, new in found.fresh.items():
            if self.dirs.get(path) is not new:
                result += self._differences_in(path, new)
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

    def _differences_in(self, path: str, new: Directory) -> list[Difference]:
        """The files of one directory that differ."""
        old = self.dirs.get(path)
        before = old.files if old is not None else {}
        result = []
        for name, entry in new.files.items():
            known = before.get(name)
            if known is None or (known is not entry and entries.differs(known, entry)):
                result.append(Difference(_joined(path, name), known is not None, entry))
        for name in before.keys() - new.files.keys():
            result.append(Difference(_joined(path, name), True, None))
        return result

    def appeared(self, found: Scan) -> list[str]:
        """The roots that were not there and are, or were and are not."""
        return [
            each
            for each in self.roots
            if (each in found.fresh) != (each in self.dirs)
            and (each in found.fresh or each in found.gone)
        ]

    def missing(self) -> list[str]:
        """The roots that were there when last reported, and are not now."""
        return [each for each in self.roots if each in self.dirs and not os.path.exists(each)]

    def accept(self, found: Scan) -> None:
        """What was found is what counts as reported from now on."""
        for path in found.gone:
            del self.dirs[path]
            self.rules.forget(path)
            if self.inotify is not None:
                self.inotify.unwatch(path)
        self.dirs.update(found.fresh)
        self._rules_before = None
        self._undigested += found.fresh
        self._digested_bytes = 0
        if self.inotify is not None and found.full:
            self.inotify.tidy(self.dirs)

    def forget_since(self, since_ns: int) -> set[str]:
        """Forget files that changed after this wall-clock time, as if they had not been there; their
        directories.

        In a volume that a kubelet writes the mtime counts: envdirs.py says why.
        """
        result = set()
        volumes = {root for root in self.roots if os.path.islink(os.path.join(root, "..data"))}
        for path, directory in self.dirs.items():
            in_volume = self.rules.root(path) in volumes
            moment_ns = entries.written_at_ns if in_volume else entries.changed_at_ns
            late = [name for name, entry in directory.files.items() if moment_ns(entry) > since_ns]
            for name in late:
                del directory.files[name]
                result.add(path)
        return result

    # -- reading in advance

    def digest_reported(self, found: Scan, differences: Sequence[Difference]) -> None:
        """Read a few of the files that are about to be reported: they are likely to be touched
        again soon.
        """
        left = REPORT_DIGEST_BYTES
        for each in differences[:REPORT_DIGEST_FILES]:
            if each.entry is None or entries.has_digest(each.entry):
                continue
            left -= entries.size_bytes(each.entry)
            if left < 0:
                continue
            known = entries.read_entry(each.path)
            if known is not None and entries.same_stamp(known, each.entry):
                single = each.path in found.fresh
                directory, name = (each.path, "") if single else os.path.split(each.path)
                found.fresh[directory].files[name] = known

    def digest_some(self, files: int, most_bytes: int) -> bool:
        """Read up to that many files and bytes whose digest is not known yet; whether there is more
        to do.
        """
        while self._undigested:
            directory = self.dirs.get(path := self._undigested[-1])
            for name, entry in list(directory.files.items()) if directory is not None else ():
                length = entries.size_bytes(entry)
                if entries.has_digest(entry) or length > entries.MAX_DIGESTED_BYTES:
                    continue
                if self._digested_bytes + length > MAX_DIGESTED_BYTES:
                    self._undigested.clear()
                    return False
                if files <= 0 or most_bytes <= 0:
                    return True
                files, most_bytes = files - 1, most_bytes - length
                self._digested_bytes += length
                known = entries.read_entry(_joined(path, name))
                if directory is not None and known is not None and entries.same_stamp(known, entry):
                    directory.files[name] = known
            self._undigested.pop()
        return False

    # -- questions

    def display_path(self, path: str) -> str:
        """A path as somebody would write it who named the root as it was named."""
        root = self.rules.root(path)
        if root is None:
            return path
        below = path[len(root.rstrip("/")) + 1 :] or "."
        return os.path.normpath(os.path.join(self.roots[root], below))

    def ignored(
        self, root: str, path: str, name: str, directory: bool, judged: Directory | None
    ) -> bool:
        """Whether a name is ignored. The rules are asked only if it is not in `judged`, which is the
        directory as it was read before.
        """
        if path in self.rules.mounts:
            return True
        if judged is not None:
            if name in (judged.subdirs if directory else judged.files):
                return False
            if (name + "/" if directory else name) in judged.ignored:
                return True
        return self.rules.ignored(root, path, directory)

    def matters(self, directory: str, name: str, is_directory: bool) -> bool:
        """Whether something that happened to this name in a directory of the tree can be a change."""
        if name in IGNORE_FILES:
            return True
        root = self.rules.root(directory) or directory
        path, judged = os.path.join(directory, name), self.dirs.get(directory)
        return not self.ignored(root, path, name, is_directory, judged)

    # -- keeping

    def dump(self) -> bytes:
        """Everything that was last reported, for load()."""
        return marshal.dumps({path: (each.read_ns, each.files) for path, each in self.dirs.items()})

    def load(self, data: bytes) -> None:
        """Raises ValueError, EOFError, TypeError for what dump() has not made."""
        self.dirs = {}
        for path, (read_ns, files) in marshal.loads(data).items():  # noqa: S302  our own, by checksum
            self.dirs[path] = Directory((-1, -1), read_ns, 0)
            self.dirs[path].files = files
