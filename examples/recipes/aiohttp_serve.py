"""Serves aiohttp, leaving in two steps: `web.run_app` closes connections whose request it has not
read yet.

First it stops accepting, and reads what has come. Then it lets aiohttp finish what is in flight.
"""

import asyncio
import os
import signal

from aiohttp import web

from sidecar.worker import listeners


async def hello(request: web.Request) -> web.Response:
    return web.Response(
        text=f"hello from generation {os.environ.get('SERVER_STARTER_GENERATION', 'none')}\n"
    )


async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(float(request.query_string or 1))
    return await hello(request)


async def main() -> None:
    app = web.Application()
    app.router.add_get("/", hello)
    app.router.add_get("/slow", slow)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    sites = [web.SockSite(runner, sock) for sock in listeners()]
    for site in sites:
        await site.start()

    leaving = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)
    await leaving.wait()
    for site in sites:
        await site.stop()
    await asyncio.sleep(0.1)
    await runner.cleanup()


asyncio.run(main())
