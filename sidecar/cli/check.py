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
from sidecar.cli.invocation import Invocation, RunCommandLine
from sidecar.settings.resolve import no_listener_to_probe, redact
from sidecar.settings.table import TABLE, Settings
from sidecar.settings.types import command_words, duration, octal
from sidecar.system import envdir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sidecar.settings.resolve import Resolution

OPTIONS = {"--json": "", "--grace": "TIME", "--pre-stop": "TIME"}
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
# How long the end of killed workers may take, beyond lame duck and drain.
KILL_WAIT_S = 5.0
# terminationGracePeriodSeconds, where a pod does not say it.
KUBERNETES_GRACE_S = 30.0
PID_1 = "/proc/1"
NOT_SHOWN = "(filled in from the environment)"


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """The command; its exit status."""
    if argv and argv[0] in ("--help", "-h"):
        print(HELP, end="")
        return 0
    invocation = Invocation(argv, environ, more_options=OPTIONS)
    resolution = invocation.resolve(invocation.read())
    remarks = []
    if not resolution.settings.command and (words := _words_of_pid_1(argv)):
        remarks.append(
            "no program was named: the options and the program are those PID 1 was started with"
        )
        invocation = Invocation(words, environ, more_options=OPTIONS)
        resolution = invocation.resolve(invocation.read())
    settings = resolution.settings
    time_problems, time_remarks = _stop_time(settings, invocation.more_options)
    problems = [*resolution.problems, *time_problems]
    unfit = preflight.problems(resolution, environ)
    remarks += [*time_remarks, *_remarks(settings)]
    program = preflight.program_problem(resolution, environ)
    if program is not None and program[0] not in unfit:
        remarks.append(program[0])
    remarks += invocation.remarks(settings, checking=True)
    _show(
        resolution,
        redact([*problems, *unfit], resolution.redactions),
        redact(remarks, resolution.redactions),
        as_json="--json" in invocation.more_options,
    )
    return 2 if problems else 1 if unfit else 0


def _show(resolution: Resolution, problems: list[str], remarks: list[str], as_json: bool) -> None:
    """Print the settings, unless they are wrong, and what is to be said of them."""
    rows = {"command": _row(resolution, "command")}
    rows.update({each.key: _row(resolution, name) for name, each in TABLE.items()})
    if as_json:
        answer = {"settings": rows, "problems": problems, "remarks": remarks}
        print(json.dumps(answer, ensure_ascii=False))
        return
    if not problems:
        print(*_table(rows), sep="\n")
    for each in remarks:
        print(f"remark: {each}")
    for each in problems:
        print(f"sidecar: {each}", file=sys.stderr)


def _words_of_pid_1(argv: Sequence[str]) -> list[str]:
    """In a container that was started with `sidecar run OPTIONS -- PROGRAM`, whoever looks from
    inside has no reason to say all that again: PID 1's words, with these words behind its options.
    None if PID 1 is something else.
    """
    words = _words_of_run(PID_1)
    command = RunCommandLine().parse(words).words
    options, more = words[: len(words) - len(command)], list(argv)
    for each in (options, more):
        if each[-1:] == ["--"]:
            each.pop()
    return [*options, *more, "--", *command] if command else []


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


def _row(resolution: Resolution, name: str) -> dict[str, Any]:
    origin = resolution.origins.get(name, "default")
    # `sidecar.yml:3: workers` is an origin in a message; here the name stands beside it.
    key = TABLE[name].key if name in TABLE else name
    secret = name in resolution.secret_names
    row: dict[str, Any] = {
        "value": NOT_SHOWN if secret else _plain(resolution.settings, name),
        "from": origin.removesuffix(f": {key}"),
    }
    return {**row, "secret": True} if secret else row


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
        return (
            shlex.join(value)
            if setting is None or setting.kind is command_words
            else ", ".join(value)
        )
    return f"{value:g}s" if isinstance(value, float) else str(value)


def _stop_time(settings: Settings, options: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Problems and remarks about how long a stop may take. `options` are those of `check`."""
    try:
        grace = duration(options["--grace"]) if "--grace" in options else None
        pre_stop = duration(options.get("--pre-stop", "0"))
    except ValueError as error:
        return [f"--grace, --pre-stop: {error}"], []
    longest = pre_stop + settings.lame_duck + settings.drain_timeout + KILL_WAIT_S
    parts = (
        f"lame-duck {settings.lame_duck:g} s + drain-timeout {settings.drain_timeout:g} s"
        f" + {KILL_WAIT_S:g} s"
    )
    parts = f"preStop {pre_stop:g} s + {parts}" if pre_stop else parts
    if grace is not None and longest > grace:
        return [
            f"--grace {grace:g}s: a stop may take {longest:g} s ({parts});"
            " allow that, or shorten one of them"
        ], []
    if grace is None and longest > KUBERNETES_GRACE_S:
        return [], [
            f"a stop may take {longest:g} s ({parts}),"
            f" and Kubernetes kills after {KUBERNETES_GRACE_S:g} s by default:"
            f" set terminationGracePeriodSeconds to {longest:g}, and say it here with --grace"
        ]
    return [], []


def _remarks(settings: Settings) -> list[str]:
    """What is allowed, and may be meant otherwise."""
    remarks: list[str] = []
    try:
        whole = settings.envdir_format == "whole"
        remarks += envdir.read(settings.envdir, whole, settings.as_server_starter).remarks
    except EnvdirError:
        pass  # preflight says it
    remarks += [
        f"watch: there is no directory {each} yet"
        for each in settings.watch
        if not os.path.isdir(each)
    ]
    if settings.ready == "auto" and not any(each.stream for each in settings.port):
        remarks.append(f"ready auto: {no_listener_to_probe(settings.interval)}")
    if settings.drain_timeout == 0:
        remarks.append("drain-timeout 0: a worker is killed as soon as it is asked to leave")
    if settings.env_splay and not settings.watch_env:
        remarks.append("env-splay: nothing waits for it without watch-env")
    return remarks
