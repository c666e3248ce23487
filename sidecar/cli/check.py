"""`sidecar check`: the settings that `run` would have, where each came from, and what is wrong or
doubtful with them.

Nothing is bound and nothing is started but the reader of sidecar.yml. What was filled in from the
environment is told by name only.
"""

from __future__ import annotations

import json
import os
import shlex
import sys

from sidecar.base.columns import columns
from sidecar.base.errors import EnvdirError
from sidecar.cli import preflight
from sidecar.cli.options import Chosen, RunCommandLine
from sidecar.settings.resolve import hidden, only_time
from sidecar.settings.table import TABLE, Settings
from sidecar.settings.types import duration, octal, words
from sidecar.system import envdir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

OWN = {"--json": "", "--grace": "TIME", "--pre-stop": "TIME"}
HELP = """\
usage: sidecar check [--json] [--grace TIME [--pre-stop TIME]]
                     [OPTION ...] [--] [PROGRAM ...]

The settings that `sidecar run` with the same options would have in this place:
each value, and whether it is from a flag, a variable, a line of sidecar.yml, a
profile, or the default.

    --json           as one object: settings, problems, remarks
    --grace TIME     whether a stop ends within Kubernetes'
                     terminationGracePeriodSeconds, or Docker's
                     stop_grace_period
    --pre-stop TIME  what a preStop hook takes of it

In a container whose PID 1 is `sidecar run …`, its options and its program need
not be said again.
Exit status: 0 right; 2 wrong; 1 right, but not for this machine (a user, a
directory, the program). Remarks are about what is allowed and may be meant
otherwise.
"""
# What a stop may take beyond lame duck and drain: for the end of what was killed.
LAST_SECONDS = 5.0
USUAL_GRACE = 30.0
PID_1 = "/proc/1"
NOT_SHOWN = "(filled in from the environment)"


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """The command; its exit status."""
    if argv and argv[0] in ("--help", "-h"):
        print(HELP, end="")
        return 0
    chosen = Chosen(argv, environ, own=OWN)
    choice = chosen.choice(chosen.read())
    borrowed = [] if choice.settings.command else _with_those_of_pid_1(argv)
    if borrowed:
        chosen = Chosen(borrowed, environ, own=OWN)
        choice = chosen.choice(chosen.read())
    settings = choice.settings
    problems = [*choice.problems]
    try:
        grace, before = (
            duration(chosen.own[flag]) if flag in chosen.own else None
            for flag in ("--grace", "--pre-stop")
        )
    except ValueError as error:
        problems.append(f"--grace, --pre-stop: {error}")
        grace = before = None
    more, remarks = _looked_at(settings, environ, grace, before or 0.0)
    problems += more
    unfit = preflight.problems(choice, environ)
    if borrowed:
        remarks.insert(
            0, "no program was named: the options and the program are those PID 1 was started with"
        )
    program = preflight.program_problem(choice, environ)
    if program is not None and program[0] not in unfit:
        remarks.append(program[0])
    remarks += chosen.remarks(settings, checking=True)
    status = 2 if problems else 1 if unfit else 0
    problems = [hidden(each, settings.hide) for each in (*problems, *unfit)]
    remarks = [hidden(each, settings.hide) for each in remarks]
    rows = {"command": _row(settings, "command", choice.origins)}
    rows.update({each.key: _row(settings, name, choice.origins) for name, each in TABLE.items()})
    if "--json" in chosen.own:
        print(
            json.dumps(
                {"settings": rows, "problems": problems, "remarks": remarks}, ensure_ascii=False
            )
        )
    else:
        if not problems:
            for line in _table(rows):
                print(line)
        for each in remarks:
            print(f"remark: {each}")
        for each in problems:
            print(f"sidecar: {each}", file=sys.stderr)
    return status


def _with_those_of_pid_1(argv: Sequence[str]) -> list[str]:
    """In a container that was started with `sidecar run OPTIONS -- PROGRAM`, whoever looks from
    inside has no reason to say all that again: PID 1's words, with what is said now behind its
    options. None where PID 1 is no such thing.
    """
    words = _words_of_run(PID_1)
    command = RunCommandLine().parse(words).words
    options, said = words[: len(words) - len(command)], list(argv)
    for each in (options, said):
        if each[-1:] == ["--"]:
            each.pop()
    return [*options, *said, "--", *command] if command else []


def _words_of_run(process: str) -> list[str]:
    """The words behind `sidecar run` that a process was started with; none if it is no such one."""
    try:
        with open(f"{process}/cmdline", "rb") as file:
            line = [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
    except OSError:
        return []
    # `python …/bin/sidecar run`, or `python -m sidecar run`.
    for place, word in enumerate(line[:-1]):
        if os.path.basename(word) == "sidecar" and line[place + 1] == "run":
            return line[place + 2 :]
    return []


def _row(settings: Settings, name: str, origins: Mapping[str, str]) -> dict[str, Any]:
    origin = origins.get(name, "default")
    # `sidecar.yml:3: workers` is a place in a message; here the name stands beside it.
    key = TABLE[name].key if name in TABLE else name
    row: dict[str, Any] = {
        "value": NOT_SHOWN if name in settings.secret else _plain(settings, name),
        "from": origin.removesuffix(f": {key}"),
    }
    return {**row, "secret": True} if name in settings.secret else row


def _plain(settings: Settings, name: str) -> Any:
    """A value as JSON has it."""
    value = getattr(settings, name)
    if name == "port":
        return [each.spec for each in value]
    if name == "admin" and value is not None:
        return value.spec
    if name in TABLE and TABLE[name].kind is octal and value is not None:
        return f"{value:03o}"
    return list(value) if isinstance(value, tuple) else value


def _table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    cells = [
        ("SETTING", "VALUE", "FROM"),
        *((name, _shown(name, row["value"]), row["from"]) for name, row in rows.items()),
    ]
    return columns(cells, max_width=40)


def _shown(key: str, value: Any) -> str:
    setting = TABLE.get(key.replace("-", "_"))
    if value in (None, "", []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return shlex.join(value) if setting is None or setting.kind is words else ", ".join(value)
    return f"{value:g}s" if isinstance(value, float) else str(value)


def _looked_at(
    settings: Settings, environ: Mapping[str, str], grace: float | None, before: float
) -> tuple[list[str], list[str]]:
    """What is wrong in this place, and what may be meant otherwise."""
    problems, remarks = [], []
    longest = before + settings.lame_duck + settings.drain_timeout + LAST_SECONDS
    parts = f"lame-duck {settings.lame_duck:g} s + drain-timeout {settings.drain_timeout:g} s + {LAST_SECONDS:g} s"
    parts = f"preStop {before:g} s + {parts}" if before else parts
    if grace is not None and longest > grace:
        problems.append(
            f"--grace {grace:g}s: a stop may take {longest:g} s ({parts}); allow that, or shorten one of them"
        )
    elif grace is None and longest > USUAL_GRACE:
        remarks.append(
            f"a stop may take {longest:g} s ({parts}), and Kubernetes kills after {USUAL_GRACE:g} s by default: "
            f"set terminationGracePeriodSeconds to {longest:g}, and say it here with --grace"
        )
    try:
        reading = envdir.read(
            settings.envdir, settings.envdir_format == "whole", settings.lenient_envdir
        )
        remarks += reading.remarks
    except EnvdirError:
        pass  # told by preflight
    remarks += [
        f"watch: there is no directory {each} yet"
        for each in settings.watch
        if not os.path.isdir(each)
    ]
    if settings.ready == "auto" and not any(each.stream for each in settings.port):
        remarks.append(f"ready auto: {only_time(settings.interval)}")
    if settings.drain_timeout == 0:
        remarks.append("drain-timeout 0: a worker is killed as soon as it is asked to leave")
    if settings.env_splay and not settings.watch_env:
        remarks.append("env-splay: nothing waits for it without watch-env")
    return problems, remarks
