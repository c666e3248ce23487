"""The upgrade in place: have the new version prove that it can start, and become it.

policies/upgrade.py decides when, upgrade/execute.py has how a process becomes another version of
its program, and upgrade/state.py what it leaves to it.
"""

from __future__ import annotations

import os
import time

from sidecar import __version__
from sidecar.base.exit_text import exit_predicate
from sidecar.host.tail import Tail
from sidecar.policies import upgrade as policy
from sidecar.system.child import Launch
from sidecar.upgrade import execute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from sidecar.host.job import Tools
    from sidecar.system.processes import Ended

    # sys.executable, sys.orig_argv, sys.argv
    Started = tuple[str, Sequence[str], Sequence[str]]


class Upgrading:
    """The job that upgrades sidecar.

    `started` is how sidecar was started (None: nobody knows), `environment` with what.
    `export_state` makes the state that is left to the new version; `coming` is the number of the
    generation that is being started, 0 for none; `reading` says whether settings are being read;
    `before_exec` interrupts what the new version does anew.
    """

    def __init__(
        self,
        tools: Tools,
        started: Started | None,
        environment: Mapping[str, str],
        *,
        export_state: Callable[[], dict[str, Any]],
        coming: Callable[[], int],
        reading: Callable[[], bool],
        before_exec: Callable[[float], None],
    ) -> None:
        self._tools = tools
        self._started = started
        self._environment = environment
        self._export_state = export_state
        self._coming = coming
        self._reading = reading
        self._before_exec = before_exec
        self._policy = policy.UpgradePolicy()
        #: The check: its pid, 0 if none runs, what it writes, and the descriptor of the state that
        #: it was given, -1 for none.
        self._check_pid = 0
        self._tail: Tail | None = None
        self._state_fd = -1
        #: What it had written when it ended.
        self._output = ""
        #: The version that has passed the check.
        self._new_version = ""

    def request(self, only_check: bool = False) -> None:
        """Upgrade, or only find out whether that could be done."""
        self._policy.requested(time.monotonic(), only_check)

    def deadline(self) -> float:
        """When to go on at the latest."""
        return self._policy.deadline()

    def advance(self, now: float) -> None:
        """Do the next step of an upgrade, if there is one now."""
        step = self._policy.decide(
            now,
            coming=self._coming(),
            reading=self._reading(),
            stopping=self._tools.stopping(),
        )
        match step:
            case policy.SayWaiting():
                self._tools.say("upgrade_waiting", {"generation": step.generation})
            case policy.StartCheck():
                self._start_check(now)
            case policy.BecomeNewVersion():
                self._become(now)
            case policy.FailUpgrade():
                self._fail(step.cause)

    def on_exit(self, ended: Ended, _now: float) -> None:
        """The check has ended."""
        if self._check_pid != ended.pid:
            return
        if self._tail is not None:
            self._output = self._tools.last_words(self._tail)
            self._tail = None
        self._close_state()
        last = self._output.rpartition("\n")[2]
        if ended.code or ended.signal or not last.startswith("sidecar "):
            how = ended.start_error or exit_predicate(ended.code, ended.signal)
            said = f": {last}" if last else ""
            cause = f"the new version cannot take over, its check {how}{said}"
            self._check_pid = 0
            self._fail(cause, self._output)
            return
        self._new_version = last.removeprefix("sidecar ")
        self._policy.check_passed()
        # Not before: should something raise, this is called again.
        self._check_pid = 0
        self._tools.say("upgrade_checked", {"version": self._new_version})

    def _start_check(self, now: float) -> None:
        """Start the new version as a child that only proves it could take over."""
        origin = self._origin()
        if origin is None:
            self._fail("it is not known how sidecar was started")
            return
        try:
            self._state_fd, kept = execute.write_state(self._export_state(), __version__)
            self._tail = Tail()
            handoff = [
                *((fd, fd) for fd in (self._state_fd, *kept)),
                (self._tail.write, 1),
                (self._tail.write, 2),
            ]
            command = execute.check_command(origin, self._state_fd)
            launch = Launch(command, self._environment, handoff, as_sidecar_user=True)
            self._check_pid = self._tools.start(launch, self)
            self._policy.check_started(now)
            self._tools.collect(self._tail)
        except Exception as error:  # an internal error is no reason not to go on either
            cause = error if isinstance(error, OSError) else type(error).__name__
            self._fail(f"its check could not be started: {cause}")

    def _become(self, now: float) -> None:
        """Be the new version. Returns only if that failed."""
        cause = "it is not known how sidecar was started"
        if (origin := self._origin()) is not None:
            self._before_exec(now)
            fields = {"version": self._new_version, "before": __version__}
            self._tools.say("upgrading", fields)
            # From here on what comes waits, in the kernel or in what is noted already.
            mask = execute.block_signals()
            try:
                self._state_fd, kept = execute.write_state(self._export_state(), __version__)
                execute.exec_new_version(origin, self._environment, self._state_fd, kept)
            except Exception as error:
                cause = str(error) if isinstance(error, OSError) else type(error).__name__
            finally:
                execute.restore_signal_mask(mask)
        self._fail(cause)

    def _origin(self) -> execute.StartCommand | None:
        return execute.StartCommand.of(*self._started) if self._started is not None else None

    def _close_state(self) -> None:
        if self._state_fd >= 0:
            os.close(self._state_fd)
            self._state_fd = -1

    def _fail(self, cause: str, output: str = "") -> None:
        """The upgrade is over, and this version goes on."""
        self._policy.failed()
        self._close_state()
        if self._tail is not None:
            self._tools.last_words(self._tail)
            self._tail = None
        if self._check_pid:
            self._tools.abandon(self._check_pid)
            self._check_pid = 0
        fields = {"cause": cause, "version": __version__, "output": output}
        self._tools.say("upgrade_failed", fields)
