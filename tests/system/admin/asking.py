"""What the tests of the admin share: a client for each of its paths."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support import PATIENCE, Sidecar, alive

PATHS = ("/livez", "/readyz", "/metrics", "/status", "/events", "/")


class Admin:
    """The admin of a running sidecar."""

    def __init__(self, run: Sidecar) -> None:
        self.run = run
        self.address = run.wait("admin_opened")["address"]

    def connect(self) -> socket.socket:
        if self.address.startswith("/"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            sock.connect(self.address)
            return sock
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), PATIENCE)

    def raw(self, data: bytes) -> bytes:
        """Everything that is answered to these bytes."""
        with self.connect() as sock:
            sock.sendall(data)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def get(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], str]:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head, _, body = self.raw(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()
        ).partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        return (
            int(status.split()[1]),
            {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines)
            },
            body.decode(),
        )

    def json(self, path: str) -> tuple[int, dict]:
        status, headers, body = self.get(path)
        assert headers["content-type"] == "application/json"
        return status, json.loads(body)

    def metrics(self) -> dict[tuple[str, frozenset], float]:
        """Every sample by name and labels."""
        status, _, body = self.get("/metrics")
        assert status == 200
        return {
            (each.name, frozenset(each.labels.items())): each.value
            for family in text_string_to_metric_families(body)
            for each in family.samples
        }

    @contextmanager
    def listen(self, **headers: str) -> Iterator[Iterator[dict]]:
        """The events, as they come."""
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        with self.connect() as sock:
            sock.sendall(f"GET /events HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
            with sock.makefile("rb") as file:
                yield (json.loads(line[6:]) for line in file if line.startswith(b"data: "))

    def pid(self) -> int:
        """The helper, 0 while there is none."""
        for pid in children(self.run.pid):
            try:
                if b"sidecar.admin" in Path(f"/proc/{pid}/cmdline").read_bytes().split(
                    b"\0"
                ) and alive(pid):
                    return pid
            except OSError:
                continue
        return 0


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def sample(samples: dict, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def check(text: str) -> None:
    """What `promtool check metrics` looks at."""
    lines = text.splitlines()
    helped, typed, families = set(), {}, []
    for line in lines:
        if line.startswith("# HELP "):
            name, words = line[7:].split(" ", 1)
            assert words, name
            assert name not in helped
            helped.add(name)
            families.append(name)
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split()
            assert name not in typed
            typed[name] = kind
    assert helped == set(typed)
    for name, kind in typed.items():
        assert re.fullmatch(r"sidecar_[a-z]+(_[a-z]+)*", name)
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(milliseconds|ms|minutes|kb|percent|count|sum|bucket)$", name)
    samples = [line.rpartition(" ")[0] for line in lines if line and not line.startswith("#")]
    assert len(samples) == len(set(samples))
    for each in samples:
        name = each.partition("{")[0]
        assert name in typed or re.sub("_(bucket|sum|count)$", "", name) in typed
    # A family's lines are together.
    order = [
        re.sub("_(bucket|sum|count)$", "", each.partition("{")[0])
        if "duration" in each
        else each.partition("{")[0]
        for each in samples
    ]
    assert [name for at, name in enumerate(order) if at == 0 or order[at - 1] != name] == [
        name for name in families if name in order
    ]
