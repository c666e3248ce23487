"""Find the program that a command runs. Often it stands behind others that only start it: `uv run
gunicorn app:app`, `timeout 100 gunicorn …`, `sh -c "cd app && exec gunicorn …"`, `python -m
uvicorn`.

A launcher either becomes the program (exec: the same process), or stays as its parent (fork). That
matters for systemd's protocol: LISTEN_PID names the process that sidecar has started, and programs
believe it only if it names themselves.

A shell's text is split into its simple commands; nothing in it is expanded or run. What is not
understood here is no harm: the program then counts as unknown, as if it had another name.
"""

from __future__ import annotations

from sidecar.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Program(Record):
    """A program within a command: its name, and the words it is called with, itself first.

    `index` is its word's place in the command. If that word is a shell's text, `ends` has where in
    the text each of `words` ends. `parent` is the launcher that stays, or may stay, as the
    program's parent, "" if none; it is `sure` to.
    """

    name: str
    words: tuple[str, ...]
    index: int
    ends: tuple[int, ...] = ()
    parent: str = ""
    sure: bool = False


class Launcher(Record):
    """How to find the program behind a launcher's own words: `first` is the word it has to begin
    with (`run`), `values` are its options that are followed by a value, `own` is how many words
    come before the program; `assigns`: so do any number of NAME=VALUE. `forks`: it stays as the
    program's parent, or, if not `sure`, may stay.
    """

    first: str = ""
    values: tuple[str, ...] = ()
    own: int = 0
    assigns: bool = False
    forks: bool = False
    sure: bool = True

    def program_index(self, words: Sequence[str], at: int) -> int:
        """Where the program is, if the launcher is word `at`; 0 if there is none."""
        at += 1
        if self.first:
            at = self._options(words, at)
            if words[at : at + 1] != [self.first]:
                return 0
            at += 1
        at = self._options(words, at)
        while self.assigns and at < len(words) and "=" in words[at]:
            at += 1
        at += self.own
        return at if at < len(words) else 0

    def _options(self, words: Sequence[str], at: int) -> int:
        while at < len(words) and words[at].startswith("-"):
            if words[at] == "--":
                return at + 1
            at += 2 if words[at] in self.values else 1
        return at


_ENTRYPOINT = Launcher(forks=True, sure=False)  # a script that ends with exec "$@", mostly
_RUN = Launcher("run")
_RUN_FORKS = Launcher("run", forks=True)
_UV = (
    "--with", "--with-editable", "--with-requirements", "--extra", "--group", "--only-group",
    "--no-group", "--env-file", "--python", "-p", "--project", "--directory", "--package",
    "--index", "--index-url", "-i", "--extra-index-url", "--config-file", "--from",
)  # fmt: skip
_LAUNCHERS = {
    "env": Launcher(values=("-u", "--unset", "-C", "--chdir"), assigns=True),
    "nice": Launcher(values=("-n", "--adjustment")),
    "ionice": Launcher(values=("-c", "-n", "--class", "--classdata")),
    "nohup": Launcher(),
    "stdbuf": Launcher(values=("-i", "-o", "-e", "--input", "--output", "--error")),
    "taskset": Launcher(own=1),
    "setpriv": Launcher(
        values=("--reuid", "--regid", "--groups", "--bounding-set", "--inh-caps", "--ambient-caps")
    ),
    "gosu": Launcher(own=1),
    "su-exec": Launcher(own=1),
    "setuidgid": Launcher(own=1),
    "s6-setuidgid": Launcher(own=1),
    "envdir": Launcher(own=1),
    "s6-envdir": Launcher(own=1),
    "chpst": Launcher(
        values=("-u", "-U", "-b", "-e", "-/", "-C", "-n", "-m", "-d", "-o", "-p", "-f", "-c", "-t")
    ),
    "timeout": Launcher(values=("-k", "--kill-after", "-s", "--signal"), own=1, forks=True),
    "tini": Launcher(values=("-p", "-e"), forks=True),
    "tini-static": Launcher(values=("-p", "-e"), forks=True),
    "docker-init": Launcher(values=("-p", "-e"), forks=True),
    "catatonit": Launcher(forks=True),
    "dumb-init": Launcher(values=("-r", "--rewrite"), forks=True),
    "sudo": Launcher(
        values=("-u", "-g", "-C", "-D", "-h", "-p"), assigns=True, forks=True, sure=False
    ),
    "uv": Launcher("run", values=_UV, forks=True),
    "uvx": Launcher(values=_UV, forks=True),
    "poetry": _RUN,
    "pipenv": _RUN,
    "rye": _RUN,
    "pdm": Launcher("run", values=("-p", "--project"), forks=True),
    "pixi": Launcher("run", values=("-e", "--environment", "--manifest-path"), forks=True),
    "conda": Launcher("run", values=("-n", "--name", "-p", "--prefix", "--cwd"), forks=True),
    "micromamba": Launcher(
        "run", values=("-n", "--name", "-p", "--prefix", "--cwd"), forks=True, sure=False
    ),
    "dotenv": Launcher("run", values=("-f", "--file"), forks=True, sure=False),
    "doppler": _RUN_FORKS,
    "infisical": _RUN_FORKS,
    "op": _RUN_FORKS,
    "bundle": Launcher("exec"),
    "ddtrace-run": Launcher(),
    "opentelemetry-instrument": Launcher(),
    "newrelic-admin": Launcher("run-program"),
    "docker-entrypoint.sh": _ENTRYPOINT,
    "entrypoint.sh": _ENTRYPOINT,
}

_ONLY_SHELL = (
    "cd",
    "exec",
    "source",
    ".",
    "export",
    "set",
    "ulimit",
    "umask",
    "if",
    "for",
    "while",
)
_SHELLS = ("sh", "bash", "dash", "ash", "zsh")
_BEFORE = (
    "if",
    "then",
    "elif",
    "else",
    "while",
    "until",
    "do",
    "!",
    "{",
    "time",
    "command",
    "exec",
)


def base_name(word: str) -> str:
    """The name of what a path names."""
    return word.rpartition("/")[2]


def has_shell_parent(command: Sequence[str]) -> bool:
    """Whether a shell stays, or may stay, as the parent of the program. It passes no signal on."""
    return bool(command) and any(each.parent in _SHELLS for each in programs(command))


def programs(command: Sequence[str]) -> list[Program]:
    """The programs that a command runs, as far as its words show them: one, and more if it is a
    shell's text with several commands. In the order in which they stand there, never none.
    """
    words = list(command)
    at, name, parent, sure = _follow_launchers(words)
    text = _shell_text_index(words, at)
    found = list(_programs_in_text(words, at, text, parent, sure)) if text else []
    return found or [Program(name, tuple(words[at:]), at, (), parent, sure)]


def _follow_launchers(words: list[str]) -> tuple[int, str, str, bool]:
    """Where the program is behind its launchers, its name, the launcher that (surely?) stays."""
    at, name, parent, sure = 0, base_name(words[0]), "", False
    while True:
        launcher = _LAUNCHERS.get(name)
        if launcher is not None:
            found = launcher.program_index(words, at)
        elif name.rstrip("0123456789.") in ("python", "pypy"):
            found = _python_program_index(words, at)
        else:
            return at, name, parent, sure
        if not found:
            return at, name, parent, sure
        if launcher is not None and launcher.forks and not sure:
            parent, sure = name, launcher.sure
        name = base_name(words[found])
        at = found


def _python_program_index(words: Sequence[str], at: int) -> int:
    """Where the module or script is that a Python runs; 0 if none is named."""
    at += 1
    while at < len(words):
        word = words[at]
        if not word.startswith("-"):
            return at
        if word in ("-c", "-", "--version", "--help"):
            return 0
        at += 1
        if not word.startswith("--") and word.endswith("m"):
            return at if at < len(words) else 0
        if word in ("-X", "-W", "--check-hash-based-pycs"):
            at += 1
    return 0


def _shell_text_index(words: Sequence[str], at: int) -> int:
    """Where the text is that the shell at word `at` is given with -c; 0 if it is none."""
    if base_name(words[at]) not in _SHELLS:
        return 0
    given = False
    at += 1
    while at < len(words) and len(words[at]) > 1 and words[at][0] in "-+":
        word = words[at]
        if word == "--":
            at += 1
            break
        given = given or (word[0] == "-" and word[1] != "-" and "c" in word)
        at += 2 if word[1] != "-" and word[-1] in "oO" else 1
    return at if given and at < len(words) else 0


def _programs_in_text(
    words: list[str], shell: int, text: int, parent: str, sure: bool
) -> Iterator[Program]:
    """The programs in the text of a shell, whose own parent may be a launcher."""
    commands = [each for each in split_shell_text(words[text]) if each]
    for number, each in enumerate(commands):
        begin, replaced = 0, False
        while begin < len(each) - 1 and (each[begin][0] in _BEFORE or _assigns(each[begin][0])):
            replaced = replaced or each[begin][0] == "exec"
            begin += 1
        # With nothing behind it, most shells exec their last command unasked, but not all.
        stays, surely = parent, sure
        if not replaced and not sure:
            stays, surely = base_name(words[shell]), number < len(commands) - 1
        if each[begin][0] == "$@" and text + 2 < len(words):
            rest = words[text + 2 :]
            at, name, inner, really = _follow_launchers(rest)
            yield Program(
                name, tuple(rest[at:]), text + 2 + at, (), inner or stays, really or surely
            )
            continue
        texts = [word for word, _ in each[begin:]]
        at, name, inner, really = _follow_launchers(texts)
        ends = tuple(end for _, end in each[begin + at :])
        yield Program(name, tuple(texts[at:]), text, ends, inner or stays, really or surely)


def _assigns(word: str) -> bool:
    name, sign, _ = word.partition("=")
    return bool(sign) and name.isidentifier()


def split_shell_text(text: str) -> list[list[tuple[str, int]]]:
    """A shell's text as simple commands, each the list of its words with where each ends.

    Redirections and comments are left out; `$NAME` and `$(…)` stay as they are written.
    """
    return _ShellText(text).split()


class _ShellText:
    """A shell's text while it is split: how far that has come, and the word it is in."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.commands: list[list[tuple[str, int]]] = [[]]
        self.word: list[str] = []
        self.in_word = False
        #: The next word is the target of a redirection.
        self.redirected = False

    def split(self) -> list[list[tuple[str, int]]]:
        """The simple commands."""
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in " \t":
                self._end_word(self.at)
            elif char in ";&|\n()":
                self._end_word(self.at)
                self.commands.append([])
            elif char in "<>":
                self._redirection()
            elif char == "#" and not self.in_word:
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end - 1
            else:
                self.in_word = True
                self.word.append(self._part(char))
            self.at += 1
        self._end_word(len(self.text))
        return self.commands

    def _end_word(self, position: int) -> None:
        if self.in_word:
            if not self.redirected:
                self.commands[-1].append(("".join(self.word), position))
            self.redirected = False
        self.word.clear()
        self.in_word = False

    def _redirection(self) -> None:
        if "".join(self.word).isdigit():  # 2>
            self.in_word = False
            self.word.clear()
        self._end_word(self.at)
        while self.text[self.at + 1 : self.at + 2] in ("<", ">", "&", "|"):
            self.at += 1
        self.redirected = True

    def _part(self, char: str) -> str:
        """The next part of a word, which begins with this character; `at` is its last one then."""
        start = self.at
        if char in "'\"`":
            self.at = _end_of_quotation(self.text, start, char)
            if char == "`":
                return self.text[start : self.at + 1]
            inside = self.text[start + 1 : self.at]
            return inside if char == "'" else inside.replace("\\", "")
        if char == "\\":
            self.at += 1
            escaped = self.text[self.at : self.at + 1]
            return "" if escaped == "\n" else escaped
        if self.text.startswith("$(", start):
            self.at = self._end_of_substitution()
            return self.text[start : self.at + 1]
        return char

    def _end_of_substitution(self) -> int:
        """Where the closing bracket of `$(…)` is, or the end of the text."""
        depth = 0
        for at in range(self.at, len(self.text)):
            depth += (self.text[at] == "(") - (self.text[at] == ")")
            if depth == 0 and self.text[at] == ")":
                return at
        return len(self.text)


def shell_syntax(text: str) -> str:
    """What in a command needs a shell: an operator, a redirection, a substitution, a variable set
    in front, a word that is only the shell's own; "" if nothing does. What is quoted is no syntax.
    """
    at, begun = 0, False  # begun: within a word
    while at < len(text):
        char = text[at]
        if char in "'\"":
            at, begun = _end_of_quotation(text, at, char), True
        elif char == "\\":
            at, begun = at + 1, True
        elif char == "`" or text.startswith("$(", at):
            return "`" if char == "`" else "$( )"
        elif char in "<>" and (not begun or text[:at].rpartition(" ")[2].isdigit()):
            return char
        elif char in "|&;" and (not begun or text[at + 1 : at + 2] in ("", " ", "\n")):
            return char * 2 if char != ";" and text[at + 1 : at + 2] == char else char
        elif text.startswith(("&&", "||"), at):
            return text[at : at + 2]
        else:
            begun = char not in " \t\n"
        at += 1
    first = text.split()[:1]
    if first and _assigns(first[0]):
        return f"{first[0].partition('=')[0]}=… in front of the program"
    return first[0] if first and first[0] in _ONLY_SHELL else ""


def _end_of_quotation(text: str, at: int, quote: str) -> int:
    """Where the quotation that begins at `at` ends."""
    at += 1
    while at < len(text) and text[at] != quote:
        at += 2 if text[at] == "\\" and quote != "'" else 1
    return at


def inserted(
    command: Sequence[str], program: Program, behind: int, more: Sequence[str]
) -> tuple[str, ...]:
    """The command with more words behind the program's word number `behind` (its name is 0)."""
    words = list(command)
    if not program.ends:
        at = program.index + behind + 1
        words[at:at] = more
    elif more:
        import shlex  # noqa: PLC0415  (only who has a shell pays for it)

        text, end = words[program.index], program.ends[behind]
        words[program.index] = f"{text[:end]} {shlex.join(more)}{text[end:]}"
    return tuple(words)
