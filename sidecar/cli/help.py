"""The texts of `--help` and the table of `sidecar profiles`."""

from __future__ import annotations

from sidecar.control.commands import COMMANDS
from sidecar.settings import profiles
from sidecar.settings.table import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.settings.profiles import AddedArguments
    from sidecar.settings.table import Setting

USAGE = """\
usage: sidecar run [OPTION ...] [--] PROGRAM [ARGUMENT ...]

A hot-deploy supervisor for containers: binds the listening sockets, starts any
server program on them, and replaces it without a refused or reset connection.

    sidecar run --port 8080 --envdir env --workers 2 -- gunicorn app:app
    kill -HUP PID        new code, new environment, not one failed request
    kill -TERM PID       finish what is in flight, then leave

commands:
    run           start a program and supervise it
    run --help    every option
    dev           the same while you write it: a saved file is served at once
    check         the settings run would have, where each is from, what is wrong
    schema        the JSON Schema of sidecar.yml, for editors
    profiles      the programs that need no option, and what is done for each
{commands}
    rollout       reload many containers, a few at a time

options:
    --help        this text
    --version     the version

Every option is also a variable, SIDECAR_DRAIN_TIMEOUT=30s, and a line of
sidecar.yml, drain-timeout: 30s.
Exit status of run: 0 stopped as asked; 2 wrong settings; 1 cannot start; else
the program's own, if it never got ready (127 not found, 126 cannot be run); of
the others: 0 done; 1 no; 2 wrong words; 3 no sidecar answers; 4 not in time.
"""


def usage() -> str:
    """What `sidecar --help` prints."""
    return USAGE.format(
        commands="\n".join(f"    {each.name:<13} {each.help_text}" for each in COMMANDS.values())
    )


def run_help() -> str:
    """What `sidecar run --help` prints: every setting with its default, by group."""
    lines = ["usage: sidecar run [OPTION ...] [--] PROGRAM [ARGUMENT ...]"]
    group = ""
    for setting in TABLE.values():
        if setting.group != group:
            group = setting.group
            lines.append(f"{group}:")
        option = f"{setting.flag} {setting.metavar}".rstrip()
        star = " *" if setting.repeat else ""
        lines.append(f"  {option:<30} {setting.help_text}{_default(setting)}{star}")
    lines += [
        "",
        "* may be given several times. SPEC takes =FD to fix the worker's file descriptor, and",
        "  ,name=N ,defer ,nonblock ,ipv6only ,backlog=N ,mode=0660 ,owner=USER:GROUP behind it.",
        "TIME is 500ms, 30s, 5m, 2h or seconds; SIZE is 512M, 1.5G or bytes. Every option is also"
        " a variable,",
        "SIDECAR_WORKERS=2, and a line of sidecar.yml, workers: 2. A flag wins over a variable,"
        " that over the file.",
    ]
    return "\n".join(lines) + "\n"


def _default(setting: Setting) -> str:
    if setting.default in (None, "", (), False, 0, 0.0):
        return ""
    if isinstance(setting.default, float):
        return f" ({setting.default:g}s)"
    return f" ({setting.default})"


def dev_help() -> str:
    """What `sidecar dev --help` prints."""
    return """\
usage: sidecar dev [OPTION ...] [--] PROGRAM [ARGUMENT ...]

`sidecar run` for who writes the program: with these, unless said otherwise:

    --watch .             a file saved below the working directory swaps
    --watch-env           and so does a file of the envdir, where there is one
    --log-format dev      short lines for what matters; a failure in full, once
    --drain-timeout 3s    old workers do not stay for an open connection
    --max-failures 0      a program that does not start waits for the next save

In a terminal, Enter swaps, q and Enter stop it. All options: sidecar run --help
"""


def profiles_table() -> str:
    """What `sidecar profiles` prints: one row a program."""
    lines = [f"{'PROFILE':<10} {'DRAINS ON':<10} {'PROTOCOLS':<10} ARGUMENTS ADDED (unless given)"]
    for row in profiles.PROFILES.values():
        added = [_added_arguments(each) for each in row.added] or ["-"]
        protocols = ", ".join(row.handoff) or "-"
        lines.append(f"{row.name:<10} {row.signal:<10} {protocols:<10} {added[0]}")
        lines += [f"{'':<32} {each}" for each in added[1:]]
    lines += [
        "",
        "A program is found behind launchers, too: uv run, timeout, env, tini, sh -c, python -m"
        " and others.",
    ]
    return "\n".join(lines) + "\n"


def _added_arguments(added: AddedArguments) -> str:
    text = " ".join(added.words)
    if added.each:
        text += " for each listener"
    if added.no_temporary_directory:
        text += " where no temporary file can be written"
    more = " …" if len(added.unless) > 3 else ""
    return f"{text} ({', '.join(added.unless[:3])}{more})"
