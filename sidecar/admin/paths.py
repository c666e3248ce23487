"""What each path answers."""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import json
import os
import re

from sidecar.admin.control_client import SharedRequest, listening
from sidecar.admin.http_server import Response
from sidecar.base.printable import printable
from sidecar.log import writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Any

    from sidecar.admin.allowed_hosts import AllowedHosts
    from sidecar.admin.control_client import ControlClient, Event
    from sidecar.admin.http_server import Request

# If PID 1 has not replied by then, it hangs.
REPLY_TIMEOUT_S = 2.0
# If nothing has happened for so long, a comment is sent to the listeners: so a client that has gone
# is noticed.
HEARTBEAT_S = 15.0
# A listener gets an event at once, and those of this time after it together.
EVENT_INTERVAL_S = 0.05
# A Last-Event-ID with more digits is none of ours.
MAX_ID_DIGITS = 18

# Everybody may read these, with any Host header: probes send what they like.
PROBES = ("/livez", "/readyz")

PAGE = os.path.join(os.path.dirname(__file__), "page.html")

NO_REPLY = f"sidecar has not answered within {REPLY_TIMEOUT_S:g} s"


class Paths:
    """The paths and what they answer. `notice` puts a sentence into sidecar's log."""

    def __init__(
        self,
        client: ControlClient,
        notice: Callable[[str], None],
        hosts: AllowedHosts | None = None,
    ) -> None:
        """Without `hosts` every Host header is allowed."""
        self._client = client
        self._notice = notice
        self._hosts = hosts
        self._host_noticed = False
        self._live = SharedRequest(client, command="health", live=True)
        self._ready = SharedRequest(client, command="health")
        self._status = SharedRequest(client, command="status")
        self._library_noticed = False
        self._paths = {
            "/livez": self.livez, "/readyz": self.readyz, "/metrics": self.metrics, "/status": self.status,
            "/events": self.events, "/": self.page,
        }  # fmt: skip

    async def answer(self, request: Request) -> Response:
        """The answer to any request."""
        path = self._paths.get(request.path)
        if path is None:
            return Response(
                f"there is no such path; there are {' '.join(self._paths)}\n".encode(), status=404
            )
        host = request.headers.get("host", "")
        if self._hosts is not None and request.path not in PROBES and not self._hosts.allows(host):
            return self._refuse_host(host)
        return await path(request)

    def _refuse_host(self, host: str) -> Response:
        """Refuse the Host header: a page of a foreign name that points here could read everything."""
        name = printable(host)[:100]
        text = (
            f"the name {name} is not known to be this one's; "
            "if it is, say it with --admin-host NAME, or ask by an address"
        )
        if not self._host_noticed:
            self._host_noticed = True
            self._notice(f"the admin refused a request: {text}")
        return Response(f"{text}\n".encode(), status=403)

    async def livez(self, request: Request) -> Response:
        """Whether PID 1 answers."""
        try:
            await self._live.reply(REPLY_TIMEOUT_S)
        except TimeoutError:
            return _json({"live": False, "reasons": [NO_REPLY]}, 503)
        return _json({"live": True, "reasons": []})

    async def readyz(self, request: Request) -> Response:
        """Whether requests should be sent here, and why not."""
        try:
            reply = await self._ready.reply(REPLY_TIMEOUT_S)
        except TimeoutError:
            return _json({"ready": False, "reasons": [NO_REPLY]}, 503)
        ready = bool(reply["ready"])
        return _json(
            {"ready": ready, "reasons": reply["cause"].split("; ") if reply.get("cause") else []},
            200 if ready else 503,
        )

    async def status(self, request: Request) -> Response:
        """The whole status."""
        try:
            return _json(await self._read_status())
        except TimeoutError:
            return _json({"cause": NO_REPLY}, 503)

    async def metrics(self, request: Request) -> Response:
        """The status in the format of Prometheus."""
        try:
            # The first import takes long, and must not delay other clients.
            metrics = await asyncio.to_thread(_metrics)
        except ImportError as error:
            missing = f"/metrics needs the library prometheus-client, which cannot be imported ({error.name or error})"
            if not self._library_noticed:
                self._library_noticed = True
                self._notice(f"{missing}; everything else is answered")
            return Response(f"{missing}\n".encode(), status=501)
        try:
            reply = await self._read_status()
        except TimeoutError:
            return Response(f"{NO_REPLY}\n".encode(), status=503)
        body, kind = metrics.exposition(reply, request.headers.get("accept", ""))
        return Response(body, kind)

    async def events(self, request: Request) -> Response:
        """Past and coming events as server-sent events, after the last one that the client has got,
        if it names that.
        """
        last = request.headers.get("last-event-id", "")
        after = int(last) if last.isdecimal() and len(last) <= MAX_ID_DIGITS else 0
        return Response(b"", "text/event-stream; charset=utf-8", stream=lambda: self._events(after))

    async def _events(self, after: int) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[Event] = asyncio.Queue(1000)

        def on_event(event: Event) -> None:
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                pass

        with listening(self._client, on_event):
            earlier = list(self._client.events)
            # A new sidecar counts from 1 again.
            if earlier and after > earlier[-1].number:
                after = 0
            yield b"retry: 1000\n\n" + b"".join(
                each.data for each in earlier if each.number > after
            )
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        reply = [await queue.get()]
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                while not queue.empty():
                    reply.append(queue.get_nowait())
                yield b"".join(each.data for each in reply)
                # The next events come together, so that a probe need not wait while each event is
                # sent to each listener.
                await asyncio.sleep(EVENT_INTERVAL_S)

    async def page(self, request: Request) -> Response:
        """The page."""
        return page()

    async def _read_status(self) -> dict[str, Any]:
        reply = await self._status.reply(REPLY_TIMEOUT_S)
        return {name: value for name, value in reply.items() if name != "done"}


@functools.cache
def page() -> Response:
    """The page. Its policy names its own script and style by digest, so that nothing else runs."""
    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    style, script = (_digest(text, name) for name in ("style", "script"))
    policy = (
        f"default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Response(text.encode(), "text/html; charset=utf-8", Content_Security_Policy=policy)


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(value).encode() + b"\n", "application/json", status)


def event(record: dict[str, Any]) -> bytes:
    """The record as a server-sent event, with the level and the message that the log has."""
    fields = {
        name: value for name, value in record.items() if name not in ("number", "time", "event")
    }
    line = json.loads(
        writer.format_line("json", record["event"], {"output": "", **fields}, record["time"])
    )
    reply = {**record, "level": line["level"], "message": line["message"]}
    return f"id: {record['number']}\ndata: {json.dumps(reply)}\n\n".encode()


def _digest(text: str, name: str) -> str:
    """The digest, for a content security policy, of the page's only element of that name."""
    found = re.search(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return (
        "sha256-"
        + base64.b64encode(hashlib.sha256((found[1] if found else "").encode()).digest()).decode()
    )


def _metrics() -> Any:
    from sidecar.admin import metrics  # noqa: PLC0415  (a fifth of a second, which a probe need not wait for)

    return metrics
