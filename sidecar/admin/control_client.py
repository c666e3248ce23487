"""The connections to PID 1: questions and their answers on one, events on the other."""

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

# An object of an answer is shorter than this (bytes): a thousand workers are 200 kB.
LONGEST = 1 << 24

# As many events are remembered as PID 1 remembers.
EVENTS = 200

# After an answer that took PID 1 so long, it is left in peace for this many times as long, at most
# so long (seconds).
PEACE, LONGEST_PEACE = 4.0, 0.5


class Event:
    """Something that happened, and how it is written to everybody who listens: made once."""

    def __init__(self, record: Object, write: Callable[[Object], bytes]) -> None:
        self.number = int(record["number"])
        self._record, self._write = record, write

    @functools.cached_property
    def data(self) -> bytes:
        """As server-sent events have it."""
        return self._write(self._record)


class Link:
    """Both connections. `lost` is called if one of them ends; `write` makes of an event's record
    what listeners get.
    """

    def __init__(self, lost: Callable[[], None], write: Callable[[Object], bytes]) -> None:
        self._lost, self._write = lost, write
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Object]] = {}
        self._asking: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        #: The last events, oldest first, and who is to hear of the next ones.
        self.events: collections.deque[Event] = collections.deque(maxlen=EVENTS)
        self.listeners: set[Callable[[Event], None]] = set()

    async def open(self, asking: socket.socket, told: socket.socket) -> None:
        """Begin to listen on both."""
        reader, self._asking = await asyncio.open_unix_connection(sock=asking, limit=LONGEST)
        events, writer = await asyncio.open_unix_connection(sock=told, limit=LONGEST)
        writer.write(b'{"command": "events", "follow": true}\n')
        self._writer = writer
        self._tasks = [
            asyncio.create_task(self._read(reader, self._answered)),
            asyncio.create_task(self._read(events, self._happened)),
        ]

    async def _read(self, reader: asyncio.StreamReader, heed: Callable[[Object], None]) -> None:
        try:
            while line := await reader.readline():
                heed(json.loads(line))
        finally:
            self._lost()

    def _answered(self, reply: Object) -> None:
        future = self._waiting.pop(reply.pop("id", 0), None)
        if future is not None and not future.done():
            future.set_result(reply)

    def _happened(self, record: Object) -> None:
        if "event" not in record:
            return
        event = Event(record, self._write)
        self.events.append(event)
        for each in list(self.listeners):
            each(event)

    async def ask(self, request: Object) -> Object:
        """The answer to a request that has one object for an answer. It may never come."""
        self._number += 1
        number = self._number
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        if self._asking is not None:
            self._asking.write(json.dumps({**request, "id": number}).encode() + b"\n")
        reply: Object = await future
        return reply


class Question:
    """One request, asked once for all who want its answer at that moment: a flood of requests here
    is a trickle there.

    Nobody gets an answer to a question that was put before he came. At most one is under way and
    one waits.
    """

    def __init__(self, link: Link, **request: Any) -> None:
        self._link = link
        self._request = request
        self._next: asyncio.Task[Object] | None = None
        self._turn = asyncio.Lock()
        self._not_before = 0.0

    async def answer(self, patience: float) -> Object:
        """The answer. Raises TimeoutError after `patience` seconds."""
        if self._next is None:
            self._next = asyncio.create_task(self._ask())
        async with asyncio.timeout(patience):
            return await asyncio.shield(self._next)

    async def _ask(self) -> Object:
        async with self._turn:
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            self._next = None
            began = time.monotonic()
            reply = await self._link.ask(self._request)
            took = time.monotonic() - began
            self._not_before = time.monotonic() + min(PEACE * took, LONGEST_PEACE)
            return reply


@contextlib.contextmanager
def listening(link: Link, heed: Callable[[Event], None]) -> Any:
    """Have `heed` called with every event meanwhile."""
    link.listeners.add(heed)
    try:
        yield
    finally:
        link.listeners.discard(heed)
