"""What the envdirs would give: digests by name, so that a change can be reported by name and no value
is kept in memory.

The digests are keyed with a random key that never leaves PID 1's memory and ours: the plain digest
of a secret would let its value be guessed. A reading that fails is a state of its own: going back
from it to the former values is a change as well.
"""

from __future__ import annotations

import hashlib
import os

from sidecar.base.errors import EnvdirError
from sidecar.settings.types import envdir_parts
from sidecar.system import envdir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class EnvState:
    """One reading: an error (empty if there is none), and the digests; with an error, the last good
    ones.
    """

    def __init__(self, error: str, digests: Mapping[str, bytes]) -> None:
        self.error, self.digests = error, dict(digests)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EnvState) and (self.error, self.digests) == (
            other.error,
            other.digests,
        )

    __hash__ = None  # type: ignore[assignment]

    def changed_names(self, other: EnvState) -> list[str]:
        """The variables that differ."""
        mine, theirs = self.digests, other.digests
        return sorted(
            name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)
        )


class Envdirs:
    """The envdirs, as PID 1 would read them. `key` is the secret key of the digests."""

    def __init__(self, directories: Sequence[str], whole: bool, lenient: bool, key: bytes) -> None:
        self._specs, self._whole, self._lenient = list(directories), whole, lenient
        self.key = key
        self._parts = [(each, False, "") if lenient else envdir_parts(each) for each in directories]
        self.directories = [directory for directory, _, _ in self._parts]

    def read(self, before: EnvState) -> EnvState:
        """The state now."""
        try:
            reading = envdir.read(self._specs, self._whole, self._lenient)
        except EnvdirError as error:
            return EnvState(str(error), before.digests)
        except OSError as error:
            return EnvState(error.strerror or "it cannot be read", before.digests)
        return EnvState(
            "", {name: self._digest(value) for name, value in reading.variables.items()}
        )

    def _digest(self, value: str | None) -> bytes:
        content = b"-" if value is None else b"=" + os.fsencode(value)
        return hashlib.blake2b(content, key=self.key, digest_size=16).digest()

    def deciding_paths(self) -> list[str]:
        """The paths that decide what is read: the directories, the target of Kubernetes' link, and
        linked files.
        """
        result = []
        for directory in self.directories:
            path = os.path.abspath(directory)
            result.append(path)
            data = os.path.join(path, "..data")
            if os.path.islink(data):
                result.append(data)
                path = data
            try:
                with os.scandir(path) as entries:
                    result += [
                        each.path
                        for each in entries
                        if not each.name.startswith(".") and each.is_symlink()
                    ]
            except OSError:
                pass
        return result

    def identity(self) -> tuple[object, ...]:
        """Changes when a directory, or what Kubernetes' link leads to, becomes another one."""
        result: list[object] = []
        for directory in self.directories:
            for path in (directory, os.path.join(directory, "..data")):
                try:
                    status = os.stat(path)
                    result.append((status.st_dev, status.st_ino))
                except OSError as error:
                    result.append(error.errno)
        return tuple(result)

    def changed_since(self, moment_ns: int) -> tuple[bool, list[str]]:
        """Whether something has changed after this wall-clock time; and which variables, as far as that
        can be known.

        A kubelet never changes a file that it has written: a change is a new directory and a new
        link to it. But it gives all files to the pod's fsGroup again whenever it looks at the pod,
        and so each gets a new ctime. So there the mtimes count, which nobody sets back.
        """
        names, late = set(), False
        for directory, upper, prefix in self._parts:
            data = os.path.join(directory, "..data")
            kubelet = os.path.islink(data)
            place, changed = (data, _mtime) if kubelet else (directory, _ctime)
            try:
                late |= (
                    changed(os.stat(directory)) > moment_ns
                    or changed(os.lstat(place)) > moment_ns
                    or changed(os.stat(place)) > moment_ns
                )
                with os.scandir(place) as entries:
                    for each in entries:
                        late_file = (
                            max(changed(each.stat(follow_symlinks=False)), changed(each.stat()))
                            > moment_ns
                        )
                        if (
                            not each.name.startswith(".")
                            and "=" not in each.name
                            and late_file
                            and each.is_file()
                        ):
                            names.add(envdir.variable_name(each.name, upper, prefix))
            except OSError:
                continue
        return late or bool(names), sorted(names)


def _mtime(status: os.stat_result) -> int:
    return status.st_mtime_ns


def _ctime(status: os.stat_result) -> int:
    return status.st_ctime_ns
