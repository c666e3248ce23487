"""The terminal that `sidecar dev` is used from: Enter swaps, q stops."""

from __future__ import annotations

import os

from sidecar.core import facts
from sidecar.system import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sidecar.host.job import Tools


class TerminalKeys:
    """The job that reads what is typed there, if `wanted` and there is one. `hangup_ignored`: sidecar
    was started by `nohup`, so that it is to outlive the terminal.
    """

    def __init__(self, tools: Tools, wanted: bool, hangup_ignored: bool) -> None:
        self._tools = tools
        self._hangup_ignored = hangup_ignored
        self._terminal: terminal.Terminal | None = None
        if wanted and os.isatty(0):
            self._terminal = terminal.Terminal()
            tools.listen_to(self._terminal, self.on_readable)
        self._in_a_terminal = wanted and terminal.has_controlling_terminal()

    def on_readable(self, now: float) -> None:
        """Act upon each line."""
        for line in self._terminal.lines() if self._terminal is not None else ():
            if line.strip().lower() in (b"q", b"quit"):
                self._tools.say("key_pressed", {"key": "q"})
                self._tools.observe(facts.StopRequested("INT", lame_duck=False), now)
            else:
                self._tools.say("key_pressed", {"key": "Enter"})
                self._tools.observe(facts.SwapTriggered("key"), now)

    def gone(self) -> bool:
        """Whether sidecar was started in a terminal that has been closed; HUP says so then."""
        return (
            self._in_a_terminal
            and not self._hangup_ignored
            and not terminal.has_controlling_terminal()
        )

    def close(self) -> None:
        """Read it no more."""
        if self._terminal is not None:
            self._terminal.close()
