"""Closed-loop load on several servers in turn, in short slices: which of them answers how many
requests a second?

    python -I hammer.py keep-alive|one-shot CONNECTIONS SLICE ROUNDS PORT:PID,PID ...

Each round goes through all servers, SLICE seconds each, in an order drawn anew (who comes often or
always second is warmer). A round becomes a line on stdout: for each server the requests answered a
second, and the microseconds of its processes' CPU for one.
"""

import gc
import random
import socket
import sys
import time

ASK = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
ASK_ONCE = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
PATIENCE = 5.0


class Target:
    def __init__(self, text: str, count: int, one_shot: bool) -> None:
        port, _, pids = text.partition(":")
        self.address = ("127.0.0.1", int(port))
        self.pids = pids.split(",")
        self.count = count
        self.batch = self.one_shot if one_shot else self.keep_alive
        self.connections = (
            []
            if one_shot
            else [socket.create_connection(self.address, PATIENCE) for _ in range(count)]
        )
        for connection in self.connections:
            # With a timeout, Python would ask the kernel twice for everything.
            connection.settimeout(None)

    def keep_alive(self) -> None:
        for connection in self.connections:
            connection.send(ASK)
        for connection in self.connections:
            if connection.recv(4096)[:13] != b"HTTP/1.1 200 ":
                sys.exit("hammer: a request was not answered")

    def one_shot(self) -> None:
        connections = [socket.socket() for _ in range(self.count)]
        for connection in connections:
            connection.connect(self.address)
            connection.send(ASK_ONCE)
        for connection in connections:
            if connection.recv(4096)[:13] != b"HTTP/1.1 200 ":
                sys.exit("hammer: a request was not answered")
            connection.close()

    def cpu(self) -> int:
        """Nanoseconds that its processes have used."""
        total = 0
        for pid in self.pids:
            with open(f"/proc/{pid}/schedstat") as file:
                total += int(file.read().split()[0])
        return total

    def slice(self, seconds: float) -> tuple[float, float]:
        """Requests a second, and microseconds of CPU a request, over so many seconds."""
        batches, used, begin = 0, self.cpu(), time.monotonic()
        while (now := time.monotonic()) < begin + seconds:
            self.batch()
            batches += 1
        answered = batches * self.count
        return answered / (now - begin), (self.cpu() - used) / 1000 / answered


def main(words: list[str]) -> None:
    kind, count, seconds, rounds = words[0], int(words[1]), float(words[2]), int(words[3])
    targets = [Target(text, count, kind == "one-shot") for text in words[4:]]
    gc.disable()
    for _ in range(rounds):
        results = {target: target.slice(seconds) for target in random.sample(targets, len(targets))}
        print(*(f"{rate:.1f} {cost:.4f}" for rate, cost in map(results.get, targets)))


main(sys.argv[1:])
