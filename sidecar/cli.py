"""The door: argv and environ come in here, and nowhere else.

What a command needs is imported when it is asked for: `health` runs every few seconds, and `run` needs nothing of the others.
"""

from __future__ import annotations

import os
import sys

from sidecar import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """The command `sidecar`; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["health"]:
        from sidecar import probe  # noqa: PLC0415

        return probe.main(words[1:], os.environ)
    if words[:1] == ["--version"]:
        print(f"sidecar {__version__}")
        return 0
    from sidecar import arguments  # noqa: PLC0415
    from sidecar.commands import COMMANDS  # noqa: PLC0415

    if not words or words[0] in ("--help", "-h", "help"):
        print(arguments.usage(), end="")
        return 0 if words else 2
    if words[0] == "profiles":
        print(arguments.profiles_table(), end="")
        return 0
    if words[0] == "check":
        from sidecar import check  # noqa: PLC0415

        return check.main(words[1:], os.environ)
    if words[0] == "schema":
        from sidecar import schema  # noqa: PLC0415

        print(schema.text(), end="")
        return 0
    if words[0] == "rollout":
        from sidecar.rollout import command  # noqa: PLC0415

        return command.main(words[1:])
    if words[0] in COMMANDS:
        from sidecar import client  # noqa: PLC0415

        return client.run(words[0], words[1:], os.environ)
    if words[0] not in ("run", "dev"):
        known = ["run", "dev", "check", "schema", "profiles", "rollout", *COMMANDS]
        print(f"sidecar: {words[0]}: there is no such command{arguments.nearest(words[0], known)}", file=sys.stderr)
        return 2
    return _run(words[1:], developing=words[0] == "dev")


def _run(words: Sequence[str], developing: bool) -> int:
    """Supervise, unless it cannot be begun."""
    from sidecar import arguments, settings  # noqa: PLC0415
    from sidecar.errors import SidecarError  # noqa: PLC0415

    if words and words[0] in ("--help", "-h"):
        print(arguments.dev_help() if developing else arguments.run_help(), end="")
        return 0
    hide: tuple[str, ...] = ()
    try:
        chosen = arguments.Chosen(words, os.environ, settings.DEV if developing else None)
        resolved = chosen.settings(chosen.read())
        hide = resolved.hide
        from sidecar.host import run  # noqa: PLC0415  (a refusal needs none of it)

        return run(resolved, os.environ, source=chosen)
    except SidecarError as error:
        from sidecar.host import leave_a_reason  # noqa: PLC0415

        text = settings.hidden(str(error), hide)
        leave_a_reason(text)
        for problem in text.splitlines():
            print(f"sidecar: {problem}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:  # before sidecar has its own handlers
        return 130
