"""An ASGI application that says who answers."""

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
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
