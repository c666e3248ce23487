"""What is ignored: patterns of .gitignore's kind, from several places.

The first in this list that has a matching pattern decides:

    --watch-ignore      relative to each root; `!pattern` takes back what follows
    .gitignore          of the file's own directory, then of each one above it, up to the root
    .dockerignore       of the root, in Docker's reading: a pattern is anchored at the root
    DEFAULT_NAMES       names that are never code: version control, caches, environments, editors' temporary files

As with git, nothing inside an ignored directory can be taken back: it is neither read nor watched.
`--watch-only` then limits files, not directories. pathspec is imported only where there is a
pattern.
"""

from __future__ import annotations

import fnmatch
import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from pathspec import GitIgnoreSpec

IGNORE_FILES = frozenset({".gitignore", ".dockerignore"})

# The union of what watchfiles, watchexec, Tilt and compose ignore; and `..*`, where Kubernetes
# keeps what its links lead to. fmt: off
DEFAULT_DIRECTORIES = (
    ".git",
    ".hg",
    ".svn",
    ".bzr",
    ".jj",
    ".tox",
    ".nox",
    ".venv",
    "venv",
    ".idea",
    ".vscode",
    ".vs",
    "node_modules",
    "bower_components",
    "__pycache__",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    ".eggs",
    "*.egg-info",
    ".ipynb_checkpoints",
    ".cache",
    ".parcel-cache",
    ".sass-cache",
    ".nyc_output",
    ".direnv",
    ".terraform",
    ".import_linter_cache",
    ".Trash*",
    "lost+found",
)
DEFAULT_NAMES = (
    ".gitignore",
    ".dockerignore",
    ".gitattributes",
    ".git",
    ".DS_Store",
    "Thumbs.db",
    "*.py[cod]",
    ".*.sw?",
    ".*.sw?x",
    "*.swp",
    "*.swo",
    "*.swx",
    "*~",
    ".#*",
    "#*#",
    "4913",
    "*___jb_tmp___",
    "*___jb_old___",
    ".*.kate-swp",
    ".goutputstream-*",
    ".nfs*",
    "*.tmp.[0-9]*",
    "*-go-tmp-umask",
    "flycheck_*",
    ".flycheck_*",
    "*_flymake",
    "*_flymake.*",
    ".~lock.*#",
    ".syncthing.*",
    ".unison.*",
    ".mutagen-temporary-*",
    ".coverage",
    ".coverage.*",
    "*.pid",
    "*.pid.lock",
    "*.sqlite-journal",
    "*.sqlite-wal",
    "*.sqlite-shm",
    "*.db-journal",
    "*.db-wal",
    "*.db-shm",
    "..*",
)
# fmt: on

# What is written beside a file of sidecar's own: the status file's new content and its reason of a
# failure, and the names that rotated logs get (`out.log.1`, `out.log-20260131.gz`).
_OWN_SUFFIX = r"([.-](failed|\d+)(\..*)?)?"

_FILE = re.compile("|".join(fnmatch.translate(each) for each in DEFAULT_NAMES))
_DIRECTORY = re.compile(
    "|".join(fnmatch.translate(each) for each in (*DEFAULT_DIRECTORIES, *DEFAULT_NAMES))
)


def compile_patterns(lines: Iterable[str]) -> GitIgnoreSpec:
    """The patterns, ready to match. Raises ValueError for one that cannot be."""
    from pathspec import GitIgnoreSpec  # noqa: PLC0415  40 ms, and most trees have no pattern

    return GitIgnoreSpec.from_lines(lines)


def from_dockerignore(lines: Iterable[str]) -> list[str]:
    """Docker's patterns as git has them: each is anchored at the root, also one without a slash."""
    result = []
    for each in lines:
        line = each.strip().removeprefix("\ufeff")
        if not line or line.startswith("#"):
            continue
        sign, pattern = ("!", line[1:].strip()) if line.startswith("!") else ("", line)
        pattern = os.path.normpath(pattern).lstrip("/")
        if pattern not in (".", ""):
            result.append(f"{sign}/{pattern}")
    return result


def _below(root: str, directory: str) -> str:
    """The name that a directory has below a root, by whatever links it was named; "" if it is not
    there.
    """
    real, place = os.path.realpath(directory), os.path.realpath(root).rstrip("/") + "/"
    return os.path.join(root, real.removeprefix(place)) if real.startswith(place) else ""


class Rules:
    """Says of a path under one of the roots whether it is ignored; learns from the ignore files on
    the way.

    Always ignored: directories that are `apart` (envdirs, which are watched in a way
    of their own), files that sidecar writes itself (`own`), and what is in `mounts` (file systems
    without files).
    """

    def __init__(
        self,
        roots: Sequence[str],
        ignore: Sequence[str] = (),
        only: Sequence[str] = (),
        apart: Sequence[str] = (),
        own: Sequence[str] = (),
    ) -> None:
        self.roots = tuple(roots)
        self.mounts: frozenset[str] = frozenset()
        self._apart = frozenset(_below(root, each) for root in self.roots for each in apart)
        self._own = [
            (os.path.realpath(os.path.dirname(each)), re.compile(re.escape(name) + _OWN_SUFFIX))
            for file in own
            for each in {os.path.abspath(file), os.path.realpath(file)}
            if (name := os.path.basename(each))
        ]
        self._ignore = compile_patterns(ignore) if ignore else None
        self._only = compile_patterns(only) if only else None
        self._files: dict[str, tuple[object, GitIgnoreSpec, bool]] = {}
        self._kept: dict[str, tuple[str, ...]] = {}

    def copy(self) -> Rules:
        """The rules as they are now: what is learnt later does not reach the copy."""
        other = Rules(self.roots)
        other._ignore, other._only, other._apart = self._ignore, self._only, self._apart
        other._own, other.mounts = self._own, self.mounts
        other._files, other._kept = dict(self._files), dict(self._kept)
        return other

    def root(self, path: str) -> str | None:
        """The root that the path lies in, the nearest where there are several."""
        found = [
            each for each in self.roots if path == each or path.startswith(each.rstrip("/") + "/")
        ]
        return max(found, key=len) if found else None

    def learn(self, directory: str, names: Collection[str]) -> bool:
        """Read the ignore files of a directory that has these names; whether they say something
        else than before.
        """
        changed = False
        for name in IGNORE_FILES:
            if name == ".dockerignore" and directory not in self.roots:
                continue
            path = os.path.join(directory, name)
            known = self._files.get(path)
            if name not in names:
                changed |= self._files.pop(path, None) is not None
                continue
            try:
                stat = os.stat(path)
                stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
                if known and known[0] == stamp:
                    continue
                with open(path, encoding="utf-8", errors="surrogateescape") as file:
                    lines = file.read(1 << 20).splitlines()
            except OSError:
                continue
            docker = name == ".dockerignore"
            lines = from_dockerignore(lines) if docker else lines
            try:
                rules = compile_patterns(lines)
            except ValueError:
                rules = compile_patterns([])
            if docker:
                self._kept[path] = tuple(each[2:] for each in lines if each.startswith("!"))
            self._files[path] = (stamp, rules, docker)
            changed = True
        return changed

    def forget(self, directory: str) -> None:
        """The directory is gone."""
        for name in IGNORE_FILES:
            self._files.pop(os.path.join(directory, name), None)

    def ignored(self, root: str, path: str, directory: bool) -> bool:
        """Whether this path is ignored by itself; the directories above it are taken as not
        ignored.
        """
        if path in self._apart or path in self.mounts or (not directory and self._is_own(path)):
            return True
        end = "/" if directory else ""
        relative = path[len(root.rstrip("/")) + 1 :]
        if (
            self._ignore is not None
            and (verdict := self._ignore.check_file(relative + end).include) is not None
        ):
            return verdict or self._excluded_by_only(relative, directory)
        if (
            self._files
            and (verdict := self._verdict_of_files(root, path, relative, end)) is not None
        ):
            return verdict or self._excluded_by_only(relative, directory)
        name = os.path.basename(path)
        return bool((_DIRECTORY if directory else _FILE).match(name)) or self._excluded_by_only(
            relative, directory
        )

    def hidden(self, path: str, directory: bool = False) -> bool:
        """Whether this path, or a directory above it, is ignored."""
        root = self.root(path)
        if root is None or path == root:
            return False
        at = len(root.rstrip("/"))
        while (at := path.find("/", at + 1)) >= 0:
            if self.ignored(root, path[:at], True):
                return True
        return self.ignored(root, path, directory)

    def _is_own(self, path: str) -> bool:
        """Whether sidecar writes this file, by whatever links it was named."""
        place, name = os.path.split(path)
        found = [where for where, names in self._own if names.fullmatch(name)]
        return bool(found) and os.path.realpath(place) in found

    def _verdict_of_files(self, root: str, path: str, relative: str, end: str) -> bool | None:
        parent = path
        while len(parent) > len(root):
            parent = os.path.dirname(parent)
            if (known := self._files.get(os.path.join(parent, ".gitignore"))) is not None:
                verdict = known[1].check_file(path[len(parent.rstrip("/")) + 1 :] + end).include
                if verdict is not None:
                    return verdict
        docker = os.path.join(root, ".dockerignore")
        if (known := self._files.get(docker)) is not None:
            verdict = known[1].check_file(relative + end).include
            # Docker takes back what lies in an ignored directory: such a directory has to be
            # entered.
            if (
                verdict
                and end
                and any(
                    each.startswith((relative + "/", "**")) or "*" in each.split("/")[0]
                    for each in self._kept[docker]
                )
            ):
                return None
            return verdict
        return None

    def _excluded_by_only(self, relative: str, directory: bool) -> bool:
        return (
            not directory and self._only is not None and not self._only.check_file(relative).include
        )
