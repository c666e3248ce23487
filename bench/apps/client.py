"""Open-loop load: so many requests a second at moments fixed beforehand, each on a new connection,
whatever became of the others.

    python -I client.py PORT TIMEOUT RATE BEGIN SECONDS

A request's latency counts from the moment it was due, so a pause is seen by every request that
falls into it, not by one a client. Each becomes a line on stdout, at the end: when it was due, how
long it took, what came of it.
"""

import gc
import select
import socket
import sys
import time

REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"


class Client:
    """One client process: no request waits for another."""

    def __init__(self, port: int, timeout: float, moments: list[float]) -> None:
        self.timeout = timeout
        self.address = ("127.0.0.1", port)
        self.moments = moments[::-1]
        self.connecting: dict[socket.socket, float] = {}
        self.waiting: dict[socket.socket, float] = {}
        self.done: list[tuple[float, float, str]] = []

    def run(self) -> None:
        while self.moments or self.connecting or self.waiting:
            now = time.monotonic()
            while self.moments and self.moments[-1] <= now:
                self.ask(self.moments.pop())
            pending = [*self.connecting.values(), *self.waiting.values()]
            deadline = min([moment + self.timeout for moment in pending] + self.moments[-1:])
            readable, writable, _ = select.select(
                list(self.waiting), list(self.connecting), [], max(0.0, deadline - time.monotonic())
            )
            for connection in writable:
                self.connected(connection)
            for connection in readable:
                self.answered(connection)
            now = time.monotonic()
            for pool in (self.connecting, self.waiting):
                for connection in [each for each, due in pool.items() if due + self.timeout <= now]:
                    self.finish(connection, pool, "timeout")

    def ask(self, due: float) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        self.connecting[connection] = due
        try:
            connection.connect(self.address)
        except BlockingIOError:
            pass
        except OSError as error:
            self.finish(connection, self.connecting, type(error).__name__)

    def connected(self, connection: socket.socket) -> None:
        try:
            connection.send(REQUEST)
        except OSError as error:
            self.finish(connection, self.connecting, type(error).__name__)
        else:
            self.waiting[connection] = self.connecting.pop(connection)

    def answered(self, connection: socket.socket) -> None:
        try:
            answer = connection.recv(4096)
        except OSError as error:
            self.finish(connection, self.waiting, type(error).__name__)
        else:
            self.finish(
                connection,
                self.waiting,
                "answered" if answer.startswith(b"HTTP/1.1 200 ") else "closed",
            )

    def finish(
        self, connection: socket.socket, pool: dict[socket.socket, float], outcome: str
    ) -> None:
        due = pool.pop(connection)
        self.done.append((due, time.monotonic() - due, outcome))
        connection.close()


def main(words: list[str]) -> None:
    port, timeout, rate, begin, seconds = int(words[0]), *map(float, words[1:])
    client = Client(port, timeout, [begin + number / rate for number in range(int(rate * seconds))])
    gc.disable()
    client.run()
    sys.stdout.write(
        "".join(f"{due:.6f} {latency:.6f} {outcome}\n" for due, latency, outcome in client.done)
    )


if __name__ == "__main__":
    main(sys.argv[1:])
