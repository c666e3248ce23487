"""What well-known programs need, so that nobody has to say it: one row each, proven by a real run
(tests/servers/test_profiles.py).

A row says how the program learns its listeners' descriptors (a protocol of settings/protocols.py,
or arguments), and which signal drains it. It is found by the program's name, also behind launchers
(settings/launchers.py); an explicit setting wins, and arguments of the user's that say the same
thing (`unless`) keep the row's away. `--profile none` turns all of it off.
"""

from __future__ import annotations

from sidecar.base.record import Record
from sidecar.settings import launchers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sidecar.settings.launchers import Program
    from sidecar.settings.protocols import Passed


class AddedArguments(Record):
    """Words that are added to the command, behind the program's own name or, with `behind`, behind
    that word of its command line.

    {fd} and {url} in them stand for the first stream listener's descriptor and URL; with `each`
    they are added once for every stream listener. `unless` are the user's own options (a word that
    begins so, `*.ini`: that ends so) which keep them away. `homeless`: only where no directory for
    temporary files can be written.
    """

    words: tuple[str, ...]
    each: bool = False
    unless: tuple[str, ...] = ()
    behind: str = ""
    no_temporary_directory: bool = False

    @property
    def names_sockets(self) -> bool:
        """Whether they say which sockets there are."""
        return any("{fd}" in word or "{url}" in word for word in self.words)


class Profile(Record):
    """One program: its names, the signal that drains it, the protocols it needs, and the words to
    add.

    `taken` maps the beginning of an argument that the user gave to the protocols it asks for.
    `own_pid`: it takes systemd's sockets only if LISTEN_PID is its own pid, which it is not behind
    a launcher that stays as its parent; `relayed` is what it is given there, in the place of the
    row's own. `listen` says what its configuration has to hold, in the imperative. `outvoted` are
    options that name an address and count for nothing once it is given a socket. `unsuitable` are
    options that do not go with being supervised, and why; `needs` are those without which it leaves
    for the background. `reopens`: it opens its own log files anew on USR1.
    """

    name: str
    programs: tuple[str, ...]
    signal: str = "TERM"
    handoff: tuple[str, ...] = ()
    added: tuple[AddedArguments, ...] = ()
    taken: tuple[tuple[str, tuple[str, ...]], ...] = ()
    own_pid: bool = False
    relayed: Relayed | None = None
    listen: str = ""
    overruled: tuple[str, ...] = ()
    unsuitable: tuple[tuple[tuple[str, ...], str], ...] = ()
    needs: tuple[str, ...] = ()
    reopens: bool = False
    #: How long (seconds) one has to live that nobody can look at, 0 if that is as for any program.
    interval: float = 0.0


class Relayed(Record):
    """How a program learns its listeners where LISTEN_PID is not its own pid."""

    handoff: tuple[str, ...] = ()
    added: tuple[AddedArguments, ...] = ()


# gunicorn's workers beat in a file; /dev/shm is writable under a read-only root, too.
_HEARTBEAT = AddedArguments(
    ("--worker-tmp-dir", "/dev/shm"), unless=("--worker-tmp-dir",), no_temporary_directory=True
)
_PUMA = AddedArguments(("-b", "{url}"), each=True, unless=("-b", "--bind", "-C", "--config"))
_AS_PORT = "let `listen` in its configuration name the address as --port does"
_PID_FILE = (
    "two generations cannot share the file; leave it out (--pid-file of sidecar has its own pid)"
)
_BACKGROUND = "it goes to the background, and sidecar takes that for its end; leave it out"
_RELOAD = (
    "it starts its own workers anew beside sidecar; leave it out, and use sidecar dev or --watch"
)

# A configuration file of uWSGI may name the address, too.
_UWSGI_ADDRESS_OPTIONS = (
    "--http", "--http-socket", "--http11-socket", "--https", "--socket", "-s", "--uwsgi-socket",
    "--fastcgi", "--scgi", "--ini", "--yaml", "--yml", "--xml", "--json", "-x", "-y", "*.ini",
    "*.yaml", "*.yml", "*.xml", "*.json",
)  # fmt: skip

PROFILES: dict[str, Profile] = {
    row.name: row
    for row in (
        # gunicorn takes systemd's sockets by itself, and would take fd://3 a second time.
        Profile(
            "gunicorn",
            ("gunicorn",),
            taken=(("fd://", ("no-systemd",)),),
            added=(_HEARTBEAT,),
            overruled=("--bind", "-b"),
            own_pid=True,
            reopens=True,
            relayed=Relayed(
                ("no-systemd",),
                (
                    AddedArguments(("--bind", "fd://{fd}"), each=True, unless=("--bind", "-b")),
                    _HEARTBEAT,
                ),
            ),
            unsuitable=(
                (("--pid", "-p"), _PID_FILE),
                (("--daemon", "-D"), _BACKGROUND),
                (("--reload",), _RELOAD),
            ),
        ),
        Profile(
            "uvicorn",
            ("uvicorn",),
            added=(AddedArguments(("--fd", "{fd}"), unless=("--fd", "--uds")),),
            overruled=("--port",),
            unsuitable=((("--reload",), _RELOAD),),
        ),
        Profile(
            "hypercorn",
            ("hypercorn",),
            added=(
                AddedArguments(
                    ("--bind", "fd://{fd}"),
                    each=True,
                    unless=("--bind", "-b", "--insecure-bind"),
                ),
            ),
            unsuitable=(
                (("--pid", "-p"), _PID_FILE),
                (("--daemon", "-D"), _BACKGROUND),
                (("--reload",), _RELOAD),
            ),
        ),
        Profile(
            "daphne",
            ("daphne",),
            added=(AddedArguments(("--fd", "{fd}"), unless=("--fd", "-u", "-e", "--endpoint")),),
        ),
        Profile(
            "litestar",
            ("litestar",),
            added=(
                AddedArguments(
                    ("--fd", "{fd}"),
                    unless=(
                        "--fd",
                        "--file-descriptor",
                        "-F",
                        "--uds",
                        "--unix-domain-socket",
                        "-U",
                    ),
                    behind="run",
                ),
            ),
            overruled=("--port", "-p"),
            unsuitable=((("--reload", "-r", "--reload-dir", "-R"), _RELOAD),),
        ),
        # TERM means "load again" to uWSGI, unless a hook says otherwise.
        Profile(
            "uwsgi",
            ("uwsgi", "uwsgi-core", "pyuwsgi"),
            added=(
                AddedArguments(
                    ("--http-socket", "fd://{fd}"),
                    each=True,
                    unless=_UWSGI_ADDRESS_OPTIONS,
                ),
                AddedArguments(
                    ("--master", "--hook-master-start", "unix_signal:15 gracefully_kill_them_all"),
                    unless=("--hook-master-start",),
                ),
            ),
            handoff=("no-systemd",),
            unsuitable=(
                (("--daemonize", "-d", "--daemonize2"), _BACKGROUND),
                (("--pidfile",), _PID_FILE),
                (("--die-on-term",), "on TERM it then drops the requests in flight; leave it out"),
                (("--py-autoreload", "--python-autoreload"), _RELOAD),
            ),
        ),
        Profile(
            "nginx", ("nginx",), signal="QUIT", handoff=("nginx",), listen=_AS_PORT, reopens=True
        ),
        Profile(
            "haproxy",
            ("haproxy",),
            signal="USR1",
            listen="say `bind fd@{fd}` in its configuration",
            unsuitable=((("-D",), _BACKGROUND),),
        ),
        Profile(
            "lighttpd",
            ("lighttpd",),
            signal="INT",
            own_pid=True,
            needs=("-D",),
            listen='say server.systemd-socket-activation = "enable" in its configuration,'
            " and server.bind and server.port as in --port",
        ),
        Profile(
            "php-fpm",
            ("php-fpm",),
            signal="QUIT",
            handoff=("php-fpm",),
            listen=_AS_PORT,
            reopens=True,
            needs=("-F", "--nodaemonize"),
            unsuitable=((("-D", "--daemonize"), _BACKGROUND),),
        ),
        Profile("starman", ("starman",), signal="QUIT"),
        Profile("twiggy", ("twiggy",), signal="QUIT"),
        Profile(
            "unicorn",
            ("unicorn", "unicorn_rails"),
            signal="QUIT",
            own_pid=True,
            reopens=True,
            relayed=Relayed(("unicorn", "no-systemd")),
            unsuitable=((("--daemonize", "-D"), _BACKGROUND),),
        ),
        # Puma closes a socket that was passed to it unless it is told to bind that very address.
        Profile(
            "puma",
            ("puma",),
            added=(_PUMA,),
            own_pid=True,
            relayed=Relayed(("puma", "no-systemd"), (_PUMA,)),
        ),
        # These take jobs from a queue, and need some seconds to find that they cannot be imported.
        Profile(
            "celery",
            ("celery",),
            interval=10.0,
            unsuitable=((("--detach", "-D"), _BACKGROUND), (("--pidfile",), _PID_FILE)),
        ),
        Profile("rq", ("rq", "rqworker"), interval=10.0),
    )
}


def find(command: Sequence[str], name: str = "auto") -> tuple[Profile | None, Program]:
    """The row of the program that a command runs, None if it has none, and where the program is; of
    several programs in a shell's text it is the last one that has a row.

    A version in its name (php-fpm8.2) does not matter. With `name`, that row is the one: it may be
    for a program that the command's words do not show.
    """
    there = launchers.programs(command)
    rows = [PROFILES[name]] if name in PROFILES else list(PROFILES.values())
    for program in reversed(there):
        plain = program.name.rstrip("0123456789.")
        for row in rows:
            if program.name in row.programs or plain in row.programs:
                return row, program
    return PROFILES.get(name), there[-1]


def protocols(row: Profile, program: Program) -> tuple[str, ...]:
    """The protocols that the program needs when it is started so."""
    asked = [
        extra
        for beginning, extra in row.taken
        if any(beginning in word for word in program.words[1:])
    ]
    if row.own_pid and program.parent:
        if row.relayed is not None:
            return row.relayed.handoff
        if program.sure:
            return (*row.handoff, "no-systemd")
    return (*row.handoff, *(protocol for extra in asked for protocol in extra))


def with_arguments(
    row: Profile,
    command: Sequence[str],
    program: Program,
    passed: Iterable[Passed],
    no_temporary_directory: bool = False,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The command for these listeners, and the words that were added to it: none if its own say it
    already. `homeless`: no directory for temporary files can be written.
    """
    streams = [each for each in passed if each.stream]
    relayed = row.relayed if row.own_pid and program.parent else None
    more: list[str] = []
    behind = 0
    for added in row.added if relayed is None else relayed.added:
        if any(_has_option(program, option) for option in added.unless) or (
            added.no_temporary_directory and not no_temporary_directory
        ):
            continue
        if added.behind:
            if added.behind not in program.words:
                continue
            behind = program.words.index(added.behind)
        if not added.names_sockets:
            more += added.words
            continue
        for each in streams if added.each else streams[:1]:
            more += [part.format(fd=each.fd, url=each.url) for part in added.words]
    if program.name.rstrip("0123456789.") in row.programs or program.name in row.programs:
        return launchers.inserted(command, program, behind, more), tuple(more)
    return (*command, *more), tuple(more)  # who it is starts with what follows, surely


def own_listener(row: Profile, program: Program) -> str:
    """The option of the user's own that keeps the profile from giving the program the socket."""
    relayed = row.relayed if row.own_pid and program.parent else None
    for added in row.added if relayed is None else relayed.added:
        for word in program.words[1:]:
            if added.names_sockets and any(_matches(word, option) for option in added.unless):
                return word.partition("=")[0]
    return ""


def overruled(row: Profile, program: Program, ports: Sequence[int]) -> list[str]:
    """Where the user's own options name another port than sidecar's, and count for nothing because
    the program is given a socket.
    """
    if not ports or own_listener(row, program):
        return []
    words = program.words[1:]
    for number, word in enumerate(words):
        option, sign, value = word.partition("=")
        if option not in row.overruled:
            continue
        value = value if sign else "".join(words[number + 1 : number + 2])
        port = value.rpartition(":")[2]
        if port.isascii() and port.isdigit() and port not in map(str, ports):
            ours = ", ".join(map(str, ports))
            return [
                f"{row.name} {option} {value} counts for nothing:"
                f" {row.name} is given sidecar's socket and serves on port {ours}; leave {option} out, or say --port {value} to sidecar"
            ]
    return []


def remarks(row: Profile | None, program: Program) -> list[str]:
    """What the command says that does not go with being supervised."""
    if row is None:
        return []
    said = [
        f"{row.name} {option}: {why}"
        for options, why in row.unsuitable
        for option in options
        if _has_option(program, option)
    ]
    if row.needs and not any(_has_option(program, option) for option in row.needs):
        said.append(
            f"{row.name} without {row.needs[0]} goes to the background,"
            f" and sidecar takes that for its end; add {row.needs[0]}"
        )
    if row.own_pid and program.parent and row.relayed is None and program.sure:
        said.append(
            f"{program.parent} stays as the parent of {row.name},"
            " which takes only sockets that were handed to its own pid (LISTEN_PID): LISTEN_FDS is left out;"
            f" start {row.name} itself, or let the shell exec it"
        )
    return said


def _has_option(program: Program, option: str) -> bool:
    """Whether one of the program's words is this option, alone or with its value."""
    return any(_matches(word, option) for word in program.words[1:])


def _matches(word: str, option: str) -> bool:
    if option.startswith("*"):
        return word.endswith(option[1:])
    return word == option or word.startswith(option + "=")
