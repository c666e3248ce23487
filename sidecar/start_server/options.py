"""Server::Starter's command line, and the settings that come of it.

It is that of version 0.35, and what the Ruby and Go ones add. What `sidecar run` would do better by
default is set as it is there: one worker, readiness by time, no profile, no LISTEN_FDS.

It is read as Getopt::Long does it (any case, one dash or two, unique beginnings), except that it
ends at the first word that is no option: a program's own options are never taken for ours.
"""

from __future__ import annotations

import os

from sidecar.base.command_line import CommandLine
from sidecar.base.errors import SettingsError, SidecarError
from sidecar.settings import address, table, types
from sidecar.settings.resolve import start_server_timing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What follows each option: a text, a whole number, a time (Perl's are whole seconds), or nothing.
OPTIONS = {
    "port": "text", "path": "text", "interval": "time", "log-file": "text", "pid-file": "text",
    "dir": "text", "signal-on-hup": "text", "signal-on-term": "text", "backlog": "number",
    "envdir": "text", "enable-auto-restart": "", "daemonize": "", "auto-restart-interval": "time",
    "kill-old-delay": "time", "status-file": "text", "restart": "", "stop": "", "help": "",
    "version": "",
}  # fmt: skip

# Options of sidecar; not to be shortened, so that they take no short form from Perl's.
OWN_OPTIONS = {"drain-timeout": "time", "restart-timeout": "time"}

# A stop and a swap have an end: workers that still run then are killed.
DRAIN_TIMEOUT_S = 300.0
# How long --restart waits: for the new generation, and for the old one to leave.
RESTART_TIMEOUT_S = DRAIN_TIMEOUT_S + 60.0

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


class StarterCommandLine(CommandLine):
    """Getopt::Long's rules and words: any case, one dash or two, unique beginnings."""

    switched_on = "1"

    def __init__(self) -> None:
        super().__init__({**OPTIONS, **OWN_OPTIONS})

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
    """One --port, as Server::Starter reads it: blanks count for nothing, and IPv6 may be without
    brackets. Raises Refused.
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
    """One --path. It may be relative, and workers are told it as it was given. Raises Refused."""
    if not text or set(text) & set(";=\0") or len(os.fsencode(text)) > address.MAX_UNIX_PATH_BYTES:
        raise Refused(f"invalid ``path'' value:{text}")
    return address.Address(spec=text, kind=address.UNIX, text=text, path=text)


def _signal(name: str, given: Mapping[str, list[str]]) -> str:
    text = given.get(name, ["TERM"])[-1]
    try:
        return types.signal_name(text)
    except ValueError:
        raise Refused(f"invalid ``{name}'' value:{text}") from None


def environment(given: Mapping[str, list[str]], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the programs: Server::Starter has these options there as variables."""
    result = dict(environ)
    for name in ("envdir", "enable-auto-restart", "kill-old-delay", "auto-restart-interval"):
        if name in given:
            result[name.upper().replace("-", "_")] = given[name][-1]
    return result


def _with_envdir(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment that start_server takes its own variables from: those of the envdir win over
    all others, as in Perl.
    """
    if not environ.get("ENVDIR"):
        return environ
    from sidecar.system import envdir  # noqa: PLC0415  (only who has one pays for it)

    return envdir.apply(environ, envdir.read((environ["ENVDIR"],), lenient=True))


def resolve(
    given: Mapping[str, list[str]], command: Sequence[str], environ: Mapping[str, str]
) -> table.Settings:
    """The settings of the engine. `environ` is what `environment` made. Raises SidecarError."""
    ports = tuple(_port(each) for text in given.get("port", []) for each in text.split(","))
    ports += tuple(_path(each) for text in given.get("path", []) for each in text.split(","))
    clashes = address.clashes(ports)
    if clashes:
        raise Refused("\n".join(clashes))
    try:
        timing = start_server_timing(_with_envdir(environ))
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
        dir=last("dir"),
        ready="interval",
        interval=types.duration(given.get("interval", ["1"])[-1]),
        signal_on_hup=_signal("signal-on-hup", given),
        signal_on_term=_signal("signal-on-term", given),
        drain_timeout=types.duration(last("drain-timeout") or str(DRAIN_TIMEOUT_S)),
        **timing,
        entry_point=table.START_SERVER,
        max_failures=0,
        pid_file=last("pid-file"),
        status_file=last("status-file"),
        log_file=last("log-file"),
        log_format="start_server",
        profile="none",
        control="none",
        handoff=("no-systemd",),
    )
