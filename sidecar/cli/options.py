"""The command line of `run` and `dev`, and what `--help` says.

The options are those of the table of settings. They end at the first word that is no option, so
`sidecar run --port 80 gunicorn -w 4` needs no `--`, and every wrong option is named at once.
"""

from __future__ import annotations

import os

from sidecar.base.command_line import CommandLine
from sidecar.base.errors import SettingsError
from sidecar.control.commands import COMMANDS
from sidecar.host import helpers
from sidecar.settings import profiles, resolve, table
from sidecar.settings.table import FLAGS, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# The settings file that is read without having been named, where it is there.
USUAL = "sidecar.yml"
LOOKALIKES = ("sidecar.yaml", ".sidecar.yml", ".sidecar.yaml")

USAGE = """\
usage: sidecar run [OPTION ...] [--] PROGRAM [ARGUMENT ...]

A hot-deploy supervisor for containers: binds the listening sockets, starts any
server program on them, and replaces it without a refused or reset connection.

    sidecar run --port 8080 --envdir env --workers 2 -- gunicorn app:app
    kill -HUP PID        new code, new environment, not one failed request
    kill -TERM PID       finish what is in flight, then leave

commands:
    run           start a program and supervise it
    run --help    every option
    dev           the same while you write it: a saved file is served at once
    check         the settings run would have, where each is from, what is wrong
    schema        the JSON Schema of sidecar.yml, for editors
    profiles      the programs that need no option, and what is done for each
{commands}
    rollout       reload many containers, a few at a time

options:
    --help        this text
    --version     the version

Every option is also a variable, SIDECAR_DRAIN_TIMEOUT=30s, and a line of
sidecar.yml, drain-timeout: 30s.
Exit status of run: 0 stopped as asked; 2 wrong settings; 1 cannot start; else
the program's own, if it never got ready (127 not found, 126 cannot be run); of
the others: 0 done; 1 no; 2 wrong words; 3 no sidecar answers; 4 not in time.
"""


def usage() -> str:
    """What `sidecar --help` prints."""
    return USAGE.format(
        commands="\n".join(f"    {each.name:<13} {each.text}" for each in COMMANDS.values())
    )


def run_help() -> str:
    """What `sidecar run --help` prints: every setting with its default, by group."""
    lines = ["usage: sidecar run [OPTION ...] [--] PROGRAM [ARGUMENT ...]"]
    group = ""
    for each in TABLE.values():
        if each.group != group:
            group = each.group
            lines.append(f"{group}:")
        default = ""
        if each.default not in (None, "", (), False, 0, 0.0):
            default = (
                f" ({each.default:g}s)" if isinstance(each.default, float) else f" ({each.default})"
            )
        option = f"{each.flag} {each.metavar}".rstrip()
        lines.append(f"  {option:<30} {each.text}{default}{' *' if each.repeat else ''}")
    lines += [
        "",
        "* may be given several times. SPEC takes =FD to fix the worker's file descriptor, and",
        "  ,name=N ,defer ,nonblock ,ipv6only ,backlog=N ,mode=0660 ,owner=USER:GROUP behind it.",
        "TIME is 500ms, 30s, 5m, 2h or seconds; SIZE is 512M, 1.5G or bytes. Every option is also a variable,",
        "SIDECAR_WORKERS=2, and a line of sidecar.yml, workers: 2. A flag wins over a variable, that over the file.",
    ]
    return "\n".join(lines) + "\n"


def dev_help() -> str:
    """What `sidecar dev --help` prints."""
    return """\
usage: sidecar dev [OPTION ...] [--] PROGRAM [ARGUMENT ...]

`sidecar run` for who writes the program: with these, unless said otherwise:

    --watch .             a file saved below the working directory swaps
    --watch-env           and so does a file of the envdir, where there is one
    --log-format dev      short lines for what matters; a failure in full, once
    --drain-timeout 3s    old workers do not stay for an open connection
    --max-failures 0      a program that does not start waits for the next save

In a terminal, Enter swaps, q and Enter stop it. All options: sidecar run --help
"""


def profiles_table() -> str:
    """What `sidecar profiles` prints: one row a program."""
    lines = [f"{'PROFILE':<10} {'DRAINS ON':<10} {'PROTOCOLS':<10} ARGUMENTS ADDED (unless given)"]
    for row in profiles.PROFILES.values():
        added = [
            " ".join(each.words)
            + (" for each listener" if each.each else "")
            + (" where no temporary file can be written" if each.homeless else "")
            + f" ({', '.join(each.unless[:3])}{' …' * (len(each.unless) > 3)})"
            for each in row.added
        ]
        protocols = ", ".join(row.handoff) or "-"
        lines.append(f"{row.name:<10} {row.signal:<10} {protocols:<10} {(added or ['-'])[0]}")
        lines += [f"{'':<32} {each}" for each in added[1:]]
    lines += [
        "",
        "A program is found behind launchers, too: uv run, timeout, env, tini, sh -c, python -m and others.",
    ]
    return "\n".join(lines) + "\n"


# Of a SIDECAR_ variable that is no setting sidecar itself is the author, when it runs below
# another, or Kubernetes (a service's address).
NOT_SETTINGS = (
    "SIDECAR_WORKER", "SIDECAR_TRIGGER", "SIDECAR_CHANGED", "SIDECAR_WORKER_PID", "SIDECAR_HERITAGE",
)  # fmt: skip
FROM_KUBERNETES = ("_SERVICE_HOST", "_SERVICE_PORT", "_PORT_")
# Options that hardly any program but sidecar has.
UNMISTAKABLE = (
    "--port", "--envdir", "--drain-timeout", "--kill-old-delay", "--signal-on-hup", "--signal-on-term", "--start-timeout",
    "--ready-command", "--lame-duck", "--watch-env", "--max-surge", "--handoff", "--slow-start", "--overlap",
)  # fmt: skip


def unknown_variables(environ: Mapping[str, str], only_like: bool = False) -> list[str]:
    """A sentence for each variable that looks like a setting and is none; with `only_like` for those
    that are nearly one, for others may have a meaning elsewhere.
    """
    known = {each.variable: each for each in TABLE.values()}
    said = []
    for name, value in environ.items():
        foreign = value.startswith(("tcp://", "udp://", "sctp://")) or any(
            part in name for part in FROM_KUBERNETES
        )
        if not name.startswith("SIDECAR_") or name in known or name in NOT_SETTINGS or foreign:
            continue
        import difflib  # noqa: PLC0415  (only a mistake pays for it)

        # What all begin with makes none of them nearer.
        plain = {each.removeprefix("SIDECAR_"): each for each in known}
        near = difflib.get_close_matches(name.removeprefix("SIDECAR_"), plain, 1, 0.7)
        meant = f"did you mean {plain[near[0]]}?" if near else "see sidecar run --help"
        if near or not only_like:
            said.append(f"{name}: no setting has this variable; {meant}")
    return said


class Chosen:
    """What was said outside the settings file, kept: the file is read again on every reload, and
    means something else each time.
    """

    def __init__(
        self,
        words: Sequence[str],
        environ: Mapping[str, str],
        presets: Mapping[str, Any] | None = None,
        own: Mapping[str, str] | None = None,
    ) -> None:
        parsed = RunCommandLine(own).parse(words)
        self.command, self.problems = parsed.words, parsed.problems
        self.given = [(FLAGS[flag].name, text) for flag, text in parsed.options if flag in FLAGS]
        #: What was given of the options that are no settings.
        self.own = {flag: text for flag, text in parsed.options if flag not in FLAGS}
        self.environ = environ
        self.presets = presets
        named = [text for name, text in self.given if name == "config"][-1:] or [
            environ.get("SIDECAR_CONFIG") or ""
        ]
        self._file = named[0]

    @property
    def file(self) -> str:
        """The settings file, "" if there is none. The usual one counts once it was there: then it
        may not just vanish.
        """
        if not self._file and os.path.lexists(USUAL):
            self._file = USUAL
        return "" if self._file == "none" else self._file

    def stay_with(self, file: str) -> None:
        """The file that an earlier version of this process has read counts, whether or not it is
        there just now.
        """
        self._file = self._file or file

    @property
    def reader(self) -> tuple[str, ...]:
        """The command of the process that reads the file and writes what is in it to its output."""
        return helpers.module("sidecar.settings.reader", self.file)

    def read(self) -> str:
        """The file, by a process of its own; "" if there is none. For the start: it waits."""
        return helpers.ask(self.reader, helpers.environment(self.environ)) if self.file else ""

    def choice(self, answer: str) -> resolve.Choice:
        """The settings that come of it all, with everything that is wrong; `answer` is what the
        reader wrote, "" without a file.
        """
        said = None
        if self.file:
            from sidecar.settings import file  # noqa: PLC0415  (only who has a file pays for it)

            said = file.understood(answer, self.file, self.environ)
        choice = resolve.choose(self.given, self.environ, self.command, self.presets, said)
        return choice.replace(problems=(*self.problems, *choice.problems))

    def remarks(self, of: table.Settings, checking: bool = False) -> list[str]:
        """What was said and may be meant otherwise: settings that are none, options in the wrong
        place, a file of another name, and what does not go with the program. More of it when it is
        only checked.
        """
        said = unknown_variables(self.environ, only_like=not checking)
        if not self.file:
            said += [
                f"{each} is not read: the usual name is {USUAL}; rename it, or say --config {each}"
                for each in LOOKALIKES
                if os.path.lexists(each)
            ]
        if of.command:
            row, program = profiles.found(of.command, of.profile)
            for word in program.words[1:]:
                option = word.partition("=")[0]
                # A port that the program was meant to listen at is no mistake beside one of ours.
                if option in UNMISTAKABLE and not (option == "--port" and of.port):
                    said.append(
                        f"{option} stands behind the program, so it is an option of {program.name}; sidecar's own come before it:"
                        f" sidecar run {option} … -- {program.name} …"
                    )
            if of.profile != "none":
                said += profiles.remarks(row, program)
                ports = [each.port for each in of.port if each.port]
                if row is not None and "command" not in of.secret:
                    said += profiles.outvoted(row, program, ports)
        return said

    def settings(self, answer: str) -> table.Settings:
        """The same, if nothing is wrong. Raises SettingsError."""
        choice = self.choice(answer)
        if choice.problems:
            raise SettingsError(choice.problems)
        return choice.settings


class RunCommandLine(CommandLine):
    """The words behind `run`, `dev` or `check`: every setting is an option; `more` are those of the
    command itself.
    """

    def __init__(self, more: Mapping[str, str] | None = None) -> None:
        super().__init__({**{each.flag: each.metavar for each in TABLE.values()}, **(more or {})})

    def unknown(self, flag: str) -> str:
        """The message, with the option that may have been meant."""
        return f"{flag}: there is no such option{nearest(flag, list(FLAGS))}"

    def missing(self, flag: str, name: str) -> str:
        """The message, with what has to follow."""
        return f"{flag}: {self.options[name]} is missing behind it"

    def skip_unknown(self, word: str, left: list[str]) -> None:
        """What follows an unknown option may have been its value."""
        if "=" not in word and left and not left[0].startswith("-") and "--" in left:
            left.pop(0)


def nearest(word: str, known: Sequence[str]) -> str:
    """The end of a message that says `word` is unknown."""
    from sidecar.settings import file  # noqa: PLC0415

    return file.nearest(word, known, "; see sidecar run --help")
