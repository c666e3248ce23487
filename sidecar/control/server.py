"""The control socket: a unix stream socket for this container's own tools. One JSON object a line
each way (docs/control.md).

Only its owner and root may connect: the file's mode says so, and the kernel is asked who the peer
is. Nobody who is connected can hold PID 1 up. Everything is non-blocking. A client has one request
answered at a time: the next is not even read before the answer is complete and has been taken, so
what a flood of requests fills is its own end. A line is bounded, so is what waits to be read, so is
the number of clients; one that neither asks nor reads has a deadline; and after a moment's work the
loop is given back, whoever still waits.

All of it is one descriptor in the loop, an epoll set of its own.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import struct
import time

from sidecar.base.errors import StartError
from sidecar.base.record import Descriptor
from sidecar.control.paths import NAME, places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Protocol

    class Going(Protocol):
        """An answer that goes on: what it says of each event, until it is done."""

        done: bool

        def heard(self, record: dict[str, Any]) -> list[dict[str, Any]]: ...

    Answering = Callable[[object], tuple[list[dict[str, Any]], Going | None]]

__all__ = ["Control", "places"]

# A request is no longer than this; what follows from events waits for a slow reader up to that
# (bytes).
LONGEST_REQUEST, MOST_WAITING = 4096, 1 << 20
# More clients than this wait in the socket's queue for one of these to leave. Those whose answer
# goes on are counted by themselves.
MOST_CLIENTS, MOST_GOING = 200, 200
QUEUE = 4096
# Whether descriptors may be sent to a socket; the module `socket` does not name it.
SO_PASSRIGHTS = 83
# So long (seconds) a client may take for its request, or leave an answer unread.
PATIENCE = 5.0
# While there is no room for others, nobody stays longer than this, whatever they ask (seconds).
HURRY = 0.5
# After so long (seconds) in one turn, the next client waits for the next turn.
AT_ONCE = 0.01
# Where there is no descriptor left for a client, it is tried again after this time (seconds).
PAUSE = 1.0


class Client:
    """One connection, since a moment. `answer` is told each event, as long as it goes on; each
    object of it carries `marks`.
    """

    def __init__(self, sock: socket.socket, since: float) -> None:
        self.sock = sock
        self.since = since
        self.deadline = since + PATIENCE
        self.asked = b""
        self.unsent = b""
        self.answer: Going | None = None
        self.marks: dict[str, Any] = {}
        #: A helper's own connection: it is not asked to hurry.
        self.trusted = False
        self.only: tuple[str, ...] = ()


class Control:
    """The socket and its clients."""

    def __init__(self, sock: socket.socket | None, path: str) -> None:
        self.path = path
        self._sock = sock
        self._file = _identity(path) if path else None
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._accepting = False
        self._pause_until = float("inf")
        self._complaint = self._complained = ""
        self._accept(True)

    @classmethod
    def open(cls, wanted: str, places: Iterable[str]) -> Control:
        """Listen at the path `wanted` (raises StartError), or in the first of `places` that can be
        written to, or nowhere.
        """
        if wanted == "none":
            return cls(None, "")
        problem: OSError | None = None
        for path in (
            [wanted]
            if wanted
            else [os.path.join(place, NAME.format(pid=os.getpid())) for place in places]
        ):
            try:
                return cls(_bind(path), path)
            except OSError as error:
                problem = error
        if wanted and problem is not None:
            raise StartError(
                f"--control {wanted}: {problem.strerror or problem}; say a path in a directory that can be written to, or none"
            )
        return cls(None, "")

    def dump(self) -> dict[str, Any]:
        """For a later version of sidecar: the socket, in whose queue new clients wait, and its
        clients.
        """
        return {
            "path": self.path, "file": self._file, "sock": None if self._sock is None else Descriptor(self._sock.fileno()),
            "clients": [
                {"sock": Descriptor(each.sock.fileno()), "since": each.since, "deadline": each.deadline, "answer": each.answer,
                 "asked": each.asked.decode("latin-1"), "unsent": each.unsent.decode("latin-1"), "marks": each.marks,
                 "trusted": each.trusted, "only": each.only}
                for each in self._clients.values()
            ],
        }  # fmt: skip

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Control:
        """What an earlier version has dumped. Raises OSError."""
        self = cls(
            None if state["sock"] is None else socket.socket(fileno=state["sock"]), state["path"]
        )
        self._file = state["file"]
        for each in state["clients"]:
            client = self._add(socket.socket(fileno=each["sock"]), each["since"])
            client.asked, client.unsent = (
                each["asked"].encode("latin-1"),
                each["unsent"].encode("latin-1"),
            )
            for name in ("deadline", "answer", "marks", "trusted", "only"):
                setattr(client, name, each[name])
            self._await(client)
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
            if _identity(self.path) == self._file:
                try:
                    os.unlink(self.path)
                except OSError:
                    pass  # the next start replaces it
            self._sock.close()
        self._epoll.close()

    def adopt(self, sock: socket.socket, only: tuple[str, ...] = ()) -> None:
        """Serve a connection that was made by sidecar itself, for a helper; with `only`, these
        commands alone.

        The helper may be the workers' user, and closing a descriptor that it sends may last: none
        is accepted, where the kernel can say so.
        """
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        except OSError:
            pass  # before Linux 6.16
        client = self._add(sock, float("inf"))
        client.trusted, client.only = True, only

    @property
    def deadline(self) -> float:
        """The moment at which a client's patience with us, or ours with it, ends."""
        return min([self._pause_until, *(self._due(client) for client in self._clients.values())])

    # --- in the loop

    def turn(self, now: float, answer: Answering) -> str:
        """See to whoever is ready, for a moment, and drop whoever is late. Why nobody more can be
        taken, in words for the log; "" if all is well or was said before.

        `answer` gives, for a request, what to say, and what goes on from then on (None: the answer
        is complete).
        """
        if self._pause_until <= now:
            self._pause_until = float("inf")
            self._complaint = ""
            self._accept(True)
        until = time.monotonic() + AT_ONCE
        defect: Exception | None = None
        # One at a time: the kernel then puts whoever has had a turn behind all others that are
        # ready.
        while ready := self._epoll.poll(0, 1):
            fd, state = ready[0]
            client = self._clients.get(fd)
            try:
                if client is None:
                    self._welcome(now)
                elif client.unsent:
                    self._send(client, now)
                elif client.answer is not None:
                    self._drop(client)  # it was asked for nothing but its end
                elif state & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                    self._read(client, now, answer)
            except Exception as error:  # whose it is, is its end
                if client is not None:
                    self._drop(client)
                if client is None or not isinstance(error, OSError):
                    defect = error
                    break
            if time.monotonic() > until:
                break
        for client in [client for client in self._clients.values() if self._due(client) <= now]:
            self._drop(client)
        if defect is not None:
            raise defect
        before, self._complained = self._complained, self._complaint
        return self._complaint if self._complaint != before else ""

    def _due(self, client: Client) -> float:
        """When a client has to go."""
        crowded = self._sock is not None and not self._accepting
        return (
            min(client.deadline, client.since + HURRY)
            if crowded and client.answer is None
            else client.deadline
        )

    def tell(self, record: dict[str, Any], now: float) -> None:
        """An event has happened: whoever waits for such hears of it.

        A defect in an answer is its client's end, and is raised once all the others know.
        """
        defect: Exception | None = None
        for client in list(self._clients.values()):
            if client.answer is not None:
                try:
                    replies, done = client.answer.heard(record), client.answer.done
                except Exception as error:
                    defect = error
                    self._drop(client)
                    continue
                if done:
                    client.answer = None
                    client.since = max(client.since, now)
                if replies or done:
                    self._say(client, replies, now)
        if defect is not None:
            raise defect

    def flush(self) -> None:
        """Send what can be sent: sidecar is leaving."""
        for client in list(self._clients.values()):
            self._send(client, 0.0)

    # --- clients

    def _accept(self, on: bool) -> None:
        """Take clients, or none for now."""
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
        """No descriptor or no memory for a client: it stays in the queue, and would wake us for
        ever.
        """
        self._complaint = error.strerror or str(error)
        self._pause_until = now + PAUSE
        self._accept(False)

    def _welcome(self, now: float) -> None:
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
        """A client more. Raises OSError, and there is none then."""
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
        """Take on more clients, or no more for now."""
        if self._pause_until == float("inf"):
            self._accept(len(self._clients) - self._going() < MOST_CLIENTS)

    def _going(self) -> int:
        return sum(client.answer is not None for client in self._clients.values())

    def _read(self, client: Client, now: float, answer: Answering) -> None:
        """Take one request, or a part of it."""
        try:
            # The next request stays where it is.
            part = client.sock.recv(LONGEST_REQUEST, socket.MSG_PEEK)
            part = client.sock.recv(part.find(b"\n") + 1 or LONGEST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._drop(client)
            return
        client.asked += part
        if len(client.asked) > LONGEST_REQUEST:
            self._say(
                client,
                [{"done": 2, "cause": f"a request is one line of at most {LONGEST_REQUEST} bytes"}],
                now,
            )
            self._drop(client)
        elif client.asked.endswith(b"\n"):
            line, client.asked = client.asked, b""
            self._answer(client, line, now, answer)

    def _answer(self, client: Client, line: bytes, now: float, answer: Answering) -> None:
        import json  # noqa: PLC0415  (only once somebody asks)

        try:
            request: object = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        client.marks = (
            {"id": request["id"]}
            if isinstance(request, dict) and isinstance(request.get("id"), (int, str))
            else {}
        )
        if client.only and not (
            isinstance(request, dict) and request.get("command") in client.only
        ):
            replies, going = (
                [{"done": 2, "cause": f"only {', '.join(client.only)} may be asked here"}],
                None,
            )
        else:
            replies, going = answer(request)
        if going is not None and not client.trusted and self._going() >= MOST_GOING:
            replies, going = (
                [
                    {
                        "done": 1,
                        "cause": f"{MOST_GOING} clients wait here already; it is under way, but nobody more may wait",
                    }
                ],
                None,
            )
        client.answer = going
        self._say(client, replies, now)
        self._count()

    def _say(self, client: Client, replies: Iterable[Mapping[str, Any]], now: float) -> None:
        import json  # noqa: PLC0415

        waits = bool(client.unsent)
        if not waits:
            client.deadline = float("inf") if client.trusted else now + PATIENCE
        client.unsent += "".join(
            json.dumps({**client.marks, **reply}, default=str) + "\n" for reply in replies
        ).encode()
        if waits and len(client.unsent) > MOST_WAITING:
            self._drop(client)
        self._send(client, now)

    def _send(self, client: Client, now: float) -> None:
        """Send what there is, and wait for what has to come next: room for the rest, the client's
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
            client.deadline = (
                float("inf") if client.answer is not None or client.trusted else now + PATIENCE
            )
        try:
            self._await(client)
        except OSError:  # no memory: better none than one that is never heard
            self._drop(client)

    def _await(self, client: Client) -> None:
        self._epoll.modify(
            client.sock.fileno(),
            select.EPOLLOUT
            if client.unsent
            else 0
            if client.answer is not None
            else select.EPOLLIN,
        )


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
        sock.listen(QUEUE)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _answers(path: str) -> bool:
    """Whether somebody listens at a path, or it is no socket at all (connecting to a file of
    another kind is refused, too).
    """
    try:
        if not stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
            return True
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            pass  # its queue is full, or it is not ours to ask
    return True


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino
