"""Clients that are silent, slow, too many or not meant: who is answered, and what it costs."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.support import until


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"get / HTTP/1.1\r\n\r\n", 405),
        (b"POST /status HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000, 405),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 431),
        (b"GET /livez HTTP/1.1\r\n" + b"A: b\r\n" * 10_000 + b"\r\n", 431),
        (bytes(range(256)) * 400, 431),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(start, said, status):
    run, admin = start()
    answer = admin.raw(said)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.partition(b"\r\n\r\n")[2].strip()
    assert admin.json("/livez")[0] == 200
    assert run.seen("helper_exited") == []


def test_silent_and_slow_clients_are_in_nobodys_way(start):
    """Three hundred that say nothing or a byte now and then, and who asks is answered at once; in
    the end they are sent away.
    """
    run, admin = start()
    run.wait("serving")
    slow = [admin.connect() for _ in range(300)]
    for number, sock in enumerate(slow):
        if number % 2:
            sock.sendall(b"GET /livez HTT")
    for _ in range(20):
        assert admin.json("/readyz")[0] == 200
    for sock in slow[-3:]:
        answer = b"".join(iter(lambda sock=sock: sock.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 408 ")
    for sock in slow:
        sock.close()
    # Those that do not read what they asked for.
    deaf = [admin.connect() for _ in range(50)]
    for sock in deaf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert admin.json("/readyz")[0] == 200
    for sock in deaf:
        sock.close()
    assert run.seen("helper_exited") == []
    assert run.stop() == 0


def test_a_flood_of_questions_is_a_trickle_for_pid_1(start):
    """Those who ask at the same moment share one answer, and PID 1 is left most of its time for its
    own work.
    """
    run, admin = start()
    run.wait("serving")
    answered, end = [], threading.Event()

    def ask() -> None:
        while not end.is_set():
            answered.append(admin.json("/status")[0])

    def spent() -> float:
        return sum(
            map(int, Path(f"/proc/{run.pid}/stat").read_text().rpartition(")")[2].split()[11:13])
        ) / os.sysconf("SC_CLK_TCK")

    before, began = spent(), time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    until(lambda: len(answered) > 500, "500 answers")
    share = (spent() - before) / (time.monotonic() - began)
    end.set()
    for thread in threads:
        thread.join()
    assert set(answered) == {200}
    assert share < 0.5
    run.stop()


def test_probes_are_answered_in_a_flood_of_questions_and_of_connections(start):
    """More connections than there is time for: whoever is turned away is told so, no probe is."""
    run, admin = start()
    run.wait("serving")
    end, answered = threading.Event(), []

    def flood(path: str) -> None:
        while not end.is_set():
            try:
                answered.append(admin.raw(f"GET {path} HTTP/1.1\r\n\r\n".encode())[:12])
            except ConnectionError:
                answered.append(b"")

    threads = [
        threading.Thread(target=flood, args=(path,)) for path in ("/", "/nothing", "/status") * 10
    ]
    for thread in threads:
        thread.start()
    probes = [admin.json(path)[0] for path in ("/livez", "/readyz") * 100]
    end.set()
    for thread in threads:
        thread.join()
    assert set(probes) == {200}
    assert len(answered) > 200
    assert run.seen("helper_exited") == []
    run.stop()


# --- names
@pytest.mark.parametrize(
    ("options", "host", "status"),
    [
        ((), "127.0.0.1:{port}", 200),
        ((), "10.244.1.7:9100", 200),  # a pod's, as the kubelet and Prometheus ask
        ((), "[fd00::7]:9100", 200),
        ((), "localhost:{port}", 200),
        ((), "LOCALHOST", 200),
        ((), "app.localhost", 200),
        ((), "web:9100", 200),  # a service of compose
        ((), socket.gethostname(), 200),
        ((), "evil.example:{port}", 403),
        ((), "127.0.0.1.evil.example", 403),
        ((), "evil.example.", 403),
        ((), "[evil.example]", 403),
        ((), "10.1", 403),  # a browser makes an address of it
        (("--admin-host", "ops.example"), "ops.example:9100", 200),
        (("--admin-host", "ops.example"), "OPS.example.", 200),
        (("--admin-host", "ops.example"), "x.ops.example", 403),
        (("--admin-host", ".svc"), "web.shop.svc", 200),
        (("--admin-host", "*"), "evil.example", 200),
    ],
)
def test_a_name_that_is_not_ours_is_answered_nothing(start, options, host, status):
    """A page whose name was made to point here (DNS rebinding) would read all of it."""
    run, admin = start(*options)
    host = host.format(port=admin.address.rpartition(":")[2])
    for path in ("/", "/status", "/metrics"):
        head, _, body = admin.raw(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        ).partition(b"\r\n\r\n")
        assert int(head.split()[1]) == status
        assert (b"--admin-host" in body) == (status == 403)
    # Whoever probes may say any name.
    assert admin.raw(f"GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).split()[1] == b"200"
    if status == 403:
        assert "--admin-host" in run.wait("notice")["text"]


def test_a_request_without_a_name_is_from_no_browser(start):
    _, admin = start()
    assert admin.raw(b"GET /status HTTP/1.0\r\n\r\n").split()[1] == b"200"
