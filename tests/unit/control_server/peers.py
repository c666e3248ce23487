"""What the tests of the control socket share: a loop, and its clients."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from sidecar.control.server import ControlSocket
from tests.support import PATIENCE


class Following:
    """An answer that goes on until the event "end"."""

    done = False

    def on_event(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        self.done = record["event"] == "end"
        return [record, *([{"done": 0}] if self.done else [])]


class Loop:
    """Serves a control socket in a thread, as PID 1 does, and counts how often it was woken."""

    def __init__(self, it: ControlSocket) -> None:
        self.control = it
        self.turns = 0
        self.asked: list[object] = []
        self._orders: list[Callable[[], None]] = []
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK)
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self.control.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._over:
            deadline = self.control.deadline
            ready = poll.poll(
                None
                if deadline == float("inf")
                else max(0.0, deadline - time.monotonic()) * 1000 + 1
            )
            if any(fd == self._wake for fd, _ in ready):
                os.read(self._wake, 4096)
                orders, self._orders = self._orders, []
                for order in orders:
                    order()
            if not any(fd == self._wake for fd, _ in ready) or len(ready) > 1:
                self.turns += 1
            self.control.turn(time.monotonic(), self._answer)

    def _answer(self, request: object) -> tuple[list[dict[str, Any]], Following | None]:
        self.asked.append(request)
        if not isinstance(request, dict):
            return [{"done": 2, "cause": "no object"}], None
        if request.get("follow"):
            return [{"event": "past"}], Following()
        return [{"done": 0, "echo": request.get("say"), "much": "x" * request.get("much", 0)}], None

    def do(self, order: Callable[[], None]) -> None:
        """In the loop's thread, soon."""
        self._orders.append(order)
        os.write(self._woken, b"x")

    def tell(self, event: str, **more: Any) -> None:
        self.do(lambda: self.control.publish({"event": event, **more}, time.monotonic()))

    def clients(self) -> int:
        return len(self.control._clients)

    def end(self) -> None:
        self._over = True
        os.write(self._woken, b"x")
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self.control.close()
        os.close(self._wake)
        os.close(self._woken)


class Peer:
    """A client."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(path)
        self.data = b""

    def send(self, *requests: object) -> Peer:
        self.sock.sendall(b"".join(json.dumps(each).encode() + b"\n" for each in requests))
        return self

    def next(self) -> dict[str, Any]:
        """The next object; EOFError if there is none."""
        while b"\n" not in self.data:
            part = self.sock.recv(1 << 16)
            if not part:
                raise EOFError
            self.data += part
        line, _, self.data = self.data.partition(b"\n")
        return json.loads(line)

    def ask(self, **request: Any) -> dict[str, Any]:
        return self.send(request).next()

    def closed(self) -> bool:
        """Wait for the end of the connection; whether nothing was said before."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True
