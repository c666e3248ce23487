"""Makes a tar archive of a local directory, as it is at one moment: every container gets the same.

What a copy holds belongs to root, with the modes it has here, as `docker cp` does it: a program has
no business writing to its own code. An envdir's files are secrets: they belong to the user that the
program runs as, and nobody else can read them. The directory itself is not in the archive: the
container's own keeps its owner and mode.

Nothing is ever deleted in a container, since an archive cannot say so, and a shell to say `rm` to
may not be there.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
import tempfile

from pathspec import GitIgnoreSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO, Any

    from sidecar.rollout.plan import Copy


class Archive:
    """What is copied into one directory of each container."""

    def __init__(self, copy: Copy, base: str, secret: bool = False) -> None:
        """Read it. Raises ValueError where that cannot be, in words that name what."""
        self.destination = copy.destination
        self.secret = secret
        self.count = 0
        self.skipped: list[str] = []
        source = os.path.join(base, copy.source)
        if not os.path.isdir(source):
            raise ValueError(f"{source} is no directory")
        try:
            spec = GitIgnoreSpec.from_lines(copy.exclude)
        except ValueError as error:
            raise ValueError(f"exclude: {error}") from None
        # Secrets do not get to a disk.
        self._archive: Any = (
            io.BytesIO() if secret else tempfile.NamedTemporaryFile(prefix="sidecar-rollout-")  # noqa: SIM115
        )
        try:
            self._pack(source, spec)
        except OSError as error:
            raise ValueError(
                f"{error.filename or source} cannot be read: {error.strerror}"
            ) from None

    def _pack(self, source: str, spec: GitIgnoreSpec) -> None:
        with tarfile.open(fileobj=self._archive, mode="w") as archive:
            for path, name in self._files(source, spec):
                info = archive.gettarinfo(path, name)
                # A link to what is in the archive already is a file of its own here: put after it,
                # or without it.
                if info.islnk():
                    info.type, info.size = tarfile.REGTYPE, os.stat(path).st_size
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                if self.secret:
                    info.mode = 0o400
                if info.isreg():
                    with open(path, "rb") as file:
                        archive.addfile(info, file)
                else:
                    archive.addfile(info)
                self.count += not info.isdir()
        self._archive.flush()

    def _files(self, source: str, spec: GitIgnoreSpec) -> Iterator[tuple[str, str]]:
        """What goes in, directories before what is in them: the path and the name in the archive."""
        if self.secret:
            # What an envdir's reader takes, and nothing else: regular files, also behind symlinks,
            # no dotfiles.
            for name in sorted(os.listdir(source)):
                path = os.path.join(source, name)
                if not name.startswith(".") and os.path.isfile(path):
                    yield os.path.realpath(path), name
            return
        for directory, directories, files in os.walk(source):
            place = os.path.relpath(directory, source)
            prefix = "" if place == "." else place + "/"
            kept = []
            for name in sorted(directories):
                linked = os.path.islink(os.path.join(directory, name))
                if not spec.match_file(prefix + name + ("" if linked else "/")):
                    kept.append(name)
                    yield os.path.join(directory, name), prefix + name
            directories[:] = kept
            for name in sorted(files):
                path = os.path.join(directory, name)
                if spec.match_file(prefix + name):
                    continue
                if stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFREG, stat.S_IFLNK):
                    yield path, prefix + name
                else:
                    self.skipped.append(prefix + name)

    def close(self) -> None:
        """Nothing of it stays on the disk. A thread that was left behind may hold it still, so that
        nothing else would remove it.
        """
        with contextlib.suppress(OSError):
            self._archive.close()

    def open_for(self, owner: int) -> IO[bytes]:
        """A file of its own for one container, whose program runs as this user."""
        if not self.secret:
            return open(self._archive.name, "rb")
        whole = io.BytesIO()
        with (
            tarfile.open(fileobj=io.BytesIO(self._archive.getvalue())) as old,
            tarfile.open(fileobj=whole, mode="w") as new,
        ):
            for info in old:
                info.uid = owner
                new.addfile(info, old.extractfile(info))
        whole.seek(0)
        return whole


def archives(copies: Sequence[tuple[Copy, bool]], base: str) -> tuple[list[Archive], list[str]]:
    """All of them, secret or not, and what is wrong with any."""
    found, problems = [], []
    for copy, secret in copies:
        try:
            found.append(Archive(copy, base, secret))
        except ValueError as error:
            problems.append(f"{'envdir' if secret else 'copy'}: {error}")
    return found, problems
