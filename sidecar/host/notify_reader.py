"""Readiness `notify`: a worker sends READY=1 to the socket that NOTIFY_SOCKET names."""

from __future__ import annotations

from sidecar.core.model import STARTING
from sidecar.system.notify_socket import NotifySocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from sidecar.core.worker_table import WorkerTable
    from sidecar.host.job import Tools


class NotifyReader:
    """The job that listens there, once it was opened. `worker_table` has the workers; `uids` are the
    users whose word counts; `ready` is told of one that is ready.
    """

    def __init__(
        self,
        tools: Tools,
        *,
        worker_table: WorkerTable,
        uids: Collection[int],
        ready: Callable[[int, float], None],
    ) -> None:
        self._tools = tools
        self._worker_table = worker_table
        self._uids = uids
        self._ready = ready
        self._socket: NotifySocket | None = None
        #: When to listen to it again: it is not listened to while somebody floods it.
        self._listen_at = float("inf")
        self._ambiguous_generation = 0

    @property
    def address(self) -> str:
        """What NOTIFY_SOCKET says; "" while it is not open."""
        return self._socket.address if self._socket is not None else ""

    def open(self) -> None:
        """Make the socket, unless it is there. Raises OSError."""
        if self._socket is not None:
            return
        made = NotifySocket()
        try:
            self._tools.listen_to(made, self.on_readable)
        except OSError:
            made.close()
            raise
        self._socket, self._listen_at = made, float("inf")

    def close(self) -> None:
        """Close the socket: sidecar ends."""
        if self._socket is not None:
            self._socket.close()

    def export_state(self) -> Any:
        """For a later version of sidecar."""
        return self._socket and self._socket.export_state()

    def import_state(self, state: Any) -> None:
        """Take what an earlier version has exported; `on_deadline` then listens."""
        if state:
            self._socket = NotifySocket(state)

    def deadline(self) -> float:
        """When to listen to it again."""
        return self._listen_at

    def on_deadline(self, _now: float) -> None:
        """Listen to it."""
        self._listen_at = float("inf")
        if self._socket is not None:
            self._tools.listen_to(self._socket, self.on_readable)

    def on_readable(self, now: float) -> None:
        """Take what was sent."""
        if self._socket is None:
            return
        leaders = [worker.pid for worker in self._worker_table.workers()]
        for leader, message in self._socket.receive(leaders, self._uids):
            if message.get("READY") == "1" and (pid := leader or self._only_one_coming()):
                self._tools.attempt("take a notification", self._ready, pid, now, again=True)
        self._listen_at = self._socket.next_turn_at(now)
        if self._listen_at > now:
            self._tools.stop_listening(self._socket)
        else:
            self._listen_at = float("inf")

    def _only_one_coming(self) -> int:
        """The worker that READY=1 is about though its sender has ended: the only one that has not
        said so yet. 0 if there are several, or none.
        """
        coming = [
            worker
            for worker in self._worker_table.active()
            if worker.state == STARTING and worker.readiness == "notify"
        ]
        if len(coming) > 1 and self._ambiguous_generation != coming[-1].generation:
            self._ambiguous_generation = coming[-1].generation
            remark = (
                f"READY=1 came from a process that had ended before it was heard; {len(coming)} workers are"
                " starting, and nobody knows whose it was: ignored. Let the server send it, or a"
                " process that lives until it was heard (systemd-notify without --no-block)"
            )
            self._tools.say("notice", {"text": remark})
        return coming[0].pid if len(coming) == 1 else 0
