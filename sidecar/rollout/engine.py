"""What all engines have in common: a target, what an engine can do with it, and what can go wrong.

The engines are in containers.py (Docker) and pods.py (Kubernetes).
"""

from __future__ import annotations

from sidecar.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO, Protocol

    class Engine(Protocol):
        """The containers of one engine. Methods are called from several threads; all but `find`
        raise TargetError.
        """

        def find(self) -> list[Target]:
            """The targets that run, by name. Raises EngineLost."""

        def execute(self, target: Target, argv: Sequence[str]) -> Finished:
            """Run a command in there, to its end."""

        def check(self, target: Target) -> None:
            """Raises TargetVanished if it does not run any more, or does not soon: it may be ending just
            now.
            """

        def put(self, target: Target, directory: str, archive: IO[bytes]) -> None:
            """Unpack a tar archive into a directory that is there already."""

        def get(self, target: Target, directory: str, into: IO[bytes], most: int) -> None:
            """A tar archive of what is in the directory, one that `put` takes. Raises TooLarge
            where it has more than `most` bytes.
            """

        def owner(self, target: Target) -> int:
            """The number of the user that its program runs as."""


# A command that writes more than this is no sidecar that answers.
MAX_OUTPUT_BYTES = 4 << 20


class Target(Record):
    """One container or pod; `part` is the pod's container."""

    name: str
    id: str
    part: str = ""


class Finished(Record):
    """A command that has run in a container: its exit status and what it wrote."""

    status: int
    out: str
    err: str


class TargetError(Exception):
    """Why something could not be done to a container, in words for people; `kind` is the word for
    programs.
    """

    kind = "refused"


class TargetVanished(TargetError):
    """The container is gone, or does not run any more."""

    kind = "vanished"


class EngineLost(TargetError):
    """The engine does not answer."""

    kind = "lost"


class TooLarge(TargetError):
    """The container gives more than is taken of it."""


class NoSidecar(TargetError):
    """There is no `sidecar` to be run in the container, or none that runs."""

    kind = "no-sidecar"


class StepFailed(TargetError):
    """It was done, and it did not work. `generation` is the one that serves, where that is known."""

    def __init__(self, kind: str, cause: str) -> None:
        super().__init__(cause)
        self.kind = kind


def natural_sort_key(name: str) -> list[tuple[int, str]]:
    """A key to sort names by: web-2 comes before web-10."""
    parts, digits = [""], False
    for char in name:
        if (char in "0123456789") != digits:
            parts.append("")
            digits = not digits
        parts[-1] += char
    return [
        (int(part), "") if part[:1].isascii() and part.isdigit() else (-1, part) for part in parts
    ]
