"""Events: the past first, then each as it happens, once for all who listen."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from tests.support import PATIENCE, until
from tests.system.admin.asking import PATHS


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
