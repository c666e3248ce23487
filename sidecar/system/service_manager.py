"""The service manager that started sidecar: tell it how things are, in systemd's words
(sd_notify(3)).

    READY=1         a generation serves for the first time
    RELOADING=1     a swap begins that HUP asked for; READY=1 follows when it has ended, well or not
    STOPPING=1      the stop has begun
    STATUS=         one line: what serves, how many workers are ready, why the last generation that failed did

It listens to the events that the supervisor has said, so no decision is made here or for its sake.

Each message is a datagram, and a manager that does not read must not stop PID 1: what finds no room
is kept, and tried again after a pause that doubles, up to a minute. That is the only wake-up, and there is none
while the manager reads. Every other error is reported, once, and ignored. Left out: WATCHDOG=1,
which would need a wake-up for ever to say that nothing is the matter.
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

# The first pause (seconds) before a message that found no room is tried again, and the longest:
# a manager that reads again after an hour is told within a minute.
PAUSE, LONGEST_PAUSE = 0.1, 60.0
# So many messages wait; the oldest go first. A later one makes them stale anyhow.
MOST = 16
# systemd drops a datagram of more than 4 KiB; a status longer than this many characters is nothing
# to read.
LONGEST = 500


class Manager:
    """Who is told. `address` is NOTIFY_SOCKET as sidecar found it: a path, `@` and an abstract
    name, or "": nobody.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.again = float("inf")
        """The moment (seconds, monotonic) to call `tell` by; infinity where nothing waits."""
        self._socket: socket.socket | None = None
        self._unsent: list[bytes] = []
        self._pause = PAUSE
        self._ready = self._asked = self._reloading = self._stopping = False
        self._status = ""
        self._complaint = ""
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def close(self) -> None:
        """Close the socket; what has not been sent by now is lost."""
        if self._socket is not None:
            self._socket.close()

    def dump(self) -> dict[str, Any]:
        """What the manager knows, and what has not been sent, for a later version of sidecar:
        becoming that is no reload.
        """
        return {
            "ready": self._ready, "asked": self._asked, "reloading": self._reloading, "stopping": self._stopping, "status": self._status,
            "complaint": self._complaint, "unsent": [each.decode("latin-1") for each in self._unsent], "again": self.again,
            "pause": self._pause,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what an earlier version has dumped."""
        self._ready, self._asked, self._reloading = (
            state["ready"],
            state["asked"],
            state["reloading"],
        )
        self._stopping, self._status, self._complaint = (
            state["stopping"],
            state["status"],
            state["complaint"],
        )
        self._unsent, self.again, self._pause = (
            [each.encode("latin-1") for each in state["unsent"]],
            state["again"],
            state["pause"],
        )

    def swap_asked(self) -> None:
        """HUP has come: the next swap that begins is the manager's reload."""
        self._asked = True

    def refused(self) -> None:
        """It has come to nothing: no swap will begin for it."""
        self._asked = False

    def heed(self, event: str, fields: Mapping[str, Any]) -> None:
        """Take an event that the supervisor has said."""
        if self._stopping:
            return
        if event in ("stopping", "gave_up"):
            self._stopping = True
            self._say("STOPPING=1")
        elif event == "swap_started":
            if self._asked and self._ready:
                self._reloading = True
                # The clock is read now: systemd takes no reload for the one it asked for that began
                # before it sent HUP.
                self._say(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            self._asked = False
        elif (event == "serving" and not self._ready) or (
            event in ("serving", "swap_failed") and self._reloading
        ):
            # A swap that is superseded has not ended: another one begins.
            self._ready, self._reloading = True, False
            self._say("READY=1")

    def tell(self, supervisor: Supervisor, now: float) -> str:
        """Send what there is to say. Why it could not be, in words for the log; "" if all is well
        or was said before.
        """
        if self._socket is None:
            return ""
        status = "stopping" if self._stopping else state(supervisor)
        if status != self._status:
            self._status = status
            self._say(f"STATUS={printable(status)}")
        elif now < self.again < float("inf"):
            return ""
        complaint = "" if self._unsent else self._complaint
        while self._unsent:
            try:
                self._socket.sendto(self._unsent[0], _sockaddr(self.address))
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                    self.again = now + self._pause
                    self._pause = min(self._pause * 2, LONGEST_PAUSE)
                    return ""
                complaint = error.strerror or str(error)
            del self._unsent[0]
        self.again, self._pause = float("inf"), PAUSE
        before, self._complaint = self._complaint, complaint
        return complaint if complaint != before else ""

    def _say(self, message: str) -> None:
        if self._socket is not None:
            if (
                message.startswith("STATUS=")
                and self._unsent
                and self._unsent[-1].startswith(b"STATUS=")
            ):
                del self._unsent[-1]
            self._unsent.append(message.encode("utf-8", "backslashreplace"))
            del self._unsent[:-MOST]


def state(supervisor: Supervisor) -> str:
    """What `systemctl status` shows: one line, without a full stop."""
    worker_table = supervisor.worker_table
    said = []
    if worker_table.current is not None:
        said.append(
            f"generation {worker_table.current.number} serves, {len(worker_table.ready())} of {supervisor.size} workers ready"
        )
    if worker_table.coming is not None:
        said.append(f"generation {worker_table.coming.number} is starting")
    if supervisor.failed_swap is not None:
        said.append("generation {} failed: {}".format(*supervisor.failed_swap))
    return " ".join("; ".join(said).split())[:LONGEST]


def _sockaddr(address: str) -> str:
    """The address as the system takes it. Raises OSError for one of another family, such as vsock:."""
    if address[0] not in "/@":
        raise OSError("it has to be a path, or @ and an abstract name")
    return "\0" + address[1:] if address[0] == "@" else address
