"""The control socket: a unix stream socket for this container's own tools. One JSON object a line each way (docs/control.md).

Only its owner and root may connect: the file's mode says so, and the kernel is asked who the peer is. Nobody who is connected can hold
PID 1 up: everything is non-blocking, a line is bounded, so is what waits to be read, so is the number of clients, and a client that neither
asks nor reads has a deadline. All of it is one descriptor in the loop, an epoll set of its own.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct

from sidecar.errors import StartError
from sidecar.places import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

# A request is no longer than this, and no more than that waits for a client to read it (bytes).
LONGEST_REQUEST, MOST_WAITING = 4096, 1 << 20
# More clients than this wait in the socket's queue for one of these to leave.
MOST_CLIENTS = 200
# So long (seconds) a client may take for its request, or leave an answer unread.
PATIENCE = 5.0


class Client:
    """One connection. `heard` is what is to be done with each event, as long as an answer goes on."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock = sock
        self.deadline = deadline
        self.asked = b""
        self.unsent = b""
        self.heard: Callable[[dict[str, Any]], tuple[list[dict[str, Any]], bool]] | None = None
        self.ends = False
        self.marks: dict[str, Any] = {}
        #: A helper's own connection: it is not asked to hurry.
        self.trusted = False


class Control:
    """The socket and its clients."""

    def __init__(self, sock: socket.socket | None, path: str) -> None:
        self.path = path
        self._sock = sock
        self._file = _identity(path) if path else None
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._accepting = False
        self._accept(True)

    @classmethod
    def open(cls, wanted: str, places: Iterable[str]) -> Control:
        """Listen at the path `wanted` (raises StartError), or in the first of `places` that can be written to, or nowhere."""
        if wanted == "none":
            return cls(None, "")
        problem: OSError | None = None
        for path in [wanted] if wanted else [os.path.join(place, NAME.format(pid=os.getpid())) for place in places]:
            try:
                return cls(_bind(path), path)
            except OSError as error:
                problem = error
        if wanted and problem is not None:
            raise StartError(
                f"--control {wanted}: {problem.strerror or problem}; say a path in a directory that can be written to, or none"
            )
        return cls(None, "")

    def fileno(self) -> int:
        """Readable when there is something to do."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Close everything, and remove the path if it is still ours."""
        for client in list(self._clients.values()):
            self._drop(client)
        if self._sock is not None:
            if _identity(self.path) == self._file:
                try:
                    os.unlink(self.path)
                except OSError:
                    pass  # the next start replaces it
            self._sock.close()
        self._epoll.close()

    def adopt(self, sock: socket.socket) -> None:
        """Serve a connection that was made by sidecar itself, for a helper."""
        self._add(sock, float("inf")).trusted = True

    @property
    def deadline(self) -> float:
        """The moment at which a client's patience with us, or ours with it, ends."""
        return min((client.deadline for client in self._clients.values()), default=float("inf"))

    # --- in the loop

    def turn(self, now: float, answer: Callable[[object], tuple[list[dict[str, Any]], Any]]) -> None:
        """See to whoever is ready and drop whoever is late.

        `answer` gives, for a request, what to say and what is to hear of events from then on (None: the answer is complete).
        """
        for fd, state in self._epoll.poll(0):
            if self._sock is not None and fd == self._sock.fileno():
                self._welcome(now)
                continue
            client = self._clients.get(fd)
            if client is None:
                continue
            if state & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._read(client, now, answer)
            if state & select.EPOLLOUT and fd in self._clients:
                self._send(client, now)
        for client in [client for client in self._clients.values() if client.deadline <= now]:
            self._drop(client)

    def tell(self, record: dict[str, Any], now: float) -> None:
        """An event has happened: whoever waits for such hears of it."""
        for client in [client for client in self._clients.values() if client.heard is not None]:
            if client.heard is not None:
                replies, over = client.heard(record)
                self._say(client, replies, now)
                if over:
                    client.heard = None
                    self._rest(client, now)

    def flush(self) -> None:
        """Send what can be sent: sidecar is leaving."""
        for client in list(self._clients.values()):
            self._send(client, 0.0)

    # --- clients

    def _accept(self, on: bool) -> None:
        if self._sock is not None and on != self._accepting:
            self._accepting = on
            if on:
                self._epoll.register(self._sock.fileno(), select.EPOLLIN)
            else:
                self._epoll.unregister(self._sock.fileno())

    def _welcome(self, now: float) -> None:
        while self._sock is not None and self._accepting:
            try:
                sock, _ = self._sock.accept()
            except OSError:  # nobody there any more, or no descriptor for them
                return
            _, uid, _ = struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in (0, os.geteuid()):
                sock.close()
                continue
            self._add(sock, now + PATIENCE)

    def _add(self, sock: socket.socket, deadline: float) -> Client:
        sock.setblocking(False)
        client = self._clients[sock.fileno()] = Client(sock, deadline)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._accept(len(self._clients) < MOST_CLIENTS)
        return client

    def _drop(self, client: Client) -> None:
        fd = client.sock.fileno()
        if self._clients.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            client.sock.close()
            self._accept(True)

    def _read(self, client: Client, now: float, answer: Callable[[object], tuple[list[dict[str, Any]], Any]]) -> None:
        try:
            part = client.sock.recv(LONGEST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            # Who has shut down its own side may still want to read the answer.
            if client.unsent and not client.heard:
                client.ends = True
                self._epoll.modify(client.sock.fileno(), select.EPOLLOUT)
            else:
                self._drop(client)
            return
        client.asked += part
        while b"\n" in client.asked:
            line, _, client.asked = client.asked.partition(b"\n")
            import json  # noqa: PLC0415  (only once somebody asks)

            try:
                request: object = json.loads(line)
            except (ValueError, RecursionError):
                request = None
            client.marks = {"id": request["id"]} if isinstance(request, dict) and isinstance(request.get("id"), (int, str)) else {}
            replies, client.heard = answer(request)
            if client.sock.fileno() not in self._clients:
                return
            self._say(client, replies, now)
            if client.heard is None:
                self._rest(client, now)
        if len(client.asked) > LONGEST_REQUEST:
            self._say(client, [{"done": 2, "cause": f"a request is one line of at most {LONGEST_REQUEST} bytes"}], now)
            self._drop(client)

    def _rest(self, client: Client, now: float) -> None:
        """An answer is complete: there may be another request, soon."""
        client.deadline = float("inf") if client.trusted else now + PATIENCE

    def _say(self, client: Client, replies: Iterable[Mapping[str, Any]], now: float) -> None:
        import json  # noqa: PLC0415

        text = "".join(json.dumps({**client.marks, **reply}, default=str) + "\n" for reply in replies)
        if not text or client.sock.fileno() not in self._clients:
            return
        waited = bool(client.unsent)
        client.unsent += text.encode()
        if not waited:
            client.deadline = now + PATIENCE
        self._send(client, now)

    def _send(self, client: Client, now: float) -> None:
        if client.sock.fileno() not in self._clients:
            return
        try:
            sent = client.sock.send(client.unsent) if client.unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(client)
            return
        client.unsent = client.unsent[sent:]
        if len(client.unsent) > MOST_WAITING or (client.ends and not client.unsent):
            self._drop(client)
            return
        if sent:
            client.deadline = now + PATIENCE
        if not client.unsent and (client.heard is not None or client.trusted):
            client.deadline = float("inf")
        self._epoll.modify(client.sock.fileno(), (select.EPOLLOUT if client.unsent else 0) | (0 if client.ends else select.EPOLLIN))


def _bind(path: str) -> socket.socket:
    """A socket of mode 0600 at `path`, in the place of one that nobody listens to. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or _answers(path):
                raise
            os.unlink(path)
            sock.bind(path)
        sock.listen(128)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _answers(path: str) -> bool:
    """Whether somebody listens at a path, or it is no socket at all."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError as error:
            return error.errno != errno.ENOENT
    return True


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino
