"""Events: each is logged, remembered, and sent to the clients of the control socket that wait for
one.
"""

from __future__ import annotations

import time

from sidecar.core.history import EventHistory
from sidecar.host.redaction import Redaction
from sidecar.host.turn import Turn
from sidecar.log.writer import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sidecar.settings.table import Settings


class Events:
    """Who is told of an event. `settings` say how the log looks and what is secret, `environ` whether
    it may have colours.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        #: Whoever has a part of the loop's turn may fail, and says so here.
        self.turn = Turn(self.say)
        self.redaction = Redaction(())
        colour = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self.log = Log(settings.log_format, colour=colour)
        self.history = EventHistory()
        #: Called with the record of each event and the time: the control socket.
        self.publish: Callable[[dict[str, Any], float], None] = lambda _record, _now: None

    def say(self, event: str, fields: Mapping[str, Any]) -> None:
        """Something has happened: `event` is one of log.PHRASES. Raises nothing."""
        fields = self.redaction.fields(fields)
        self.turn.attempt("write its log", self.log.say, event, fields)
        self.turn.attempt("tell who waits for events", self._remember, event, fields, again=True)

    def log_to_output(self, style: str) -> None:
        """Descriptor 2 is the output of --log-file from now on."""
        self.log.release()
        self.log = Log(style)

    def _remember(self, event: str, fields: Mapping[str, Any]) -> None:
        record = self.history.record(event, fields, time.time())
        self.publish(record, time.monotonic())
