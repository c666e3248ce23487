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

from sidecar.settings.resolve import Said
from sidecar.settings.table import TABLE
from sidecar.settings.types import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

COMMAND = "command"
NAMES = {COMMAND: COMMAND, **{each.key: each.name for each in TABLE.values()}}


def nearest(word: str, known: Iterable[str], otherwise: str) -> str:
    """The one of the known words that may have been meant, as the end of a sentence."""
    import difflib  # noqa: PLC0415  (only a mistake pays for it)

    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]}?" if near else otherwise


def fill(text: str, environ: Mapping[str, str]) -> tuple[str, bool]:
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
            name, default, instead = inside.partition(":-")
            if not end or not name.isidentifier() or not name.isascii():
                raise ValueError(
                    f"${{{inside}{end} is no variable; say ${{NAME}} or ${{NAME:-DEFAULT}}, and $$ for a dollar"
                )
            if "${" in instead:
                raise ValueError(
                    f"${{{name}:-${{…}}}}: a default cannot hold another variable; say ${{{name}:-DEFAULT}} with plain text"
                )
            value = environ.get(name, "")
            if value or (name in environ and not default):
                done, filled = done + value, True
            elif default:
                done += instead
            else:
                raise ValueError(
                    f"the variable {name} is not set; set it, or say ${{{name}:-DEFAULT}}"
                )


def understood(answer: str, file: str, environ: Mapping[str, str]) -> Said:
    """What the file says, from what its reader wrote: nothing at all, if the reader could not be
    run or died.
    """
    import json  # noqa: PLC0415  (only who has a settings file pays for it)

    try:
        return said(json.loads(answer), file, environ)
    except ValueError:
        return Said(
            file,
            problems=(f"{file}: its reader (python -m sidecar.settings.reader {file}) failed",),
        )


def said(answer: Mapping[str, Any], file: str, environ: Mapping[str, str]) -> Said:
    """What the file says, and everything that is wrong with it, by line."""
    problems = [
        f"{file}:{line}: {text}" if line else f"{file}: {text}" for line, text in answer["problems"]
    ]
    texts: dict[str, list[tuple[str, str]]] = {}
    filled: list[str] = []
    hidden: list[str] = []
    seen: dict[str, int] = {}
    for key, line, value in answer["pairs"]:
        where = f"{file}:{line}: {key}"
        if key in seen:
            problems.append(f"{where}: it is there already, in line {seen[key]}; say it once")
            continue
        seen[key] = line
        wrong = _no_setting(key)
        name = NAMES.get(key, "")
        if wrong or not name:
            problems.append(f"{where}: {wrong}")
            continue
        if "nothing" in value:
            continue  # `workers:` alone says nothing, as an empty variable does
        try:
            found = _texts(name, value, f"{file}:{{}}: {key}", environ)
        except ValueError as error:
            problems += error.args
            continue
        hide = [text for text, _, secret in found if secret]
        if hide:
            filled.append(name)
            # Where sidecar listens anybody can see, and a text of a letter or two is everywhere.
            hidden += [text for text in hide if len(text) > 2 and name != "port"]
        if name != COMMAND and TABLE[name].kind is words:
            import shlex  # noqa: PLC0415  (only who sets a command pays for it)

            found = [(shlex.join([text for text, _, _ in found]), found[0][1], bool(hide))]
        texts[name] = [(text, origin) for text, origin, _ in found]
    return Said(file, texts, tuple(filled), tuple(hidden), tuple(problems))


def _no_setting(key: str) -> str:
    """Why `key` is none, "" if it is."""
    if key == "config":
        return "which file is read cannot be said in it; say --config FILE or SIDECAR_CONFIG"
    if key in NAMES:
        return ""
    hyphened = key.replace("_", "-").lower().removeprefix("--").removeprefix("sidecar-")
    if hyphened in NAMES:
        return f"there is no such setting; say {hyphened}"
    return "there is no such setting" + nearest(
        hyphened, NAMES, "; `sidecar run --help` has them all"
    )


def _texts(
    name: str, value: Mapping[str, Any], where: str, environ: Mapping[str, str]
) -> list[tuple[str, str, bool]]:
    """The texts of a value, each with its place and whether it is secret. Raises ValueError with
    every problem.
    """
    split = name == COMMAND or TABLE[name].kind is words
    items = value.get("items")
    problems = []
    if "wrong" in value:
        problems.append(
            f"{where.format(value['line'])}: {value['wrong']} is no value; {_form(name)}"
        )
    elif items is not None and not split and not TABLE[name].repeat:
        problems.append(f"{where.format(value['line'])}: it is a list; {_form(name)}")
    elif items is None and split:
        try:
            items = [{"text": word, "line": value["line"]} for word in words(value["text"])]
        except ValueError as error:
            problems.append(f"{where.format(value['line'])}: {error}")
    found = []
    for item in ([value] if items is None else items) if not problems else []:
        place = where.format(item["line"])
        if "text" not in item:
            problems.append(
                f"{place}: {item.get('wrong', 'nothing')} is no item of a list; {_form(name)}"
            )
            continue
        try:
            if unfit := _unfit(item["text"]):
                raise ValueError(unfit)
            text, secret = fill(item["text"], environ)
            found.append((text, place, secret))
        except ValueError as error:
            problems.append(f"{place}: {error}")
    if not found and not problems:
        problems.append(
            f"{where.format(value['line'])}: the list is empty; leave it out, or {_form(name)}"
        )
    if problems:
        raise ValueError(*problems)
    return found


def _unfit(text: str) -> str:
    """What of a text no path, argument or variable can hold, "" if there is nothing (execve(2))."""
    if "\0" in text:
        return "it holds a NUL character, which no path, argument or variable can"
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "it holds one half of a surrogate pair, which is no character"
    return ""


def _form(name: str) -> str:
    """What would be right."""
    if name == COMMAND:
        return "say the program and its arguments, as one line or as a list"
    each = TABLE[name]
    one = each.metavar or "yes or no"
    return (
        f"say {one}, or a list of them"
        if each.repeat
        else f"say one {one}"
        if each.metavar
        else f"say {one}"
    )
