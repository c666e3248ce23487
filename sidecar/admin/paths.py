"""What each path answers."""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import json
import os
import re

from sidecar.admin.link import Question, listening
from sidecar.admin.web import Answer
from sidecar.base.printable import printable
from sidecar.log import writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Any

    from sidecar.admin.hosts import Hosts
    from sidecar.admin.link import Event, Link
    from sidecar.admin.web import Request

# If PID 1 has not answered by then (seconds), it does not.
PATIENCE = 2.0
# Nothing having happened for so long (seconds), a comment is sent to who listens: a client that has
# gone is found out by it.
HEARTBEAT = 15.0
# Who listens is told at once, and then not again for so long (seconds).
TOGETHER = 0.05
# So many digits of a Last-Event-ID are a number of ours.
LONGEST_NUMBER = 18

# What these tell, everybody may know; and whoever probes may say any name.
PROBES = ("/livez", "/readyz")

PAGE = os.path.join(os.path.dirname(__file__), "page.html")

SILENT = f"sidecar has not answered within {PATIENCE:g} s"


class Answers:
    """The paths. `remark` puts a sentence into sidecar's log."""

    def __init__(
        self, link: Link, remark: Callable[[str], None], hosts: Hosts | None = None
    ) -> None:
        """Without `hosts` every name is ours."""
        self._link = link
        self._remark = remark
        self._hosts = hosts
        self._said_other = False
        self._live = Question(link, command="health", live=True)
        self._ready = Question(link, command="health")
        self._status = Question(link, command="status")
        self._said_missing = False
        self._paths = {
            "/livez": self.livez, "/readyz": self.readyz, "/metrics": self.metrics, "/status": self.status,
            "/events": self.events, "/": self.page,
        }  # fmt: skip

    async def answer(self, request: Request) -> Answer:
        """The answer to any request."""
        path = self._paths.get(request.path)
        if path is None:
            return Answer(
                f"there is no such path; there are {' '.join(self._paths)}\n".encode(), status=404
            )
        host = request.headers.get("host", "")
        if self._hosts is not None and request.path not in PROBES and not self._hosts.ours(host):
            return self._not_ours(host)
        return await path(request)

    def _not_ours(self, host: str) -> Answer:
        """A page of a name that was made to point here could read everything: it gets nothing."""
        said = printable(host)[:100]
        text = (
            f"the name {said} is not known to be this one's; "
            "if it is, say it with --admin-host NAME, or ask by an address"
        )
        if not self._said_other:
            self._said_other = True
            self._remark(f"the admin refused a request: {text}")
        return Answer(f"{text}\n".encode(), status=403)

    async def livez(self, request: Request) -> Answer:
        """Whether PID 1 answers."""
        try:
            await self._live.answer(PATIENCE)
        except TimeoutError:
            return _json({"live": False, "reasons": [SILENT]}, 503)
        return _json({"live": True, "reasons": []})

    async def readyz(self, request: Request) -> Answer:
        """Whether requests should be sent here, and why not."""
        try:
            told = await self._ready.answer(PATIENCE)
        except TimeoutError:
            return _json({"ready": False, "reasons": [SILENT]}, 503)
        ready = bool(told["ready"])
        return _json(
            {"ready": ready, "reasons": told["cause"].split("; ") if told.get("cause") else []},
            200 if ready else 503,
        )

    async def status(self, request: Request) -> Answer:
        """Everything there is to know."""
        try:
            return _json(await self._told())
        except TimeoutError:
            return _json({"cause": SILENT}, 503)

    async def metrics(self, request: Request) -> Answer:
        """The same, as Prometheus has it."""
        try:
            # Once, and not in everybody else's way.
            metrics = await asyncio.to_thread(_metrics)
        except ImportError as error:
            missing = f"/metrics needs the library prometheus-client, which cannot be imported ({error.name or error})"
            if not self._said_missing:
                self._said_missing = True
                self._remark(f"{missing}; everything else is answered")
            return Answer(f"{missing}\n".encode(), status=501)
        try:
            told = await self._told()
        except TimeoutError:
            return Answer(f"{SILENT}\n".encode(), status=503)
        body, kind = metrics.exposition(told, request.headers.get("accept", ""))
        return Answer(body, kind)

    async def events(self, request: Request) -> Answer:
        """What has happened, and what happens, as server-sent events; behind the last one that the
        client has heard of, if it says so.
        """
        last = request.headers.get("last-event-id", "")
        after = int(last) if last.isdecimal() and len(last) <= LONGEST_NUMBER else 0
        return Answer(b"", "text/event-stream; charset=utf-8", stream=lambda: self._events(after))

    async def _events(self, after: int) -> AsyncIterator[bytes]:
        news: asyncio.Queue[Event] = asyncio.Queue(1000)

        def heed(event: Event) -> None:
            try:
                news.put_nowait(event)
            except asyncio.QueueFull:
                pass

        with listening(self._link, heed):
            past = list(self._link.events)
            # Numbers begin anew with a new sidecar.
            if past and after > past[-1].number:
                after = 0
            yield b"retry: 1000\n\n" + b"".join(each.data for each in past if each.number > after)
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        told = [await news.get()]
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                while not news.empty():
                    told.append(news.get_nowait())
                yield b"".join(each.data for each in told)
                # What happens next comes together: a probe does not wait behind everybody's every
                # event.
                await asyncio.sleep(TOGETHER)

    async def page(self, request: Request) -> Answer:
        """The page."""
        return page()

    async def _told(self) -> dict[str, Any]:
        told = await self._status.answer(PATIENCE)
        return {name: value for name, value in told.items() if name != "done"}


@functools.cache
def page() -> Answer:
    """The page. What may run in it is named by its digest; nothing else can."""
    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    style, script = (_digest(text, name) for name in ("style", "script"))
    policy = (
        f"default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Answer(text.encode(), "text/html; charset=utf-8", Content_Security_Policy=policy)


def _json(value: dict[str, Any], status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode() + b"\n", "application/json", status)


def event(record: dict[str, Any]) -> bytes:
    """The record, with the level and the message that the log has."""
    fields = {
        name: value for name, value in record.items() if name not in ("number", "time", "event")
    }
    line = json.loads(
        writer.format_line("json", record["event"], {"output": "", **fields}, record["time"])
    )
    told = {**record, "level": line["level"], "message": line["message"]}
    return f"id: {record['number']}\ndata: {json.dumps(told)}\n\n".encode()


def _digest(text: str, name: str) -> str:
    """What a content security policy calls the page's only element of that name."""
    found = re.search(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return (
        "sha256-"
        + base64.b64encode(hashlib.sha256((found[1] if found else "").encode()).digest()).decode()
    )


def _metrics() -> Any:
    from sidecar.admin import metrics  # noqa: PLC0415  (a fifth of a second, which a probe need not wait for)

    return metrics
