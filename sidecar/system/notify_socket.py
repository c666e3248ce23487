"""The socket that workers send READY=1 to (sd_notify(3)): `--ready notify`."""

from __future__ import annotations

import os
import signal
import socket
import struct

from sidecar.base.record import Descriptor
from sidecar.core.backoff import RateLimit
from sidecar.system.procfs import owning_leader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any


class NotifySocket:
    """The socket that NOTIFY_SOCKET names: programs send it READY=1, STATUS=… (sd_notify(3)).

    Its address is abstract (unix(7)): that needs no writable directory, leaves nothing behind and
    can be reached by a program that has changed its user. Anyone in the network namespace may write
    to it, so a message counts by its sender's pid, which comes from the kernel, and nobody can make
    PID 1 wait or work for long:

    - Descriptors that come with a message are never taken. But the kernel closes them in the process
      that reads the message, and the last close of a TCP socket with SO_LINGER takes as long as its
      sender wants (socket(7)). A signal ends that wait.
    - A sender that writes without end is read at a limited rate (`next_turn_at`).

    A sender that has ended before it could be looked at (`systemd-notify --no-block; exec server`)
    shows only its pid and uid. `receive` gives its message without a leader.
    """

    MAX_MESSAGES_PER_TURN = 16
    MAX_MESSAGE_BYTES = 4096
    #: For closing the descriptors that came with a message.
    MAX_CLOSE_S = 0.01
    #: The time between two turns on average, and how much of it may be used in advance.
    TURN_INTERVAL_S, TURN_BURST_S = 0.05, 2.0

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        """Bind it, non-blocking and close-on-exec, or go on with what an earlier version of sidecar
        has exported. Raises OSError.
        """
        #: How many messages came from strangers or had no assignment.
        self.ignored_messages = 0
        self._allowance = RateLimit(self.TURN_INTERVAL_S, self.TURN_BURST_S)
        if state is not None:
            self._socket, self.address = socket.socket(fileno=state["fd"]), state["address"]
            return
        name = f"sidecar-{os.getpid()}-{os.urandom(8).hex()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_PASSCRED, 1
        )  # before bind: no message without a pid
        self._socket.bind(f"\0{name}")
        self.address = f"@{name}"
        """What goes into NOTIFY_SOCKET."""

    def export_state(self) -> dict[str, Any]:
        """Its state for a later version of sidecar: the workers know it by this address."""
        return {"fd": Descriptor(self._socket.fileno()), "address": self.address}

    def fileno(self) -> int:
        """For select: readable when a message is there."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it. Its name disappears with it."""
        self._socket.close()

    def next_turn_at(self, now: float) -> float:
        """Count a turn of `receive` at `now`. Returns the moment (seconds on the caller's clock)
        before which there should be no other one: `now` unless somebody writes without end.
        """
        return self._allowance.use(now)

    def receive(
        self, leaders: Collection[int], uids: Collection[int] = ()
    ) -> list[tuple[int, dict[str, str]]]:
        """The waiting messages of these workers, as (leader, {"READY": "1", "STATUS": …}), at most
        MAX_MESSAGES_PER_TURN a call. The leader is 0 if the sender has ended, so that its worker is
        not known, and was one of the users `uids`.

        A long message is cut after the last whole line of its first 4 KiB. Its sender is looked at
        before the message is removed: systemd-notify sends a descriptor (BARRIER=1) and lives only
        until that is closed.
        """
        messages = []
        for _ in range(self.MAX_MESSAGES_PER_TURN):
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    self.MAX_MESSAGE_BYTES, _CREDENTIALS, socket.MSG_PEEK
                )
            except BlockingIOError:
                break
            sender, uid = 0, -1  # of another pid namespace, if it stays so
            for _, kind, content in ancillary:
                if kind == socket.SCM_CREDENTIALS:
                    sender, uid, _ = struct.unpack("=iII", content)  # struct ucred
            leader = owning_leader(sender, leaders) if sender else None
            if leader is None and sender and uid in uids and not os.path.exists(f"/proc/{sender}"):
                leader = 0
            # The kernel has cut off what had no room: descriptors.
            self._remove_first(has_descriptors=bool(flags & socket.MSG_CTRUNC))
            fields = _assignments(data.rpartition(b"\n")[0] if flags & socket.MSG_TRUNC else data)
            if leader is not None and fields:
                messages.append((leader, fields))
            else:
                self.ignored_messages += 1
        return messages

    def _remove_first(self, has_descriptors: bool) -> None:
        """Remove the first message from the queue; if it has descriptors, spend at most MAX_CLOSE_S
        on closing them.
        """
        if not has_descriptors:
            self._socket.recv(1)
            return
        before = signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, self.MAX_CLOSE_S, self.MAX_CLOSE_S)
        try:
            self._socket.recv(1)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


_CREDENTIALS = socket.CMSG_SPACE(12)  # room for a struct ucred, and for nothing else


def _assignments(data: bytes) -> dict[str, str]:
    """A message's lines NAME=VALUE; empty if there are none or it is not UTF-8."""
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        return {}
    return {
        name: value
        for name, sign, value in (line.partition("=") for line in lines)
        if sign and name
    }
