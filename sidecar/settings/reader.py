"""The reader of sidecar.yml: a process of its own, for PID 1 imports no YAML. `python -m
sidecar.settings.reader FILE` writes one JSON object:

    {"pairs": [[KEY, LINE, VALUE], …], "problems": [[LINE, TEXT], …]}
    VALUE = {"line": N, "text": T} | {"line": N, "items": [VALUE, …]}
          | {"line": N, "nothing": true} | {"line": N, "wrong": WHAT}

It takes the file apart and understands none of it; settings/file.py does. The text of a value goes
out as it was written. An alias is a reference to a node and is never expanded below a list's items,
so a "billion laughs" is a few bytes of "wrong".
"""

from __future__ import annotations

import json
import os
import stat
import sys

from sidecar.settings.yaml_nodes import (
    MAX_EVENTS,
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
    from collections.abc import Sequence
    from typing import Any

MAX_FILE_BYTES = 1 << 16

# The tags of values whose text may be read as a setting's.
PLAIN_TAGS = tuple(
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "timestamp", "value", "map", "seq", "merge")
)


def load(path: str) -> bytes:
    """The content of the file. Raises Unreadable."""
    try:
        # Non-blocking, so that a FIFO that nobody writes to does not hold it up.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Unreadable(0, "the settings file is no regular file")
            data = b""
            while len(data) <= MAX_FILE_BYTES and (part := os.read(fd, MAX_FILE_BYTES)):
                data += part
        finally:
            os.close(fd)
    except OSError as error:
        raise Unreadable(
            0, f"the settings file cannot be read: {(error.strerror or str(error)).lower()}"
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise Unreadable(0, f"the settings file is larger than {MAX_FILE_BYTES >> 10} KiB")
    return data


def parse(data: bytes) -> dict[str, Any]:
    """What is written in the file, as the head of this module has it. Raises Unreadable."""
    answer: dict[str, Any] = {"pairs": [], "problems": []}
    root = compose(data)
    # One list may be there under many names.
    if (
        isinstance(root, MappingNode)
        and sum(len(each.value) for _, each in root.value if isinstance(each, SequenceNode))
        > MAX_EVENTS
    ):
        raise Unreadable(0, "it says too much")
    if root is None or root.tag == NULL_TAG:
        return answer
    if not isinstance(root, MappingNode):
        raise Unreadable(line_of(root), "it is no mapping; say one `NAME: VALUE` a line")
    for key, value in root.value:
        line = line_of(key)
        if not isinstance(key, ScalarNode):
            answer["problems"].append([line, "a key is the name of a setting"])
        else:
            answer["pairs"].append([key.value, line, _value(value, line, is_item=False)])
    return answer


def _value(node: Node, line: int, is_item: bool) -> dict[str, Any]:
    """The VALUE of a node that is used on this line; an item of a list cannot be a list itself."""
    # An anchored node is where it was written, which may be another line than where it is used.
    line = max(line, line_of(node))
    if node.tag == NULL_TAG:
        return {"line": line, "nothing": True}
    if node.tag not in PLAIN_TAGS:
        return {"line": line, "wrong": f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')}"}
    if isinstance(node, ScalarNode):
        return {"line": line, "text": node.value}
    if isinstance(node, MappingNode):
        return {"line": line, "wrong": "a mapping"}
    if is_item:
        return {"line": line, "wrong": "a list"}
    return {"line": line, "items": [_value(item, line, is_item=True) for item in node.value]}


def read(path: str) -> dict[str, Any]:
    """Everything that is in the file, or why it cannot be read."""
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
