"""The entry point of `start_server`: Server::Starter's command line, files and messages, in front
of the same engine. docs/start_server.md has the whole comparison.
"""

from __future__ import annotations

import os
import sys

from sidecar import __version__
from sidecar.base.errors import ListenError, SidecarError, StartError
from sidecar.base.refusal import describe_import_error
from sidecar.settings import types
from sidecar.start_server.options import (
    RESTART_TIMEOUT_S,
    USAGE,
    Refused,
    environment,
    parse,
    resolve,
)
from sidecar.system import early

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# The version of Server::Starter that this one is like.
VERSION = "0.35"

UPGRADE_CHECK = "--upgrade-check="


def main(argv: Sequence[str] | None = None) -> int:
    """The command `start_server`; its exit status."""
    early.end_on_stop()
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except SidecarError as error:
        print(error, file=sys.stderr)
        if isinstance(error, Refused):
            return error.exit_status
        return error.errno if isinstance(error, (ListenError, StartError)) and error.errno else 255
    except (OSError, ImportError, SyntaxError) as error:
        text = describe_import_error(error)
        if not text:
            raise
        print(text, file=sys.stderr)
        return 255
    except KeyboardInterrupt:  # before there are handlers
        return 130


def _main(words: list[str]) -> int:
    upgrade_check = ""
    if words and words[0].startswith(UPGRADE_CHECK):
        upgrade_check = words.pop(0).removeprefix(UPGRADE_CHECK)
    if "SIDECAR_UPGRADE_STATE" in os.environ and not upgrade_check:
        from sidecar.upgrade import takeover  # noqa: PLC0415

        left, count = takeover.take_variables()
        status = takeover.run_with_retries(left, count, lambda: _take_over(words, left))
        if status is not None:
            return status
    given, command, problems = parse(words)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    if not given.keys().isdisjoint(("help", "version", "restart", "stop")):
        _do_instead(given)
        return 0
    if "daemonize" in given and "log-file" not in given:
        raise Refused("Usage: --log-file option must be specified together with --deamonize")
    if not command:
        raise Refused("server program not specified")
    environ = environment(given, os.environ)
    if upgrade_check:
        from sidecar.host.startup import rehearse  # noqa: PLC0415  (the clients need none of it)

        return rehearse(environ, upgrade_check)
    settings = resolve(given, command, environ)
    from sidecar.host.startup import run  # noqa: PLC0415

    print(f"start_server (pid:{os.getpid()}) starting now...", file=sys.stderr, flush=True)
    detach = _daemonize if "daemonize" in given else None
    started = (sys.executable, sys.orig_argv, sys.argv)
    return run(settings, environ, detach, started=started)


def _do_instead(given: Mapping[str, list[str]]) -> None:
    """Do what one of these options asks for instead of a start. Raises Refused."""
    if "help" in given:
        print(USAGE, end="")
    elif "version" in given:
        print(f"{VERSION} (sidecar {__version__})")
    elif "restart" in given:
        if "pid-file" not in given or "status-file" not in given:
            raise Refused(
                "--restart option requires --pid-file and --status-file to be set as well"
            )
        from sidecar.start_server import clients  # noqa: PLC0415  (a start needs none of it)

        timeout = types.duration(given.get("restart-timeout", [str(RESTART_TIMEOUT_S)])[-1])
        clients.restart(given["pid-file"][-1], given["status-file"][-1], timeout)
    else:
        if "pid-file" not in given:
            raise Refused("--stop option requires --pid-file to be set as well")
        from sidecar.start_server import clients  # noqa: PLC0415

        clients.stop(given["pid-file"][-1])


def _take_over(words: list[str], left: str) -> Callable[[], int] | None:
    """Go on from the exported state of an earlier version; None if it is none of ours."""
    from sidecar.host.startup import take_over  # noqa: PLC0415
    from sidecar.upgrade import execute  # noqa: PLC0415

    state = execute.read_state(left, os.getpid())
    if state is None:
        return None
    environ = environment(parse(words)[0], os.environ)
    return take_over(state, environ, started=(sys.executable, sys.orig_argv, sys.argv))


def _daemonize(rewrite_pid: Callable[[], None]) -> None:
    """Go on in a process with a session of its own. The first process exits when that one has
    written its pid, so that whoever waited for it finds the right pid.
    """
    done, end = os.pipe()
    if os.fork():
        os.close(end)
        os._exit(0 if os.read(done, 1) else 1)
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    rewrite_pid()
    os.write(end, b"1")
    os.close(end)
    os.close(done)


if __name__ == "__main__":
    sys.exit(main())
