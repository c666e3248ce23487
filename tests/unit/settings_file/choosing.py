"""What the tests of sidecar.yml share: the settings that come of a text."""

from __future__ import annotations

import json

from sidecar.settings import file, reader, resolve


def choose(
    text: str | bytes,
    *flags: tuple[str, str],
    environ: dict[str, str] | None = None,
    command: tuple[str, ...] = (),
):
    """The choice that comes of a file of this text."""
    try:
        answer = reader.parse(text if isinstance(text, bytes) else text.encode())
    except reader.Unreadable as error:
        answer = {"pairs": [], "problems": [list(error.args)]}
    answer = json.loads(json.dumps(answer))
    return resolve.resolve(
        flags,
        environ or {},
        command,
        from_file=file.from_answer(answer, "sidecar.yml", environ or {}),
    )
