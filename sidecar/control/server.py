"""The control socket: a unix stream socket for this container's own tools. One JSON object a line
each way (docs/control.md).

Only its owner and root may connect: the file's mode says so, and the kernel is asked who the peer
is. No client can hold PID 1 up. Everything is non-blocking. A client has one request answered at a
time: the next one is not even read before the answer is complete and has been taken, so a flood of
requests fills the client's own end. The length of a line, what waits to be sent and the number of
clients are bounded; a client that neither asks nor reads has a deadline; and after TURN_BUDGET_S
the loop goes on, whoever still waits.

All of it is one descriptor in the loop, an epoll set of its own.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time

from sidecar.base.errors import ListenError, StartError
from sidecar.base.record import Descriptor
from sidecar.control.paths import NAME, places
from sidecar.system.unix_path import remove_stale_socket, socket_file_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Protocol

    class StreamingAnswer(Protocol):
        """An answer that goes on: objects for each event, until it is `done`."""

        done: bool

        def on_event(self, record: dict[str, Any]) -> list[dict[str, Any]]: ...

    # Gives, for a request, the objects to send, and what goes on from then on; None: the answer is
    # complete.
    Answering = Callable[[object], tuple[list[dict[str, Any]], StreamingAnswer | None]]

__all__ = ["ControlSocket", "places"]

MAX_REQUEST_BYTES = 4096
# What waits for a client that takes a streaming answer slowly.
MAX_UNSENT_BYTES = 1 << 20
# More clients wait in the socket's queue for one of these to leave. Those with a streaming answer
# are counted by themselves.
MAX_CLIENTS, MAX_STREAMS = 200, 200
BACKLOG = 4096
# Whether descriptors may be sent to a socket; the module `socket` does not name it.
SO_PASSRIGHTS = 83
# How long a client may take for its request, or leave an answer unread.
CLIENT_TIMEOUT_S = 5.0
# While there is no room for others, no client stays longer than this.
CROWDED_TIMEOUT_S = 0.5
# After this time in one turn, the next client waits for the next turn.
TURN_BUDGET_S = 0.01
# When to accept clients again after there was no descriptor left for one.
ACCEPT_RETRY_S = 1.0


class Client:
    """One connection, since a moment (monotonic seconds). `stream` is its streaming answer, if
    there is one; each object that is sent carries `echo`, the id of the request.
    """

    def __init__(self, sock: socket.socket, since: float) -> None:
        self.sock = sock
        self.since = since
        self.deadline = since + CLIENT_TIMEOUT_S
        self.received = b""
        self.unsent = b""
        self.stream: StreamingAnswer | None = None
        self.echo: dict[str, Any] = {}
        #: A helper's connection: it has no deadline.
        self.trusted = False
        #: The commands that it may use, all if there are none.
        self.allowed_commands: tuple[str, ...] = ()


# The fields of a client that are exported as they are.
EXPORTED_FIELDS = ("deadline", "stream", "echo", "trusted", "allowed_commands")


class ControlSocket:
    """The socket and its clients."""

    def __init__(self, sock: socket.socket | None, path: str) -> None:
        self.path = path
        self._sock = sock
        self._file = socket_file_id(path) if path else None
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._accepting = False
        self._pause_until = float("inf")
        self._accept_problem = self._reported_problem = ""
        self._set_accepting(True)

    @classmethod
    def open(cls, wanted: str, places: Iterable[str]) -> ControlSocket:
        """Listen at the path `wanted`, or else in the first of `places` that can be written to, or
        nowhere. Raises StartError if that is not possible at the path that was wanted.
        """
        if wanted == "none":
            return cls(None, "")
        problem: OSError | None = None
        name = NAME.format(pid=os.getpid())
        for path in [wanted] if wanted else [os.path.join(place, name) for place in places]:
            try:
                return cls(_bind(path), path)
            except OSError as error:
                problem = error
        if wanted and problem is not None:
            raise StartError(
                f"--control {wanted}: {problem.strerror or problem};"
                " say a path in a directory that can be written to, or none"
            )
        return cls(None, "")

    def export_state(self) -> dict[str, Any]:
        """The state for a later version of sidecar: the socket, in whose queue new clients wait,
        and its clients.
        """
        return {
            "path": self.path,
            "file": self._file,
            "sock": None if self._sock is None else Descriptor(self._sock.fileno()),
            "clients": [
                {
                    "sock": Descriptor(each.sock.fileno()),
                    "received": each.received.decode("latin-1"),
                    "unsent": each.unsent.decode("latin-1"),
                    **{name: getattr(each, name) for name in ("since", *EXPORTED_FIELDS)},
                }
                for each in self._clients.values()
            ],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ControlSocket:
        """Go on from the state of an earlier version. Raises OSError."""
        sock = None if state["sock"] is None else socket.socket(fileno=state["sock"])
        self = cls(sock, state["path"])
        self._file = state["file"]
        for each in state["clients"]:
            client = self._add(socket.socket(fileno=each["sock"]), each["since"])
            client.received = each["received"].encode("latin-1")
            client.unsent = each["unsent"].encode("latin-1")
            for name in EXPORTED_FIELDS:
                setattr(client, name, each[name])
            self._watch_client(client)
        self._count()
        return self

    def fileno(self) -> int:
        """Readable when there is something to do."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Close everything, and remove the path if it is still ours."""
        for client in list(self._clients.values()):
            self._drop(client)
        if self._sock is not None:
            if socket_file_id(self.path) == self._file:
                try:
                    os.unlink(self.path)
                except OSError:
                    pass  # the next start replaces it
            self._sock.close()
        self._epoll.close()

    def adopt(self, sock: socket.socket, allowed_commands: tuple[str, ...] = ()) -> None:
        """Serve a connection that sidecar itself has made for a helper.

        The helper may run as the workers' user, and closing a descriptor that it sends may take
        long: none is accepted, where the kernel can do that.
        """
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        except OSError:
            pass  # before Linux 6.16
        client = self._add(sock, float("inf"))
        client.trusted, client.allowed_commands = True, allowed_commands

    @property
    def deadline(self) -> float:
        """The moment at which a client is to be dropped, or clients are accepted again."""
        return min([self._pause_until, *(self._due(client) for client in self._clients.values())])

    # --- in the loop

    def turn(self, now: float, answer: Answering) -> str:
        """Serve the clients that are ready, for TURN_BUDGET_S, and drop those that are late. Why no
        more clients can be accepted, "" if there is no problem or it was reported before.

        An exception that is no client's fault is raised again at the end.
        """
        if self._pause_until <= now:
            self._pause_until = float("inf")
            self._accept_problem = ""
            self._set_accepting(True)
        until = time.monotonic() + TURN_BUDGET_S
        defect: Exception | None = None
        # One at a time: the kernel then puts whoever had a turn behind all others that are ready.
        while defect is None and (ready := self._epoll.poll(0, 1)):
            defect = self._serve(*ready[0], now, answer)
            if time.monotonic() > until:
                break
        for client in [client for client in self._clients.values() if self._due(client) <= now]:
            self._drop(client)
        if defect is not None:
            raise defect
        before, self._reported_problem = self._reported_problem, self._accept_problem
        return self._accept_problem if self._accept_problem != before else ""

    def _serve(self, fd: int, events: int, now: float, answer: Answering) -> Exception | None:
        """Do what a ready descriptor waits for. An exception ends the connection; it is returned if
        it is not the client's fault.
        """
        client = self._clients.get(fd)
        try:
            if client is None:
                self._accept_clients(now)
            elif client.unsent:
                self._send(client, now)
            elif client.stream is not None:
                self._drop(client)  # nothing but its end was waited for
            elif events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._read(client, now, answer)
        except Exception as error:
            if client is not None:
                self._drop(client)
                if isinstance(error, OSError):
                    return None
            return error
        return None

    def _due(self, client: Client) -> float:
        """When a client is to be dropped."""
        crowded = self._sock is not None and not self._accepting
        if crowded and client.stream is None:
            return min(client.deadline, client.since + CROWDED_TIMEOUT_S)
        return client.deadline

    def publish(self, record: dict[str, Any], now: float) -> None:
        """Send an event to the clients whose streaming answer is about it.

        An exception in an answer ends its client's connection, and is raised once all others have
        the event.
        """
        defect: Exception | None = None
        for client in list(self._clients.values()):
            if client.stream is not None:
                try:
                    replies, done = client.stream.on_event(record), client.stream.done
                except Exception as error:
                    defect = error
                    self._drop(client)
                    continue
                if done:
                    client.stream = None
                    client.since = max(client.since, now)
                if replies or done:
                    self._reply(client, replies, now)
        if defect is not None:
            raise defect

    def flush(self) -> None:
        """Send what can be sent before sidecar exits."""
        for client in list(self._clients.values()):
            self._send(client, 0.0)

    # --- clients

    def _set_accepting(self, on: bool) -> None:
        """Accept clients, or none for now."""
        if self._sock is None or on == self._accepting:
            return
        if not on:
            self._epoll.unregister(self._sock.fileno())
        else:
            try:
                self._epoll.register(self._sock.fileno(), select.EPOLLIN)
            except OSError as error:
                self._pause(error, time.monotonic())
                return
        self._accepting = on

    def _pause(self, error: OSError, now: float) -> None:
        """Accept no clients for a while: there is no descriptor or no memory for one, and it would
        wake the loop again and again.
        """
        self._accept_problem = error.strerror or str(error)
        self._pause_until = now + ACCEPT_RETRY_S
        self._set_accepting(False)

    def _accept_clients(self, now: float) -> None:
        while self._sock is not None and self._accepting:
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ECONNABORTED:
                    self._pause(error, now)
                return
            try:
                _, uid, _ = struct.unpack(
                    "=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                )
                if uid not in (0, os.geteuid()):
                    sock.close()
                    continue
                self._add(sock, now)
            except OSError as error:
                sock.close()
                self._pause(error, now)
                return

    def _add(self, sock: socket.socket, since: float) -> Client:
        """Serve one more client. Raises OSError, and nothing has changed then."""
        sock.setblocking(False)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        client = self._clients[sock.fileno()] = Client(sock, since)
        self._count()
        return client

    def _drop(self, client: Client) -> None:
        fd = client.sock.fileno()
        if self._clients.pop(fd, None) is not None:
            try:
                self._epoll.unregister(fd)
            finally:
                client.sock.close()
            self._count()

    def _count(self) -> None:
        """Accept clients as long as there are not too many."""
        if self._pause_until == float("inf"):
            self._set_accepting(len(self._clients) - self._stream_count() < MAX_CLIENTS)

    def _stream_count(self) -> int:
        return sum(client.stream is not None for client in self._clients.values())

    def _read(self, client: Client, now: float, answer: Answering) -> None:
        """Read one request, or a part of it."""
        try:
            # The next request stays in the socket.
            part = client.sock.recv(MAX_REQUEST_BYTES, socket.MSG_PEEK)
            part = client.sock.recv(part.find(b"\n") + 1 or MAX_REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._drop(client)
            return
        client.received += part
        if len(client.received) > MAX_REQUEST_BYTES:
            self._reply(
                client,
                [
                    {
                        "done": 2,
                        "cause": f"a request is one line of at most {MAX_REQUEST_BYTES} bytes",
                    }
                ],
                now,
            )
            self._drop(client)
        elif client.received.endswith(b"\n"):
            line, client.received = client.received, b""
            self._answer(client, line, now, answer)

    def _answer(self, client: Client, line: bytes, now: float, answer: Answering) -> None:
        import json  # noqa: PLC0415  (only once somebody asks)

        try:
            request: object = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        fields = request if isinstance(request, dict) else {}
        client.echo = {"id": fields["id"]} if isinstance(fields.get("id"), (int, str)) else {}
        replies: list[dict[str, Any]]
        stream: StreamingAnswer | None = None
        if client.allowed_commands and fields.get("command") not in client.allowed_commands:
            cause = f"only {', '.join(client.allowed_commands)} may be asked here"
            replies = [{"done": 2, "cause": cause}]
        else:
            replies, stream = answer(request)
        if stream is not None and not client.trusted and self._stream_count() >= MAX_STREAMS:
            cause = (
                f"{MAX_STREAMS} clients wait here already;"
                " it is under way, but nobody more may wait"
            )
            replies, stream = [{"done": 1, "cause": cause}], None
        client.stream = stream
        self._reply(client, replies, now)
        self._count()

    def _reply(self, client: Client, replies: Iterable[Mapping[str, Any]], now: float) -> None:
        import json  # noqa: PLC0415

        waits = bool(client.unsent)
        if not waits:
            client.deadline = float("inf") if client.trusted else now + CLIENT_TIMEOUT_S
        client.unsent += "".join(
            json.dumps({**client.echo, **reply}, default=str) + "\n" for reply in replies
        ).encode()
        if waits and len(client.unsent) > MAX_UNSENT_BYTES:
            self._drop(client)
        self._send(client, now)

    def _send(self, client: Client, now: float) -> None:
        """Send what there is to send, and wait for what comes next: room for the rest, the client's
        end, or its next request.
        """
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
        if not client.unsent:
            endless = client.stream is not None or client.trusted
            client.deadline = float("inf") if endless else now + CLIENT_TIMEOUT_S
        try:
            self._watch_client(client)
        except OSError:  # no memory, and it would never be served again
            self._drop(client)

    def _watch_client(self, client: Client) -> None:
        """Wait for what comes next from a client. Raises OSError."""
        events = select.EPOLLIN if client.stream is None else 0
        self._epoll.modify(client.sock.fileno(), select.EPOLLOUT if client.unsent else events)


def _bind(path: str) -> socket.socket:
    """A listening socket of mode 0600 at `path`. A stale socket there is replaced. Raises OSError."""
    try:
        remove_stale_socket(path)
    except ListenError:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(umask)
    return sock
