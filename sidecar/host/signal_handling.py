"""What each signal does that is sent to sidecar."""

from __future__ import annotations

from collections import deque

from sidecar.core import facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.host.job import Tools
    from sidecar.host.requests import Requests
    from sidecar.system.signals import SignalPipe

STOPS = ("TERM", "INT", "QUIT")


class SignalHandling:
    """The job that acts upon them. `child_ended` is told that some child has ended; `upgrade` does
    what USR2 asks for; `terminal_gone` says whether the terminal of `sidecar dev` has been closed.
    """

    def __init__(
        self,
        tools: Tools,
        wakeup: SignalPipe,
        requests: Requests,
        *,
        child_ended: Callable[[float], None],
        upgrade: Callable[[], None],
        terminal_gone: Callable[[], bool],
    ) -> None:
        self._tools = tools
        self._wakeup = wakeup
        self._requests = requests
        self._child_ended = child_ended
        self._upgrade = upgrade
        self._terminal_gone = terminal_gone
        # Those that have come and were not acted upon yet.
        self._pending: deque[str] = deque()

    def on_readable(self, now: float) -> None:
        """Act upon those that have come, each by itself."""
        # A stop first: what died in the same moment (Ctrl-C to the whole group, a container's end)
        # died of it.
        self._pending.extend(sorted(self._wakeup.take(), key=lambda name: name not in STOPS))
        while self._pending:
            name = self._pending.popleft()
            self._tools.attempt(f"act upon SIG{name}", self._act_upon, name, now, again=True)

    def _act_upon(self, name: str, now: float) -> None:
        match name:
            case "CHLD":
                self._child_ended(now)
            case "TERM" | "INT" | "QUIT":
                self._tools.observe(facts.StopRequested(name, lame_duck=name == "TERM"), now)
            case "HUP" if self._terminal_gone():
                if not self._tools.stopping():
                    self._tools.say("terminal_closed", {})
                    self._tools.observe(facts.StopRequested(name, lame_duck=False), now)
            case "HUP":
                self._requests.reload("signal", signal=name)
            case "TTIN" | "TTOU":
                by = 1 if name == "TTIN" else -1
                self._tools.observe(facts.SizeChanged(by, name), now)
            case "USR1":
                self._requests.reopen_logs()
            case "USR2":
                self._upgrade()
