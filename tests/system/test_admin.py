"""The admin: probes, metrics, status, events and a page over HTTP, from a helper that may die at
any moment.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import PATIENCE, ROOT, Load, Sidecar, alive, free_port, open_to_others, until

PATHS = ("/livez", "/readyz", "/metrics", "/status", "/events", "/")


class Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.path)


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


@pytest.fixture
def start(sidecar, tmp_path):
    """A sidecar with an admin on a port of its own."""

    def start(*options: str, **keywords: object) -> tuple[Sidecar, Admin]:
        run = sidecar(
            "--admin",
            "127.0.0.1:0",
            "--control",
            str(tmp_path / "control.sock"),
            *options,
            **keywords,
        )
        return run, Admin(run)

    return start


def test_every_path_answers_and_says_what_may_be_done_with_it(start):
    """Types, lengths, HEAD; nothing may be framed, sniffed, cached or read from elsewhere; what is
    no path or no GET is refused.
    """
    run, admin = start()
    run.wait("serving")
    for path in PATHS:
        if path == "/events":
            status, headers, body = admin.get(path, "HEAD")
        else:
            status, headers, body = admin.get(path)
            head = admin.get(path, "HEAD")
            assert (head[0], head[2]) == (200, "")
            assert head[1].keys() == headers.keys()
            assert int(headers["content-length"]) == len(body.encode())
        assert status == 200, path
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert not [name for name in headers if name.startswith("access-control")]
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
            refused = admin.get(path, method)
            assert (refused[0], refused[1]["allow"]) == (405, "GET, HEAD")
    assert admin.get("/nothing")[0] == 404
    assert admin.get("/../../etc/passwd")[0] == 404
    assert admin.get("/readyz?verbose=1")[0] == 200
    run.stop()


def test_the_probes_follow_a_life_from_start_to_stop(start, tmp_path):
    """Starting: alive, not ready. Ready. A failed swap changes nothing. Lame duck: serving on, not
    ready. Stopping: answered to the end.
    """
    (tmp_path / "env").mkdir()
    run, admin = start(
        "--envdir",
        str(tmp_path / "env"),
        "--ready",
        "command",
        "--ready-command",
        f"test -e {tmp_path}/go",
        "--lame-duck",
        "60s",
    )
    run.wait("worker_started")
    assert admin.json("/livez") == (200, {"live": True, "reasons": []})
    assert admin.json("/readyz") == (
        503,
        {"ready": False, "reasons": ["starting: no worker has been ready yet"]},
    )
    assert admin.json("/status")[1]["state"] == "starting"
    (tmp_path / "go").write_text("")
    run.wait("serving")
    assert admin.json("/readyz") == (200, {"ready": True, "reasons": []})
    (tmp_path / "env" / "DIE").write_text("3")
    (tmp_path / "go").unlink()
    run.signal("HUP")
    run.wait("swap_failed")
    assert admin.json("/readyz")[0] == 200
    told = admin.json("/status")[1]
    assert told["last_failure"]["cause"] == "exited with status 3 before it was ready"
    assert told["generation"] == 1
    run.signal("TERM")
    run.wait("stopping")
    assert admin.json("/readyz") == (503, {"ready": False, "reasons": ["stopping: lame duck"]})
    assert admin.json("/livez")[0] == 200
    assert run.get().startswith("hello 1")
    # Even now it comes back.
    before = admin.pid()
    os.kill(before, signal.SIGKILL)
    run.wait("helper_exited")
    assert admin.json("/readyz")[0] == 503
    helper = admin.pid()
    assert run.stop() == 0
    until(lambda: not alive(helper), "the helper's end")


def test_while_workers_drain_it_is_not_ready_but_alive(start):
    """The second half of a stop: nobody takes new connections, the workers have not left."""
    run, admin = start("--drain-timeout", "60s", env={"DEAF": "1"})
    run.wait("serving")
    run.signal("TERM")
    run.wait("stopping")
    status, told = admin.json("/readyz")
    assert (status, told["reasons"]) == (503, ["stopping", "no worker is ready"])
    assert admin.json("/livez")[0] == 200
    assert sample(admin.metrics(), "sidecar_workers", state="draining") == 1
    assert run.stop("INT") == 0


def test_the_metrics_are_what_happened_and_well_formed(start, tmp_path):
    """Swaps by trigger and outcome, restarts, the histogram's sums; HELP and TYPE for each, names
    by the rules, nothing twice.
    """
    (tmp_path / "env").mkdir()
    run, admin = start("--envdir", str(tmp_path / "env"), "--workers", "2", "--min-uptime", "0s")
    run.wait("serving")
    run.wait("worker_ready", count=2)
    run.swap(2)
    (tmp_path / "env" / "DIE").write_text("3")
    run.signal("HUP")
    run.wait("swap_failed")
    (tmp_path / "env" / "DIE").unlink()
    run.signal("HUP")
    number = run.wait("serving", count=3)["generation"]
    run.alone(number)
    until(lambda: admin.json("/status")[1]["state"] == "serving", "two workers")
    victim = run.workers()[0]
    os.kill(victim, signal.SIGKILL)
    run.wait("worker_died", pid=victim)
    until(lambda: admin.json("/status")[1]["restarts"] == 1, "the restart")
    until(lambda: admin.json("/status")[1]["state"] == "serving", "two workers again")

    def used(slot: int) -> float:
        name = "sidecar_worker_cpu_seconds_total"
        return sample(admin.metrics(), name, generation=str(number), slot=str(slot))

    # The kernel counts in hundredths of a second: who has worked less shows nothing yet.
    until(lambda: run.get() and used(0) > 0 and used(1) > 0, "some work of each worker")
    samples = admin.metrics()
    assert sample(samples, "sidecar_swaps_total", trigger="start", outcome="served") == 1
    assert sample(samples, "sidecar_swaps_total", trigger="signal", outcome="served") == 2
    failed = len(run.seen("swap_failed"))
    assert sample(samples, "sidecar_swaps_total", trigger="signal", outcome="failed") == failed
    assert sample(samples, "sidecar_generation") == number
    assert (
        sample(samples, "sidecar_workers", state="ready")
        == sample(samples, "sidecar_workers_wanted")
        == 2
    )
    assert (
        sample(samples, "sidecar_worker_deaths_total")
        == sample(samples, "sidecar_worker_restarts_total")
        == 1
    )
    assert sample(samples, "sidecar_worker_starts_total") == len(run.seen("worker_started"))
    assert (
        sample(samples, "sidecar_state", state="serving") == sample(samples, "sidecar_ready") == 1
    )
    assert sum(value for (name, _), value in samples.items() if name == "sidecar_state") == 1
    for slot in "01":
        assert (
            sample(samples, "sidecar_worker_memory_bytes", generation=str(number), slot=slot)
            > 1 << 20
        )
        assert (
            sample(samples, "sidecar_worker_cpu_seconds_total", generation=str(number), slot=slot)
            > 0
        )
    buckets = sorted(
        (float(dict(labels)["le"]), value)
        for (name, labels), value in samples.items()
        if name.endswith("_bucket")
    )
    counts = [value for _, value in buckets]
    assert counts == sorted(counts)
    assert (
        buckets[-1]
        == (float("inf"), sample(samples, "sidecar_swap_duration_seconds_count"))
        == (float("inf"), 3)
    )
    took = sum(each["took"] for each in run.seen("serving"))
    assert sample(samples, "sidecar_swap_duration_seconds_sum") == pytest.approx(took, rel=1e-3)
    check(admin.get("/metrics")[2])
    assert admin.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")[2].endswith(
        "# EOF\n"
    )
    run.stop()


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


def test_every_metric_is_documented(start):
    run, admin = start("--enable-auto-restart")
    run.wait("serving")
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)", admin.get("/metrics")[2], re.MULTILINE))
    page = (ROOT / "docs" / "admin.md").read_text()
    assert dict(re.findall(r"^\| `(sidecar_\w+)` \| (\w+) \|", page, re.MULTILINE)) == families
    run.stop()


def test_a_helper_killed_again_and_again_costs_no_probe_and_no_request(start):
    """What connects while there is none waits for the next; the counts are PID 1's, so they are the
    same.
    """
    run, admin = start()
    run.wait("serving")
    admin.json("/status")
    before = admin.metrics()
    with Load(run.port) as load:
        for count in range(1, 5):
            os.kill(admin.pid(), signal.SIGKILL if count % 2 else signal.SIGSTOP)
            answers = [admin.json(path)[0] for path in ("/livez", "/readyz", "/livez")]
            assert answers == [200, 200, 200]
            run.wait("helper_exited", count=count, helper="the admin")
    assert load.failures == []
    after = admin.metrics()
    assert sample(after, "sidecar_helper_restarts_total", helper="admin") == 4
    same = {
        key: value
        for key, value in before.items()
        if key[0].startswith(("sidecar_swap", "sidecar_last", "sidecar_worker_starts"))
    }
    assert same == {key: after[key] for key in same}
    assert run.stop() == 0


def test_livez_says_so_when_pid_1_does_not_answer(start):
    run, admin = start()
    run.wait("serving")
    assert admin.json("/livez")[0] == 200
    os.kill(run.pid, signal.SIGSTOP)
    try:
        status, told = admin.json("/livez")
        assert (status, told["live"]) == (503, False)
        assert (
            admin.json("/readyz")[0] == admin.json("/status")[0] == admin.get("/metrics")[0] == 503
        )
        assert admin.get("/")[0] == 200
    finally:
        os.kill(run.pid, signal.SIGCONT)
    assert admin.json("/livez")[0] == 200
    run.stop()


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


@pytest.mark.parametrize(
    "said", ["9" * 5000, "9" * 19, "-1", "x", "\u00b2", "1.0", " ", "1" + "\u0661"]
)
def test_a_last_event_id_that_is_none_is_the_beginning(start, said):
    run, admin = start()
    run.wait("serving")
    with admin.connect() as sock:
        head = b"GET /events HTTP/1.1\r\nLast-Event-ID: " + said.encode() + b"\r\n\r\n"
        sock.sendall(head)
        with sock.makefile("rb") as file:
            first = next(line for line in file if line.startswith(b"id: "))
    assert first == b"id: 1\n"


def test_each_event_is_written_once_for_all_who_listen(start):
    """Two hundred readers and a swap of many workers: a probe does not wait behind them."""
    run, admin = start("--workers", "20")
    run.wait("serving")
    readers = [admin.connect() for _ in range(150)]
    for sock in readers:
        sock.sendall(b"GET /events HTTP/1.1\r\n\r\n")
    end, probes = threading.Event(), []

    def probe() -> None:
        while not end.is_set():
            probes.append(admin.json("/livez")[0])

    thread = threading.Thread(target=probe)
    thread.start()
    run.swap(2)
    end.set()
    thread.join()
    assert set(probes) == {200}
    wanted = b'"event": "serving", "generation": 2'
    for sock in readers[::10]:
        with sock.makefile("rb") as file:
            assert any(wanted in line for line in file)
    for sock in readers:
        sock.close()
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


def test_events_begin_with_the_past_and_go_on_as_they_happen(start):
    """With the log's own words; who comes back says the last that he heard of and misses nothing."""
    run, admin = start()
    run.wait("serving")
    with admin.listen() as events:
        heard = []
        for record in events:
            heard.append(record)
            if record["event"] == "serving":
                break
        assert heard[0]["event"] == "starting"
        assert heard[-1]["message"] == run.wait("serving")["message"]
        run.signal("HUP")
        for record in events:
            heard.append(record)
            if record["event"] == "serving":
                break
    assert [each["number"] for each in heard] == list(range(1, len(heard) + 1))
    with admin.listen(Last_Event_ID=str(heard[2]["number"])) as events:
        assert next(events) == heard[3]
    run.stop()


def test_a_hundred_clients_hear_of_a_swap(start):
    """And one that does not read costs nobody anything."""
    run, admin = start()
    run.wait("serving")
    heard: list[str] = []

    def listen() -> None:
        with admin.listen() as events:
            for record in events:
                if record["event"] == "serving" and record["generation"] == 2:
                    heard.append("it")
                    return

    deaf = admin.connect()
    deaf.sendall(b"GET /events HTTP/1.1\r\n\r\n")
    threads = [threading.Thread(target=listen) for _ in range(100)]
    for thread in threads:
        thread.start()
    helper = admin.pid()
    until(lambda: len(os.listdir(f"/proc/{helper}/fd")) > 105, "a hundred connections")
    run.swap(2)
    for thread in threads:
        thread.join(PATIENCE)
    assert len(heard) == 100
    assert admin.json("/readyz")[0] == 200
    until(lambda: len(os.listdir(f"/proc/{helper}/fd")) < 20, "the connections' end")
    deaf.close()
    assert run.stop() == 0


def test_nothing_secret_is_told(start, tmp_path):
    """Not the values of the envdir, of sidecar's own environment, or what a failing check wrote."""
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "TOKEN").write_text("s3cr3t-envdir")
    check = tmp_path / "check"
    check.write_text('#!/bin/sh\necho "$TOKEN"\n[ -z "$BREAK" ]\n')
    check.chmod(0o755)
    run, admin = start(
        "--envdir",
        str(tmp_path / "env"),
        "--check",
        str(check),
        "--watch-env",
        env={"PASSWORD": "s3cr3t-own"},
    )
    run.wait("serving")
    (tmp_path / "env" / "BREAK").write_text("s3cr3t-break")
    failed = run.wait("swap_failed")
    assert "s3cr3t-envdir" in failed["output"]
    told = "".join(admin.get(path)[2] for path in PATHS if path != "/events")
    with admin.listen() as events:
        for record in events:
            told += json.dumps(record)
            if record["event"] == "swap_failed":
                break
    assert "BREAK" in told
    assert "s3cr3t" not in told
    assert b"s3cr3t" not in Path(f"/proc/{admin.pid()}/environ").read_bytes()
    run.stop()


def test_the_program_gets_none_of_it(start):
    """Its descriptors are those it has without an admin; the helper's are its own."""
    run, admin = start()
    run.wait("serving")
    assert set(json.loads(run.get("/about"))["fds"]) == {"0", "1", "2", "3"}
    os.kill(admin.pid(), signal.SIGKILL)
    run.wait("helper_exited")
    assert admin.json("/livez")[0] == 200
    run.swap(2)
    assert set(json.loads(run.get("/about"))["fds"]) == {"0", "1", "2", "3"}
    kinds = {os.readlink(f"/proc/{admin.pid()}/fd/{fd}").partition(":")[0] for fd in (3, 4, 5)}
    assert kinds == {"socket"}
    run.stop()


def test_on_a_unix_socket(sidecar, tmp_path):
    path = tmp_path / "admin.sock"
    run = sidecar("--admin", f"unix:{path},mode=0600", "--control", "none")
    admin = Admin(run)
    run.wait("serving")
    assert admin.address == str(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert admin.json("/readyz")[0] == 200
    connection = Unix(str(path))
    connection.request("GET", "/status")
    assert json.load(connection.getresponse())["state"] == "serving"
    connection.close()
    assert run.stop() == 0
    assert not path.exists()


def test_where_it_cannot_be_bound_nothing_is_started(sidecar):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        run = sidecar("--admin", f"127.0.0.1:{taken.getsockname()[1]}")
        assert run.exit() == 1
    assert any(
        "--admin 127.0.0.1:" in line and "another process listens there" in line
        for line in run.output
    )
    assert run.seen("worker_started") == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--admin", "u9100"), "it is a UDP port"),
        (("--admin", "9100,defer"), "for what workers get"),
        (("--admin", "nonsense"), "'nonsense' is no port"),
        (("--port", "127.0.0.1:9100", "--admin", "127.0.0.1:9100"), "listens where"),
    ],
)
def test_a_wrong_address_is_refused(sidecar, options, says):
    run = sidecar(*options, port=False)
    assert run.exit() == 2
    assert any(says in line for line in run.output), run.output


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@open_to_others
def test_it_is_the_workers_user_wherever_sidecar_is_installed(start, tmp_path):
    """What talks to the network is not root where the workers are not, even if that user cannot
    read sidecar's own files.
    """
    private = tmp_path / "private"
    shutil.copytree(ROOT / "sidecar", private / "sidecar")
    private.chmod(0o700)
    run, admin = start("--user", "nobody", env={"PYTHONPATH": str(private)}, cwd="/")
    run.wait("serving")
    assert run.seen("helper_exited") == []
    assert admin.json("/readyz")[0] == 200
    assert "</html>" in admin.get("/")[2]
    assert admin.get("/metrics")[0] == 200
    assert admin.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")[0] == 200
    with admin.listen() as events:
        assert next(events)["event"] == "starting"
    status = Path(f"/proc/{admin.pid()}/status").read_text()
    assert set(re.search(r"Uid:(.*)", status)[1].split()) == {"65534"}
    assert re.search(r"CapEff:\s*0+\n", status)
    run.stop()


def test_its_connections_answer_questions_only():
    """Whatever a helper that was taken over sends, PID 1 does not stop, reload or scale."""
    from sidecar.control.server import Control

    control = Control.open("none", [])
    ours, theirs = socket.socketpair()
    control.adopt(ours, ("status",))
    asked = []
    with theirs:
        theirs.sendall(b'{"command": "stop"}\n[1]\n{"command": "status", "id": 7}\n')
        control.turn(0.0, lambda request: (asked.append(request), ([{"done": 0}], None))[1])
        said = [json.loads(line) for line in theirs.recv(4096).splitlines()]
    control.close()
    assert asked == [{"command": "status", "id": 7}]
    assert [each["done"] for each in said] == [2, 2, 0]


def test_without_the_library_all_but_the_metrics_is_there(start, tmp_path):
    """It is said, once, and what to do about it."""
    (tmp_path / "prometheus_client.py").write_text("raise ImportError(name='prometheus_client')\n")
    run, admin = start(env={"PYTHONPATH": f"{ROOT}:{tmp_path}"})
    run.wait("serving")
    # sidecar's own place comes first, then this path, then where the library is installed
    status, _, body = admin.get("/metrics")
    assert status == 501
    assert "prometheus-client" in body
    assert admin.get("/metrics")[0] == 501
    assert admin.json("/readyz")[0] == 200
    assert "prometheus-client" in run.wait("notice")["text"]
    assert len(run.seen("notice")) == 1
    run.stop()


@pytest.mark.parametrize(
    ("host", "env", "warned"),
    [
        ("", {}, True),
        ("0.0.0.0:", {}, False),
        ("127.0.0.1:", {}, False),
        ("", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
    ],
    ids=["port", "all", "loopback", "pod"],
)
def test_a_port_alone_is_warned_of_outside_of_a_container(sidecar, host, env, warned):
    port = free_port()
    run = sidecar("--admin", f"{host}{port}", env={"KUBERNETES_SERVICE_HOST": "", **env})
    run.wait("serving")
    said = [each for each in run.seen("notice") if "--admin" in each["text"]]
    assert [each["level"] for each in said] == ["warning"] * warned
    assert all(f"say --admin 127.0.0.1:{port}" in each["text"] for each in said)
    assert run.stop() == 0
