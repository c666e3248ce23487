"""The entry point of `sidecar`: argv and environ come in here, and nowhere else.

What a command needs is imported when it is asked for: `health` runs every few seconds, and `run`
needs nothing of the others.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

from sidecar import __version__
from sidecar.base.refusal import describe_import_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.base.errors import SidecarError
    from sidecar.settings.resolve import Resolution

# What writing to a full or broken disk may end in.
WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)

UPGRADE_CHECK = "--upgrade-check="


def main(argv: Sequence[str] | None = None) -> int:
    """The command `sidecar`; its exit status."""
    try:
        status = _main(list(sys.argv[1:] if argv is None else argv))
        if sys.stdout is not None:  # it was closed at the start
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output (`| head`) has had enough; nothing is left to say to it.
        _drop_output()
        return 0
    except (OSError, ImportError, SyntaxError) as error:
        if text := describe_import_error(error):
            print(f"sidecar: {text}", file=sys.stderr)
            return 1
        if not isinstance(error, OSError) or error.errno not in WRITE_ERRORS:
            raise
        _drop_output()
        print(f"sidecar: cannot write the answer: {error.strerror}", file=sys.stderr)
        return 1
    return status


def _drop_output() -> None:
    """Discard what is still to be written: Python would complain about it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _main(words: list[str]) -> int:
    if "SIDECAR_UPGRADE_STATE" in os.environ and words[:1] in (["run"], ["dev"]):
        # First of all: what fails before is the end.
        from sidecar.upgrade import takeover  # noqa: PLC0415

        state, count = takeover.take_variables()
        status = takeover.run_with_retries(state, count, lambda: _take_over(words, state))
        if status is not None:
            return status
    upgrade_check = ""
    if words and words[0].startswith(UPGRADE_CHECK):
        upgrade_check = words.pop(0).removeprefix(UPGRADE_CHECK)
    if not words:
        _help(words)
        return 2
    command, rest = words[0], words[1:]
    if command in ("run", "dev"):
        from sidecar.system import early  # noqa: PLC0415  (the others have a default action)

        early.end_on_stop()
        # Nothing that is imported is garbage; looking for some takes a tenth of the start.
        gc.disable()
        return _run(rest, developing=command == "dev", upgrade_check=upgrade_check)
    if command in COMMANDS:
        return COMMANDS[command](rest)
    return _control_command(command, rest)


# --- the commands that supervise nothing


def _help(words: Sequence[str]) -> int:
    from sidecar.cli import help  # noqa: A004, PLC0415

    print(help.usage(), end="")
    return 0


def _version(words: Sequence[str]) -> int:
    print(f"sidecar {__version__}")
    return 0


def _health(words: Sequence[str]) -> int:
    from sidecar.control import health  # noqa: PLC0415

    return health.main(words, os.environ)


def _check(words: Sequence[str]) -> int:
    from sidecar.cli import check  # noqa: PLC0415

    return check.main(words, os.environ)


def _schema(words: Sequence[str]) -> int:
    from sidecar.settings import schema  # noqa: PLC0415

    print(schema.text(), end="")
    return 0


def _profiles(words: Sequence[str]) -> int:
    from sidecar.cli import help  # noqa: A004, PLC0415

    print(help.profiles_table(), end="")
    return 0


def _rollout(words: Sequence[str]) -> int:
    from sidecar.rollout import command  # noqa: PLC0415

    return command.main(words)


def _control_command(name: str, words: Sequence[str]) -> int:
    """A command of the control socket, or an unknown one."""
    from sidecar.control import commands  # noqa: PLC0415

    if name in commands.COMMANDS:
        from sidecar.control import client  # noqa: PLC0415

        return client.run(name, words, os.environ)
    from sidecar.cli.invocation import suggestion  # noqa: PLC0415

    known = ["run", "dev", "check", "schema", "profiles", "rollout", *commands.COMMANDS]
    print(
        f"sidecar: {name}: there is no such command{suggestion(name, known)}",
        file=sys.stderr,
    )
    return 2


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    **dict.fromkeys(("--help", "-h", "help"), _help),
    **dict.fromkeys(("--version", "-V", "-v", "version"), _version),
    "health": _health,
    "check": _check,
    "schema": _schema,
    "profiles": _profiles,
    "rollout": _rollout,
}


# --- run and dev


def _run(words: Sequence[str], developing: bool, upgrade_check: str) -> int:
    """Supervise until the end. With `upgrade_check`, the exported state of an earlier version, only
    see whether this version could go on from it.
    """
    from sidecar.base.errors import SidecarError  # noqa: PLC0415
    from sidecar.cli import preflight  # noqa: PLC0415
    from sidecar.cli.invocation import Invocation  # noqa: PLC0415
    from sidecar.settings import table  # noqa: PLC0415

    if words and words[0] in ("--help", "-h"):
        from sidecar.cli import help  # noqa: A004, PLC0415

        print(help.dev_help() if developing else help.run_help(), end="")
        return 0
    resolution: Resolution | None = None
    try:
        invocation = Invocation(words, os.environ, table.DEV_PRESETS if developing else None)
        if upgrade_check:
            # The settings are those of the earlier version, but its words have to mean something
            # here.
            invocation.check_words()
            from sidecar.host.startup import rehearse  # noqa: PLC0415

            return rehearse(os.environ, upgrade_check, invocation)
        resolution = invocation.resolve(invocation.read())
        settings = preflight.checked(resolution, os.environ)
        from sidecar.host.startup import run  # noqa: PLC0415  (a refusal needs none of it)

        # Imported now, for a settings file may come later, when another version of this module is
        # installed (upgrade/execute.py).
        from sidecar.settings import file  # noqa: F401, PLC0415

        started = (sys.executable, sys.orig_argv, sys.argv)
        gc.freeze()
        gc.enable()
        return run(settings, os.environ, source=invocation, started=started)
    except SidecarError as error:
        return _refuse(error, resolution, to_termination_log=not upgrade_check)
    except KeyboardInterrupt:  # before sidecar has its own handlers
        return 130


def _refuse(error: SidecarError, resolution: Resolution | None, to_termination_log: bool) -> int:
    """Say why nothing was started; the exit status."""
    from sidecar.base.errors import SettingsError  # noqa: PLC0415
    from sidecar.cli import preflight  # noqa: PLC0415
    from sidecar.settings.resolve import redact  # noqa: PLC0415
    from sidecar.system.termination_log import write_termination_log  # noqa: PLC0415

    text = str(error)
    if resolution is not None:
        if not isinstance(error, SettingsError):
            problems = text.splitlines()
            text = "\n".join(preflight.with_origin(each, resolution) for each in problems)
        text = redact(text, resolution.redactions)
    if to_termination_log:
        write_termination_log(text)
    for problem in text.splitlines():
        print(f"sidecar: {problem}", file=sys.stderr)
    return error.exit_status


def _take_over(words: Sequence[str], left: str) -> Callable[[], int] | None:
    """Go on from the exported state of an earlier version; None if it is none of ours."""
    from sidecar.cli.invocation import Invocation  # noqa: PLC0415
    from sidecar.settings import table  # noqa: PLC0415
    from sidecar.upgrade import execute  # noqa: PLC0415

    state = execute.read_state(left, os.getpid())
    if state is None:
        return None
    from sidecar.host.startup import take_over  # noqa: PLC0415

    # Imported now, as in `_run`.
    from sidecar.settings import file  # noqa: F401, PLC0415

    presets = table.DEV_PRESETS if words[0] == "dev" else None
    invocation = Invocation(words[1:], os.environ, presets)
    # The file is for the next reload: what is in force stays in force, whatever it says by now.
    invocation.stay_with(state["settings"].config)
    started = (sys.executable, sys.orig_argv, sys.argv)
    return take_over(state, os.environ, invocation, started)
