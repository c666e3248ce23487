"""What is asked for: a plan, from the words of the command line and from a file. Every mistake is
named, all at once, with where it is.

A word wins over the file, except that labels add up. Pure: the file's text comes in, and paths are
made absolute by whoever opens them (those of a file are relative to it: `base`).

A node of the file knows its line, and `off` stays a text until its key says what it means.
"""

from __future__ import annotations

import re

from sidecar.base.command_line import CommandLine
from sidecar.base.errors import SettingsError
from sidecar.base.record import Record
from sidecar.settings.types import count, duration, non_empty, switch
from sidecar.settings.yaml_nodes import (
    NULL_TAG,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    Unreadable,
    compose,
    line_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


class Copy(Record):
    """A local directory whose content goes into one of the container."""

    source: str
    destination: str
    exclude: tuple[str, ...] = ()


class Plan(Record):
    """Everything that a rollout needs to know. Times are seconds."""

    label: tuple[str, ...] = ()
    project: str = ""
    service: str = ""
    selector: str = ""
    namespace: str = ""
    context: str = ""
    control: str = ""
    copy: tuple[Copy, ...] = ()
    envdir: Copy | None = None
    parallel: int = 1
    max_failures: int = 0
    timeout: float = 120.0
    rollback: bool = False
    confirm: bool = True
    before: tuple[tuple[str, ...], ...] = ()
    before_each: tuple[tuple[str, ...], ...] = ()
    after_each: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    dry_run: bool = False
    json: bool = False


# What a hook's words may hold, in braces.
EACH = ("name", "id", "old")
VARIABLES = {
    "before": ("containers",),
    "before_each": EACH,
    "after_each": (*EACH, "new", "outcome"),
    "after": ("containers", "done", "failed", "untouched", "outcome"),
}
SHELLS = ("sh", "ash", "bash", "dash", "ksh", "zsh", "busybox")
VARIABLE = re.compile(r"\{([a-z_]+)\}")


def label(text: str) -> str:
    """A label, or a label and its value."""
    if not text.partition("=")[0] or text != text.strip():
        raise ValueError(f"{text!r} is no label; say NAME=VALUE or NAME")
    return text


def inside(text: str) -> str:
    """A directory of the container."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is no absolute path of the container")
    return text


def copy(text: str) -> Copy:
    """SRC:DEST."""
    source, colon, destination = text.rpartition(":")
    if not colon or not source:
        raise ValueError(f"{text!r}: say SRC:DEST, a directory here and one of the container")
    return Copy(source, inside(destination))


KINDS: dict[str, Callable[[str], Any]] = {
    "label": label,
    "project": non_empty,
    "service": non_empty,
    "selector": non_empty,
    "namespace": non_empty,
    "context": non_empty,
    "control": inside,
    "copy": copy,
    "exclude": non_empty,
    "envdir": copy,
    "parallel": count(1),
    "max_failures": count(0),
    "timeout": duration,
    "rollback": switch,
    "yes": switch,
    "dry_run": switch,
    "json": switch,
}
SWITCHES = ("rollback", "yes", "dry_run", "json")
REPEATED = ("label", "copy", "exclude")

TARGETS = ("project", "service", "selector", "namespace", "context", "control")
PLAIN = ("parallel", "max_failures", "timeout", "rollback", "confirm")


def resolve(words: Sequence[str], file: str, text: str) -> Plan:
    """The plan that these words and this file's text make; `file` is "" where there is none. Raises
    SettingsError.
    """
    page = Page(file)
    values = page.read(text) if file else {}
    given, problems = from_words(words)
    given["label"] = (*values.get("label", ()), *given.get("label", ()))
    exclude = given.pop("exclude", ())
    if given.pop("yes", False):
        given["confirm"] = False
    values |= given
    values["copy"] = tuple(
        each.replace(exclude=(*each.exclude, *exclude)) for each in values.get("copy", ())
    )
    problems = page.problems + problems
    if not problems:
        plan = Plan(**values)
        problems = together(plan, exclude)
    if problems:
        raise SettingsError(problems)
    return plan


class RolloutCommandLine(CommandLine):
    """The options of `sidecar rollout`, by the names of their values."""

    mixed = True

    def __init__(self) -> None:
        super().__init__({name: "" if name in SWITCHES else name.upper() for name in KINDS})

    def find(self, flag: str) -> str | None:
        """`max_failures` for --max-failures."""
        name = flag.removeprefix("--").replace("-", "_")
        return name if flag.startswith("--") and name in self.options else None

    def read_value(self, flag: str, name: str, text: str, attached: bool) -> Any:
        """The value, or what is wrong with it and where."""
        try:
            return KINDS[name](text)
        except ValueError as error:
            raise ValueError(f"{flag}: {error}") from None

    def unknown(self, flag: str) -> str:
        """The message, with where the known ones are."""
        return f"{flag}: there is no such option; see sidecar rollout --help"


def from_words(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The values that the words give, and what is wrong with them. The plan's file is none of these
    words.
    """
    parsed = RolloutCommandLine().parse(words)
    problems = parsed.problems
    problems += [f"{word}: a plan's file comes first, before every option" for word in parsed.words]
    values: dict[str, Any] = {}
    for name, value in parsed.options:
        values[name] = (*values.get(name, ()), value) if name in REPEATED else value
    return values, problems


def together(plan: Plan, exclude: Sequence[str]) -> list[str]:
    """What is wrong with settings that are right by themselves."""
    problems = []
    engine = bool(plan.label or plan.project or plan.service)
    if engine and plan.selector:
        problems.append(
            "--selector: means pods; --label, --project and --service mean containers: say one or the other"
        )
    if not engine and not plan.selector:
        problems.append(
            "say which containers: --label NAME=VALUE, --project NAME, --service NAME, or --selector for pods"
        )
    if (plan.namespace or plan.context) and not plan.selector:
        problems.append("--namespace, --context: mean pods, which --selector chooses")
    if plan.selector and (plan.copy or plan.envdir):
        problems.append(
            "--copy, --envdir: not with --selector: a pod gets its code and its environment from volumes (docs/rollout.md)"
        )
    if exclude and not plan.copy:
        problems.append("--exclude: there is no --copy to leave anything out of")
    if plan.rollback and not plan.copy and not plan.envdir:
        problems.append("--rollback: there is no --copy to take back")
    if plan.timeout <= 0:
        problems.append("--timeout: it has to be more than nothing")
    return problems


class Page:
    """A plan's file: its values, and what is wrong with them."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[tuple[int, str]] = []

    @property
    def problems(self) -> list[str]:
        """What is wrong, from top to bottom."""
        return [
            f"{self.file}:{line}: {text}"
            for line, text in sorted(self._found, key=lambda each: each[0])
        ]

    def read(self, text: str) -> dict[str, Any]:
        """The values by name."""
        try:
            root = compose(text.encode())
        except Unreadable as error:
            line, why = error.args
            self._found.append((line or 1, why))
            return {}
        values: dict[str, Any] = {}
        if root is None:
            return values
        hooks = [name.replace("_", "-") for name in VARIABLES]
        known = ("targets", "copy", "envdir", *(name.replace("_", "-") for name in PLAIN), *hooks)
        for key, node in self.mapping(root, "", known).items():
            if key == "targets":
                values |= self.targets(node)
            elif key == "copy":
                found = [
                    self.copied(each, "copy", ("from", "to", "exclude"))
                    for each in self.items(node)
                ]
                values["copy"] = tuple(each for each in found if each is not None)
            elif key == "envdir":
                values["envdir"] = self.copied(node, "envdir", ("from", "to"))
            elif key in hooks:
                name = key.replace("-", "_")
                values[name] = self.commands(node, key, VARIABLES[name])
            else:
                name = key.replace("-", "_")
                found = self.value(node, key, KINDS.get(name, switch))
                if found is not None:
                    values[name] = found
        return values

    def wrong(self, node: Node, text: str) -> None:
        """A problem at this node's line."""
        self._found.append((line_of(node), text))

    def mapping(self, node: Node, what: str, known: Sequence[str] = ()) -> Mapping[str, Node]:
        """The nodes by key; only `known` ones, if any are."""
        found: dict[str, Node] = {}
        prefix = f"{what}: " if what else ""
        if not isinstance(node, MappingNode):
            self.wrong(
                node,
                f"{prefix}say `NAME: VALUE`, one a line"
                + (f"; the names are {', '.join(known)}" if known else ""),
            )
            return found
        for key, value in node.value:
            name = key.value if isinstance(key, ScalarNode) else ""
            if not name or (known and name not in known):
                self.wrong(
                    key,
                    f"{prefix}{name or 'this'}: there is no such name; say one of {', '.join(known)}",
                )
            elif name in found:
                self.wrong(key, f"{prefix}{name}: it is there twice")
            else:
                found[name] = value
        return found

    def items(self, node: Node) -> list[Node]:
        """The nodes of a list; anything else is a list of one."""
        return list(node.value) if isinstance(node, SequenceNode) else [node]

    def value(self, node: Node, what: str, kind: Callable[[str], Any]) -> Any:
        """The value of a scalar, None where it is wrong."""
        if not isinstance(node, ScalarNode):
            self.wrong(node, f"{what}: say one value")
            return None
        try:
            return kind("" if node.tag == NULL_TAG else node.value)
        except ValueError as error:
            self.wrong(node, f"{what}: {error}")
            return None

    def targets(self, node: Node) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, each in self.mapping(node, "targets", ("labels", *TARGETS)).items():
            if key == "labels" and isinstance(each, MappingNode):
                pairs = {
                    name: self.value(value, f"labels: {name}", str)
                    for name, value in self.mapping(each, "labels").items()
                }
                values["label"] = tuple(
                    f"{name}={value}" for name, value in pairs.items() if value is not None
                )
            elif key == "labels":
                values["label"] = tuple(
                    found
                    for item in self.items(each)
                    if (found := self.value(item, "labels", label)) is not None
                )
            elif (found := self.value(each, key, KINDS[key])) is not None:
                values[key] = found
        return values

    def copied(self, node: Node, what: str, known: Sequence[str]) -> Copy | None:
        parts = self.mapping(node, what, known)
        for name in ("from", "to"):
            if isinstance(node, MappingNode) and name not in parts:
                self.wrong(node, f"{what}: {name}: is missing")
        source = self.value(parts["from"], f"{what}: from", non_empty) if "from" in parts else None
        to = self.value(parts["to"], f"{what}: to", inside) if "to" in parts else None
        exclude = (
            [
                self.value(each, f"{what}: exclude", non_empty)
                for each in self.items(parts["exclude"])
            ]
            if "exclude" in parts
            else []
        )
        return (
            Copy(source, to, tuple(each for each in exclude if each is not None))
            if source and to
            else None
        )

    def commands(self, node: Node, what: str, known: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Commands, each a list of words; a list of words alone is one command."""
        lists = self.items(node)
        if not isinstance(node, SequenceNode) or not lists:
            self.wrong(
                node,
                f"{what}: say a list of commands, each a list of words: [[make, build], [./notify, started]]",
            )
            return ()
        if all(isinstance(each, ScalarNode) for each in lists):
            lists = [node]
        found = []
        for each in lists:
            if not isinstance(each, SequenceNode) or not each.value:
                self.wrong(each, f"{what}: a command is a list of words; no shell reads it")
                continue
            words = [self.value(word, what, str) for word in each.value]
            for word, text in zip(each.value, words, strict=True):
                for name in VARIABLE.findall(text or ""):
                    if name not in known:
                        self.wrong(
                            word,
                            f"{what}: {{{name}}} is not known there; say {', '.join(f'{{{each}}}' for each in known)}",
                        )
            if (script := shell_script(words)) is not None and VARIABLE.search(words[script]):
                self.wrong(
                    each.value[script],
                    f"{what}: a shell reads this word, so nothing is put into it; say "
                    f"{VARIABLE.sub(lambda it: f'$ROLLOUT_{it[1].upper()}', words[script])}",
                )
            found.append(tuple(word or "" for word in words))
        return tuple(found)


def shell_script(words: Sequence[str | None]) -> int | None:
    """Which of a command's words a shell is given to read, as in `sh -c SCRIPT`; None: none of
    them.
    """
    shell = False
    for place, word in enumerate(words[:-1]):
        shell = shell or (word or "").rpartition("/")[2] in SHELLS
        if shell and re.fullmatch(r"-[a-z]*c", word or ""):
            return place + 1
    return None


def filled(argv: Sequence[str], values: Mapping[str, object]) -> list[str]:
    """A hook's words with its variables put in; other braces stay as they are."""
    return [VARIABLE.sub(lambda found: str(values.get(found[1], found[0])), word) for word in argv]
