"""The helper processes: they are started, read and, once they have ended, started again after a
pause.
"""

from __future__ import annotations

from sidecar.base.exit_text import describe_exit
from sidecar.system.child import Launch
from sidecar.system.jitter import random_fraction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from sidecar.host.helpers import Helper
    from sidecar.host.job import Tools
    from sidecar.system.child import StartDirectory
    from sidecar.system.processes import Ended


class HelperProcesses:
    """The job that keeps helpers alive.

    `place` is where they are started; `listens_to` says whether something is listened to,
    `stopped` whether a process was stopped (SIGSTOP); `send` sends a signal, `adopt` has the job
    told of the end of a process that an earlier version of sidecar has started.
    """

    def __init__(
        self,
        tools: Tools,
        *,
        place: Callable[[], StartDirectory],
        listens_to: Callable[[Helper], bool],
        stopped: Callable[[int], bool],
        send: Callable[[int, str], None],
        adopt: Callable[[int, HelperProcesses], None],
    ) -> None:
        self._tools = tools
        self._place = place
        self._listens_to = listens_to
        self._stopped = stopped
        self._send = send
        self._adopt = adopt
        self._helpers: list[Helper] = []

    def __iter__(self) -> Iterator[Helper]:
        return iter(self._helpers)

    def add(self, helper: Helper) -> None:
        """Look after one more helper. It is started when it is due."""
        self._helpers.append(helper)

    def remove(self, helper: Helper, now: float) -> None:
        """Read what a helper has written last, and end it for good."""
        if helper.pid:
            self.read(helper, now)
            self._tools.stop_listening(helper)
            self._tools.abandon(helper.pid)
        helper.close()
        self._helpers.remove(helper)

    def deadline(self) -> float:
        """When the next one has to be started."""
        stopping = self._tools.stopping()
        return min(
            (helper.restart.deadline(stopping) for helper in self._helpers), default=float("inf")
        )

    def on_deadline(self, now: float) -> None:
        """Start those that are due."""
        stopping = self._tools.stopping()
        for helper in self._helpers:
            if helper.restart.deadline(stopping) > now:
                continue
            try:
                launch = Launch(
                    helper.argv,
                    helper.environment,
                    helper.open(),
                    as_sidecar_user=True,
                    start_directory=self._place(),
                )
                helper.started(self._tools.start(launch, self), now)
                self._listen_to(helper)
            except Exception as error:
                cause = error.strerror if isinstance(error, OSError) else type(error).__name__
                if not isinstance(error, OSError):
                    self._tools.note_defect(f"start {helper.name}", error, now)
                if helper.pid:
                    self._tools.abandon(helper.pid)
                self._ended(helper, f"it could not be started: {cause}", now)

    def on_exit(self, ended: Ended, now: float) -> None:
        """A helper has ended."""
        helper = next((each for each in self._helpers if each.pid == ended.pid), None)
        if helper is None:
            return
        cause = (not ended.signal and ended.start_error) or describe_exit(ended.code, ended.signal)
        self._ended(helper, cause, now)

    def read(self, helper: Helper, now: float) -> None:
        """Act upon what a helper has written. One that breaks the protocol is killed."""
        error_before = helper.protocol_error
        for event in helper.read_events():
            what = f"act upon what {helper.name} said"
            self._tools.attempt(what, helper.on_event, event, now)
        if helper.protocol_error and not error_before:
            what = f"understand {helper.name}"
            self._tools.say("action_failed", {"what": what, "cause": helper.protocol_error})
            self._send(helper.pid, "KILL")

    def kill_stopped(self) -> None:
        """Kill the helpers that were stopped: they do nothing."""
        for helper in self._helpers:
            if helper.pid and self._stopped(helper.pid):
                self._send(helper.pid, "KILL")

    def recover(self, now: float) -> None:
        """After an internal error: start those that nobody would start."""
        for helper in self._helpers:
            if not helper.pid:
                helper.restart.lost(now)

    def export_state(self) -> dict[str, Any]:
        """What a later version of sidecar goes on with."""
        return {helper.name: helper.export_state() for helper in self._helpers}

    def import_state(self, state: Mapping[str, Any]) -> None:
        """Go on with what an earlier version has exported, once all helpers were added."""
        for helper in self._helpers:
            helper.import_state(state[helper.name])

    def listen(self) -> None:
        """Listen to those that an earlier version has started."""
        for helper in self._helpers:
            if helper.pid:
                self._adopt(helper.pid, self)
                self._listen_to(helper)

    def end_outdated(self) -> None:
        """End those that an earlier version has started; others take their places."""
        for helper in self._helpers:
            if helper.pid:
                self._send(helper.pid, helper.stop_signal)

    def _listen_to(self, helper: Helper) -> None:
        self._tools.listen_to(helper, lambda now: self.read(helper, now))

    def _ended(self, helper: Helper, cause: str, now: float) -> None:
        if helper.pid and self._listens_to(helper):
            what = f"read what {helper.name} said last"
            self._tools.attempt(what, self.read, helper, now)
        self._tools.stop_listening(helper)
        pid, outdated = helper.pid, helper.restart.outdated
        pause = helper.ended(now, random_fraction())
        if not outdated and helper.restart.is_wanted(self._tools.stopping()):
            fields = {"helper": helper.name, "pid": pid, "cause": cause, "pause": pause}
            self._tools.say("helper_exited", fields)
