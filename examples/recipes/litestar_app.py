"""A Litestar application that says who answers."""

import asyncio
import os

from litestar import Litestar, get

GREETING = os.environ.get("GREETING", "hello")
GENERATION = os.environ.get("SERVER_STARTER_GENERATION", "none")


@get("/")
async def hello() -> str:
    """Say hello."""
    return f"{GREETING} from generation {GENERATION}, worker {os.getpid()}\n"


@get("/slow")
async def slow() -> str:
    """Take two seconds."""
    await asyncio.sleep(2)
    return await hello.fn()


app = Litestar([hello, slow])
