"""A small HTTP server that takes its listener from sidecar, one request at a time; the paths do
what the tests need.

    /          who is serving, as JSON
    /slow      says "slow request begun", takes two seconds, then answers
    /orphans   makes ORPHANS processes that nobody waits for, lets them exit at once; answers who had adopted them
    /fill      starts processes until no more can be started; answers how many
    /release   ends those

It says every signal that it gets. TERM and INT let it finish the request in hand, then it exits 0.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

ORPHANS = 50
STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

stopping = threading.Event()
sleepers: list[int] = []


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # the disk under the log is full
        os.write(1, f"{text}\n".encode())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer = PATHS[self.path]()
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def who() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "generation": int(os.environ.get("SERVER_STARTER_GENERATION", "0")),
        "greeting": os.environ.get("GREETING", ""),
        "user": os.getresuid(),
        "group": os.getresgid(),
        "groups": os.getgroups(),
    }


def slow() -> str:
    say("slow request begun")
    time.sleep(2)
    return "slow"


def orphans() -> list[int]:
    adopters, gate = os.pipe(), os.pipe()
    for _ in range(ORPHANS):
        middle = os.fork()
        if middle == 0:
            middle = os.getpid()
            if os.fork() == 0:
                os.close(gate[1])
                while os.getppid() == middle:
                    time.sleep(0.001)
                os.write(adopters[1], f"{os.getppid()}\n".encode())
                os.read(gate[0], 1)
                os._exit(7)
            os._exit(0)
        os.waitpid(middle, 0)
    os.close(adopters[1])
    with os.fdopen(adopters[0]) as lines:
        seen = [int(next(lines)) for _ in range(ORPHANS)]
    os.close(gate[1])  # the moment at which they all exit
    os.close(gate[0])
    return seen


def fill() -> int:
    while True:
        try:
            pid = os.fork()
        except BlockingIOError:
            return len(sleepers)
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pause()
        sleepers.append(pid)


def release() -> int:
    for pid in sleepers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    count = len(sleepers)
    sleepers.clear()
    return count


PATHS: dict[str, Callable[[], object]] = {
    "/": who,
    "/slow": slow,
    "/orphans": orphans,
    "/fill": fill,
    "/release": release,
}


def on_signal(number: int, _: object) -> None:
    say(f"worker got {signal.Signals(number).name}")
    if number in STOP:
        stopping.set()


def main() -> None:
    wake_out, wake_in = os.pipe()
    os.set_blocking(wake_in, False)
    signal.set_wakeup_fd(wake_in)
    for number in (*STOP, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, on_signal)
    fd = int(os.environ["SERVER_STARTER_PORT"].split(";")[0].rpartition("=")[2])
    listener = socket.socket(fileno=fd)
    # A worker must not wait in accept() for a connection that another one took: it would not see
    # its own stop.
    listener.setblocking(False)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(wake_out, selectors.EVENT_READ)
        while not stopping.is_set():
            for key, _ in selector.select():
                if key.fileobj == wake_out:
                    os.read(wake_out, 64)
                    continue
                try:
                    connection, address = listener.accept()
                except BlockingIOError:
                    continue
                with connection:
                    Handler(connection, address, None)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
    sys.exit(0)
