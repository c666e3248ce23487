"""Find the program that a command runs. Often it stands behind others that only start it: `uv run
gunicorn app:app`, `timeout 100 gunicorn …`, `sh -c "cd app && exec gunicorn …"`, `python -m uvicorn`.

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

    def behind(self, words: Sequence[str], at: int) -> int:
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
    "--with", "--with-editable", "--with-requirements", "--extra", "--group", "--only-group", "--no-group", "--env-file", "--python",
    "-p", "--project", "--directory", "--package", "--index", "--index-url", "-i", "--extra-index-url", "--config-file", "--from",
)  # fmt: skip
_LAUNCHERS = {
    "env": Launcher(values=("-u", "--unset", "-C", "--chdir"), assigns=True),
    "nice": Launcher(values=("-n", "--adjustment")),
    "ionice": Launcher(values=("-c", "-n", "--class", "--classdata")),
    "nohup": Launcher(),
    "stdbuf": Launcher(values=("-i", "-o", "-e", "--input", "--output", "--error")),
    "taskset": Launcher(own=1),
    "setpriv": Launcher(values=("--reuid", "--regid", "--groups", "--bounding-set", "--inh-caps", "--ambient-caps")),
    "gosu": Launcher(own=1),
    "su-exec": Launcher(own=1),
    "setuidgid": Launcher(own=1),
    "s6-setuidgid": Launcher(own=1),
    "envdir": Launcher(own=1),
    "s6-envdir": Launcher(own=1),
    "chpst": Launcher(values=("-u", "-U", "-b", "-e", "-/", "-C", "-n", "-m", "-d", "-o", "-p", "-f", "-c", "-t")),
    "timeout": Launcher(values=("-k", "--kill-after", "-s", "--signal"), own=1, forks=True),
    "tini": Launcher(values=("-p", "-e"), forks=True),
    "tini-static": Launcher(values=("-p", "-e"), forks=True),
    "docker-init": Launcher(values=("-p", "-e"), forks=True),
    "catatonit": Launcher(forks=True),
    "dumb-init": Launcher(values=("-r", "--rewrite"), forks=True),
    "sudo": Launcher(values=("-u", "-g", "-C", "-D", "-h", "-p"), assigns=True, forks=True, sure=False),
    "uv": Launcher("run", values=_UV, forks=True),
    "uvx": Launcher(values=_UV, forks=True),
    "poetry": _RUN,
    "pipenv": _RUN,
    "rye": _RUN,
    "pdm": Launcher("run", values=("-p", "--project"), forks=True),
    "pixi": Launcher("run", values=("-e", "--environment", "--manifest-path"), forks=True),
    "conda": Launcher("run", values=("-n", "--name", "-p", "--prefix", "--cwd"), forks=True),
    "micromamba": Launcher("run", values=("-n", "--name", "-p", "--prefix", "--cwd"), forks=True, sure=False),
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
}  # fmt: skip

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


def base(word: str) -> str:
    """The name of what a path names."""
    return word.rpartition("/")[2]


def kept_by_shell(command: Sequence[str]) -> bool:
    """Whether a shell stays, or may stay, as the parent of the program. It passes no signal on."""
    return bool(command) and any(each.parent in _SHELLS for each in programs(command))


def programs(command: Sequence[str]) -> list[Program]:
    """The programs that a command runs, as far as its words show them: one, and more if it is a
    shell's text with several commands. In the order in which they stand there, never none.
    """
    words = list(command)
    at, name, parent, sure = _walk(words)
    text = _text(words, at)
    found = list(_in_text(words, at, text, parent, sure)) if text else []
    return found or [Program(name, tuple(words[at:]), at, (), parent, sure)]


def _walk(words: list[str]) -> tuple[int, str, str, bool]:
    """Where the program is behind its launchers, its name, the launcher that (surely?) stays."""
    at, name, parent, sure = 0, base(words[0]), "", False
    while True:
        launcher = _LAUNCHERS.get(name)
        if launcher is not None:
            behind = launcher.behind(words, at)
        elif name.rstrip("0123456789.") in ("python", "pypy"):
            behind = _python(words, at)
        else:
            return at, name, parent, sure
        if not behind:
            return at, name, parent, sure
        if launcher is not None and launcher.forks and not sure:
            parent, sure = name, launcher.sure
        name = base(words[behind])
        at = behind


def _python(words: Sequence[str], at: int) -> int:
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


def _text(words: Sequence[str], at: int) -> int:
    """Where the text is that the shell at word `at` is given with -c; 0 if it is none."""
    if base(words[at]) not in _SHELLS:
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


def _in_text(words: list[str], shell: int, text: int, parent: str, sure: bool) -> Iterator[Program]:
    """The programs in the text of a shell, whose own parent may be a launcher."""
    commands = [each for each in split(words[text]) if each]
    for number, each in enumerate(commands):
        begin, replaced = 0, False
        while begin < len(each) - 1 and (each[begin][0] in _BEFORE or _assigns(each[begin][0])):
            replaced = replaced or each[begin][0] == "exec"
            begin += 1
        # With nothing behind it, most shells exec their last command unasked, but not all.
        stays, surely = parent, sure
        if not replaced and not sure:
            stays, surely = base(words[shell]), number < len(commands) - 1
        if each[begin][0] == "$@" and text + 2 < len(words):
            rest = words[text + 2 :]
            at, name, inner, really = _walk(rest)
            yield Program(
                name, tuple(rest[at:]), text + 2 + at, (), inner or stays, really or surely
            )
            continue
        texts = [word for word, _ in each[begin:]]
        at, name, inner, really = _walk(texts)
        ends = tuple(end for _, end in each[begin + at :])
        yield Program(name, tuple(texts[at:]), text, ends, inner or stays, really or surely)


def _assigns(word: str) -> bool:
    name, sign, _ = word.partition("=")
    return bool(sign) and name.isidentifier()


def split(text: str) -> list[list[tuple[str, int]]]:
    """A shell's text as simple commands, each the list of its words with where each ends.

    Redirections and comments are left out; `$NAME` and `$(…)` stay as they are written.
    """
    commands: list[list[tuple[str, int]]] = [[]]
    word: list[str] = []
    begun = dropped = False
    at = 0

    def end(position: int) -> None:
        nonlocal begun, dropped
        if begun:
            if not dropped:
                commands[-1].append(("".join(word), position))
            dropped = False
        word.clear()
        begun = False

    while at < len(text):
        char = text[at]
        if char in " \t":
            end(at)
        elif char in ";&|\n()":
            end(at)
            commands.append([])
        elif char in "<>":
            if "".join(word).isdigit():  # 2>
                begun = False
                word.clear()
            end(at)
            while at + 1 < len(text) and text[at + 1] in "<>&|":
                at += 1
            dropped = True
        elif char == "#" and not begun:
            at = text.find("\n", at) - 1 if "\n" in text[at:] else len(text)
        else:
            begun = True
            start = at
            if char == "'":
                at = _until(text, at, "'")
                word.append(text[start + 1 : at])
            elif char == '"':
                at = _until(text, at, '"')
                word.append(text[start + 1 : at].replace("\\", ""))
            elif char == "`":
                at = _until(text, at, "`")
                word.append(text[start : at + 1])
            elif char == "\\":
                at += 1
                word.append("" if text[at : at + 1] == "\n" else text[at : at + 1])
            elif text.startswith("$(", at):
                depth = 0
                while at < len(text):
                    depth += (text[at] == "(") - (text[at] == ")")
                    if depth == 0 and text[at] == ")":
                        break
                    at += 1
                word.append(text[start : at + 1])
            else:
                word.append(char)
        at += 1
    end(len(text))
    return commands


def shell_syntax(text: str) -> str:
    """What in a command needs a shell: an operator, a redirection, a substitution, a variable set
    in front, a word that is only the shell's own; "" if nothing does. What is quoted is no syntax.
    """
    at, begun = 0, False  # begun: within a word
    while at < len(text):
        char = text[at]
        if char in "'\"":
            at, begun = _until(text, at, char), True
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


def _until(text: str, at: int, quote: str) -> int:
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
