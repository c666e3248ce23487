"""The lines that the watcher writes to PID 1."""

from __future__ import annotations

import json
import os

MAX_LINE_BYTES = 3900  # less than a pipe takes at once
MAX_PATHS = 20
MAX_TEXT_CHARS = 1000


def send(event: str, **fields: object) -> None:
    """Write one line. Lists and texts are cut so that it is written at once, and never half.

    Raises OSError.
    """
    lists = {
        name: value[:MAX_PATHS] if name == "paths" else value
        for name, value in fields.items()
        if isinstance(value, list)
    }
    texts = {
        name: value[:MAX_TEXT_CHARS] for name, value in fields.items() if isinstance(value, str)
    }
    while True:
        line = json.dumps({"event": event, **fields, **texts, **lists}).encode() + b"\n"
        if len(line) <= MAX_LINE_BYTES:
            break
        longest = max(lists, key=lambda each: len(json.dumps(lists[each])), default="")
        if longest and lists[longest]:
            lists[longest] = lists[longest][:-1]
        else:
            texts = {name: value[: len(value) // 2] for name, value in texts.items()}
    os.write(1, line)
