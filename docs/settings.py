"""Writes docs/settings.md from sidecar's one definition of its settings; `--check` only says
whether it is up to date.
"""

import sys
from pathlib import Path

from sidecar.settings.table import TABLE

PAGE = Path(__file__).with_name("settings.md")

HEAD = """\
# Settings

<!-- written by `make docs` from sidecar/settings/table.py -->

Each is a flag of `sidecar run`, a variable, and a line of `sidecar.yml` ([configuration.md](configuration.md)): its key is the
flag without `--`. A flag wins over a variable, a variable over the file. TIME is `500ms`, `30s`, `5m`, `2h`, or a number of seconds;
SIZE is `512M`, `1.5G`, `800K` (of 1024; `512Mi` is the same), or a number of bytes.
An empty variable is one that is not set. Where a flag may be repeated, its variable takes several words, separated by blanks,
and its key a list.
Every wrong value is reported before anything is bound or started, all of them at once.
"""


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    group = ""
    for each in TABLE.values():
        if each.group != group:
            group = each.group
            lines += [
                "",
                f"## {group}",
                "",
                "| flag | variable | default | meaning |",
                "| --- | --- | --- | --- |",
            ]
        default = "" if each.default in (None, "", (), False) else each.default
        if isinstance(default, float):
            default = f"{default:g}s"
        meaning = (
            each.help_text
            + (" (repeatable)" if each.repeat else "")
            + (" (cannot change on a reload)" if each.fixed else "")
        )
        lines.append(
            f"| `{' '.join([each.flag, each.metavar]).rstrip()}` | `{each.variable}` | {default} | {meaning} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        sys.exit("docs/settings.md is out of date: run `make docs`")
