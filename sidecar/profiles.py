"""What well-known programs need, so that nobody has to say it: one row each, proven by a real run
(tests/servers/test_profiles.py).

A row says how the program learns its listeners' descriptors (a protocol of handoff.py, or
arguments), and which signal drains it. It is found by the program's name, also behind `python -m`,
`bundle exec` and `env NAME=value`; an explicit setting wins, and arguments of one's own that say
the same thing (`unless`) keep the row's away. `--profile none` turns all of it off.
"""

from __future__ import annotations

from sidecar.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sidecar.handoff import Passed


class Profile(Record):
    """One program: its names, the signal that drains it, the protocols it needs, and arguments to
    add.

    In `arguments` {fd} and {url} stand for the first stream listener's descriptor and URL; with
    `each`, the arguments are added once for every stream listener. `taken` maps the beginning of an
    argument that the user gave to the protocols it asks for.
    """

    name: str
    programs: tuple[str, ...]
    signal: str = "TERM"
    handoff: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    each: bool = False
    unless: tuple[str, ...] = ()
    taken: tuple[tuple[str, tuple[str, ...]], ...] = ()


PROFILES: dict[str, Profile] = {
    row.name: row
    for row in (
        # gunicorn takes systemd's sockets by itself, and would take fd://3 a second time.
        Profile("gunicorn", ("gunicorn",), taken=(("fd://", ("no-systemd",)),)),
        Profile("uvicorn", ("uvicorn",), arguments=("--fd", "{fd}"), unless=("--fd", "--uds")),
        Profile(
            "hypercorn",
            ("hypercorn",),
            arguments=("--bind", "fd://{fd}"),
            each=True,
            unless=("--bind", "-b", "--insecure-bind"),
        ),
        Profile("nginx", ("nginx",), signal="QUIT", handoff=("nginx",)),
        Profile("haproxy", ("haproxy",), signal="USR1"),
        Profile("php-fpm", ("php-fpm",), signal="QUIT", handoff=("php-fpm",)),
        Profile("starman", ("starman",), signal="QUIT"),
        Profile("twiggy", ("twiggy",), signal="QUIT"),
        Profile("unicorn", ("unicorn", "unicorn_rails"), signal="QUIT"),
        # Puma closes a socket that was passed to it unless it is told to bind that very address.
        Profile(
            "puma",
            ("puma",),
            arguments=("-b", "{url}"),
            each=True,
            unless=("-b", "--bind", "-C", "--config"),
        ),
    )
}

_WRAPPERS = (("python", ("-m",)), ("bundle", ("exec",)))


def program(command: Sequence[str]) -> str:
    """The name of the program that a command runs, as far as its words show it."""
    words = list(command)
    name = _base(words[0])
    if name == "env":
        words = [word for word in words[1:] if "=" not in word] or words
        name = _base(words[0])
    for wrapper, marks in _WRAPPERS:
        if name.rstrip("0123456789.") == wrapper and len(words) > 2 and words[1] in marks:
            return _base(words[2])
    return name


def find(command: Sequence[str]) -> Profile | None:
    """The row of the program that a command runs; a version in its name (php-fpm8.2) does not
    matter.
    """
    name = program(command)
    plain = name.rstrip("0123456789.")
    return next(
        (row for row in PROFILES.values() if name in row.programs or plain in row.programs), None
    )


def protocols(row: Profile, command: Sequence[str]) -> tuple[str, ...]:
    """The protocols that the program needs when it is started so."""
    asked = [
        extra for beginning, extra in row.taken if any(beginning in word for word in command[1:])
    ]
    return (*row.handoff, *(protocol for extra in asked for protocol in extra))


def arguments(row: Profile, command: Sequence[str], passed: Iterable[Passed]) -> tuple[str, ...]:
    """The arguments to add to the command for these listeners; none if its own say it already."""
    streams = [each for each in passed if each.stream]
    if any(word == own or word.startswith(own + "=") for word in command[1:] for own in row.unless):
        return ()
    chosen = streams if row.each else streams[:1]
    return tuple(part.format(fd=each.fd, url=each.url) for each in chosen for part in row.arguments)


def _base(word: str) -> str:
    return word.rpartition("/")[2]
