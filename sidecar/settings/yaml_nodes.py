"""The one reader of YAML: bytes become the nodes of PyYAML, each with its line and its text as it
was written. Pure, and never imported by PID 1.

Nothing is ever constructed, so `off` and `022` stay the texts they are until somebody knows what
they mean. Size, depth and number of events are bounded before anything is composed.
"""

from __future__ import annotations

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

__all__ = [
    "MAX_DEPTH",
    "MAX_EVENTS",
    "NULL_TAG",
    "MappingNode",
    "Node",
    "ScalarNode",
    "SequenceNode",
    "Unreadable",
    "compose",
    "line_of",
]

# A list of commands in a settings file is 2 deep, a plan of a rollout 4.
MAX_DEPTH = 8
MAX_EVENTS = 20_000

NULL_TAG = "tag:yaml.org,2002:null"


class Unreadable(Exception):
    """The file as a whole cannot be read: the line, 0 if it is not known, and why."""


def compose(data: bytes) -> Node | None:
    """The root node of a document, None if it is empty. Raises Unreadable."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(data[: error.start].count(b"\n") + 1, "it is not UTF-8") from None
    try:
        _check_bounds(text)
        return yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unreadable(
            mark.line + 1 if mark else 0, f"it is no YAML: {error.problem or error.context}"
        ) from None
    except yaml.reader.ReaderError as error:
        raise Unreadable(
            text[: error.position].count("\n") + 1, "there is a character that YAML does not allow"
        ) from None
    except (ValueError, RecursionError, yaml.YAMLError):
        raise Unreadable(0, "it is no YAML") from None


def _check_bounds(text: str) -> None:
    """Raises Unreadable, or what PyYAML raises for a text that is no YAML."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or count > MAX_EVENTS:
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise Unreadable(
                line, "it is nested too deep" if depth > MAX_DEPTH else "it says too much"
            )


def line_of(node: Node) -> int:
    """The line on which a node begins, from 1."""
    return int(node.start_mark.line) + 1
