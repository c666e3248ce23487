"""A small HTTP server: a request is "GET or HEAD of a path", bounded in size and time; a response is
whole, or a stream of events.

There is one request for each connection (`Connection: close`), so that nothing which follows a
request is ever taken for another one.

There are never more than MAX_CLIENTS connections. When one more comes, the one that has been slowest
with its request is closed: clients that send nothing, or a byte now and then, are in nobody's way. If
all clients have sent their request and wait for us, we are slow: then a new client is refused at
once, which costs next to nothing, unless it is a probe. So many requests cannot keep a probe waiting.
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

# A request's head has this size and comes within this time.
MAX_HEAD_BYTES, HEAD_TIMEOUT_S = 16 << 10, 5.0
# A client may leave a response unread for so long, and so much of a stream.
WRITE_TIMEOUT_S, MAX_UNREAD_BYTES = 10.0, 256 << 10
MAX_CLIENTS, MAX_STREAMS = 200, 200
# So many connections are accepted in one turn of the loop; and if there is no descriptor left for
# one, none is accepted for this time.
MAX_ACCEPTS, ACCEPT_PAUSE_S = 64, 0.5
# A client is slow with its request after this time.
IMPATIENCE_S = 0.5
# After a refusal, what the client still sends is thrown away for this time: a reset would destroy
# the response.
LINGER_S = 0.5
# A process that has had clients for so long without a turn of its loop hangs: it ends, and another
# one is started.
HUNG_AFTER_S = 60

# The request of a probe begins like this.
PROBE_PREFIXES = (b"GET /livez", b"GET /readyz", b"HEAD /livez", b"HEAD /readyz")

REASONS = {
    200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}  # fmt: skip

# No page of another origin may read this, frame it, or read it as another type.
SAFE_HEADERS = {
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


class Response:
    """The response: `body`, or `stream` for as long as the client reads it."""

    def __init__(
        self, body: bytes, kind: str = "text/plain; charset=utf-8", status: int = 200, *,
        stream: Callable[[], AsyncIterator[bytes]] | None = None, **headers: str,
    ) -> None:  # fmt: skip
        self.body = body
        self.status = status
        self.stream = stream
        self.headers = {
            **SAFE_HEADERS,
            "Content-Type": kind,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }


class RequestError(Exception):
    """The request is wrong: the client gets this status and this text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def parse(head: bytes) -> tuple[str, Request]:
    """The method and the request in a head. Raises RequestError."""
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        raise RequestError(400, "this is no HTTP request")
    method, target, version = words
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise RequestError(505, "HTTP/1.0 and HTTP/1.1 are spoken here")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise RequestError(400, "a header line is malformed")
        headers[name.lower()] = value.strip()
    if method not in ("GET", "HEAD"):
        raise RequestError(405, "GET and HEAD only: nothing can be changed here")
    if not target.startswith("/"):
        raise RequestError(400, "the request is for no path")
    return method, Request(target.partition("?")[0], headers)


class HttpServer:
    """The server; `answer` makes the response to a request."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer
        #: The tasks of the clients that we wait for, to send their request or to read the response,
        #: longest first; and of those that wait for us.
        self._slow_clients: dict[asyncio.Task[None], float] = {}
        self._waiting_clients: set[asyncio.Task[None]] = set()
        #: Clients above MAX_CLIENTS that have not sent anything yet.
        self._surplus: dict[socket.socket, asyncio.TimerHandle] = {}
        #: Connections that have no task yet.
        self._connecting: set[asyncio.Task[Any]] = set()
        self._streams = 0
        self._leaving = False

    async def open(self, sock: socket.socket) -> None:
        """Accept connections from now on."""
        sock.setblocking(False)
        self._sock, self._loop = sock, asyncio.get_running_loop()
        self._loop.add_reader(sock, self._accept)

    async def stop(self) -> None:
        """Accept no more connections, and return when all clients have their response. Streams are
        not waited for.
        """
        self._leaving = True
        self._loop.remove_reader(self._sock)
        for sock in list(self._surplus):
            self._take_surplus(sock).close()
        while waited := [*self._connecting, *self._slow_clients, *self._waiting_clients]:
            await asyncio.wait(waited)

    def _accept(self) -> None:
        for _ in range(MAX_ACCEPTS):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                # No descriptor or memory: the connection stays in the queue, and would wake us
                # again and again.
                self._loop.remove_reader(self._sock)
                self._loop.call_later(ACCEPT_PAUSE_S, self._resume)
                return
            sock.setblocking(False)
            if not self._leaving:
                signal.alarm(HUNG_AFTER_S)
            if (
                len(self._connecting) + len(self._slow_clients) + len(self._waiting_clients)
                < MAX_CLIENTS
                or self._dismiss_slowest()
            ):
                self._take(sock)
            else:
                self._peek(sock)

    def _dismiss_slowest(self) -> bool:
        """Close the client that has been slowest with its request; whether there is one. A client
        that came just now is not slow.
        """
        task, since = next(iter(self._slow_clients.items()), (None, 0.0))
        if task is None or self._loop.time() < since + IMPATIENCE_S:
            return False
        del self._slow_clients[task]
        task.cancel()
        return True

    def _take(self, sock: socket.socket) -> None:
        reader = asyncio.StreamReader(limit=MAX_HEAD_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader, self._serve)
        task = self._loop.create_task(self._loop.connect_accepted_socket(lambda: protocol, sock))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def _resume(self) -> None:
        if not self._leaving:
            self._loop.add_reader(self._sock, self._accept)

    def _peek(self, sock: socket.socket) -> None:
        """Refuse a client above MAX_CLIENTS, unless it is a probe."""
        try:
            if sock.recv(16, socket.MSG_PEEK).startswith(PROBE_PREFIXES):
                self._take(sock)
                return
            sock.recv(
                MAX_HEAD_BYTES
            )  # unread data would cause a reset, which destroys the response
        except BlockingIOError:
            if len(self._surplus) >= MAX_CLIENTS:
                self._take_surplus(next(iter(self._surplus))).close()
            self._surplus[sock] = self._loop.call_later(
                HEAD_TIMEOUT_S, lambda: _refuse(self._take_surplus(sock), LATE)
            )
            self._loop.add_reader(sock, lambda: self._peek(self._take_surplus(sock)))
            return
        except OSError:
            pass  # the client has gone
        _refuse(sock, BUSY)

    def _take_surplus(self, sock: socket.socket) -> socket.socket:
        """Do not wait any longer for what this client sends."""
        self._loop.remove_reader(sock)
        self._surplus.pop(sock).cancel()
        return sock

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        self._slow_clients[task] = self._loop.time()
        try:
            await self._exchange(task, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the client has gone, or was closed
        finally:
            self._slow_clients.pop(task, None)
            self._waiting_clients.discard(task)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()
            busy = self._connecting or self._slow_clients or self._waiting_clients or self._streams
            if not busy and not self._leaving:
                signal.alarm(0)

    async def _exchange(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        method, answer = await self._response(task, reader)
        if answer is None:
            return
        if answer.stream is not None and method == "GET":
            if self._streams < MAX_STREAMS:
                self._waiting_clients.discard(task)
                await self._stream(answer, reader, writer)
                return
            answer = Response(
                b"enough clients listen to events already\n", status=503, Retry_After="10"
            )
        length = {} if answer.stream is not None else {"Content-Length": str(len(answer.body))}
        self._waiting_clients.discard(task)
        self._slow_clients[task] = self._loop.time()
        # Then drain() returns when the kernel has taken everything.
        writer.transport.set_write_buffer_limits(0)
        writer.write(_head(answer, length) + (answer.body if method != "HEAD" else b""))
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await writer.drain()
        writer.write_eof()
        if answer.status in (400, 405, 408, 431, 505):
            try:
                async with asyncio.timeout(LINGER_S):
                    while await reader.read(1 << 16):
                        pass
            except TimeoutError:
                pass

    async def _response(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader
    ) -> tuple[str, Response | None]:
        """The request's method, and the response; None if there was no request."""
        method = "GET"
        try:
            try:
                async with asyncio.timeout(HEAD_TIMEOUT_S):
                    head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                if not error.partial:
                    return method, None
                raise RequestError(400, "the request has no end") from None
            except asyncio.LimitOverrunError:
                raise RequestError(
                    431, f"a request's head has at most {MAX_HEAD_BYTES} bytes"
                ) from None
            except TimeoutError:
                raise RequestError(408, LATE.body.decode().strip()) from None
            finally:
                if self._slow_clients.pop(task, None) is not None:
                    self._waiting_clients.add(task)
            method, request = parse(head)
            return method, await self._answer(request)
        except RequestError as refusal:
            answer = Response(f"{refusal}\n".encode(), status=refusal.status)
            if refusal.status == 405:
                answer.headers["Allow"] = "GET, HEAD"
            return method, answer
        except OSError:
            raise
        except (
            Exception
        ) as error:  # an internal error costs one response; its text may hold anything
            return method, Response(
                f"a defect in sidecar: {type(error).__name__}\n".encode(), status=500
            )

    async def _stream(
        self, answer: Response, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
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
                        signal.alarm(HUNG_AFTER_S)
                    writer.write(part)
                    if writer.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
                        return
        finally:
            self._streams -= 1
            leaving.cancel()


# For clients above MAX_CLIENTS, and for those that send no request.
BUSY = Response(b"too many requests at once; probes are answered\n", status=503, Retry_After="1")
LATE = Response(f"a request has to be there within {HEAD_TIMEOUT_S:g} s\n".encode(), status=408)


def _refuse(sock: socket.socket, answer: Response) -> None:
    with contextlib.suppress(OSError):  # it has gone
        sock.send(_head(answer, {"Content-Length": str(len(answer.body))}) + answer.body)
    sock.close()


def _head(answer: Response, more: dict[str, str]) -> bytes:
    headers = {**answer.headers, **more, "Connection": "close"}
    lines = [
        f"HTTP/1.1 {answer.status} {REASONS[answer.status]}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
