"""Words: a target, what any engine can do with it, and what can go wrong. Both containers.py and
pods.py speak them.
"""

from __future__ import annotations

from sidecar.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO, Protocol

    class Fleet(Protocol):
        """The containers of one engine. Methods are called from several threads; all but `find`
        raise any Trouble.
        """

        def find(self) -> list[Target]:
            """The targets that run, by name. Raises Lost."""

        def execute(self, target: Target, argv: Sequence[str]) -> Finished:
            """Run a command in there, to its end."""

        def check(self, target: Target) -> None:
            """Raises Vanished if it does not run any more, or does not soon: it may be ending just
            now.
            """

        def put(self, target: Target, directory: str, archive: IO[bytes]) -> None:
            """Unpack a tar archive into a directory that is there already."""

        def get(self, target: Target, directory: str, into: IO[bytes], most: int) -> None:
            """A tar archive of what is in the directory, one that `put` takes. Raises TooMuch
            where it has more than `most` bytes.
            """

        def owner(self, target: Target) -> int:
            """The number of the user that its program runs as."""


# So much (bytes) of what a command writes is taken; more is no answer of a sidecar.
MOST_OUTPUT = 4 << 20


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


class Trouble(Exception):
    """Why something could not be done to a container, in words for people; `kind` is the word for
    programs.
    """

    kind = "refused"


class Vanished(Trouble):
    """The container is gone, or does not run any more."""

    kind = "vanished"


class Lost(Trouble):
    """The engine does not answer."""

    kind = "lost"


class TooMuch(Trouble):
    """The container gives more than is taken of it."""


class Absent(Trouble):
    """There is no `sidecar` to be run in the container, or none that runs."""

    kind = "no-sidecar"


class Failed(Trouble):
    """It was done, and it did not work. `generation` is the one that serves, where that is known."""

    def __init__(self, kind: str, cause: str) -> None:
        super().__init__(cause)
        self.kind = kind


def natural(name: str) -> list[tuple[int, str]]:
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
