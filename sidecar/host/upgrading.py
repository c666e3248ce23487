"""The upgrade in place: wait for a swap to end, have the new version prove itself, become it.

upgrade/execute.py has how a process becomes another version of its program, upgrade/state.py what it
leaves to it.
"""

from __future__ import annotations

import os
import time

from sidecar import __version__
from sidecar.base.ending import what_it_did
from sidecar.host.tail import Tail
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

# An upgrade waits that long (seconds) for a swap to end, and its check may take that long.
MAX_WAIT_S, MAX_CHECK_S = 300.0, 60.0


class Upgrade:
    """One upgrade on its way. `pid` is the check's while it runs, `until` the moment by which this
    stage has to be over.
    """

    def __init__(self, until: float, only_check: bool) -> None:
        self.only_check = only_check
        self.until = until
        self.pid = 0
        self.tail: Tail | None = None
        #: The descriptor of the state that the check was given, -1 for none.
        self.state = -1
        self.waits = False
        self.version = ""
        self.proven = False

    def close(self) -> None:
        """The state that was checked is of no use any more."""
        if self.state >= 0:
            os.close(self.state)
            self.state = -1


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
        self._upgrade: Upgrade | None = None

    def request(self, only_check: bool = False) -> None:
        """Upgrade, or only see whether that could be done."""
        if self._upgrade is None:
            self._upgrade = Upgrade(time.monotonic() + MAX_WAIT_S, only_check)
        # One that is on its way answers all who ask.
        self._upgrade.only_check &= only_check

    def deadline(self) -> float:
        """By when this stage of an upgrade has to be over."""
        return self._upgrade.until if self._upgrade is not None else float("inf")

    def advance(self, now: float) -> None:
        """Carry an upgrade on, as far as it can be at this moment."""
        one, coming = self._upgrade, self._coming()
        if one is None:
            return
        if self._tools.stopping():
            self._fail("sidecar is stopping")
        elif one.pid:
            if one.until <= now:
                self._fail("the new version has not proved within a minute that it can start")
        elif (coming or self._reading()) and not one.only_check:
            one.proven = False  # what was proven was another state
            if one.until <= now:
                self._fail("swaps have been going on for five minutes")
            elif coming and not one.waits:
                one.waits = True
                self._tools.say("upgrade_waiting", {"generation": coming})
        elif one.proven:
            self._become(one, now)
        else:
            self._prove(one, now)

    def on_exit(self, ended: Ended, _now: float) -> None:
        """The check has ended: with proof, or without."""
        one = self._upgrade
        if one is None or one.pid != ended.pid:
            return
        output = self._tools.last_words(one.tail) if one.tail is not None else ""
        one.pid, one.tail = 0, None
        one.close()
        last = output.rpartition("\n")[2]
        if ended.code or ended.signal or not last.startswith("sidecar "):
            how = ended.note or what_it_did(ended.code, ended.signal)
            said = f": {last}" if last else ""
            self._fail(f"the new version cannot take over, its check {how}{said}", output)
            return
        one.proven, one.version = True, last.removeprefix("sidecar ")
        self._tools.say("upgrade_checked", {"version": one.version})
        if one.only_check:
            self._upgrade = None

    def _prove(self, one: Upgrade, now: float) -> None:
        """Start the new version as a child that only proves it could take over."""
        origin = self._origin()
        if origin is None:
            self._fail("it is not known how sidecar was started")
            return
        try:
            one.state, kept = execute.seal(self._export_state(), __version__)
            one.tail = Tail()
            handoff = [
                *((fd, fd) for fd in (one.state, *kept)),
                (one.tail.write, 1),
                (one.tail.write, 2),
            ]
            command = execute.check_command(origin, one.state)
            launch = Launch(command, self._environment, handoff, own=True)
            one.pid = self._tools.start(launch, self)
            one.until = now + MAX_CHECK_S
            self._tools.collect(one.tail)
        except Exception as error:  # a defect is no reason not to go on either
            cause = error if isinstance(error, OSError) else type(error).__name__
            self._fail(f"its check could not be started: {cause}")

    def _become(self, one: Upgrade, now: float) -> None:
        """Be the new version. Returns only if that failed."""
        origin = self._origin()
        if origin is None:
            return
        self._before_exec(now)
        self._tools.say("upgrading", {"version": one.version, "before": __version__})
        # From here on what comes waits, in the kernel or in what is noted already.
        mask = execute.block()
        try:
            one.state, kept = execute.seal(self._export_state(), __version__)
            execute.become(origin, self._environment, one.state, kept)
        except Exception as error:
            cause = str(error) if isinstance(error, OSError) else type(error).__name__
        finally:
            execute.unblock(mask)
        self._fail(cause)

    def _origin(self) -> execute.Origin | None:
        return execute.Origin.of(*self._started) if self._started is not None else None

    def _fail(self, cause: str, output: str = "") -> None:
        one, self._upgrade = self._upgrade, None
        if one is None:
            return
        one.close()
        if one.tail is not None:
            self._tools.last_words(one.tail)
        if one.pid:
            self._tools.abandon(one.pid)
        fields = {"cause": cause, "version": __version__, "output": output}
        self._tools.say("upgrade_failed", fields)
