"""Events: each is logged, remembered, and sent to the clients of the control socket that wait for
one.
"""

from __future__ import annotations

import time

from sidecar.core.history import Chronicle
from sidecar.log.writer import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sidecar.host.redaction import Redaction
    from sidecar.host.turn import Turn


class Events:
    """Who is told of an event. `redaction` has the values that are shown nowhere."""

    def __init__(self, turn: Turn, log: Log, redaction: Redaction) -> None:
        self._turn = turn
        self._redaction = redaction
        self.log = log
        self.history = Chronicle()
        #: Called with the record of each event and the time: the control socket.
        self.publish: Callable[[dict[str, Any], float], None] = lambda _record, _now: None

    def say(self, event: str, fields: Mapping[str, Any]) -> None:
        """Something has happened: `event` is one of log.PHRASES. Raises nothing."""
        fields = self._redaction.fields(fields)
        self._turn.attempt("write its log", self.log.say, event, fields)
        self._turn.attempt("tell who waits for events", self._remember, event, fields, again=True)

    def _remember(self, event: str, fields: Mapping[str, Any]) -> None:
        record = self.history.note(event, fields, time.time())
        self.publish(record, time.monotonic())
