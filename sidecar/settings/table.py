"""Every setting, defined once: flag, variable, key, kind, default and help are one entry here, and
everything else is made from it.
"""

from __future__ import annotations

from sidecar.base.record import Field, Record
from sidecar.settings import address, profiles
from sidecar.settings.protocols import PROTOCOLS
from sidecar.settings.types import (
    admin_address,
    command_words,
    count,
    duration,
    envdir,
    host_name,
    non_empty,
    octal,
    one_of,
    signal_name,
    size,
    switch,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Setting(Field):
    """One setting: how its text is read (`kind`), its default, and its line of help. Its name is
    that of its field.
    """

    def __init__(
        self,
        kind: Callable[[str], Any],
        default: Any,
        metavar: str,
        help_text: str,
        *,
        group: str,
        repeat: bool = False,
        fixed: bool = False,
    ) -> None:
        super().__init__(default)
        self.kind = kind
        self.metavar = metavar
        self.help_text = help_text
        self.group = group
        #: The flag may be given several times, and the value is a tuple.
        self.repeat = repeat
        #: It cannot change while sidecar runs.
        self.fixed = fixed
        self.name = ""

    @property
    def takes_value(self) -> bool:
        """Whether the flag is followed by a value (a switch is not)."""
        return self.kind is not switch

    @property
    def key(self) -> str:
        """`drain-timeout` for drain_timeout: its key in a settings file."""
        return self.name.replace("_", "-")

    @property
    def flag(self) -> str:
        """`--drain-timeout` for drain_timeout."""
        return "--" + self.key

    @property
    def variable(self) -> str:
        """`SIDECAR_DRAIN_TIMEOUT` for drain_timeout."""
        return "SIDECAR_" + self.name.upper()


def setting(
    kind: Callable[[str], Any],
    default: Any,
    metavar: str,
    help_text: str,
    *,
    group: str,
    repeat: bool = False,
    fixed: bool = False,
) -> Any:
    """Declare a setting. Typed Any so that a field can have its value's type, as dataclasses.field
    does.
    """
    return Setting(kind, default, metavar, help_text, group=group, repeat=repeat, fixed=fixed)


# The values of Settings.entry_point.
RUN, DEV, START_SERVER = "run", "dev", "start_server"

# The groups of `--help`.
LISTEN, PROGRAM, READY, SWAP, WATCH = "Listeners", "Program", "Readiness", "Swap", "Watch"
RESTARTS, STOP, FILES = "Restarts", "Stop", "Files and log"


class Settings(Record):
    """What a run depends on besides the command's environment: the command, every setting, and
    which program of the package was started.
    """

    command: tuple[str, ...] = ()

    #: RUN, DEV or START_SERVER: no setting, and what follows from it has no option.
    entry_point: str = RUN

    @property
    def as_server_starter(self) -> bool:
        """Whether everything is to be as Server::Starter has it: errors in the envdir are
        forgiven, its variables set the pace of restarts, and what failed is always tried again.
        """
        return self.entry_point == START_SERVER

    port: tuple[address.Address, ...] = setting(
        address.parse,
        (),
        "SPEC",
        "listen on PORT, HOST:PORT, [V6]:PORT, uPORT (UDP) or unix:/PATH",
        group=LISTEN,
        repeat=True,
    )
    backlog: int | None = setting(
        count(1), None, "N", "accept queue of each listener (the kernel's largest)", group=LISTEN
    )

    workers: int = setting(count(1), 1, "N", "workers of a generation", group=PROGRAM)
    envdir: tuple[str, ...] = setting(
        envdir,
        (),
        "DIR",
        "variables from DIR[,upper][,prefix=P], a file each, for every generation",
        group=PROGRAM,
        repeat=True,
    )
    envdir_format: str = setting(
        one_of("first-line", "whole"),
        "first-line",
        "FORMAT",
        "first-line, or whole (PEM, JSON)",
        group=PROGRAM,
    )
    dir: str = setting(non_empty, "", "DIR", "start workers in DIR", group=PROGRAM)
    user: str = setting(
        non_empty,
        "",
        "USER",
        "run workers as USER or USER:GROUP (names or numbers)",
        group=PROGRAM,
        fixed=True,
    )
    group: str = setting(
        non_empty, "", "GROUP", "run workers as GROUP (the user's own)", group=PROGRAM, fixed=True
    )
    no_new_privs: bool | None = setting(
        switch,
        None,
        "",
        "no privilege by setuid programs or file capabilities (yes with --user)",
        group=PROGRAM,
        fixed=True,
    )
    umask: int | None = setting(
        octal, None, "MASK", "umask of the workers (sidecar's own)", group=PROGRAM
    )

    profile: str = setting(
        one_of("auto", "none", *profiles.PROFILES),
        "auto",
        "NAME",
        "what a known program needs: auto, none or its name",
        group=PROGRAM,
    )
    handoff: tuple[str, ...] = setting(
        one_of(*PROTOCOLS),
        (),
        "PROTOCOL",
        "how a program is told its listeners, besides the two usual ways",
        group=PROGRAM,
        repeat=True,
    )

    ready: str = setting(
        one_of("auto", "accept", "notify", "interval", "command"),
        "auto",
        "HOW",
        "auto, accept, notify, interval or command",
        group=READY,
    )
    interval: float = setting(
        duration, 1.0, "TIME", "with --ready interval: how long it has to live", group=READY
    )
    ready_command: tuple[str, ...] = setting(
        command_words, (), "COMMAND", "with --ready command: exits 0 once ready", group=READY
    )
    start_timeout: float = setting(
        duration, 60.0, "TIME", "a worker not ready by then has failed", group=READY
    )

    check: tuple[str, ...] = setting(
        command_words,
        (),
        "COMMAND",
        "run before a generation starts; if it fails, no swap",
        group=SWAP,
    )
    max_surge: int = setting(
        count(0), 0, "N", "workers started at a time in a swap, 0 for all", group=SWAP
    )
    overlap: str = setting(
        one_of("auto", "always", "never"),
        "auto",
        "HOW",
        "old and new workers at once: auto (as memory allows), always, never",
        group=SWAP,
    )
    slow_start: bool = setting(
        switch, False, "", "TTOU to the old master for each new worker of its successor", group=SWAP
    )
    kill_old_delay: float = setting(
        duration, 0.0, "TIME", "wait between ready and retiring the old", group=SWAP
    )
    signal_on_hup: str = setting(
        signal_name, "TERM", "SIGNAL", "retires the old workers in a swap", group=SWAP
    )
    drain_timeout: float = setting(
        duration, 25.0, "TIME", "what has not left by then is killed", group=SWAP
    )

    watch: tuple[str, ...] = setting(
        non_empty,
        (),
        "PATH",
        "swap when a file below PATH changes, or the file PATH",
        group=WATCH,
        repeat=True,
    )
    watch_ignore: tuple[str, ...] = setting(
        non_empty, (), "PATTERN", "but not these, as in .gitignore", group=WATCH, repeat=True
    )
    watch_only: tuple[str, ...] = setting(
        non_empty, (), "PATTERN", "of the files, only these", group=WATCH, repeat=True
    )
    watch_settle: float | None = setting(
        duration, None, "TIME", "quiet before a swap (50ms, for many files 200ms)", group=WATCH
    )
    watch_mode: str = setting(
        one_of("auto", "inotify", "poll"),
        "auto",
        "HOW",
        "auto, inotify or poll (network and shared file systems)",
        group=WATCH,
    )
    watch_env: bool = setting(
        switch, False, "", "swap when the envdir would be read differently", group=WATCH
    )
    env_splay: float = setting(
        duration,
        0.0,
        "TIME",
        "but wait up to TIME, so that not all replicas do at once",
        group=WATCH,
    )
    env_poll: float = setting(
        duration, 60.0, "TIME", "read the envdir that often, whatever the system tells", group=WATCH
    )

    enable_auto_restart: bool = setting(switch, False, "", "swap at an interval", group=RESTARTS)
    auto_restart_interval: float = setting(
        duration, 360.0, "TIME", "that interval, up to a tenth longer", group=RESTARTS
    )
    max_workers: int = setting(
        count(0),
        0,
        "N",
        "the most workers that TTIN makes (64, or 4 times --workers if more)",
        group=RESTARTS,
    )
    max_failures: int = setting(
        count(0),
        5,
        "N",
        "exit after N failures in a row with nothing serving, 0: never",
        group=RESTARTS,
    )
    min_uptime: float = setting(
        duration,
        10.0,
        "TIME",
        "what lived shorter is restarted after a growing pause",
        group=RESTARTS,
    )
    max_backoff: float = setting(duration, 30.0, "TIME", "the longest pause", group=RESTARTS)
    max_memory: int | None = setting(
        size,
        None,
        "SIZE",
        "replace a worker whose processes hold more, gracefully (512M)",
        group=RESTARTS,
    )

    lame_duck: float = setting(
        duration, 0.0, "TIME", "on TERM, go on serving for TIME first", group=STOP
    )
    signal_on_term: str = setting(
        signal_name, "TERM", "SIGNAL", "retires the workers when stopping", group=STOP
    )

    config: str = setting(
        non_empty,
        "",
        "FILE",
        "settings file (./sidecar.yml where there is one), or none",
        group=FILES,
    )
    control: str = setting(
        non_empty,
        "",
        "PATH",
        "control socket (in /run or the first place that can be written), or none",
        group=FILES,
        fixed=True,
    )
    admin: address.Address | None = setting(
        admin_address,
        None,
        "ADDRESS",
        "health, metrics and a page over HTTP, on HOST:PORT or unix:/PATH",
        group=FILES,
        fixed=True,
    )
    admin_host: tuple[str, ...] = setting(
        host_name,
        (),
        "NAME",
        "another host name for the admin; * for any, .SUFFIX for all below it",
        group=FILES,
        repeat=True,
        fixed=True,
    )
    pid_file: str = setting(non_empty, "", "FILE", "write the pid, locked", group=FILES, fixed=True)
    status_file: str = setting(
        non_empty, "", "FILE", "write GENERATION:PID lines", group=FILES, fixed=True
    )
    log_file: str = setting(
        non_empty,
        "",
        "FILE",
        "all output goes to FILE, which HUP and USR1 open anew, or to '| COMMAND'",
        group=FILES,
        fixed=True,
    )
    log_format: str = setting(
        one_of("text", "json", "dev"),
        "text",
        "FORMAT",
        "text, json, or dev (short, for a terminal)",
        group=FILES,
    )


# What `sidecar dev` sets unless it is said otherwise.
DEV_PRESETS: dict[str, Any] = {
    "watch": (".",),
    "watch_env": True,
    "log_format": "dev",
    "drain_timeout": 3.0,
    "max_failures": 0,
    "entry_point": DEV,
}

TABLE: dict[str, Setting] = {
    name: value for name, value in vars(Settings).items() if isinstance(value, Setting)
}
for _name, _setting in TABLE.items():
    _setting.name = _name

FLAGS: dict[str, Setting] = {each.flag: each for each in TABLE.values()}
