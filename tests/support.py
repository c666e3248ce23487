"""What the tests share: a real sidecar in its own process, and a load of real requests against it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
APPS = ROOT / "tests" / "apps"
SERVER = (sys.executable, "-S", str(APPS / "server.py"))


def _closed() -> str:
    """The directory on the way to this checkout, or to its Python, that other users may not enter;
    "" if there is none.
    """
    for path in (APPS, Path(sys.executable)):
        for each in path.parents:
            if not each.stat().st_mode & 0o001:
                return str(each)
    return ""


# For tests that run programs of this checkout as somebody else.
open_to_others = pytest.mark.skipif(
    bool(_closed()),
    reason=f"other users may not enter {_closed()}: needs a checkout where they may",
)

# Nothing is asserted on time; this only ends a test that would wait for ever.
PATIENCE = 60.0


def until(question: Callable[[], object], what: str, log: object = "") -> None:
    """Wait until the question is answered yes; fail after PATIENCE, with the `log` as it is then."""
    end = time.monotonic() + PATIENCE
    while not question():
        if time.monotonic() > end:
            raise AssertionError(f"never: {what}\n{log}")
        time.sleep(0.005)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def deaf(pid: int) -> bool:
    """Whether the process ignores SIGTERM or has a handler for it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    masks = dict(line.split(":\t", 1) for line in lines)
    handled = int(masks["SigIgn"], 16) | int(masks["SigCgt"], 16)
    return bool(handled >> (signal.SIGTERM - 1) & 1)


def marked(mark: str) -> list[int]:
    """Every process, wherever it has gone to, whose environment carries the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"MARK={mark}".encode() in path.read_bytes().split(b"\0") and alive(
                int(path.parent.name)
            ):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


class Sidecar:
    """`sidecar run` with --log-format json; its log lines as events. Options are appended before
    `--`; `wrapper` is what starts it.
    """

    #: What the interpreter is to run.
    MODULE: tuple[str, ...] = ("-m", "sidecar")

    def __init__(
        self,
        *options: str,
        program: tuple[str, ...] = SERVER,
        env: dict[str, str] | None = None,
        port: bool = True,
        wrapper: tuple[str, ...] = (),
        **popen: object,
    ):
        self.mark = f"{os.getpid()}-{id(self)}"
        self.port = 0
        words = [sys.executable, *self.MODULE, "run", "--log-format", "json"]
        if port:
            words += ["--port", "127.0.0.1:0"]
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "MARK": self.mark, **(env or {})}
        popen = {"stdin": subprocess.DEVNULL, "start_new_session": True, **popen}
        self.process = subprocess.Popen(
            [*wrapper, *words, *options, "--", *program],
            env=environ,
            stderr=subprocess.PIPE,
            **popen,
        )
        self.pid = self.process.pid
        self.events: list[dict] = []
        self.output: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            text = line.decode(errors="replace").rstrip("\n")
            with self._news:
                try:
                    event = json.loads(text)
                    if event["event"] == "listening" and not self.port:
                        self.port = (
                            int(event["address"].rpartition(":")[2])
                            if event["kind"] == "tcp"
                            else 0
                        )
                    self.events.append(event)
                except (ValueError, KeyError, TypeError):
                    self.output.append(text)
                self._news.notify_all()
        with self._news:
            self.output.append("(end of output)")
            self._news.notify_all()

    def seen(self, name: str, **fields: object) -> list[dict]:
        """The events so far of that name and with those fields."""
        return [
            each
            for each in list(self.events)
            if each["event"] == name
            and all(each.get(key) == value for key, value in fields.items())
        ]

    def wait(self, name: str, count: int = 1, **fields: object) -> dict:
        """Wait for the count-th such event and return it."""
        end = time.monotonic() + PATIENCE
        with self._news:
            while len(found := self.seen(name, **fields)) < count:
                if "(end of output)" in self.output or not self._news.wait(
                    max(0.0, end - time.monotonic())
                ):
                    raise AssertionError(f"never: {count} × {name} {fields}\n{self}")
        return found[count - 1]

    def signal(self, name: str) -> None:
        os.kill(self.pid, signal.Signals[f"SIG{name}"])

    def swap(self, number: int, gone: bool = True) -> dict:
        """HUP, and wait until generation `number` serves (and, with `gone`, nobody else does any
        more).
        """
        self.signal("HUP")
        event = self.wait("serving", generation=number)
        if gone:
            self.alone(event["generation"])
        return event

    def alone(self, number: int) -> None:
        """Wait until nobody of an earlier generation is left: until then, one of them may still
        answer.
        """
        for old in [each for each in self.seen("worker_started") if each["generation"] < number]:
            until(lambda pid=old["pid"]: pid not in self.workers(), f"the end of {old['pid']}")

    def workers(self) -> list[int]:
        """The workers started and not ended since, as the log has it."""
        gone = {
            each["pid"] for each in self.events if each["event"] in ("worker_exited", "worker_died")
        }
        return [each["pid"] for each in self.seen("worker_started") if each["pid"] not in gone]

    def exit(self) -> int:
        """Wait for the end; the exit status. Nothing may be left of it."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.seen("internal_error") == []
        assert marked(self.mark) == []
        return status

    def stop(self, name: str = "TERM") -> int:
        self.signal(name)
        return self.exit()

    def clean_up(self) -> None:
        """End everything it started, by pid, whatever state the test left it in."""
        for pid in (
            [self.pid, *marked(self.mark)] if self.process.poll() is None else marked(self.mark)
        ):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for each in self.seen("control_socket_opened"):
            Path(each["path"]).unlink(missing_ok=True)
        self.process.stderr.close()

    def get(self, path: str = "/") -> str:
        """The body of one request on a connection of its own."""
        return get(self.port, path)

    def __str__(self) -> str:
        lines = [each["message"] for each in self.events]
        return "\n".join(["--- sidecar's log", *lines, "--- other output", *self.output])


def get(port: int, path: str = "/", timeout: float = PATIENCE) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = read_response(sock)
        if answer is None:
            raise ConnectionResetError("closed without an answer")
        return answer[1]


def read_response(sock: socket.socket) -> tuple[bool, str] | None:
    """One HTTP response: (whether the server keeps the connection, the body); None if it was closed
    before the first byte.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            if data:
                raise ConnectionResetError("closed within the answer's head")
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    if " 200 " not in status + " ":
        raise AssertionError(f"answered {status!r}")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    keep = headers.get("connection", "keep-alive").lower() != "close" and status.startswith(
        "HTTP/1.1"
    )
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while not body.endswith(b"0\r\n\r\n"):
            more = sock.recv(65536)
            if not more:
                raise ConnectionResetError("closed within the answer")
            body += more
        return keep, body.decode(errors="replace")
    length = int(headers.get("content-length", -1))
    while length < 0 or len(body) < length:
        more = sock.recv(65536)
        if not more:
            if length < 0:
                break
            raise ConnectionResetError("closed within the answer")
        body += more
    return keep, body.decode(errors="replace")


class Notified:
    """The socket of a service manager (NOTIFY_SOCKET), at a path or an abstract `@name`: what it
    was told, by whom.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self._socket.settimeout(PATIENCE)
        self.told: list[dict[str, str]] = []
        self.senders: set[int] = set()

    def __enter__(self) -> Notified:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def next(self, **wanted: str) -> dict[str, str]:
        """Read on until a message has these values; the message."""
        while True:
            data, ancillary, _, _ = self._socket.recvmsg(4096, 100)
            self.senders |= {
                struct.unpack("=iII", each)[0]
                for _, kind, each in ancillary
                if kind == socket.SCM_CREDENTIALS
            }
            self.told.append(dict(line.split("=", 1) for line in data.decode().splitlines()))
            if wanted.items() <= self.told[-1].items():
                return self.told[-1]

    def states(self) -> list[str]:
        """What was told so far but for STATUS."""
        return [
            name for each in self.told for name in each if name not in ("STATUS", "MONOTONIC_USEC")
        ]


class Load:
    """Requests without end from several threads, as a context manager: half on connections of their
    own, half on kept ones.

    `answered` counts answers, `failures` says what went wrong. `reopened` counts kept connections
    that were found closed before the first byte of an answer: every HTTP client opens another then
    (RFC 9112, 9.3.1), so does this one, and the request has to succeed there.
    """

    def __init__(
        self, port: int, one_shot: int = 2, kept: int = 2, path: str = "/", pause: float = 0.004
    ) -> None:
        self.port, self.path, self.pause = port, path, pause
        self.answered = self.reopened = 0
        self.failures: list[str] = []
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._one_shot, daemon=True) for _ in range(one_shot)
        ]
        self._threads += [threading.Thread(target=self._kept, daemon=True) for _ in range(kept)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        until(lambda: self.answered > len(self._threads), "the load's first answers")
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads)

    def _count(self, failure: str = "") -> None:
        with self._lock:
            if failure:
                self.failures.append(failure)
            else:
                self.answered += 1

    def _one_shot(self) -> None:
        while not self._end.wait(self.pause):
            try:
                get(self.port, self.path, 20.0)
                self._count()
            except (OSError, AssertionError) as error:
                self._count(f"one-shot: {type(error).__name__} {error}")

    def _kept(self) -> None:
        sock: socket.socket | None = None
        while not self._end.wait(self.pause):
            try:
                sock = self._request(sock)
                self._count()
            except (OSError, AssertionError) as error:
                self._count(f"kept: {type(error).__name__} {error}")
                sock = None
        if sock is not None:
            sock.close()

    def _request(self, sock: socket.socket | None) -> socket.socket | None:
        reused = sock is not None
        for _ in range(2):
            sock = sock or socket.create_connection(("127.0.0.1", self.port), 20.0)
            try:
                sock.sendall(f"GET {self.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                answer = read_response(sock)
            except OSError:
                if not reused:
                    raise
                answer = None
            if answer is not None:
                if answer[0]:
                    return sock
                sock.close()
                return None
            sock.close()
            if not reused:
                raise ConnectionResetError("closed without an answer")
            self.reopened += 1
            sock, reused = None, False
        return None


def readable_by_all(tmp_path: Path) -> str:
    """The tests' program where every user may read it. (The tests' interpreter and checkout may be
    below a directory that only root may enter.)
    """
    program = tmp_path / "server.py"
    shutil.copy(APPS / "server.py", program)
    for path in [program, *program.parents][:-1]:
        if path.is_relative_to("/tmp"):
            path.chmod(path.stat().st_mode | 0o055)
    return str(program)


def lines_of(path: Path) -> Iterator[str]:
    yield from path.read_text().splitlines()
