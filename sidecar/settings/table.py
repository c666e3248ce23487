"""Every setting, defined once: flag, variable, key, kind, default and help are one line here, and
everything else is made from it.

Precedence: flag over variable over settings file over default. All wrong values are reported
together, each with where it came from.
"""

from __future__ import annotations

from sidecar.base.errors import SettingsError
from sidecar.base.record import Field, Record
from sidecar.settings import address, launchers, profiles
from sidecar.settings.protocols import PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

# Linux's signals by name (signal(7)), less KILL and STOP, which no program can answer.
SIGNALS = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT TSTP TTIN TTOU URG XCPU XFSZ VTALRM"  # noqa: SIM905
    " PROF WINCH IO PWR SYS".split()
)

# No duration is longer (seconds).
LONGEST = 36500 * 86400.0

# No size is larger (bytes): it has to fit into what systems count in.
LARGEST = 1 << 62

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


# --- kinds: a text → a value, or ValueError saying what would be right


def duration(text: str) -> float:
    """Seconds, from `500ms`, `30s`, `5m`, `2h`, `1d` or a bare number of seconds."""
    digits = text.rstrip("hmsd")
    unit = _UNITS.get(text[len(digits) :])
    if (
        unit is None
        or not digits
        or set(digits) - set("0123456789.")
        or digits.count(".") > 1
        or digits == "."
    ):
        raise ValueError(f"{text!r} is no duration; say 500ms, 30s, 5m, 2h or a number of seconds")
    if float(digits) * unit > LONGEST:
        raise ValueError(f"{text[:20]!r} is too long; say {LONGEST / 86400:.0f}d at most")
    return float(digits) * unit


class count:  # noqa: N801  (a kind, as the functions around it are)
    """A whole number, `least` or more."""

    def __init__(self, least: int) -> None:
        self.least = least

    def __call__(self, text: str) -> int:
        """The number."""
        if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) < self.least:
            raise ValueError(f"{text!r} is not a whole number of {self.least} or more")
        return int(text)


class choice:  # noqa: N801
    """One of some words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, text: str) -> str:
        """The word."""
        if text not in self.words:
            raise ValueError(f"{text!r} is none of {', '.join(self.words)}")
        return text


def switch(text: str) -> bool:
    """On or off."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError(f"{text!r} is neither yes nor no")


def signal_name(text: str) -> str:
    """A signal's name as Linux spells it, without SIG; case does not matter."""
    name = text.upper().removeprefix("SIG")
    if name not in SIGNALS:
        raise ValueError(
            f"{text!r} is no signal a program can answer; say TERM, QUIT, INT, HUP, USR1, USR2, WINCH …"
        )
    return name


def place(text: str) -> address.Address:
    """An address for sidecar itself: none of the options that are about workers."""
    found = address.parse(text)
    if not found.stream:
        raise ValueError("it is a UDP port; say HOST:PORT or unix:/PATH")
    if found.fd is not None or found.name or found.defer or found.nonblock:
        raise ValueError(
            "=FD, name=, defer and nonblock are for what workers get; say HOST:PORT or unix:/PATH"
        )
    return found


def octal(text: str) -> int:
    """A file mode or mask, written in octal."""
    if not text or len(text) > 4 or set(text) - set("01234567"):
        raise ValueError(f"{text!r} is no octal mask; say 022 or 0077")
    return int(text, 8)


def size(text: str) -> int:
    """Bytes, from `512M`, `1.5G`, `800K` or a bare number of bytes; Kubernetes' `512Mi` is the
    same.
    """
    digits = text.upper().removesuffix("B").removesuffix("I").rstrip("KMGT")
    power = " KMGT".find(text[len(digits) : len(digits) + 1].upper() or " ")
    rest = text[len(digits) :].upper().removesuffix("B").removesuffix("I")
    if (
        not digits
        or set(digits) - set("0123456789.")
        or digits.count(".") > 1
        or digits == "."
        or len(rest) > 1
        or power < 0
    ):
        raise ValueError(f"{text!r} is no size; say 512M, 1.5G, 800K or a number of bytes")
    if float(digits) * 1024**power >= LARGEST:
        raise ValueError(f"{text[:20]!r} is more than any machine has; say 512M, 1.5G or 800K")
    return int(float(digits) * 1024**power)


def words(text: str) -> tuple[str, ...]:
    """A command, split into words as a shell would; no shell runs it."""
    import shlex  # noqa: PLC0415  (only who sets a command pays for it)

    if meant := launchers.shell_syntax(text):
        raise ValueError(
            f"{meant} is for a shell, and no shell runs this command; say sh -c {shlex.quote(text)}"
        )
    try:
        parts = tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"{text!r} cannot be split into words: {error}") from None
    if not parts:
        raise ValueError("the command is empty")
    return parts


def host_name(text: str) -> str:
    """A name as browsers say it, .SUFFIX for all below it, or * for any."""
    labels = text.removeprefix(".").replace("-", "x").replace("_", "x").split(".")
    if text != "*" and not (text.isascii() and all(each.isalnum() for each in labels)):
        raise ValueError(f"{text!r} is no host name; say NAME without a port, .SUFFIX, or *")
    return text


def present(text: str) -> str:
    """Any text but none."""
    if not text:
        raise ValueError("it is empty")
    return text


def envdir(text: str) -> str:
    """A directory of variables, `DIR[,upper][,prefix=NAME]`; the text as it is, `envdir_parts`
    takes it apart.
    """
    envdir_parts(text)
    return text


def envdir_parts(text: str) -> tuple[str, bool, str]:
    """(directory, whether names become upper-case, what is put before them). Raises ValueError."""
    directory, *options = text.split(",")
    upper, prefix = False, ""
    for option in options:
        name, _, value = option.partition("=")
        if name == "prefix" and value and "\0" not in value and "=" not in value:
            prefix = value
        elif option == "upper":
            upper = True
        else:
            raise ValueError(f"{option!r} is no option of an envdir; say upper, or prefix=NAME")
    return present(directory), upper, prefix


class Setting(Field):
    """One setting: how its text is read, its default, and what it says in help. Its name is its
    field's.
    """

    def __init__(
        self,
        kind: Callable[[str], Any],
        default: Any,
        metavar: str,
        text: str,
        *,
        group: str,
        repeat: bool = False,
        fixed: bool = False,
    ) -> None:
        super().__init__(default)
        #: It cannot change while sidecar runs.
        self.fixed = fixed
        self.kind = kind
        self.metavar = metavar
        self.text = text
        self.group = group
        self.repeat = repeat
        self.name = ""

    @property
    def takes_value(self) -> bool:
        """Whether the flag is followed by a value (a switch is not)."""
        return self.kind is not switch

    @property
    def key(self) -> str:
        """`drain-timeout` for drain_timeout: its key in a settings file."""
        return self.name.replace("_", "-")

    @property
    def flag(self) -> str:
        """`--drain-timeout` for drain_timeout."""
        return "--" + self.key

    @property
    def variable(self) -> str:
        """`SIDECAR_DRAIN_TIMEOUT` for drain_timeout."""
        return "SIDECAR_" + self.name.upper()


def setting(
    kind: Callable[[str], Any],
    default: Any,
    metavar: str,
    text: str,
    *,
    group: str,
    repeat: bool = False,
    fixed: bool = False,
) -> Any:
    """Declare a setting. Typed Any so that a field can have its value's type, as dataclasses.field
    does.
    """
    return Setting(kind, default, metavar, text, group=group, repeat=repeat, fixed=fixed)


# Bytes; who asks for less has forgotten the unit.
LEAST_MEMORY = 1 << 20

LISTEN, PROGRAM, READY, SWAP, WATCH = "Listeners", "Program", "Readiness", "Swap", "Watch"
PACE, STOP, FILES = "Restarts", "Stop", "Files and log"


class Settings(Record):
    """What a user chose; the whole of what a run depends on besides the command's environment."""

    command: tuple[str, ...] = ()

    # These have no flag of ours: `start_server` sets them (start_server/main.py).
    signal_on_int: str = ""
    lenient_envdir: bool = False
    pace_from_environment: bool = False
    # What follows a failure is what Server::Starter makes of it: every swap is tried again.
    as_server_starter: bool = False
    # And this one `sidecar dev`: Enter swaps, q stops.
    keys: bool = False
    # The names of those whose value was filled in from the environment: it is not shown.
    secret: tuple[str, ...] = ()
    # And these texts in particular.
    hide: tuple[str, ...] = ()

    port: tuple[address.Address, ...] = setting(
        address.parse,
        (),
        "SPEC",
        "listen on PORT, HOST:PORT, [V6]:PORT, uPORT (UDP) or unix:/PATH",
        group=LISTEN,
        repeat=True,
    )
    backlog: int | None = setting(
        count(1), None, "N", "accept queue of each listener (the kernel's largest)", group=LISTEN
    )

    workers: int = setting(count(1), 1, "N", "workers of a generation", group=PROGRAM)
    envdir: tuple[str, ...] = setting(
        envdir,
        (),
        "DIR",
        "variables from DIR[,upper][,prefix=P], a file each, for every generation",
        group=PROGRAM,
        repeat=True,
    )
    envdir_format: str = setting(
        choice("first-line", "whole"),
        "first-line",
        "FORMAT",
        "first-line, or whole (PEM, JSON)",
        group=PROGRAM,
    )
    dir: str = setting(present, "", "DIR", "start workers in DIR", group=PROGRAM)
    user: str = setting(
        present,
        "",
        "USER",
        "run workers as USER or USER:GROUP (names or numbers)",
        group=PROGRAM,
        fixed=True,
    )
    group: str = setting(
        present, "", "GROUP", "run workers as GROUP (the user's own)", group=PROGRAM, fixed=True
    )
    no_new_privs: bool | None = setting(
        switch,
        None,
        "",
        "no privilege by setuid programs or file capabilities (yes with --user)",
        group=PROGRAM,
        fixed=True,
    )
    umask: int | None = setting(
        octal, None, "MASK", "umask of the workers (sidecar's own)", group=PROGRAM
    )

    profile: str = setting(
        choice("auto", "none", *profiles.PROFILES),
        "auto",
        "NAME",
        "what a known program needs: auto, none or its name",
        group=PROGRAM,
    )
    handoff: tuple[str, ...] = setting(
        choice(*PROTOCOLS),
        (),
        "PROTOCOL",
        "how a program is told its listeners, besides the two usual ways",
        group=PROGRAM,
        repeat=True,
    )

    ready: str = setting(
        choice("auto", "accept", "notify", "interval", "command"),
        "auto",
        "HOW",
        "auto, accept, notify, interval or command",
        group=READY,
    )
    interval: float = setting(
        duration, 1.0, "TIME", "with --ready interval: how long it has to live", group=READY
    )
    ready_command: tuple[str, ...] = setting(
        words, (), "COMMAND", "with --ready command: exits 0 once ready", group=READY
    )
    start_timeout: float = setting(
        duration, 60.0, "TIME", "a worker not ready by then has failed", group=READY
    )

    check: tuple[str, ...] = setting(
        words, (), "COMMAND", "run before a generation starts; if it fails, no swap", group=SWAP
    )
    max_surge: int = setting(
        count(0), 0, "N", "workers started at a time in a swap, 0 for all", group=SWAP
    )
    overlap: str = setting(
        choice("auto", "always", "never"),
        "auto",
        "HOW",
        "old and new workers at once: auto (as memory allows), always, never",
        group=SWAP,
    )
    slow_start: bool = setting(
        switch, False, "", "TTOU to the old master for each new worker of its successor", group=SWAP
    )
    kill_old_delay: float = setting(
        duration, 0.0, "TIME", "wait between ready and retiring the old", group=SWAP
    )
    signal_on_hup: str = setting(
        signal_name, "TERM", "SIGNAL", "retires the old workers in a swap", group=SWAP
    )
    drain_timeout: float = setting(
        duration, 25.0, "TIME", "what has not left by then is killed", group=SWAP
    )

    watch: tuple[str, ...] = setting(
        present,
        (),
        "PATH",
        "swap when a file below PATH changes, or the file PATH",
        group=WATCH,
        repeat=True,
    )
    watch_ignore: tuple[str, ...] = setting(
        present, (), "PATTERN", "but not these, as in .gitignore", group=WATCH, repeat=True
    )
    watch_only: tuple[str, ...] = setting(
        present, (), "PATTERN", "of the files, only these", group=WATCH, repeat=True
    )
    watch_settle: float | None = setting(
        duration, None, "TIME", "quiet before a swap (50ms, for many files 200ms)", group=WATCH
    )
    watch_mode: str = setting(
        choice("auto", "inotify", "poll"),
        "auto",
        "HOW",
        "auto, inotify or poll (network and shared file systems)",
        group=WATCH,
    )
    watch_env: bool = setting(
        switch, False, "", "swap when the envdir would be read differently", group=WATCH
    )
    env_splay: float = setting(
        duration,
        0.0,
        "TIME",
        "but wait up to TIME, so that not all replicas do at once",
        group=WATCH,
    )
    env_poll: float = setting(
        duration, 60.0, "TIME", "read the envdir that often, whatever the system tells", group=WATCH
    )

    enable_auto_restart: bool = setting(switch, False, "", "swap at an interval", group=PACE)
    auto_restart_interval: float = setting(
        duration, 360.0, "TIME", "that interval, up to a tenth longer", group=PACE
    )
    max_workers: int = setting(
        count(0),
        0,
        "N",
        "the most workers that TTIN makes (64, or 4 times --workers if more)",
        group=PACE,
    )
    max_failures: int = setting(
        count(0),
        5,
        "N",
        "exit after N failures in a row with nothing serving, 0: never",
        group=PACE,
    )
    min_uptime: float = setting(
        duration, 10.0, "TIME", "what lived shorter is restarted after a growing pause", group=PACE
    )
    max_backoff: float = setting(duration, 30.0, "TIME", "the longest pause", group=PACE)
    max_memory: int | None = setting(
        size,
        None,
        "SIZE",
        "replace a worker whose processes hold more, gracefully (512M)",
        group=PACE,
    )

    lame_duck: float = setting(
        duration, 0.0, "TIME", "on TERM, go on serving for TIME first", group=STOP
    )
    signal_on_term: str = setting(
        signal_name, "TERM", "SIGNAL", "retires the workers when stopping", group=STOP
    )

    config: str = setting(
        present,
        "",
        "FILE",
        "settings file (./sidecar.yml where there is one), or none",
        group=FILES,
    )
    control: str = setting(
        present,
        "",
        "PATH",
        "control socket (in /run or the first place that can be written), or none",
        group=FILES,
        fixed=True,
    )
    admin: address.Address | None = setting(
        place,
        None,
        "ADDRESS",
        "health, metrics and a page over HTTP, on HOST:PORT or unix:/PATH",
        group=FILES,
        fixed=True,
    )
    admin_host: tuple[str, ...] = setting(
        host_name,
        (),
        "NAME",
        "another host name for the admin; * for any, .SUFFIX for all below it",
        group=FILES,
        repeat=True,
        fixed=True,
    )
    pid_file: str = setting(present, "", "FILE", "write the pid, locked", group=FILES, fixed=True)
    status_file: str = setting(
        present, "", "FILE", "write GENERATION:PID lines", group=FILES, fixed=True
    )
    log_file: str = setting(
        present,
        "",
        "FILE",
        "all output goes to FILE, which HUP and USR1 open anew, or to '| COMMAND'",
        group=FILES,
        fixed=True,
    )
    log_format: str = setting(
        choice("text", "json", "dev"),
        "text",
        "FORMAT",
        "text, json, or dev (short, for a terminal)",
        group=FILES,
    )


# What `sidecar dev` sets unless it is said otherwise.
DEV: dict[str, Any] = {
    "watch": (".",),
    "watch_env": True,
    "log_format": "dev",
    "drain_timeout": 3.0,
    "max_failures": 0,
    "keys": True,
}

TABLE: dict[str, Setting] = {
    name: value for name, value in vars(Settings).items() if isinstance(value, Setting)
}
for _name, _setting in TABLE.items():
    _setting.name = _name

FLAGS: dict[str, Setting] = {each.flag: each for each in TABLE.values()}


class Said(Record):
    """What a settings file says (settings/file.py): by name the texts of a setting, each with its place
    (`sidecar.yml:3: drain-timeout`).

    `filled` names those into which values from the environment were put, `hide` are the texts that
    came of it; `problems` is what is wrong with the file itself.
    """

    file: str = ""
    texts: Mapping[str, Sequence[tuple[str, str]]] = {}
    filled: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def hidden(value: Any, hide: Iterable[str]) -> Any:
    """A text, or a list of them, in which the texts to hide do not show."""
    if isinstance(value, str):
        for each in sorted(hide, key=len, reverse=True):
            value = value.replace(each, "…")
    elif isinstance(value, (list, tuple)):
        return type(value)(hidden(each, hide) for each in value)
    return value


class Choice(Record):
    """The settings, where each that is no default came from, and all that is wrong with them.

    `places`: the same of each text of those that were said, a list in a file has many.
    """

    settings: Settings
    origins: Mapping[str, str]
    problems: tuple[str, ...]
    places: Mapping[str, tuple[str, ...]] = {}


def resolve(
    flags: Iterable[tuple[str, str]],
    environ: Mapping[str, str],
    command: Iterable[str],
    presets: Mapping[str, Any] | None = None,
    said: Said | None = None,
) -> Settings:
    """What `choose` chooses. Raises SettingsError with every problem."""
    choice = choose(flags, environ, command, presets, said)
    if choice.problems:
        raise SettingsError(choice.problems)
    return choice.settings


def choose(
    flags: Iterable[tuple[str, str]],
    environ: Mapping[str, str],
    command: Iterable[str],
    presets: Mapping[str, Any] | None = None,
    said: Said | None = None,
) -> Choice:
    """The settings from the given flags (name, text), the SIDECAR_… variables, a settings file,
    `presets` (values by name), the defaults.

    A repeatable setting takes every flag given, or the words of its variable, or the list in the
    file.
    """
    said = said or Said()
    texts: dict[str, list[tuple[str, str]]] = {}
    for name, each in TABLE.items():
        text = environ.get(each.variable)
        # Kubernetes describes a service called "sidecar" to every pod as
        # SIDECAR_PORT=tcp://10.0.0.1:80: that is no setting of ours. An empty variable, or a blank
        # one, is one that compose passed on unset.
        if text and text.strip() and not text.startswith(("tcp://", "udp://", "sctp://")):
            texts[name] = [
                (word, each.variable) for word in (text.split() if each.repeat else [text])
            ]
    for name, text in flags:
        if not texts.get(name) or texts[name][0][1] != TABLE[name].flag:
            texts[name] = []
        texts[name].append((text, TABLE[name].flag))

    places = {
        name: tuple(origin for _, origin in given)
        for name, given in {**said.texts, **texts}.items()
    }
    origins = {name: each[0] for name, each in places.items()}
    words = tuple(command)
    if words:
        origins["command"] = "the command line"
    else:
        words = tuple(text for text, _ in said.texts.get("command", ()))
    secret = tuple(name for name in said.filled if origins[name] == said.texts[name][0][1])
    values: dict[str, Any] = {
        **(presets or {}),
        "command": words,
        "secret": secret,
        "hide": said.hide,
    }
    problems = list(said.problems)
    # What the file says has to be right even where a flag wins.
    for name, given in [*said.texts.items(), *texts.items()]:
        if name == "command":
            continue
        each = TABLE[name]
        read = []
        for text, origin in given:
            try:
                read.append(each.kind(text))
            except ValueError as error:
                if given is said.texts.get(name) and name in said.filled:
                    problems.append(
                        f"{origin}: with what was filled in from the environment it is no {each.metavar or 'yes or no'}"
                    )
                else:
                    problems.append(f"{origin} {text}: {error}")
        if read:
            values[name] = tuple(read) if each.repeat else read[-1]
    if said.file:
        values["config"] = said.file
    settings, derived = _profiled(Settings(**values), origins)
    problems += _together(settings, origins, bool(said.problems))
    return Choice(
        settings,
        {**dict.fromkeys(presets or {}, "sidecar dev"), **derived, **origins},
        tuple(problems),
        places,
    )


def pace(environ: Mapping[str, str]) -> dict[str, Any]:
    """What Server::Starter's variables say of three settings: enable_auto_restart,
    auto_restart_interval, kill_old_delay.

    Raises SettingsError naming the variables that are wrong. Their values may come from an envdir,
    and are not told.
    """
    problems: list[str] = []

    def seconds(name: str) -> float:
        try:
            return duration(environ.get(name, "").strip() or "0")
        except ValueError:
            problems.append(f"{name} is no duration; say 500ms, 30s, 5m, 2h or a number of seconds")
            return 0.0

    enable = environ.get("ENABLE_AUTO_RESTART", "") not in ("", "0")
    said = {
        "enable_auto_restart": enable,
        "auto_restart_interval": seconds("AUTO_RESTART_INTERVAL") or 360.0,
        "kill_old_delay": seconds("KILL_OLD_DELAY")
        if "KILL_OLD_DELAY" in environ
        else 5.0
        if enable
        else 0.0,
    }
    if problems:
        raise SettingsError(problems)
    return said


def only_time(interval: float) -> str:
    """What is to be said where `--ready auto` has nothing to look at."""
    return (
        "there is no TCP or unix listener to look at: a worker counts as ready when it has been alive for"
        f" --interval {interval:g} s, whether it works or not; better are --ready notify, --ready command, or an --interval"
        " that is longer than its start takes"
    )


def _profiled(settings: Settings, origins: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """What the program's profile says, where the user has said nothing, and of what it said it;
    `profile` is then its name, or none.
    """
    if not settings.command or settings.profile == "none":
        return settings.replace(profile="none"), {}
    row, program = profiles.found(settings.command, settings.profile)
    if row is None:
        return settings.replace(profile="none"), {}
    said: dict[str, Any] = {
        "signal_on_hup": row.signal,
        "signal_on_term": row.signal,
        "handoff": profiles.protocols(row, program),
    }
    if row.interval:
        said["interval"] = row.interval
    said = {name: value for name, value in said.items() if name not in origins}
    return settings.replace(profile=row.name, **said), dict.fromkeys(
        [*said, "profile"], f"profile {row.name}"
    )


def _together(settings: Settings, origins: Mapping[str, str], unread: bool) -> list[str]:
    """What is wrong with settings that are each right by themselves. `unread`: more may have been
    said, in a file with mistakes.
    """
    own = (settings.admin,) if settings.admin is not None else ()
    clashes = address.clashes((*settings.port, *own))
    if clashes and "port" in settings.secret:
        clashes = ["with what was filled in from the environment, two of the addresses clash"]
    problems = [f"{origins['port']}: {problem}" for problem in clashes]
    if not settings.command:
        if not unread:
            problems.append(
                "the program to run is missing; end the line with `-- PROGRAM ARGUMENTS`, or say `command:` in sidecar.yml"
            )
    elif not settings.command[0]:
        problems.append("the program to run is an empty word")
    if settings.ready == "command" and "ready_command" not in origins:
        problems.append(f"{origins['ready']} command: needs --ready-command COMMAND")
    if settings.ready_command and settings.ready != "command":
        problems.append(f"{origins['ready_command']}: needs --ready command")
    if settings.slow_start and settings.ready not in ("auto", "accept"):
        problems.append(
            f"{origins['slow_start']}: needs --ready accept, which counts processes; {settings.ready} does not"
        )
    if settings.slow_start and settings.overlap == "never":
        problems.append(
            f"{origins['slow_start']}: not with {origins['overlap']} never: the old processes leave one by one beside the new"
        )
    if settings.overlap == "never" and settings.max_surge:
        problems.append(
            f"{origins['max_surge']}: not with {origins['overlap']} never: nothing is started beside the old workers"
        )
    if settings.slow_start and settings.max_surge:
        problems.append(
            f"{origins['slow_start']}: not with {origins['max_surge']}: one replaces the processes of a program one by one,"
            " the other sidecar's workers; choose one"
        )
    if settings.watch_env and not settings.envdir and "watch_env" in origins:
        problems.append(f"{origins['watch_env']}: there is no envdir to watch; add --envdir DIR")
    for name in ("watch_ignore", "watch_only", "watch_settle", "watch_mode"):
        if name in origins and not settings.watch:
            problems.append(f"{origins[name]}: nothing is watched; add --watch DIR")
    if settings.env_poll == 0:
        problems.append(
            f"{origins['env_poll']} 0: the envdir would be read without pause; say how often"
        )
    if settings.enable_auto_restart and settings.auto_restart_interval == 0:
        problems.append(
            f"{origins['auto_restart_interval']} 0: there would be nothing but swaps; say how far apart they are"
        )
    if settings.max_memory is not None and settings.max_memory < LEAST_MEMORY:
        problems.append(
            f"{origins['max_memory']} {settings.max_memory}: no program is that small; say 512M, at least 1M"
        )
    if settings.start_timeout == 0:
        problems.append(
            f"{origins['start_timeout']} 0: no worker could ever be ready; say how long one may take"
        )
    return problems
