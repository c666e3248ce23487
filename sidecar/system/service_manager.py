"""The service manager that started sidecar, and what it is told, in systemd's words (sd_notify(3)).

    READY=1         a generation is serving for the first time
    RELOADING=1     a swap begins that HUP has caused; READY=1 follows when it has ended, well or not
    STOPPING=1      the stop has begun
    STATUS=         one line: which generation serves, how many workers are ready, why the last
                    generation that failed did

It follows the events that the supervisor reports, so nothing is decided here.

Each message is a datagram, and a manager that does not read must not stop PID 1. So a message that
finds no room is kept, and sent again after a pause that doubles, up to a minute. That is the only
wake-up, and there is none while the manager reads. Every other error is reported once, and ignored.

The road not taken: WATCHDOG=1 would need a wake-up for ever to say that all is well.
"""

from __future__ import annotations

import errno
import socket
import time

from sidecar.base.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sidecar.core.supervisor import Supervisor

# The first pause before a message that found no room is sent again, and the longest: a manager that
# reads again after an hour gets it within a minute.
FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 60.0
# So many messages are kept. The oldest are dropped first, because a later one makes them stale.
MAX_UNSENT = 16
# systemd drops a datagram of more than 4 KiB, and nobody reads a status that long.
MAX_STATUS_CHARACTERS = 500


class ServiceManager:
    """The socket of the service manager. `address` is NOTIFY_SOCKET as sidecar found it: a path, `@`
    and an abstract name, or "" for no manager.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        #: The moment (seconds, monotonic) to call `send` again; infinity if nothing waits.
        self.retry_at = float("inf")
        self._socket: socket.socket | None = None
        self._unsent: list[bytes] = []
        self._pause = FIRST_PAUSE_S
        self._ready = self._reload_requested = self._reloading = self._stopping = False
        self._status = ""
        self._last_problem = ""
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def close(self) -> None:
        """Close the socket. What has not been sent by now is lost."""
        if self._socket is not None:
            self._socket.close()

    def export_state(self) -> dict[str, Any]:
        """What the manager knows, and what has not been sent, for a later version of sidecar: an
        upgrade is no reload.
        """
        return {
            "ready": self._ready,
            "reload_requested": self._reload_requested,
            "reloading": self._reloading,
            "stopping": self._stopping,
            "status": self._status,
            "last_problem": self._last_problem,
            "unsent": [each.decode("latin-1") for each in self._unsent],
            "retry_at": self.retry_at,
            "pause": self._pause,
        }

    def import_state(self, state: dict[str, Any]) -> None:
        """Go on with what an earlier version has exported."""
        self._ready = state["ready"]
        self._reload_requested = state["reload_requested"]
        self._reloading = state["reloading"]
        self._stopping = state["stopping"]
        self._status = state["status"]
        self._last_problem = state["last_problem"]
        self._unsent = [each.encode("latin-1") for each in state["unsent"]]
        self.retry_at, self._pause = state["retry_at"], state["pause"]

    def reload_requested(self) -> None:
        """HUP has come: the next swap that begins is the manager's reload."""
        self._reload_requested = True

    def reload_rejected(self) -> None:
        """No swap will begin for the HUP that has come."""
        self._reload_requested = False

    def on_event(self, event: str, fields: Mapping[str, Any]) -> None:
        """An event that the supervisor reports."""
        if self._stopping:
            return
        if event in ("stopping", "gave_up"):
            self._stopping = True
            self._add("STOPPING=1")
        elif event == "swap_started":
            if self._reload_requested and self._ready:
                self._reloading = True
                # The clock is read now: systemd does not accept a reload that began before it sent
                # its HUP.
                self._add(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            self._reload_requested = False
        elif (event == "serving" and not self._ready) or (
            event in ("serving", "swap_failed") and self._reloading
        ):
            # A swap that is superseded has not ended: another one begins.
            self._ready, self._reloading = True, False
            self._add("READY=1")

    def send(self, supervisor: Supervisor, now: float) -> str:
        """Send the messages that wait, and the status if it has changed. Returns why that failed, in
        words for the log; "" if it did not, or for the same reason as last time.
        """
        if self._socket is None:
            return ""
        status = "stopping" if self._stopping else status_text(supervisor)
        if status != self._status:
            self._status = status
            self._add(f"STATUS={printable(status)}")
        elif now < self.retry_at < float("inf"):
            return ""
        problem = "" if self._unsent else self._last_problem
        while self._unsent:
            try:
                self._socket.sendto(self._unsent[0], _socket_address(self.address))
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                    self.retry_at = now + self._pause
                    self._pause = min(self._pause * 2, MAX_PAUSE_S)
                    return ""
                problem = error.strerror or str(error)
            del self._unsent[0]
        self.retry_at, self._pause = float("inf"), FIRST_PAUSE_S
        before, self._last_problem = self._last_problem, problem
        return problem if problem != before else ""

    def _add(self, message: str) -> None:
        """Let a message wait to be sent. A new status takes the place of one that waits last."""
        if self._socket is None:
            return
        new_status = message.startswith("STATUS=")
        if new_status and self._unsent and self._unsent[-1].startswith(b"STATUS="):
            del self._unsent[-1]
        self._unsent.append(message.encode("utf-8", "backslashreplace"))
        del self._unsent[:-MAX_UNSENT]


def status_text(supervisor: Supervisor) -> str:
    """What `systemctl status` shows: one line, without a full stop."""
    worker_table = supervisor.worker_table
    parts = []
    if worker_table.current is not None:
        parts.append(
            f"generation {worker_table.current.number} serves, {len(worker_table.ready())} of {supervisor.size} workers ready"
        )
    if worker_table.coming is not None:
        parts.append(f"generation {worker_table.coming.number} is starting")
    if supervisor.failed_swap is not None:
        parts.append("generation {} failed: {}".format(*supervisor.failed_swap))
    return " ".join("; ".join(parts).split())[:MAX_STATUS_CHARACTERS]


def _socket_address(address: str) -> str:
    """The address as the system takes it. Raises OSError for one of another family, such as vsock:."""
    if address[0] not in "/@":
        raise OSError("it has to be a path, or @ and an abstract name")
    return "\0" + address[1:] if address[0] == "@" else address
