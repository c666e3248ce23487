"""Sidecar installed as the Dockerfile does it: copied rather than editable, compiled beforehand,
isolated (`-I`).
"""

import compileall
import py_compile
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.contestants import PYTHON, ROOT, Sidecar

SCRIPT = """\
#!{python} -I
import sys
from sidecar.cli.main import main
if __name__ == '__main__':
    sys.exit(main())
"""


class Image:
    """A virtual environment without pip that holds a copy of sidecar, in a directory that is
    removed again.
    """

    def __enter__(self):
        self._directory = tempfile.TemporaryDirectory(prefix="sidecar-bench-")
        place = Path(self._directory.name)
        subprocess.run([PYTHON, "-m", "venv", "--without-pip", place], check=True)
        package = next(place.glob("lib/python*/site-packages")) / "sidecar"
        shutil.copytree(ROOT / "sidecar", package, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(
            package, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
        self.python = str(place / "bin/python3")
        self.script = place / "bin/sidecar"
        self.script.write_text(SCRIPT.format(python=self.python))
        self.script.chmod(0o755)
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.cleanup()

    def sidecar(self, *, workers: int = 1, inside: tuple[str, ...] = ()) -> Sidecar:
        contestant = Sidecar(workers=workers, inside=inside)
        contestant.program = (str(self.script),)
        return contestant
