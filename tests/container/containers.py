"""A running container, its log, and load on its server."""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import threading
import time

# What tests/container/base-image makes.
PYTHON_IMAGE = "sidecar-test/python:3.11"
# What tests/container/bare-image makes: no Python in it.
NGINX_IMAGE = "sidecar-test/nginx:1.22"

# How long (seconds) anything that must come may take here; it is never what a test measures.
PATIENCE = 60


class Running:
    """A container, its log so far, and what one asks of it."""

    def __init__(self, container) -> None:
        self.container = container
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._stream = None
        self._reader = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        self.container.start()
        self._reader.start()

    def remove(self) -> None:
        self.container.remove(force=True, v=True)
        if self._reader.ident:
            self._reader.join(PATIENCE)

    # --- the log

    def _read(self) -> None:
        rest = b""
        try:
            for chunk in self.container.logs(stream=True, follow=True):
                *whole, rest = (rest + chunk).split(b"\n")
                with self._news:
                    self.lines += [line.decode(errors="replace").rstrip("\r") for line in whole]
                    self._news.notify_all()
        finally:
            with self._news:
                self._ended = True
                self._news.notify_all()

    def wait_until(self, condition, what: str):
        """What `condition()` says once that is true; it is asked again at each new line of the log."""
        with self._news:
            self._news.wait_for(lambda: condition() or self._ended, PATIENCE)
            found = condition()
            assert found, f"never came: {what}; the log:\n" + "\n".join(self.lines)
            return found

    def wait_line(self, text: str) -> str:
        return self.wait_until(
            lambda: next((line for line in self.lines if text in line), None), text
        )

    def events(self, name: str = "", **fields) -> list[dict]:
        """Sidecar's own lines, those of this event with these fields."""
        found = []
        for line in list(self.lines):
            # A terminal shows the ^C that was typed, on whichever line comes next.
            _, start, rest = line.partition('{"time"')
            if start:
                event = json.loads(start + rest)
                if name in ("", event["event"]) and all(
                    event.get(key) == value for key, value in fields.items()
                ):
                    found.append(event)
        return found

    def wait_event(self, name: str, **fields) -> dict:
        return self.wait_until(lambda: self.events(name, **fields), f"{name} {fields or ''}")[0]

    # --- the container

    def wait(self) -> int:
        """Its exit status, once it has ended and the log is complete."""
        status = self.container.wait(timeout=PATIENCE)["StatusCode"]
        self._reader.join(PATIENCE)
        self.container.reload()
        return status

    def stop(self, grace: int = PATIENCE) -> int:
        """`docker stop`: the exit status. With 137 it was the engine that ended it."""
        self.container.stop(timeout=grace)
        return self.wait()

    @property
    def state(self) -> dict:
        self.container.reload()
        return self.container.attrs["State"]

    def python(self, code: str, *arguments: str) -> str:
        """What this Python code prints when it runs in there (`docker exec`)."""
        status, output = self.container.exec_run(["python3", "-c", code, *arguments])
        text = output.decode(errors="replace")
        assert status == 0, text
        return text.strip()

    def proc(self, name: str, pid: int = 1) -> str:
        return self.python(
            "import sys; print(open(sys.argv[1]).read().replace(chr(0), ' '))",
            f"/proc/{pid}/{name}",
        )

    def processes(self) -> dict[int, str]:
        """Every process in there: its state by its pid, the one that looks left out."""
        code = """
import os
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            state = stat.read().rpartition(")")[2].split()[0]
    except OSError:
        continue
    if int(pid) != os.getpid():
        print(pid, state)
"""
        return {
            int(pid): state
            for pid, state in (line.split() for line in self.python(code).splitlines())
        }

    # --- its server

    @property
    def port(self) -> int:
        """Where 8080 is published, on 127.0.0.1."""
        self.container.reload()
        return int(self.container.ports["8080/tcp"][0]["HostPort"])

    def get(self, path: str = "/"):
        """(status, what the answer's JSON says)."""
        return get(self.port, path)

    def get_inside(self, path: str = "/", port: int = 8080):
        """The same, asked from within: for a container without a network."""
        code = "import sys, urllib.request as u; r = u.urlopen(sys.argv[1]); print(r.status); print(r.read().decode())"
        status, body = self.python(code, f"http://127.0.0.1:{port}{path}").split("\n", 1)
        return int(status), json.loads(body)


def get(port: int, path: str = "/"):
    status, body = fetch(port, path)
    return status, json.loads(body)


def fetch(port: int, path: str = "/") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


class Load:
    """Constant load, a connection for each request: the answers by what `read` makes of them, and
    what failed. Between two requests a client waits: the engine needs the processor, too.
    """

    CLIENTS = 4
    MOST = 20000  # requests of each client
    PAUSE_S = 0.004

    def __init__(self, port: int, read, clients: int = CLIENTS, patience: float = PATIENCE) -> None:
        """It ends by itself after `patience` seconds."""
        self.port = port
        self.patience = patience
        self.read = read
        self.answers: collections.Counter = collections.Counter()
        self.failed: list[str] = []
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._clients = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def __enter__(self):
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for client in self._clients:
            client.join(PATIENCE)

    def _ask(self) -> None:
        deadline = time.monotonic() + self.patience
        for _ in range(self.MOST):
            if self._stop.wait(self.PAUSE_S) or time.monotonic() > deadline:
                return
            try:
                status, body = fetch(self.port)
                seen = self.read(body) if status == 200 else f"status {status}"
            except Exception as error:
                seen = repr(error)
                status = 0
            with self._news:
                if status == 200:
                    self.answers[seen] += 1
                else:
                    self.failed.append(seen)
                self._news.notify_all()

    def wait_for(self, answer, times: int = 1) -> None:
        """Return when `answer` has come that many times more."""
        with self._news:
            wanted = self.answers[answer] + times
            came = self._news.wait_for(lambda: self.answers[answer] >= wanted, PATIENCE)
            assert came, (
                f"{answer!r} never came {times} times; {dict(self.answers)}, failed: {self.failed[:5]}"
            )


@contextlib.contextmanager
def in_background(task):
    """Do `task` in a thread meanwhile; its error is raised at the end."""
    errors = []

    def body():
        try:
            task()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    yield
    thread.join(PATIENCE)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


@contextlib.contextmanager
def terminal(running):
    """The keyboard of a container that has a terminal: a socket to send to."""
    attached = running.container.attach_socket(params={"stdin": 1, "stream": 1})
    try:
        yield attached._sock
    finally:
        attached._sock.close()
        attached.close()
