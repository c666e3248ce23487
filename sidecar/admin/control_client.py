"""The connections to PID 1: requests and their replies on one, events on the other."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import json
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    Object = dict[str, Any]

# A reply of a thousand workers has 200 kB.
MAX_LINE_BYTES = 1 << 24

# PID 1 remembers as many.
MAX_EVENTS = 200

# After a reply, the same request is not sent again for so many times as long as the reply took.
PAUSE_FACTOR, MAX_PAUSE_S = 4.0, 0.5


class Event:
    """Something that happened. Its text for listeners is made once for all of them."""

    def __init__(self, record: Object, write: Callable[[Object], bytes]) -> None:
        self.number = int(record["number"])
        self._record, self._write = record, write

    @functools.cached_property
    def data(self) -> bytes:
        """The text, as a server-sent event."""
        return self._write(self._record)


class ControlClient:
    """Both connections. `lost` is called if one of them ends; `write` makes the text for listeners
    from an event's record.
    """

    def __init__(self, lost: Callable[[], None], write: Callable[[Object], bytes]) -> None:
        self._lost, self._write = lost, write
        self._number = 0
        self._pending: dict[int, asyncio.Future[Object]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        #: The last events, oldest first, and what is called with the next ones.
        self.events: collections.deque[Event] = collections.deque(maxlen=MAX_EVENTS)
        self.listeners: set[Callable[[Event], None]] = set()

    async def open(self, requests: socket.socket, events: socket.socket) -> None:
        """Begin to read both. Raises OSError."""
        connect = functools.partial(asyncio.open_unix_connection, limit=MAX_LINE_BYTES)
        replies, self._writer = await connect(sock=requests)
        records, self._events_writer = await connect(sock=events)
        self._events_writer.write(b'{"command": "events", "follow": true}\n')
        self._tasks = [
            asyncio.create_task(self._read(replies, self._on_reply)),
            asyncio.create_task(self._read(records, self._on_event)),
        ]

    async def _read(
        self, reader: asyncio.StreamReader, on_object: Callable[[Object], None]
    ) -> None:
        try:
            while line := await reader.readline():
                on_object(json.loads(line))
        finally:
            self._lost()

    def _on_reply(self, reply: Object) -> None:
        future = self._pending.pop(reply.pop("id", 0), None)
        if future is not None and not future.done():
            future.set_result(reply)

    def _on_event(self, record: Object) -> None:
        if "event" not in record:
            return
        event = Event(record, self._write)
        self.events.append(event)
        for each in list(self.listeners):
            each(event)

    async def ask(self, request: Object) -> Object:
        """The reply to a request that is answered by one object. It may never come."""
        self._number += 1
        number = self._number
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        if self._writer is not None:
            self._writer.write(json.dumps({**request, "id": number}).encode() + b"\n")
        reply: Object = await future
        return reply


class SharedRequest:
    """One request to PID 1, sent once for all clients that want its reply at that moment: so many
    clients here cause few requests there.

    No client gets the reply to a request that was sent before the client came. At most one request
    is under way and one waits.
    """

    def __init__(self, client: ControlClient, **request: Any) -> None:
        self._client = client
        self._request = request
        self._next: asyncio.Task[Object] | None = None
        self._lock = asyncio.Lock()
        self._not_before = 0.0

    async def reply(self, timeout_s: float) -> Object:
        """The reply. Raises TimeoutError."""
        if self._next is None:
            self._next = asyncio.create_task(self._ask())
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(self._next)

    async def _ask(self) -> Object:
        async with self._lock:
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            self._next = None
            began = time.monotonic()
            reply = await self._client.ask(self._request)
            took = time.monotonic() - began
            self._not_before = time.monotonic() + min(PAUSE_FACTOR * took, MAX_PAUSE_S)
            return reply


@contextlib.contextmanager
def listening(client: ControlClient, on_event: Callable[[Event], None]) -> Any:
    """Have `on_event` called with every event meanwhile."""
    client.listeners.add(on_event)
    try:
        yield
    finally:
        client.listeners.discard(on_event)
