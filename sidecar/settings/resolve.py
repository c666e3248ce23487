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

# Bytes; who asks for less has forgotten the unit.
LEAST_MEMORY = 1 << 20


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
