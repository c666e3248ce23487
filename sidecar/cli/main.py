"""The entry point of `sidecar`: argv and environ come in here, and nowhere else.

What a command needs is imported when it is asked for: `health` runs every few seconds, and `run`
needs nothing of the others.
"""

from __future__ import annotations

import errno
import os
import sys

from sidecar import __version__
from sidecar.base.refusal import not_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# What writing to a file may end in.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `sidecar`; its exit status."""
    try:
        status = _main(list(sys.argv[1:] if argv is None else argv))
        if sys.stdout is not None:  # it was closed at the start
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads our output (`| head`) has had enough; nothing is left to say to them.
        _drop_output()
        return 0
    except (OSError, ImportError, SyntaxError) as error:
        if text := not_imported(error):
            print(f"sidecar: {text}", file=sys.stderr)
            return 1
        if not isinstance(error, OSError) or error.errno not in NO_ROOM:
            raise
        _drop_output()
        print(f"sidecar: cannot write the answer: {error.strerror}", file=sys.stderr)
        return 1
    return status


def _drop_output() -> None:
    """What is still to be written goes nowhere: Python would complain about it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _main(words: list[str]) -> int:
    if "SIDECAR_HERITAGE" in os.environ and words[:1] in (["run"], ["dev"]):
        # First of all: what fails before is the end.
        from sidecar.upgrade import takeover  # noqa: PLC0415

        state, count = takeover.left()
        status = takeover.attempt(state, count, lambda: _take_over(words, state))
        if status is not None:
            return status
    left = ""
    if words and words[0].startswith("--upgrade-check="):
        left = words.pop(0).partition("=")[2]
    if words[:1] in (["run"], ["dev"]):
        from sidecar.system import early  # noqa: PLC0415  (the others have a default action)

        early.end_on_stop()
    if words[:1] == ["health"]:
        from sidecar.control import health  # noqa: PLC0415

        return health.main(words[1:], os.environ)
    if words[:1] and words[0] in ("--version", "-V", "-v", "version"):
        print(f"sidecar {__version__}")
        return 0
    from sidecar.cli import options  # noqa: PLC0415
    from sidecar.control.commands import COMMANDS  # noqa: PLC0415

    if not words or words[0] in ("--help", "-h", "help"):
        print(options.usage(), end="")
        return 0 if words else 2
    if words[0] == "profiles":
        print(options.profiles_table(), end="")
        return 0
    if words[0] == "check":
        from sidecar.cli import check  # noqa: PLC0415

        return check.main(words[1:], os.environ)
    if words[0] == "schema":
        from sidecar.settings import schema  # noqa: PLC0415

        print(schema.text(), end="")
        return 0
    if words[0] == "rollout":
        from sidecar.rollout import command  # noqa: PLC0415

        return command.main(words[1:])
    if words[0] in COMMANDS:
        from sidecar.control import client  # noqa: PLC0415

        return client.run(words[0], words[1:], os.environ)
    if words[0] not in ("run", "dev"):
        known = ["run", "dev", "check", "schema", "profiles", "rollout", *COMMANDS]
        print(
            f"sidecar: {words[0]}: there is no such command{options.nearest(words[0], known)}",
            file=sys.stderr,
        )
        return 2
    return _run(words[1:], developing=words[0] == "dev", check=left)


def _run(words: Sequence[str], developing: bool, check: str) -> int:
    """Supervise, unless it cannot be begun; or only `check` whether it could be by a later version
    of itself.
    """
    from sidecar.base.errors import SettingsError, SidecarError  # noqa: PLC0415
    from sidecar.cli import options, preflight  # noqa: PLC0415
    from sidecar.settings import resolve, table  # noqa: PLC0415

    if words and words[0] in ("--help", "-h"):
        print(options.dev_help() if developing else options.run_help(), end="")
        return 0
    choice: resolve.Choice | None = None
    try:
        chosen = options.Chosen(words, os.environ, table.DEV if developing else None)
        if check:
            # The settings are those of who asks, but its words have to mean something here.
            if chosen.problems:
                raise SettingsError(chosen.problems)
            from sidecar.host.startup import rehearse  # noqa: PLC0415

            return rehearse(os.environ, check, chosen)
        choice = chosen.choice(chosen.read())
        resolved = preflight.passed(choice, os.environ)
        # At hand, for a file may come later, when another version of this one is installed
        # (upgrade/execute.py).
        from sidecar.host.startup import run  # noqa: PLC0415  (a refusal needs none of it)
        from sidecar.settings import file  # noqa: F401, PLC0415

        return run(
            resolved,
            os.environ,
            source=chosen,
            started=(sys.executable, sys.orig_argv, sys.argv),
        )
    except SidecarError as error:
        from sidecar.system.termination_log import leave_a_reason  # noqa: PLC0415

        text = str(error)
        if choice is not None:
            if not isinstance(error, SettingsError):
                text = "\n".join(preflight.named(each, choice) for each in text.splitlines())
            text = resolve.hidden(text, choice.settings.hide)
        if not check:
            leave_a_reason(text)
        for problem in text.splitlines():
            print(f"sidecar: {problem}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:  # before sidecar has its own handlers
        return 130


def _take_over(words: Sequence[str], left: str) -> Callable[[], int] | None:
    """Go on from what the version before this has left; None if that is none of ours."""
    from sidecar.cli import options  # noqa: PLC0415
    from sidecar.settings import table  # noqa: PLC0415
    from sidecar.upgrade import execute  # noqa: PLC0415

    state = execute.unseal(left, os.getpid())
    if state is None:
        return None
    # At hand, as in `_run`.
    from sidecar.host.startup import take_over  # noqa: PLC0415
    from sidecar.settings import file  # noqa: F401, PLC0415

    presets = table.DEV if words[0] == "dev" else None
    chosen = options.Chosen(words[1:], os.environ, presets)
    # The file is for the next reload: what is in force stays in force, whatever it says by now.
    chosen.stay_with(state["settings"].config)
    started = (sys.executable, sys.orig_argv, sys.argv)
    return take_over(state, os.environ, chosen, started)
