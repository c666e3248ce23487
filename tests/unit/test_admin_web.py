"""The admin's HTTP server by itself: who is taken on, and who is not."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator

import pytest

from sidecar.admin.http_server import (
    IMPATIENCE_S,
    MAX_CLIENTS,
    PROBE_PREFIXES,
    HttpServer,
    Request,
    Response,
)


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """The server's alarm would end these tests' process."""
    yield
    signal.alarm(0)


def played(scene: Callable[[Scene], Coroutine[None, None, None]]) -> None:
    async def play() -> None:
        await scene(await Scene.open())

    asyncio.run(play())


class Scene:
    """A server whose answers wait until `go` is set, but for those to probes."""

    @classmethod
    async def open(cls) -> Scene:
        self = cls()
        self.go, self.asked = asyncio.Event(), 0
        listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.port = listener.getsockname()[1]
        self.web = HttpServer(self.answer)
        await self.web.open(listener)
        return self

    async def answer(self, request: Request) -> Response:
        self.asked += 1
        if not request.path.endswith("z"):
            await self.go.wait()
        return Response(request.path.encode())

    async def ask(self, said: bytes) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(said)
        reader.writer = writer  # type: ignore[attr-defined]  # as long as it is read
        return reader

    async def until_asked(self, times: int) -> None:
        while self.asked < times:
            await asyncio.sleep(0)


def test_where_all_wait_for_an_answer_only_probes_are_taken_on() -> None:
    async def scene(it: Scene) -> None:
        waiting = [await it.ask(b"GET /x HTTP/1.1\r\n\r\n") for _ in range(MAX_CLIENTS)]
        await it.until_asked(MAX_CLIENTS)
        for probe in PROBE_PREFIXES:
            answer = await (await it.ask(probe + b" HTTP/1.1\r\n\r\n")).read()
            assert answer.startswith(b"HTTP/1.1 200 ")
        answer = await (await it.ask(b"GET /y HTTP/1.1\r\n\r\n")).read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"too many requests at once" in answer
        it.go.set()
        for each in waiting:
            assert (await each.read()).endswith(b"/x")

    played(scene)


def test_who_has_asked_does_not_make_room_for_who_comes_but_who_is_silent_does() -> None:
    async def scene(it: Scene) -> None:
        asked = [await it.ask(b"GET /x HTTP/1.1\r\n\r\n") for _ in range(MAX_CLIENTS - 10)]
        await it.until_asked(len(asked))
        silent = [await it.ask(b"GET /x HT") for _ in range(10)]
        early = await it.ask(b"GET /x HTTP/1.1\r\n\r\n")
        assert (await early.read()).startswith(b"HTTP/1.1 503 ")  # they have hardly begun
        begun = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < begun + IMPATIENCE_S:
            await asyncio.sleep(0)
        more = [await it.ask(b"GET /x HTTP/1.1\r\n\r\n") for _ in range(10)]
        await it.until_asked(MAX_CLIENTS)
        it.go.set()
        for each in (*asked, *more):
            assert (await each.read()).endswith(b"/x")
        for each in silent:
            assert await each.read() == b""

    played(scene)


def test_a_server_that_makes_room_answers_who_has_come_and_leaves_the_others_in_the_queue() -> None:
    async def scene(it: Scene) -> None:
        waiting = [await it.ask(b"GET /x HTTP/1.1\r\n\r\n") for _ in range(3)]
        await it.until_asked(3)
        leaving = asyncio.create_task(it.web.stop())
        await asyncio.sleep(0)
        late = await it.ask(b"GET /late HTTP/1.1\r\n\r\n")
        it.go.set()
        await leaving
        assert [(await each.read())[-2:] for each in waiting] == [b"/x"] * 3
        assert it.asked == 3
        late.writer.close()  # type: ignore[attr-defined]

    played(scene)
