"""What the tests of envdirs share: directories, and the programs that read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from sidecar.base.errors import EnvdirError
from sidecar.system import envdir


# What the tests are made with.
def fill(directory: Path, files: Mapping[str, bytes]) -> str:
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return str(directory)


def variables(directory: Path | str, whole: bool = False) -> dict[str, str | None]:
    return envdir.read([str(directory)], whole).variables


def refusal(directory: Path | str, whole: bool = False) -> str:
    with pytest.raises(EnvdirError) as refused:
        envdir.read([str(directory)], whole)
    return str(refused.value)


# Promise 7.
SECRET = b"hunter2"
