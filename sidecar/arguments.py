"""The command line of `run` and `dev`, and what `--help` says.

It is read by hand from the table of settings, not by argparse: it ends at the first word that is no option (so that
`sidecar run --port 80 gunicorn -w 4` needs no `--`), it names every wrong option at once, and argparse would be a tenth of start-up.
"""

from __future__ import annotations

from sidecar.commands import COMMANDS
from sidecar.profiles import PROFILES
from sidecar.settings import FLAGS, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

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
    profiles      the programs that need no option, and what is done for each
{commands}

options:
    --help        this text
    --version     the version

Every option is also a variable: --drain-timeout 30s is SIDECAR_DRAIN_TIMEOUT=30s.
Exit status of run: 0 stopped as asked; 2 wrong settings; 1 cannot start; else the
program's own, if it never got ready (127 not found, 126 cannot be run); of the
others: 0 done; 1 no; 2 wrong words; 3 no sidecar answers; 4 not in time.
"""


def usage() -> str:
    """What `sidecar --help` prints."""
    return USAGE.format(commands="\n".join(f"    {each.name:<13} {each.text}" for each in COMMANDS.values()))


def run_help() -> str:
    """What `sidecar run --help` prints: every setting with its default, by group."""
    lines = ["usage: sidecar run [OPTION ...] [--] PROGRAM [ARGUMENT ...]", ""]
    group = ""
    for each in TABLE.values():
        if each.group != group:
            group = each.group
            lines.append(f"{group}:")
        default = ""
        if each.default not in (None, "", (), False, 0, 0.0):
            default = f" ({each.default:g}s)" if isinstance(each.default, float) else f" ({each.default})"
        option = f"{each.flag} {each.metavar}".rstrip()
        lines.append(f"  {option:<30} {each.text}{default}{' *' if each.repeat else ''}")
    lines += [
        "",
        "* may be given several times. SPEC takes =FD to fix the worker's file descriptor, and",
        "  ,name=N ,defer ,nonblock ,backlog=N ,mode=0660 ,owner=USER:GROUP behind it.",
        "TIME is 500ms, 30s, 5m, 2h or seconds; SIZE is 512M, 1.5G or bytes.",
        "Every option is also a variable: SIDECAR_WORKERS=2.",
    ]
    return "\n".join(lines) + "\n"


def dev_help() -> str:
    """What `sidecar dev --help` prints."""
    return """\
usage: sidecar dev [OPTION ...] [--] PROGRAM [ARGUMENT ...]

`sidecar run` with what one wants while writing the program, unless said otherwise:

    --watch .             a file saved below the working directory swaps
    --watch-env           and so does a file of the envdir, where there is one
    --log-format dev      one short line for what matters; a failure in full, once
    --drain-timeout 3s    old workers do not stay for an open connection
    --max-failures 0      a program that does not start waits for the next save

In a terminal, Enter swaps, and q and Enter stop it. Every option: sidecar run --help
"""


def profiles_table() -> str:
    """What `sidecar profiles` prints: one row a program."""
    lines = [f"{'PROFILE':<10} {'DRAINS ON':<10} {'PROTOCOLS':<10} ARGUMENTS ADDED (unless given)"]
    for row in PROFILES.values():
        added = " ".join(row.arguments) + (" for each listener" if row.each else "")
        unless = f" ({', '.join(row.unless)})" if row.unless else ""
        lines.append(f"{row.name:<10} {row.signal:<10} {', '.join(row.handoff) or '-':<10} {added + unless if added else '-'}")
    return "\n".join(lines) + "\n"


def parse(argv: Sequence[str]) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """Split the words behind `run` into settings given (name, text), the program's command, and what is wrong."""
    given: list[tuple[str, str]] = []
    problems: list[str] = []
    words = list(argv)
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        flag, equals, value = word.partition("=")
        setting = FLAGS.get(flag)
        if setting is None:
            problems.append(f"{flag}: there is no such option{nearest(flag, list(FLAGS))}")
            # What followed an unknown option may have been its value.
            if not equals and words and not words[0].startswith("-") and "--" in words:
                words.pop(0)
            continue
        if not equals:
            if not setting.takes_value:
                value = "yes"
            elif not words or words[0] == "--":
                problems.append(f"{flag}: {setting.metavar} is missing behind it")
                continue
            else:
                value = words.pop(0)
        given.append((setting.name, value))
    return given, words, problems


def nearest(word: str, known: Sequence[str]) -> str:
    import difflib  # noqa: PLC0415  (only a mistake pays for it)

    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]}?" if near else "; see sidecar run --help"
