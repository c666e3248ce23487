"""Which settings a run has: flag over variable over settings file over default.

All wrong values are reported together, each with where it came from.
"""

from __future__ import annotations

from sidecar.base.errors import SettingsError
from sidecar.base.record import Record
from sidecar.settings import address, profiles
from sidecar.settings.table import TABLE, Settings
from sidecar.settings.types import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from sidecar.settings.table import Setting

    # The texts of a setting, each with its origin.
    Texts = Sequence[tuple[str, str]]

# Who asks for less has forgotten the unit.
MIN_MEMORY_LIMIT_BYTES = 1 << 20

# How the value of a variable begins by which Kubernetes describes a service: one that is called
# "sidecar" is SIDECAR_PORT=tcp://10.0.0.1:80 in every pod.
SERVICE_URLS = ("tcp://", "udp://", "sctp://")


class FileSettings(Record):
    """What a settings file says (settings/file.py).

    `texts` has the texts of each setting by name, each with its origin (`sidecar.yml:3:
    drain-timeout`). `secret_names` are the settings into which values from the environment were
    filled, `redactions` the texts that came of it. `problems` is what is wrong with the file.
    """

    file: str = ""
    texts: Mapping[str, Texts] = {}
    secret_names: tuple[str, ...] = ()
    redactions: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Resolution(Record):
    """The settings, where each that is no default came from, and all that is wrong with them.

    `text_origins` has the origin of each text of a setting: a list in a file has many lines.
    `secret_names` are the settings whose value may not be shown, `redactions` texts that may not.
    """

    settings: Settings
    origins: Mapping[str, str]
    problems: tuple[str, ...]
    text_origins: Mapping[str, tuple[str, ...]] = {}
    secret_names: tuple[str, ...] = ()
    redactions: tuple[str, ...] = ()

    def checked(self) -> Settings:
        """The settings. Raises SettingsError with every problem, if there is any."""
        if self.problems:
            raise SettingsError(self.problems)
        return self.settings


def redact(value: Any, redactions: Iterable[str]) -> Any:
    """A text, or a list of texts, with "…" for each text that may not be shown."""
    if isinstance(value, str):
        for each in sorted(redactions, key=len, reverse=True):
            value = value.replace(each, "…")
    elif isinstance(value, (list, tuple)):
        return type(value)(redact(each, redactions) for each in value)
    return value


def resolve(
    flags: Iterable[tuple[str, str]],
    environ: Mapping[str, str],
    command: Iterable[str],
    presets: Mapping[str, Any] | None = None,
    from_file: FileSettings | None = None,
) -> Resolution:
    """The settings from the given flags (name, text), the SIDECAR_… variables, a settings file,
    `presets` (values by name) and the defaults.

    A repeatable setting takes every flag given, or the words of its variable, or the list in the
    file.
    """
    file = from_file or FileSettings()
    texts = {**_texts_of_variables(environ), **_texts_of_flags(flags)}
    text_origins = {
        name: tuple(origin for _, origin in given)
        for name, given in {**file.texts, **texts}.items()
    }
    origins = {name: each[0] for name, each in text_origins.items()}
    words = tuple(command)
    if words:
        origins["command"] = "the command line"
    else:
        words = tuple(text for text, _ in file.texts.get("command", ()))
    secret_names = tuple(
        name for name in file.secret_names if origins[name] == file.texts[name][0][1]
    )

    values: dict[str, Any] = {**(presets or {}), "command": words}
    problems = list(file.problems)
    # What the file says has to be right even where a flag wins.
    for name, given in (*file.texts.items(), *texts.items()):
        if name == "command":
            continue
        setting = TABLE[name]
        secret = name in file.secret_names and given is file.texts[name]
        read, wrong = _read_texts(setting, given, secret)
        problems += wrong
        if read:
            values[name] = tuple(read) if setting.repeat else read[-1]
    if file.file:
        values["config"] = file.file
    settings, derived = _with_profile(Settings(**values), origins)
    problems += _cross_checks(settings, origins, "port" in secret_names, bool(file.problems))
    return Resolution(
        settings,
        {**dict.fromkeys(presets or {}, "sidecar dev"), **derived, **origins},
        tuple(problems),
        text_origins,
        secret_names,
        file.redactions,
    )


def _texts_of_variables(environ: Mapping[str, str]) -> dict[str, Texts]:
    """The texts of SIDECAR_… variables by setting. An empty or blank variable is one that compose
    has passed on unset.
    """
    found: dict[str, Texts] = {}
    for name, setting in TABLE.items():
        text = environ.get(setting.variable, "")
        if text.strip() and not text.startswith(SERVICE_URLS):
            words = text.split() if setting.repeat else [text]
            found[name] = [(word, setting.variable) for word in words]
    return found


def _texts_of_flags(flags: Iterable[tuple[str, str]]) -> dict[str, Texts]:
    """The texts of flags by setting."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, text in flags:
        found.setdefault(name, []).append((text, TABLE[name].flag))
    return {**found}


def _read_texts(setting: Setting, texts: Texts, secret: bool) -> tuple[list[Any], list[str]]:
    """The values of these texts, and what is wrong with the others; a secret text is not shown."""
    values, problems = [], []
    for text, origin in texts:
        try:
            values.append(setting.kind(text))
        except ValueError as error:
            if secret:
                expected = setting.metavar or "yes or no"
                problems.append(
                    f"{origin}: with what was filled in from the environment it is no {expected}"
                )
            else:
                problems.append(f"{origin} {text}: {error}")
    return values, problems


def start_server_timing(environ: Mapping[str, str]) -> dict[str, Any]:
    """The three settings that Server::Starter has as variables: enable_auto_restart,
    auto_restart_interval, kill_old_delay.

    Raises SettingsError naming the variables that are wrong. Their values may come from an envdir,
    and are not shown.
    """
    problems: list[str] = []

    def seconds(name: str) -> float:
        try:
            return duration(environ.get(name, "").strip() or "0")
        except ValueError:
            problems.append(f"{name} is no duration; say 500ms, 30s, 5m, 2h or a number of seconds")
            return 0.0

    enable = environ.get("ENABLE_AUTO_RESTART", "") not in ("", "0")
    timing = {
        "enable_auto_restart": enable,
        "auto_restart_interval": seconds("AUTO_RESTART_INTERVAL") or 360.0,
        "kill_old_delay": 5.0 if enable else 0.0,
    }
    if "KILL_OLD_DELAY" in environ:
        timing["kill_old_delay"] = seconds("KILL_OLD_DELAY")
    if problems:
        raise SettingsError(problems)
    return timing


def no_listener_to_probe(interval: float) -> str:
    """The remark about `--ready auto` without a listener. `interval` is in seconds."""
    return (
        "there is no TCP or unix listener to look at: a worker counts as ready when it has been"
        f" alive for --interval {interval:g} s, whether it works or not; better are --ready notify,"
        " --ready command, or an --interval that is longer than its start takes"
    )


def _with_profile(
    settings: Settings, origins: Mapping[str, str]
) -> tuple[Settings, dict[str, str]]:
    """The settings with what the program's profile says where the user has said nothing, and the
    origins of that. `profile` is then its name, or none.
    """
    if not settings.command or settings.profile == "none":
        return settings.replace(profile="none"), {}
    row, program = profiles.find(settings.command, settings.profile)
    if row is None:
        return settings.replace(profile="none"), {}
    values: dict[str, Any] = {
        "signal_on_hup": row.signal,
        "signal_on_term": row.signal,
        "handoff": profiles.protocols(row, program),
    }
    if row.interval:
        values["interval"] = row.interval
    values = {name: value for name, value in values.items() if name not in origins}
    return settings.replace(profile=row.name, **values), dict.fromkeys(
        [*values, "profile"], f"profile {row.name}"
    )


def _cross_checks(
    settings: Settings, origins: Mapping[str, str], secret_port: bool, file_is_wrong: bool
) -> list[str]:
    """What is wrong with settings that are each right by themselves. `secret_port`: the addresses
    may not be shown. `file_is_wrong`: the file may have said more than could be read.
    """
    return [
        *_address_problems(settings, origins, secret_port),
        *_command_problems(settings, file_is_wrong),
        *_readiness_problems(settings, origins),
        *_swap_problems(settings, origins),
        *_watch_problems(settings, origins),
        *_range_problems(settings, origins),
    ]


def _address_problems(
    settings: Settings, origins: Mapping[str, str], secret_port: bool
) -> list[str]:
    own = (settings.admin,) if settings.admin is not None else ()
    clashes = address.clashes((*settings.port, *own))
    if clashes and secret_port:
        clashes = ["with what was filled in from the environment, two of the addresses clash"]
    return [f"{origins['port']}: {problem}" for problem in clashes]


def _command_problems(settings: Settings, file_is_wrong: bool) -> list[str]:
    if not settings.command and not file_is_wrong:
        return [
            "the program to run is missing; end the line with `-- PROGRAM ARGUMENTS`,"
            " or say `command:` in sidecar.yml"
        ]
    if settings.command and not settings.command[0]:
        return ["the program to run is an empty word"]
    return []


def _readiness_problems(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    problems = []
    if settings.ready == "command" and "ready_command" not in origins:
        problems.append(f"{origins['ready']} command: needs --ready-command COMMAND")
    if settings.ready_command and settings.ready != "command":
        problems.append(f"{origins['ready_command']}: needs --ready command")
    if settings.slow_start and settings.ready not in ("auto", "accept"):
        problems.append(
            f"{origins['slow_start']}: needs --ready accept, which counts processes;"
            f" {settings.ready} does not"
        )
    return problems


def _swap_problems(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    problems = []
    if settings.slow_start and settings.overlap == "never":
        problems.append(
            f"{origins['slow_start']}: not with {origins['overlap']} never:"
            " the old processes leave one by one beside the new"
        )
    if settings.overlap == "never" and settings.max_surge:
        problems.append(
            f"{origins['max_surge']}: not with {origins['overlap']} never:"
            " nothing is started beside the old workers"
        )
    if settings.slow_start and settings.max_surge:
        problems.append(
            f"{origins['slow_start']}: not with {origins['max_surge']}: one replaces the processes"
            " of a program one by one, the other sidecar's workers; choose one"
        )
    return problems


def _watch_problems(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    problems = []
    if settings.watch_env and not settings.envdir and "watch_env" in origins:
        problems.append(f"{origins['watch_env']}: there is no envdir to watch; add --envdir DIR")
    if not settings.watch:
        problems += [
            f"{origins[name]}: nothing is watched; add --watch DIR"
            for name in ("watch_ignore", "watch_only", "watch_settle", "watch_mode")
            if name in origins
        ]
    return problems


def _range_problems(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    """Values that are possible, and too small to mean anything."""
    problems = []
    if settings.env_poll == 0:
        problems.append(
            f"{origins['env_poll']} 0: the envdir would be read without pause; say how often"
        )
    if settings.enable_auto_restart and settings.auto_restart_interval == 0:
        problems.append(
            f"{origins['auto_restart_interval']} 0: there would be nothing but swaps;"
            " say how far apart they are"
        )
    if settings.max_memory is not None and settings.max_memory < MIN_MEMORY_LIMIT_BYTES:
        problems.append(
            f"{origins['max_memory']} {settings.max_memory}: no program is that small;"
            " say 512M, at least 1M"
        )
    if settings.start_timeout == 0:
        problems.append(
            f"{origins['start_timeout']} 0: no worker could ever be ready;"
            " say how long one may take"
        )
    return problems
