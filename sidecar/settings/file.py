"""What a settings file (sidecar.yml) says, made of the pairs that its reader found in it
(settings/reader.py).

A value's text is read exactly as a flag's is: `umask: 022` is octal, `drain-timeout: 30s` a
duration, and YAML's own ideas of numbers (022 is 18, 1:30 is 90) never come in. Pure, and in PID 1:
what is wrong is said with the same words as for a flag.

`${NAME}` in a value stands for a variable of sidecar's own environment. It is filled in after the
file was taken apart and after a command was split into words, so no value of a variable can become
a key, a second word or a second line. What was filled in is taken for a secret: it is never shown.
"""

from __future__ import annotations

from sidecar.base.record import Record
from sidecar.settings.resolve import FileSettings
from sidecar.settings.table import TABLE
from sidecar.settings.types import command_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

COMMAND = "command"
NAMES = {COMMAND: COMMAND, **{each.key: each.name for each in TABLE.values()}}

# A shorter secret is a part of too many other words.
MIN_REDACTION_CHARACTERS = 3


class Text(Record):
    """One text of a value, with its origin; `secret`: a variable's value was filled in."""

    text: str
    origin: str
    secret: bool


def suggestion(word: str, known: Iterable[str], otherwise: str) -> str:
    """The end of a message about an unknown word: the known one that may have been meant, or
    `otherwise`.
    """
    import difflib  # noqa: PLC0415  (only a mistake pays for it)

    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]}?" if near else otherwise


def fill_variables(text: str, environ: Mapping[str, str]) -> tuple[str, bool]:
    """`text` with its ${NAME} and ${NAME:-DEFAULT} replaced and $$ made a dollar, and whether a
    variable's value is in it now.

    Raises ValueError; it names the variable and shows no value.
    """
    done, rest, filled = "", text, False
    while True:
        before, dollar, rest = rest.partition("$")
        done += before
        if not dollar:
            return done, filled
        if rest.startswith("$"):
            done, rest = done + "$", rest[1:]
        elif not rest.startswith("{"):
            done += "$"
        else:
            inside, end, rest = rest[1:].partition("}")
            value, is_default = _variable(inside, end, environ)
            done += value
            filled = filled or not is_default


def _variable(inside: str, end: str, environ: Mapping[str, str]) -> tuple[str, bool]:
    """What `NAME` or `NAME:-DEFAULT` stands for, and whether that is the default; `end` is the
    closing brace, if it was there. Raises ValueError.
    """
    name, has_default, default = inside.partition(":-")
    if not end or not name.isidentifier() or not name.isascii():
        raise ValueError(
            f"${{{inside}{end} is no variable;"
            " say ${NAME} or ${NAME:-DEFAULT}, and $$ for a dollar"
        )
    if "${" in default:
        raise ValueError(
            f"${{{name}:-${{…}}}}: a default cannot hold another variable;"
            f" say ${{{name}:-DEFAULT}} with plain text"
        )
    value = environ.get(name, "")
    if value or (name in environ and not has_default):
        return value, False
    if not has_default:
        raise ValueError(f"the variable {name} is not set; set it, or say ${{{name}:-DEFAULT}}")
    return default, True


def from_reader_output(output: str, file: str, environ: Mapping[str, str]) -> FileSettings:
    """What the file says, from the output of its reader. A reader that could not be run, or died,
    is a problem of the file.
    """
    import json  # noqa: PLC0415  (only who has a settings file pays for it)

    try:
        return from_answer(json.loads(output), file, environ)
    except ValueError:
        return FileSettings(
            file,
            problems=(f"{file}: its reader (python -m sidecar.settings.reader {file}) failed",),
        )


def from_answer(answer: Mapping[str, Any], file: str, environ: Mapping[str, str]) -> FileSettings:
    """What the file says, and everything that is wrong with it, by line."""
    problems = [
        f"{file}:{line}: {text}" if line else f"{file}: {text}" for line, text in answer["problems"]
    ]
    texts: dict[str, list[tuple[str, str]]] = {}
    secret_names: list[str] = []
    redactions: list[str] = []
    first_lines: dict[str, int] = {}
    for key, line, value in answer["pairs"]:
        origin = f"{file}:{line}: {key}"
        if key in first_lines:
            problems.append(
                f"{origin}: it is there already, in line {first_lines[key]}; say it once"
            )
            continue
        first_lines[key] = line
        if unknown := _unknown_key(key):
            problems.append(f"{origin}: {unknown}")
            continue
        if "nothing" in value:
            continue  # `workers:` alone says nothing, as an empty variable does
        name = NAMES[key]
        try:
            found = _read_value(key, value, file, environ)
        except ValueError as error:
            problems += error.args
            continue
        secrets = [each.text for each in found if each.secret]
        if secrets:
            secret_names.append(name)
            # Where sidecar listens anybody can see.
            if name != "port":
                redactions += [each for each in secrets if len(each) >= MIN_REDACTION_CHARACTERS]
        texts[name] = _as_flag_texts(name, found)
    return FileSettings(file, texts, tuple(secret_names), tuple(redactions), tuple(problems))


def _as_flag_texts(name: str, found: Sequence[Text]) -> list[tuple[str, str]]:
    """The texts as the flag would have them, each with its origin; a command is one text."""
    if name != COMMAND and TABLE[name].kind is command_words:
        import shlex  # noqa: PLC0415  (only who sets a command pays for it)

        return [(shlex.join([each.text for each in found]), found[0].origin)]
    return [(each.text, each.origin) for each in found]


def _unknown_key(key: str) -> str:
    """Why `key` cannot be said in the file, "" if it can."""
    if key == "config":
        return "which file is read cannot be said in it; say --config FILE or SIDECAR_CONFIG"
    if key in NAMES:
        return ""
    hyphened = key.replace("_", "-").lower().removeprefix("--").removeprefix("sidecar-")
    if hyphened in NAMES:
        return f"there is no such setting; say {hyphened}"
    return "there is no such setting" + suggestion(
        hyphened, NAMES, "; `sidecar run --help` has them all"
    )


def _read_value(
    key: str, value: Mapping[str, Any], file: str, environ: Mapping[str, str]
) -> list[Text]:
    """The texts of a value. Raises ValueError with every problem."""
    name = NAMES[key]
    origin = f"{file}:{value['line']}: {key}"
    found: list[Text] = []
    problems: list[str] = []
    for item in _items(name, value, origin):
        item_origin = f"{file}:{item['line']}: {key}"
        if "text" not in item:
            wrong = item.get("wrong", "nothing")
            problems.append(f"{item_origin}: {wrong} is no item of a list; {_expected(name)}")
            continue
        try:
            if unusable := _unusable(item["text"]):
                raise ValueError(unusable)
            text, secret = fill_variables(item["text"], environ)
            found.append(Text(text, item_origin, secret))
        except ValueError as error:
            problems.append(f"{item_origin}: {error}")
    if problems:
        raise ValueError(*problems)
    if not found:
        raise ValueError(f"{origin}: the list is empty; leave it out, or {_expected(name)}")
    return found


def _items(name: str, value: Mapping[str, Any], origin: str) -> Sequence[Mapping[str, Any]]:
    """The items of a value, each with its line: one, or several of a list or a command. Raises
    ValueError.
    """
    is_command = name == COMMAND or TABLE[name].kind is command_words
    if "wrong" in value:
        raise ValueError(f"{origin}: {value['wrong']} is no value; {_expected(name)}")
    if "items" in value:
        if not is_command and not TABLE[name].repeat:
            raise ValueError(f"{origin}: it is a list; {_expected(name)}")
        items: Sequence[Mapping[str, Any]] = value["items"]
        return items
    if not is_command:
        return [value]
    try:
        words = command_words(value["text"])
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None
    return [{"text": word, "line": value["line"]} for word in words]


def _unusable(text: str) -> str:
    """What of a text no path, argument or variable can hold, "" if there is nothing (execve(2))."""
    if "\0" in text:
        return "it holds a NUL character, which no path, argument or variable can"
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "it holds one half of a surrogate pair, which is no character"
    return ""


def _expected(name: str) -> str:
    """What would be right, as the end of a message."""
    if name == COMMAND:
        return "say the program and its arguments, as one line or as a list"
    setting = TABLE[name]
    if not setting.metavar:
        return "say yes or no"
    if setting.repeat:
        return f"say {setting.metavar}, or a list of them"
    return f"say one {setting.metavar}"
