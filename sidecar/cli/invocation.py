"""The command line of `run`, `dev` and `check`, and the settings that come of it, of the
environment and of the settings file.

The options are those of the table of settings. They end at the first word that is no option, so
`sidecar run --port 80 gunicorn -w 4` needs no `--`, and every wrong option is named at once.
"""

from __future__ import annotations

import os

from sidecar.base.command_line import CommandLine
from sidecar.base.errors import SettingsError
from sidecar.host import helpers
from sidecar.settings import profiles
from sidecar.settings.resolve import SERVICE_URLS, FileSettings, Resolution, resolve
from sidecar.settings.table import FLAGS, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sidecar.settings.table import Settings

# The settings file that is read without having been named, where it is there.
DEFAULT_FILE = "sidecar.yml"
SIMILAR_FILES = ("sidecar.yaml", ".sidecar.yml", ".sidecar.yaml")

# SIDECAR_ variables that are no settings: sidecar itself sets them for what it starts.
SET_BY_SIDECAR = (
    "SIDECAR_WORKER", "SIDECAR_TRIGGER", "SIDECAR_CHANGED", "SIDECAR_WORKER_PID",
    "SIDECAR_UPGRADE_STATE",
)  # fmt: skip
# Parts of the names of variables by which Kubernetes describes a service.
SET_BY_KUBERNETES = ("_SERVICE_HOST", "_SERVICE_PORT", "_PORT_")
# Options that hardly any program but sidecar has.
SIDECAR_ONLY_OPTIONS = (
    "--port", "--envdir", "--drain-timeout", "--kill-old-delay", "--signal-on-hup",
    "--signal-on-term", "--start-timeout", "--ready-command", "--lame-duck", "--watch-env",
    "--max-surge", "--handoff", "--slow-start", "--overlap",
)  # fmt: skip


class RunCommandLine(CommandLine):
    """The words behind `run`, `dev` or `check`: every setting is an option; `more` are those of the
    command itself.
    """

    def __init__(self, more: Mapping[str, str] | None = None) -> None:
        super().__init__({**{each.flag: each.metavar for each in TABLE.values()}, **(more or {})})

    def unknown(self, flag: str) -> str:
        """The message, with the option that may have been meant."""
        return f"{flag}: there is no such option{suggestion(flag, list(FLAGS))}"

    def missing(self, flag: str, name: str) -> str:
        """The message, with what has to follow."""
        return f"{flag}: {self.options[name]} is missing behind it"

    def skip_unknown(self, word: str, left: list[str]) -> None:
        """What follows an unknown option may have been its value."""
        if "=" not in word and left and not left[0].startswith("-") and "--" in left:
            left.pop(0)


class Invocation:
    """How sidecar was invoked: its words and environment. They are kept, because the settings file
    is read again on every reload, and the settings then come of all three.
    """

    def __init__(
        self,
        words: Sequence[str],
        environ: Mapping[str, str],
        presets: Mapping[str, Any] | None = None,
        more_options: Mapping[str, str] | None = None,
    ) -> None:
        parsed = RunCommandLine(more_options).parse(words)
        self.command, self.problems = parsed.words, parsed.problems
        self.flags = [(FLAGS[flag].name, text) for flag, text in parsed.options if flag in FLAGS]
        #: What was given of the options that are no settings.
        self.more_options = {flag: text for flag, text in parsed.options if flag not in FLAGS}
        self.environ = environ
        self.presets = presets
        named = [text for name, text in self.flags if name == "config"]
        self._file: str = named[-1] if named else environ.get("SIDECAR_CONFIG") or ""
        #: As of the last resolution: settings whose value, and texts that may not be shown.
        self.secret_names: tuple[str, ...] = ()
        self.redactions: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The settings file, "" if there is none. The default one counts once it was there: then it
        may not just vanish.
        """
        if not self._file and os.path.lexists(DEFAULT_FILE):
            self._file = DEFAULT_FILE
        return "" if self._file == "none" else self._file

    def stay_with(self, file: str) -> None:
        """Go on with the file that an earlier version of this process has read, whether or not it
        is there just now.
        """
        self._file = self._file or file

    @property
    def reader(self) -> tuple[str, ...]:
        """The command of the process that reads the file and writes what is in it to its output."""
        return helpers.module("sidecar.settings.reader", self.file)

    def read(self) -> str:
        """The output of the file's reader, "" if there is no file. For the start: it waits."""
        return helpers.ask(self.reader, helpers.environment(self.environ)) if self.file else ""

    def resolve(self, reader_output: str) -> Resolution:
        """The settings that come of it all, with everything that is wrong."""
        from_file: FileSettings | None = None
        if self.file:
            from sidecar.settings import file  # noqa: PLC0415  (only who has a file pays for it)

            from_file = file.from_reader_output(reader_output, self.file, self.environ)
        found = resolve(self.flags, self.environ, self.command, self.presets, from_file)
        self.secret_names, self.redactions = found.secret_names, found.redactions
        return found.replace(problems=(*self.problems, *found.problems))

    def settings(self, reader_output: str) -> Settings:
        """The same, if nothing is wrong. Raises SettingsError."""
        return self.resolve(reader_output).checked()

    def check_words(self) -> None:
        """Raises SettingsError if an option is unknown or lacks its value."""
        if self.problems:
            raise SettingsError(self.problems)

    def remarks(self, settings: Settings, checking: bool = False) -> list[str]:
        """What is allowed and may be meant otherwise: variables that are no settings, a file of
        another name, options in the wrong place, and what does not go with the program. There are
        more of them when the settings are only checked.
        """
        remarks = unknown_variables(self.environ, only_similar=not checking)
        if not self.file:
            remarks += [
                f"{each} is not read: the usual name is {DEFAULT_FILE};"
                f" rename it, or say --config {each}"
                for each in SIMILAR_FILES
                if os.path.lexists(each)
            ]
        return remarks + (self._program_remarks(settings) if settings.command else [])

    def _program_remarks(self, settings: Settings) -> list[str]:
        row, program = profiles.find(settings.command, settings.profile)
        remarks = []
        for word in program.words[1:]:
            option = word.partition("=")[0]
            # A port that the program was meant to listen at is no mistake beside one of ours.
            if option in SIDECAR_ONLY_OPTIONS and not (option == "--port" and settings.port):
                remarks.append(
                    f"{option} stands behind the program, so it is an option of {program.name};"
                    f" sidecar's own come before it: sidecar run {option} … -- {program.name} …"
                )
        if settings.profile == "none":
            return remarks
        remarks += profiles.remarks(row, program)
        if row is not None and "command" not in self.secret_names:
            ports = [each.port for each in settings.port if each.port]
            remarks += profiles.overruled(row, program, ports)
        return remarks


def unknown_variables(environ: Mapping[str, str], only_similar: bool = False) -> list[str]:
    """A remark for each variable that looks like a setting and is none; with `only_similar` for
    those that are nearly one, for others may have a meaning elsewhere.
    """
    # What all begin with makes none of them more similar.
    known = {each.variable.removeprefix("SIDECAR_"): each.variable for each in TABLE.values()}
    remarks = []
    for name, value in environ.items():
        plain = name.removeprefix("SIDECAR_")
        if (
            not name.startswith("SIDECAR_")
            or plain in known
            or name in SET_BY_SIDECAR
            or value.startswith(SERVICE_URLS)
            or any(part in name for part in SET_BY_KUBERNETES)
        ):
            continue
        import difflib  # noqa: PLC0415  (only a mistake pays for it)

        near = difflib.get_close_matches(plain, known, 1, 0.7)
        if near:
            remarks.append(f"{name}: no setting has this variable; did you mean {known[near[0]]}?")
        elif not only_similar:
            remarks.append(f"{name}: no setting has this variable; see sidecar run --help")
    return remarks


def suggestion(word: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown word: the known one that may have been meant."""
    from sidecar.settings import file  # noqa: PLC0415  (only a mistake pays for it)

    return file.suggestion(word, known, "; see sidecar run --help")
