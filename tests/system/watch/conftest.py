"""Trees and envdirs that a sidecar watches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import saves
from tests.support import Sidecar
from tests.system.watch.watched import begun


@pytest.fixture
def tree(tmp_path) -> Path:
    return saves.plant(tmp_path / "tree")


@pytest.fixture
def watched(sidecar, tree) -> Callable[..., Sidecar]:
    """A sidecar that watches the tree and serves what it has read of it; it is returned once both
    are so.
    """

    def start(*options: str, **keywords: object) -> Sidecar:
        keywords["env"] = {"TREE": str(tree), **keywords.get("env", {})}
        return begun(sidecar("--watch", str(tree), *options, **keywords))

    return start


@pytest.fixture
def env(tmp_path) -> Path:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "GREETING").write_text("first\n")
    return tmp_path / "env"
