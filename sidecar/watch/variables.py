"""What the envdirs would give: digests by name, so that a change can be told by name and no value
lies around.

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


class State:
    """One reading: `error` (empty if there is none), and the digests, if there is an error the last
    good ones.
    """

    def __init__(self, error: str, digests: Mapping[str, bytes]) -> None:
        self.error, self.digests = error, dict(digests)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and (self.error, self.digests) == (
            other.error,
            other.digests,
        )

    __hash__ = None  # type: ignore[assignment]

    def names(self, other: State) -> list[str]:
        """The variables that differ."""
        mine, theirs = self.digests, other.digests
        return sorted(
            name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)
        )


class Variables:
    """The envdirs, as PID 1 would read them."""

    def __init__(self, directories: Sequence[str], whole: bool, lenient: bool, key: bytes) -> None:
        self._specs, self._whole, self._lenient, self._key = list(directories), whole, lenient, key
        self._parts = [(each, False, "") if lenient else envdir_parts(each) for each in directories]
        self.directories = [directory for directory, _, _ in self._parts]

    def read(self, before: State) -> State:
        """The state now."""
        try:
            reading = envdir.read(self._specs, self._whole, self._lenient)
        except EnvdirError as error:
            return State(str(error), before.digests)
        except OSError as error:
            return State(error.strerror or "it cannot be read", before.digests)
        return State("", {name: self._digest(value) for name, value in reading.variables.items()})

    def _digest(self, value: str | None) -> bytes:
        content = b"-" if value is None else b"=" + os.fsencode(value)
        return hashlib.blake2b(content, key=self._key, digest_size=16).digest()

    def places(self) -> list[str]:
        """The paths that decide what is read: the directories, what Kubernetes' link leads to, and
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

    def since(self, moment: int) -> tuple[bool, list[str]]:
        """Whether something has been changed after `moment` (ns); and which variables, where that
        can be told.

        A kubelet never changes a file that it has written: a change is a new directory and a new
        link to it. But it gives them all to the pod's fsGroup again whenever it looks at the pod,
        which is a new ctime each time. So there the mtimes count, which nobody sets back.
        """
        names, late = set(), False
        for directory, upper, prefix in self._parts:
            data = os.path.join(directory, "..data")
            kubelet = os.path.islink(data)
            place, changed = (data, _mtime) if kubelet else (directory, _ctime)
            try:
                late |= (
                    changed(os.stat(directory)) > moment
                    or changed(os.lstat(place)) > moment
                    or changed(os.stat(place)) > moment
                )
                with os.scandir(place) as entries:
                    for each in entries:
                        late_file = (
                            max(changed(each.stat(follow_symlinks=False)), changed(each.stat()))
                            > moment
                        )
                        if (
                            not each.name.startswith(".")
                            and "=" not in each.name
                            and late_file
                            and each.is_file()
                        ):
                            names.add(envdir.named(each.name, upper, prefix))
            except OSError:
                continue
        return late or bool(names), sorted(names)


def _mtime(status: os.stat_result) -> int:
    return status.st_mtime_ns


def _ctime(status: os.stat_result) -> int:
    return status.st_ctime_ns
