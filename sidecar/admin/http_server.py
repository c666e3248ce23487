"""HTTP, as little as will do: a request is "GET or HEAD of a path", bounded in size and time; an
answer is whole, or a stream of events.

One request a connection (`Connection: close`): nothing is kept open for a client that may ask
again, so there is nothing to keep apart, and what follows a request is never mistaken for another.
There are never more than MOST_CLIENTS connections. When one more comes, the one that has kept us
waiting longest for its request goes: those who say nothing, or a byte now and then, are in nobody's
way. Where all have asked and wait for us, we are what is slow: who comes then is told so at once,
which costs next to nothing, except a probe. So no flood of questions keeps a probe waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import Any

# A request's head: not longer (bytes), not slower (seconds).
LONGEST_HEAD, HEAD_TIME = 16 << 10, 5.0
# So long (seconds) a client may leave an answer unread, and so much (bytes) of a stream may wait
# for it.
READ_TIME, MOST_UNREAD = 10.0, 256 << 10
MOST_CLIENTS, MOST_STREAMS = 200, 200
# So many connections are taken in one turn of the loop; and where there is no descriptor left for
# one, none for so long (seconds).
AT_ONCE, PAUSE = 64, 0.5
# Nobody has kept us waiting before that time (seconds).
IMPATIENCE = 0.5
# After a refusal what the client still sends is thrown away for so long (seconds): a reset would
# destroy the answer.
LINGER = 0.5
# A process that has had clients for so long (seconds) without a turn of its loop hangs: it ends,
# and another is started.
HUNG = 60

# How a probe begins, which is answered before all others.
PROBES = (b"GET /livez", b"GET /readyz", b"HEAD /livez", b"HEAD /readyz")

REASONS = {
    200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}  # fmt: skip

# No page of another origin may read this, frame it, or take it for what it is not.
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Request:
    """`headers` are by name in lower case; of one that comes twice, the last."""

    def __init__(self, path: str, headers: dict[str, str]) -> None:
        self.path = path
        self.headers = headers


class Answer:
    """What a path answers: `body`, or `stream` for as long as the client reads it."""

    def __init__(
        self, body: bytes, kind: str = "text/plain; charset=utf-8", status: int = 200, *,
        stream: Callable[[], AsyncIterator[bytes]] | None = None, **headers: str,
    ) -> None:  # fmt: skip
        self.body = body
        self.status = status
        self.stream = stream
        self.headers = {
            **SAFE,
            "Content-Type": kind,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }


class Refusal(Exception):
    """The client gets an answer of this status; the text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def parse(head: bytes) -> tuple[str, Request]:
    """The method and the request. Raises Refusal."""
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        raise Refusal(400, "this is no HTTP request")
    method, target, version = words
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise Refusal(505, "HTTP/1.0 and HTTP/1.1 are spoken here")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Refusal(400, "a header line is malformed")
        headers[name.lower()] = value.strip()
    if method not in ("GET", "HEAD"):
        raise Refusal(405, "GET and HEAD only: nothing can be changed here")
    if not target.startswith("/"):
        raise Refusal(400, "the request is for no path")
    return method, Request(target.partition("?")[0], headers)


class Web:
    """The server; `answer` gives the answer to a request."""

    def __init__(self, answer: Callable[[Request], Awaitable[Answer]]) -> None:
        self._answer = answer
        #: The tasks of the clients that keep us waiting, for their request or to take the answer,
        #: longest first; and of those that wait for us.
        self._awaited: dict[asyncio.Task[None], float] = {}
        self._served: set[asyncio.Task[None]] = set()
        #: Those that came when there was no time for them, and have not said what they want.
        self._silent: dict[socket.socket, asyncio.TimerHandle] = {}
        #: Connections that have no task yet.
        self._coming: set[asyncio.Task[Any]] = set()
        self._streams = 0
        self._leaving = False

    async def open(self, sock: socket.socket) -> None:
        """Begin to accept."""
        # The connections get it from the listener; the unix ones have none.
        sock.setblocking(False)
        self._sock, self._loop = sock, asyncio.get_running_loop()
        self._loop.add_reader(sock, self._accept)

    async def leave(self) -> None:
        """Accept nobody more, and return when everybody has the answer; who listens to a stream is
        not waited for.
        """
        self._leaving = True
        self._loop.remove_reader(self._sock)
        for sock in list(self._silent):
            self._heard(sock).close()
        while waited := [*self._coming, *self._awaited, *self._served]:
            await asyncio.wait(waited)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                # No descriptor, no memory: it stays in the queue, and would wake us for ever.
                self._loop.remove_reader(self._sock)
                self._loop.call_later(PAUSE, self._again)
                return
            sock.setblocking(False)
            if not self._leaving:
                signal.alarm(HUNG)
            if (
                len(self._coming) + len(self._awaited) + len(self._served) < MOST_CLIENTS
                or self._dismissed()
            ):
                self._take(sock)
            else:
                self._first_word(sock)

    def _dismissed(self) -> bool:
        """Whether somebody had to go who has kept us waiting. Whom we have had no time for is not
        to blame.
        """
        task, since = next(iter(self._awaited.items()), (None, 0.0))
        if task is None or self._loop.time() < since + IMPATIENCE:
            return False
        del self._awaited[task]
        task.cancel()
        return True

    def _take(self, sock: socket.socket) -> None:
        reader = asyncio.StreamReader(limit=LONGEST_HEAD)
        protocol = asyncio.StreamReaderProtocol(reader, self._serve)
        task = self._loop.create_task(self._loop.connect_accepted_socket(lambda: protocol, sock))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    def _again(self) -> None:
        if not self._leaving:
            self._loop.add_reader(self._sock, self._accept)

    def _first_word(self, sock: socket.socket) -> None:
        """There is time for no other client, unless it is a probe."""
        try:
            if sock.recv(16, socket.MSG_PEEK).startswith(PROBES):
                self._take(sock)
                return
            sock.recv(LONGEST_HEAD)  # what is unread would be a reset, which destroys the answer
        except BlockingIOError:
            if len(self._silent) >= MOST_CLIENTS:
                self._heard(next(iter(self._silent))).close()
            self._silent[sock] = self._loop.call_later(
                HEAD_TIME, lambda: _turn_away(self._heard(sock), LATE)
            )
            self._loop.add_reader(sock, lambda: self._first_word(self._heard(sock)))
            return
        except OSError:
            pass  # it has gone
        _turn_away(sock, BUSY)

    def _heard(self, sock: socket.socket) -> socket.socket:
        """Wait for its first word no longer."""
        self._loop.remove_reader(sock)
        self._silent.pop(sock).cancel()
        return sock

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        self._awaited[task] = self._loop.time()
        try:
            await self._talk(task, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # it has gone, or was sent away
        finally:
            self._awaited.pop(task, None)
            self._served.discard(task)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()
            busy = self._coming or self._awaited or self._served or self._streams
            if not busy and not self._leaving:
                signal.alarm(0)

    async def _talk(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        method, answer = await self._answered(task, reader)
        if answer is None:
            return
        if answer.stream is not None and method == "GET":
            if self._streams < MOST_STREAMS:
                # From now on it keeps nobody waiting.
                self._served.discard(task)
                await self._stream(answer, reader, writer)
                return
            answer = Answer(
                b"enough clients listen to events already\n", status=503, Retry_After="10"
            )
        length = {} if answer.stream is not None else {"Content-Length": str(len(answer.body))}
        self._served.discard(task)
        self._awaited[task] = self._loop.time()
        # Drained is when the kernel has taken all of it.
        writer.transport.set_write_buffer_limits(0)
        writer.write(_head(answer, length) + (answer.body if method != "HEAD" else b""))
        async with asyncio.timeout(READ_TIME):
            await writer.drain()
        writer.write_eof()
        if answer.status in (400, 405, 408, 431, 505):
            try:
                async with asyncio.timeout(LINGER):
                    while await reader.read(1 << 16):
                        pass
            except TimeoutError:
                pass

    async def _answered(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader
    ) -> tuple[str, Answer | None]:
        """The request's method, and the answer to it; None if nothing was asked."""
        method = "GET"
        try:
            try:
                async with asyncio.timeout(HEAD_TIME):
                    head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                if not error.partial:
                    return method, None
                raise Refusal(400, "the request has no end") from None
            except asyncio.LimitOverrunError:
                raise Refusal(431, f"a request's head has at most {LONGEST_HEAD} bytes") from None
            except TimeoutError:
                raise Refusal(408, LATE.body.decode().strip()) from None
            finally:
                if self._awaited.pop(task, None) is not None:
                    self._served.add(task)
            method, request = parse(head)
            return method, await self._answer(request)
        except Refusal as refusal:
            answer = Answer(f"{refusal}\n".encode(), status=refusal.status)
            if refusal.status == 405:
                answer.headers["Allow"] = "GET, HEAD"
            return method, answer
        except OSError:
            raise
        except Exception as error:  # a defect here costs one answer; what it says may hold anything
            return method, Answer(
                f"a defect in sidecar: {type(error).__name__}\n".encode(), status=500
            )

    async def _stream(
        self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Write the stream until the client goes, or leaves too much of it unread."""
        self._streams += 1
        leaving = asyncio.create_task(reader.read(1))
        me = asyncio.current_task()
        leaving.add_done_callback(lambda _: me.cancel() if me is not None else None)
        try:
            writer.write(_head(answer, {}))
            if answer.stream is not None:
                async for part in answer.stream():
                    if not self._leaving:
                        signal.alarm(HUNG)
                    writer.write(part)
                    if writer.transport.get_write_buffer_size() > MOST_UNREAD:
                        return
        finally:
            self._streams -= 1
            leaving.cancel()


# For who comes while all that we have time for is waiting already, and who then says nothing.
BUSY = Answer(b"too many requests at once; probes are answered\n", status=503, Retry_After="1")
LATE = Answer(f"a request has to be there within {HEAD_TIME:g} s\n".encode(), status=408)


def _turn_away(sock: socket.socket, answer: Answer) -> None:
    with contextlib.suppress(OSError):  # it has gone
        sock.send(_head(answer, {"Content-Length": str(len(answer.body))}) + answer.body)
    sock.close()


def _head(answer: Answer, more: dict[str, str]) -> bytes:
    headers = {**answer.headers, **more, "Connection": "close"}
    lines = [
        f"HTTP/1.1 {answer.status} {REASONS[answer.status]}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
