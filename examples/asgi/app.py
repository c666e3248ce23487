"""An ASGI application that says who answers.

/           one line: the greeting (from the envdir), the generation and the worker's pid
/events     the same again and again, as server-sent events: a connection that stays open across a swap
"""

import asyncio
import os

GREETING = os.environ.get("GREETING", "hello")
GENERATION = os.environ.get("SERVER_STARTER_GENERATION", "none")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = f"{GREETING} from generation {GENERATION}, worker {os.getpid()}\n".encode()
    if scope["path"] == "/events":
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )
        while True:
            await send(
                {"type": "http.response.body", "body": b"data: " + body + b"\n", "more_body": True}
            )
            await asyncio.sleep(1)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})
