"""Constant load on a server, and what became of each request. The clients (apps/client.py) are
processes of their own.
"""

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass

from bench.contestants import BENCH, ENVIRONMENT, PYTHON, Alone, NotMeasured, free_port

ANSWERED = "answered"
#: A request that is not answered within this time (seconds) is lost.
TIMEOUT = 1.0
CLIENTS = 4
#: The clients' own start-up, before the load begins.
HEADSTART = 0.5
#: How long a server is stopped to see whether that is seen.
PAUSE = 0.05


@dataclass
class Request:
    due: float
    latency: float
    outcome: str


class Load:
    """Load on 127.0.0.1:port from `begin` on. Use `end` to wait for it and get every request, in
    order of when it was due.
    """

    def __init__(self, port: int, seconds: float, rate: float = 200.0) -> None:
        self.begin = time.monotonic() + HEADSTART
        own = rate / CLIENTS
        self._clients = [
            subprocess.Popen(
                [
                    PYTHON,
                    "-I",
                    BENCH / "apps/client.py",
                    *map(str, (port, TIMEOUT, own, number / rate + self.begin, seconds)),
                ],
                stdout=subprocess.PIPE,
                env=ENVIRONMENT,
                text=True,
            )
            for number in range(CLIENTS)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            if client.poll() is None:
                client.kill()
                client.wait()

    def end(self) -> list[Request]:
        requests = []
        for client in self._clients:
            for line in client.communicate()[0].splitlines():
                due, latency, outcome = line.split()
                requests.append(Request(float(due), float(latency), outcome))
        return sorted(requests, key=lambda request: request.due)


def lost(requests: list[Request]) -> int:
    return sum(request.outcome != ANSWERED for request in requests)


def worst(requests: list[Request]) -> float:
    """The longest that any of them took, a lost one included, in seconds."""
    return max((request.latency for request in requests), default=0.0)


def between(requests: list[Request], begin: float, end: float) -> list[Request]:
    """Those that were due then."""
    return [request for request in requests if begin <= request.due < end]


def prove() -> None:
    """The load generator sees what it should: nothing lost where somebody answers, everything where
    nobody does or may; and a pause.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as deaf, Alone() as answering:
        answering.serve()
        port = deaf.getsockname()[1]
        seen = {}
        for name, target in (
            ("answered", answering.port),
            ("timeout", port),
            ("ConnectionRefusedError", free_port()),
        ):
            with Load(target, 0.25) as load:
                seen[name] = {request.outcome for request in load.end()}
        with Load(answering.port, 0.25) as load:
            time.sleep(load.begin + 0.1 - time.monotonic())
            os.kill(answering.pid, signal.SIGSTOP)
            time.sleep(PAUSE)
            os.kill(answering.pid, signal.SIGCONT)
            paused = worst(load.end())
    if paused < PAUSE / 2:
        raise NotMeasured(
            f"the load generator is not to be trusted: a pause of {PAUSE:g} s was seen as {paused:g} s"
        )
    wrong = {name: outcomes for name, outcomes in seen.items() if outcomes != {name}}
    if wrong:
        raise NotMeasured(f"the load generator is not to be trusted: expected and seen {wrong}")
