"""What is run side by side: each scenario, and the lines that it has to have."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.system.start_server.starter import Starter, stale_socket


# --- side by side
def started(run: Starter) -> None:
    run.wait_generations(1)


def hup(run: Starter) -> None:
    run.wait_generations(1)
    run.signal("HUP")
    run.wait_generations(2)
    run.wait(r"^old worker \d+ died")


def hup_twice(run: Starter) -> None:
    hup(run)
    run.signal("HUP")
    run.wait_generations(3)
    run.wait(r"^old worker \d+ died", 2)


def crash(run: Starter) -> None:
    run.wait_generations(1)
    os.kill(run.worker(1), signal.SIGKILL)
    run.wait_generations(2)


def failing(run: Starter) -> None:
    run.wait_generations(1)
    (run.where / "BREAK").touch()
    run.signal("HUP")
    run.wait_generations(3)
    run.wait(r"^old worker \d+ died")


def failing_at_start(run: Starter) -> None:
    run.wait_generations(2)


def crash_loop(run: Starter) -> None:
    run.wait_generations(1)
    (run.where / "BREAK").write_text("2")
    os.kill(run.worker(1), signal.SIGKILL)
    run.wait_generations(4)


def envdir(run: Starter) -> None:
    run.wait_generations(1)
    (run.where / "env" / "FOO").write_text("two\nrest\n")
    (run.where / "env" / "BAR").write_text(" blanks \t\r\n")
    (run.where / "env" / "EMPTY").touch()
    (run.where / "env" / "LINE").write_text("\n")
    (run.where / "env" / "DIRECTORY").mkdir()
    (run.where / "env" / ".HIDDEN").write_text("x\n")
    hup(run)


def envdir_later(run: Starter) -> None:
    run.wait_generations(1)
    (run.where / "later").mkdir()
    (run.where / "later" / "FOO").write_text("x\n")
    (run.where / "later" / "KILL_OLD_DELAY").write_text("1\n")
    hup(run)


def timer(run: Starter) -> None:
    run.wait_generations(2)
    run.wait(r"^old worker \d+ died")


def forced(run: Starter) -> None:
    (run.where / "DEAF").touch()
    run.wait_generations(1, 2)
    (run.where / "DEAF").unlink()
    run.wait(r"^autorestart triggered \(forced")
    run.wait_generations(1, 2, 3)
    # Two workers are deaf.
    for generation in (1, 2):
        os.kill(run.worker(generation), signal.SIGKILL)
        run.wait(r"^old worker \d+ died", generation)


IPV6 = (
    socket.has_ipv6
    and Path("/proc/net/if_inet6").exists()
    and "0001 80" in Path("/proc/net/if_inet6").read_text()
)
STARTS = ("start_server (pid:N) starting now...", "starting new worker N")
ENDS = ("received SIG, sending SIG to all workers:P1,P2", "worker N died, status:RAW", "exiting")
SWAPS = (
    "new worker is now running, sending SIG to old workers:P1,P2",
    "killing old workers",
    "old worker N died, status:RAW",
)
ASKED = ("received HUP, spawning a new worker", *SWAPS)
FAILS = ("new worker N seems to have failed to start, exit status:RAW",)
DIES = ("worker N died unexpectedly with status:RAW, restarting",)
WAITS = ("sleeping N secs before killing old workers",)


class Scenario(NamedTuple):
    """`options`, in which {0} … stand for free ports; what `happens`; the signal that ends it; the
    rows that it shows: those of messages are looked for in both logs. The directory is got ready by
    `before`; `differs` says how a line of Perl's reads here.
    """

    options: list[str]
    happens: Callable[[Starter], None]
    end: str
    rows: tuple[str, ...] = ()
    before: Callable[[Path], None] = lambda where: None
    differs: Mapping[str, str] = {}


SCENARIOS = {
    "start": Scenario([], started, "TERM", (*STARTS, *ENDS, "TERM", "--pid-file, --status-file", "SERVER_STARTER_PORT", "pid file")),
    "start-int": Scenario(["--signal-on-term=HUP"], started, "INT", (*ENDS, "INT")),
    "ports": Scenario(
        ["--port={0}", "--port=127.0.0.1:{1}", "--port", "u{0}", "--port=127.0.0.1:{2}=17", "--path=app.sock"], hup, "TERM",
        ("socket is duplicated to file descriptor N", "--port", "--path", "SERVER_STARTER_PORT"),
    ),
    "two-ports": Scenario(["--port={0}", "--port=localhost:{1}"], hup, "TERM", ("--port",)),
    "udp": Scenario(["--port=127.0.0.1:u{0}", "--port=u{1}"], hup, "TERM", ("--port",)),
    "path": Scenario(["--path=app.sock", "--path=b.sock"], hup, "TERM", ("removing existing socket file:PATH", "--path"), stale_socket),
    "hup": Scenario(["--signal-on-hup=sigquit", "--signal-on-term", "usr1"], hup, "TERM", (*ASKED, "--signal-on-hup, --signal-on-term")),
    "hup-twice": Scenario([], hup_twice, "TERM", (*ASKED, "HUP")),
    "crash": Scenario([], crash, "TERM", DIES),
    "crash-loop": Scenario([], crash_loop, "TERM", (*DIES, *FAILS)),
    "failing-generation": Scenario([], failing, "TERM", (*FAILS, *ASKED, "SERVER_STARTER_GENERATION")),
    "failing-at-start": Scenario([], failing_at_start, "TERM", FAILS, lambda where: (where / "BREAK").write_text("1")),
    "kill-old-delay": Scenario(["--kill-old-delay=1"], hup_twice, "TERM", (*WAITS, "--kill-old-delay")),
    "envdir": Scenario(["--envdir=env"], envdir, "TERM", ("--envdir", "from the envdir")),
    "envdir-later": Scenario(
        ["--envdir=later"], envdir_later, "TERM",
        (*WAITS, "--envdir", "ENVDIR, ENABLE_AUTO_RESTART, AUTO_RESTART_INTERVAL, KILL_OLD_DELAY"),
    ),
    "auto-restart": Scenario(
        ["--enable-auto-restart", "--auto-restart-interval=2", "--kill-old-delay=0"], timer, "TERM",
        ("autorestart triggered (interval=N)", "--enable-auto-restart, --auto-restart-interval", *SWAPS),
    ),
    "auto-restart-forced": Scenario(
        ["--enable-auto-restart", "--auto-restart-interval=2", "--kill-old-delay=0"], forced, "TERM",
        ("autorestart triggered (forced, interval=N)", "--enable-auto-restart, --auto-restart-interval"),
        lambda where: (where / "DEAF").touch(),
        # The deaf one has been asked before.
        {"running, sending TERM to old workers:<worker 1>,<worker 2>": "running, sending TERM to old workers:<worker 2>"},
    ),
}  # fmt: skip
if IPV6:
    SCENARIOS["ipv6"] = Scenario(
        ["--port=[::1]:{0}", "--port=[::1]:u{1}"], started, "TERM", ("--port",)
    )
