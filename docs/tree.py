"""Writes the tree of the package into docs/how-it-works.md: `python -m docs.tree`, or `--check`.

A folder's and a module's sentence is the first one of its docstring.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sidecar"
PAGE = ROOT / "docs" / "how-it-works.md"
BEGIN, END = "<!-- the tree: make docs -->\n", "<!-- end of the tree -->\n"

# From the top floor down; then what runs beside PID 1, and what programs import.
FOLDERS = (
    "cli", "start_server", "host", "upgrade", "control", "system", "log", "policies", "core", "settings", "base",
    "watch", "admin", "rollout",
)  # fmt: skip
WIDTH = 26


def sentence(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.?!])\s", text, maxsplit=1)[0]


def tree() -> str:
    """The page's part about the tree."""
    rows = []
    for folder in FOLDERS:
        rows.append((f"{folder}/", sentence(PACKAGE / folder / "__init__.py")))
        rows += [
            (f"  {path.name}", sentence(path))
            for path in sorted((PACKAGE / folder).glob("*.py"))
            if path.name not in ("__init__.py", "__main__.py")
        ]
    rows.append(("worker.py", sentence(PACKAGE / "worker.py")))
    lines = []
    for name, text in rows:
        first, *rest = textwrap.wrap(text, 96 - WIDTH) or [""]
        lines.append(f"    {name:<{WIDTH}}{first}".rstrip())
        lines += [" " * (4 + WIDTH) + each for each in rest]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page anew, or say whether it is as it would be."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = f"{before}{BEGIN}\n{tree()}\n{END}{after}"
    if sys.argv[1:] == ["--check"]:
        if new != page:
            print("docs/how-it-works.md: the tree has changed; say make docs", file=sys.stderr)
        return int(new != page)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
