"""What the tests of upgrades share: a version of the package that another one can replace."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import PATIENCE, ROOT


class Installed:
    """A directory with a version of the package, which another one can replace."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.package = where / "sidecar"
        shutil.copytree(
            ROOT / "sidecar", self.package, ignore=shutil.ignore_patterns("__pycache__")
        )

    def change(self, name: str, old: str, new: str) -> None:
        """Put a file in the place of one, with other text; the interpreter compares times and
        sizes.
        """
        path = self.package / name
        text = path.read_text()
        assert text.count(old) == 1
        path.with_suffix(".new").write_text(text.replace(old, new))
        path.with_suffix(".new").rename(path)
        shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)

    def version(self, number: str) -> None:
        init = self.package / "__init__.py"
        init.write_text(
            re.sub(r'__version__ = ".*"', f'__version__ = "{number}"', init.read_text())
        )
        shutil.rmtree(self.package / "__pycache__", ignore_errors=True)


def ask(tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "SIDECAR_CONTROL": str(tmp_path / "control")}
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def status(tmp_path: Path) -> dict:
    return json.loads(ask(tmp_path, "status", "--json").stdout)
