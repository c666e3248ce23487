"""The entry point of `start_server`: Server::Starter's command line, files and messages, in front
of the same engine.

It turns the command line of version 0.35 (and what the Ruby and Go ones add) into `Settings`; what
`sidecar run` would do better by default is set as it is there: one worker, readiness by time, no
profile, no LISTEN_FDS. `--restart` and `--stop` are short-lived clients that go by the pid file and
the status file. docs/start_server.md has the whole comparison.

The command line is read as Getopt::Long does it (any case, one dash or two, unique beginnings),
except that it ends at the first word that is no option: a program's own options are never taken for
ours.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time

from sidecar import __version__
from sidecar.base.command_line import CommandLine
from sidecar.base.errors import ListenError, SettingsError, SidecarError, StartError
from sidecar.base.refusal import not_imported
from sidecar.settings import address, table, types
from sidecar.settings.resolve import pace
from sidecar.system import early

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

VERSION = "0.35"

# What follows each option: a text, a whole number, a time (Perl's are whole seconds), or nothing.
OPTIONS = {
    "port": "text", "path": "text", "interval": "time", "log-file": "text", "pid-file": "text", "dir": "text", "signal-on-hup": "text",
    "signal-on-term": "text", "backlog": "number", "envdir": "text", "enable-auto-restart": "", "daemonize": "",
    "auto-restart-interval": "time", "kill-old-delay": "time", "status-file": "text", "restart": "", "stop": "", "help": "", "version": "",
}  # fmt: skip

# Options of ours; not to be shortened, so that they take no short form from Perl's.
MORE = {"drain-timeout": "time", "restart-timeout": "time"}

# A stop and a swap have an end: what has not left by then is killed.
DRAIN_TIMEOUT = 300.0
# How long --restart waits: for the new generation, and for the old one to leave.
RESTART_TIMEOUT = DRAIN_TIMEOUT + 60.0
# How often --restart looks at the status file. It is a client that lives as long as it waits.
LOOK = 0.02

USAGE = """\
Usage:
      start_server [options] -- server-prog server-arg1 server-arg2 ...

      # start Plack using Starlet listening at TCP port 8000
      start_server --port=8000 -- plackup -s Starlet --max-workers=100 index.psgi

Options:
  --port=(port|host:port|port=fd|host:port=fd)   TCP port to listen to, UDP if it starts with "u"; repeatable, or a,b
  --path=path                       unix socket to listen to; repeatable, or a,b
  --dir=path                        directory that the program is started in
  --interval=seconds                how long a new program has to live to be believed (1)
  --signal-on-hup=SIGNAL            sent to the old program once the new one runs (TERM)
  --signal-on-term=SIGNAL           sent to the program when start_server receives SIGTERM (TERM)
  --pid-file=filename               holds start_server's pid
  --status-file=filename            holds a line GENERATION:PID for each program that runs
  --envdir=dir                      environment of the program, one file a variable, read for each (ENVDIR)
  --log-file=file, "| command"      where the output goes
  --daemonize                       go to the background; with --log-file
  --enable-auto-restart             restart at an interval (ENABLE_AUTO_RESTART)
  --auto-restart-interval=seconds   that interval (AUTO_RESTART_INTERVAL, 360)
  --kill-old-delay=seconds          before the old program is sent its signal (KILL_OLD_DELAY, 5 with auto-restart, else 0)
  --backlog=size                    accept queue of each socket (the kernel's largest)
  --restart                         send HUP, wait for the swap; with --pid-file and --status-file
  --stop                            send TERM, wait for the end; with --pid-file
  --help, --version
and of sidecar's own:
  --drain-timeout=seconds           an old program that has not left by then is killed (300)
  --restart-timeout=seconds         how long --restart waits (360)
"""


class Refused(SidecarError):
    """Perl's die: a text on stderr, and an exit status (that of an errno, else 255)."""

    def __init__(self, text: str, status: int = 255) -> None:
        super().__init__(text)
        self.exit_status = status


# --- the command line


class StarterCommandLine(CommandLine):
    """Getopt::Long's rules and words: any case, one dash or two, unique beginnings."""

    switched_on = "1"

    def __init__(self) -> None:
        super().__init__({**OPTIONS, **MORE})

    def is_value(self, word: str) -> bool:
        """As in Perl, whatever follows is the value, `--` too."""
        return True

    def find(self, flag: str) -> str | None:
        """The option that was typed, which may be its beginning."""
        typed = _typed(flag)
        if typed in self.options:
            return typed
        near = sorted(name for name in OPTIONS if typed and name.startswith(typed))
        if len(near) > 1:
            raise ValueError(f"Option {typed} is ambiguous ({', '.join(near)})")
        return near[0] if near else None

    def read_value(self, flag: str, name: str, text: str, attached: bool) -> str:
        """The text itself, unless Perl would refuse it."""
        kind = self.options[name]
        if not kind and attached:
            raise ValueError(f"Option {_typed(flag)} does not take an argument")
        if kind and attached and not text:
            raise ValueError(self.missing(flag, name))
        if kind in ("number", "time") and not _is_number(text, kind):
            raise ValueError(f'Value "{text}" invalid for option {_typed(flag)} (number expected)')
        return text

    def unknown(self, flag: str) -> str:
        """Perl's message."""
        return f"Unknown option: {_typed(flag)}"

    def missing(self, flag: str, name: str) -> str:
        """Perl's message."""
        return f"Option {_typed(flag)} requires an argument"


def _typed(flag: str) -> str:
    """A flag without its dashes, as Perl's messages have it."""
    return flag.removeprefix("-").removeprefix("-").lower()


def parse(argv: Sequence[str]) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """Options by name with their values, the program's command, and what is wrong, in
    Getopt::Long's words.
    """
    parsed = StarterCommandLine().parse(argv)
    given: dict[str, list[str]] = {}
    for name, value in parsed.options:
        given.setdefault(name, []).append(value)
    return given, parsed.words, parsed.problems


def _is_number(text: str, kind: str) -> bool:
    try:
        types.duration(text) if kind == "time" else types.count(0)(text)
    except ValueError:
        return False
    return True


def _port(text: str) -> address.Address:
    """What one --port means, as Server::Starter reads it: blanks count for nothing, and IPv6 may be
    without brackets.
    """
    where = "".join(text.split())
    host, colon, port = where.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    host = f"[{bare}]" if ":" in bare else bare
    try:
        # Neither sidecar's options behind a comma nor a path are anything here.
        if "," in where or "/" in port:
            raise ValueError
        found = address.parse(host + colon + port)
    except ValueError:
        raise Refused(f"invalid ``port'' value:{text}") from None
    # As in Perl: an IPv6 address is for IPv6 alone.
    return found.replace(ipv6only=found.v6)


def _path(text: str) -> address.Address:
    """What one --path means; it may be relative, and is told as it was given."""
    if not text or set(text) & set(";=\0") or len(os.fsencode(text)) > address.LONGEST_PATH:
        raise Refused(f"invalid ``path'' value:{text}")
    return address.Address(spec=text, kind=address.UNIX, text=text, path=text)


def _signal(name: str, given: Mapping[str, list[str]]) -> str:
    text = given.get(name, ["TERM"])[-1]
    try:
        return types.signal_name(text)
    except ValueError:
        raise Refused(f"invalid ``{name}'' value:{text}") from None


def _environment(given: Mapping[str, list[str]], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with what the options put there, for the programs to see: Server::Starter's
    variables.
    """
    result = dict(environ)
    for name in ("envdir", "enable-auto-restart", "kill-old-delay", "auto-restart-interval"):
        if name in given:
            result[name.upper().replace("-", "_")] = given[name][-1]
    return result


def _effective(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment that the variables for start_server itself are taken from: the envdir's win
    over all others, as in Perl.
    """
    from sidecar.system import envdir  # noqa: PLC0415  (only who has one pays for it)

    return (
        envdir.apply(environ, envdir.read((environ["ENVDIR"],), lenient=True))
        if environ.get("ENVDIR")
        else environ
    )


def resolve(
    given: Mapping[str, list[str]], command: Sequence[str], environ: Mapping[str, str]
) -> table.Settings:
    """The settings of the engine. `environ` is what _environment made. Raises SidecarError."""
    ports = tuple(_port(each) for text in given.get("port", []) for each in text.split(","))
    ports += tuple(_path(each) for text in given.get("path", []) for each in text.split(","))
    clashes = address.clashes(ports)
    if clashes:
        raise Refused("\n".join(clashes))
    try:
        paced = pace(_effective(environ))
    except SettingsError as error:
        raise Refused(str(error)) from None
    backlog = given.get("backlog")

    def last(name: str) -> str:
        return given.get(name, [""])[-1]

    return table.Settings(
        command=tuple(command),
        port=ports,
        backlog=int(backlog[-1]) or None if backlog else None,
        envdir=(environ["ENVDIR"],) if environ.get("ENVDIR") else (),
        lenient_envdir=True,
        dir=last("dir"),
        ready="interval",
        interval=types.duration(given.get("interval", ["1"])[-1]),
        signal_on_hup=_signal("signal-on-hup", given),
        signal_on_term=_signal("signal-on-term", given),
        signal_on_int="TERM",
        drain_timeout=types.duration(last("drain-timeout") or str(DRAIN_TIMEOUT)),
        **paced,
        pace_from_environment=True,
        as_server_starter=True,
        max_failures=0,
        pid_file=last("pid-file"),
        status_file=last("status-file"),
        log_file=last("log-file"),
        log_format="start_server",
        profile="none",
        control="none",
        handoff=("no-systemd",),
    )


# --- the clients


def _held_pid(path: str) -> tuple[int, int]:
    """A pid file: open, and the pid in it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"failed to open file:{path}:{error.strerror}", error.errno or 255) from None
    text = os.read(fd, 32).strip()
    if not text.isdigit() or int(text) < 1:
        raise Refused(f"no process id in file:{path}")
    return fd, int(text)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError as error:
        name = signal.Signals(number).name
        raise Refused(
            f"failed to send {name} to the server process:{error.strerror}", error.errno or 255
        ) from None


def _free(fd: int) -> bool:
    """Whether nobody holds the pid file. Shared, so that two who ask do not see each other."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


def stop(pid_file: str) -> None:
    """Send TERM to the start_server of the pid file, and return when it has gone (the kernel drops
    its lock then).
    """
    fd, pid = _held_pid(pid_file)
    print(
        f"stop_server (pid:{os.getpid()}) stopping now (pid:{pid})...", file=sys.stderr, flush=True
    )
    if _free(fd):
        # Left behind: by now the number may be anybody's.
        raise Refused("failed to send SIGTERM to the server process:No such process", 3)
    _send(pid, signal.SIGTERM)
    fcntl.flock(fd, fcntl.LOCK_SH)
    os.close(fd)


def _generations(status_file: str) -> list[int]:
    try:
        with open(status_file, encoding="ascii", errors="replace") as file:
            numbers = {line.partition(":")[0] for line in file if ":" in line}
    except OSError as error:
        raise Refused(
            f"failed to open file:{status_file}:{error.strerror}", error.errno or 255
        ) from None
    return sorted(int(number) for number in numbers if number.isdigit())


def _failure(status_file: str) -> tuple[int, str]:
    """The generation that failed last and why, as the running start_server has left it beside the
    status file.
    """
    try:
        with open(f"{status_file}.failed", encoding="utf-8", errors="replace") as file:
            number, _, cause = file.readline().strip().partition(" ")
        return int(number), cause
    except (OSError, ValueError):
        return 0, ""


def restart(pid_file: str, status_file: str, patience: float) -> None:
    """Send HUP, and return when one generation is left that is newer than before. Raises Refused if
    none is to be expected.
    """
    fd, pid = _held_pid(pid_file)
    if _free(fd):
        # Left behind: by now the number may be anybody's.
        raise Refused("failed to send SIGHUP to the server process:No such process", 3)
    # Empty while none is up: whichever comes then is newer.
    before = max(_generations(status_file), default=0)
    newest = max(before, _failure(status_file)[0])
    _send(pid, signal.SIGHUP)
    end = time.monotonic() + patience
    while True:
        try:
            now = _generations(status_file)
        except Refused:
            now = []
        if len(now) == 1 and now[0] > before:
            return
        failed, cause = _failure(status_file)
        if failed > newest:
            raise Refused(
                f"generation {failed} failed: {cause}; {'generation ' + str(now[-1]) + ' serves on' if now else 'none serves'}",
                1,
            )
        if _free(fd):
            raise Refused(f"the server process {pid} has gone", 1)
        if time.monotonic() > end:
            there = ", ".join(map(str, now)) or "none"
            raise Refused(f"not over within {patience:g} secs; generations there: {there}", 1)
        time.sleep(LOOK)


# --- the background


def _detach(rewrite_pid: Callable[[], None]) -> None:
    """Go on in a process of its own session; the first one ends when that has written its pid, so
    who waited for it finds the right one.
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


# --- main


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
        text = not_imported(error)
        if not text:
            raise
        print(text, file=sys.stderr)
        return 255
    except KeyboardInterrupt:  # before there are handlers
        return 130


def _main(words: list[str]) -> int:
    check = (
        words.pop(0).partition("=")[2] if words and words[0].startswith("--upgrade-check=") else ""
    )
    if "SIDECAR_HERITAGE" in os.environ and not check:
        from sidecar.upgrade import takeover  # noqa: PLC0415

        left, count = takeover.left()
        status = takeover.attempt(left, count, lambda: _take_over(words, left))
        if status is not None:
            return status
    given, command, problems = parse(words)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    if "help" in given:
        print(USAGE, end="")
        return 0
    if "version" in given:
        print(f"{VERSION} (sidecar {__version__})")
        return 0
    if "restart" in given:
        if "pid-file" not in given or "status-file" not in given:
            raise Refused(
                "--restart option requires --pid-file and --status-file to be set as well"
            )
        patience = types.duration(given.get("restart-timeout", [str(RESTART_TIMEOUT)])[-1])
        restart(given["pid-file"][-1], given["status-file"][-1], patience)
        return 0
    if "stop" in given:
        if "pid-file" not in given:
            raise Refused("--stop option requires --pid-file to be set as well")
        stop(given["pid-file"][-1])
        return 0
    if "daemonize" in given and "log-file" not in given:
        raise Refused("Usage: --log-file option must be specified together with --deamonize")
    if not command:
        raise Refused("server program not specified")
    environ = _environment(given, os.environ)
    started = (sys.executable, sys.orig_argv, sys.argv)
    if check:
        from sidecar.host.startup import rehearse  # noqa: PLC0415  (the clients need none of it)

        return rehearse(environ, check)
    chosen = resolve(given, command, environ)
    from sidecar.host.startup import run  # noqa: PLC0415

    print(f"start_server (pid:{os.getpid()}) starting now...", file=sys.stderr, flush=True)
    return run(chosen, environ, _detach if "daemonize" in given else None, started=started)


def _take_over(words: list[str], left: str) -> Callable[[], int] | None:
    """Go on from what the version before this has left; None if that is none of ours."""
    from sidecar.host.startup import take_over  # noqa: PLC0415
    from sidecar.upgrade import execute  # noqa: PLC0415

    state = execute.unseal(left, os.getpid())
    if state is None:
        return None
    environ = _environment(parse(words)[0], os.environ)
    return take_over(state, environ, started=(sys.executable, sys.orig_argv, sys.argv))


if __name__ == "__main__":
    sys.exit(main())
