"""The reader of sidecar.yml: a process of its own, for PID 1 imports no YAML. `python -m
sidecar.settings.reader FILE` writes one JSON object:

    {"pairs": [[KEY, LINE, VALUE], …], "problems": [[LINE, TEXT], …]} VALUE = {"line": N, "text": T}
    | {"line": N, "items": [VALUE, …]} | {"line": N, "nothing": true} | {"line": N, "wrong": WHAT}

It takes the file apart and understands none of it; settings/file.py does. Nothing is ever constructed: the
parser's events are composed into nodes, and a node's text goes out as it was written. Size and
depth are bounded before anything is composed; an alias is a reference to a node and is never
expanded below a list's items, so a "billion laughs" is a few bytes of "wrong".
"""

from __future__ import annotations

import json
import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

# No settings file is larger (bytes), nor nested deeper: a list of commands is 2. Nor has it more
# events to the parser.
LARGEST, DEEPEST, MOST_EVENTS = 1 << 16, 8, 20_000

PLAIN = tuple(
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "timestamp", "value", "map", "seq", "merge")
)
NOTHING = "tag:yaml.org,2002:null"


class Unreadable(Exception):
    """The file as a whole is not to be read: the line, 0 for none, and why."""


def load(path: str) -> bytes:
    """What is in the file. Raises Unreadable."""
    try:
        # Not to be held up by a FIFO that nobody writes to.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unreadable(
            0, f"the settings file cannot be read: {(error.strerror or str(error)).lower()}"
        ) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Unreadable(0, "the settings file is no regular file")
        data = b""
        while len(data) <= LARGEST and (part := os.read(fd, LARGEST)):
            data += part
    except OSError as error:
        raise Unreadable(
            0, f"the settings file cannot be read: {(error.strerror or str(error)).lower()}"
        ) from None
    finally:
        os.close(fd)
    if len(data) > LARGEST:
        raise Unreadable(0, f"the settings file is larger than {LARGEST >> 10} KiB")
    return data


def parse(data: bytes) -> dict[str, Any]:
    """What is written in the file, as the head of this module has it. Raises Unreadable."""
    import yaml  # noqa: PLC0415  (a file that cannot be read needs none of it)

    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(data[: error.start].count(b"\n") + 1, "it is not UTF-8") from None
    try:
        depth = 0
        for count, event in enumerate(yaml.parse(text, yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
                event, yaml.CollectionEndEvent
            )
            if depth > DEEPEST or count > MOST_EVENTS:
                line = event.start_mark.line + 1 if event.start_mark else 0
                raise Unreadable(
                    line, "it is nested too deep" if depth > DEEPEST else "it says too much"
                )
        root = yaml.compose(text, yaml.SafeLoader)
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
    answer: dict[str, Any] = {"pairs": [], "problems": []}
    # One list may be there under many names.
    if (
        isinstance(root, yaml.MappingNode)
        and sum(len(value.value) for _, value in root.value if value.id == "sequence") > MOST_EVENTS
    ):
        raise Unreadable(0, "it says too much")
    if root is None or root.tag == NOTHING:
        return answer
    if not isinstance(root, yaml.MappingNode):
        raise Unreadable(root.start_mark.line + 1, "it is no mapping; say one `NAME: VALUE` a line")
    for key, value in root.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            answer["problems"].append([line, "a key is the name of a setting"])
        else:
            answer["pairs"].append([key.value, line, _value(value, line, deep=True)])
    return answer


def _value(node: Any, line: int, deep: bool = False) -> dict[str, Any]:
    # An anchored node is where it was written, which may be another line than where it is used.
    line = max(line, node.start_mark.line + 1)
    if node.tag == NOTHING:
        return {"line": line, "nothing": True}
    if node.tag not in PLAIN:
        return {"line": line, "wrong": f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')}"}
    if isinstance(node.value, str):
        return {"line": line, "text": node.value}
    if node.id == "mapping":
        return {"line": line, "wrong": "a mapping"}
    if not deep:
        return {"line": line, "wrong": "a list"}
    return {"line": line, "items": [_value(item, line) for item in node.value]}


def read(path: str) -> dict[str, Any]:
    """Everything that is in the file, or why it cannot be read. Never raises for what is in it."""
    try:
        return parse(load(path))
    except Unreadable as error:
        return {"pairs": [], "problems": [list(error.args)]}


def main(argv: Sequence[str]) -> int:
    """Write what is in the file to standard output."""
    print(json.dumps(read(argv[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
