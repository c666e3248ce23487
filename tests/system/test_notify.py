"""READY=1 from a process that ends at once: `systemd-notify --ready; exec server`."""

from __future__ import annotations

import shutil

import pytest

from tests.support import SERVER, until

#: Waits for the file `go`, has a process send READY=1 and end, and becomes the server.
SENDS = """
while [ ! -e {go} ]; do sleep 0.05; done
{python} -S -c 'import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1))'
echo sent >> {sent}
exec {server}
"""


def sending(tmp_path) -> tuple[str, ...]:
    script = SENDS.format(
        go=tmp_path / "go", sent=tmp_path / "sent", python=SERVER[0], server=" ".join(SERVER)
    )
    return ("sh", "-c", script)


def all_sent(run, tmp_path, count: int) -> None:
    """Have the workers send while sidecar is stopped: it can look at none of the senders."""
    sent = tmp_path / "sent"
    run.signal("STOP")
    (tmp_path / "go").touch()
    until(lambda: sent.exists() and sent.read_text().count("sent") == count, "all have sent")
    run.signal("CONT")


def test_a_sender_that_has_ended_is_believed_where_one_worker_only_is_starting(sidecar, tmp_path):
    run = sidecar("--ready", "notify", program=sending(tmp_path))
    run.wait("worker_started")
    all_sent(run, tmp_path, 1)
    run.wait("worker_ready", by="notify")
    for number in range(2, 6):
        run.swap(number)
    assert run.stop() == 0
    assert run.seen("notice") == []


def test_a_sender_that_has_ended_is_not_believed_where_several_workers_are_starting(
    sidecar, tmp_path
):
    """It may be any one's. That is said, once, and what helps."""
    options = (
        "--ready",
        "notify",
        "--workers",
        "2",
        "--start-timeout",
        "3s",
        "--max-failures",
        "1",
    )
    run = sidecar(*options, program=sending(tmp_path))
    run.wait("worker_started", count=2)
    all_sent(run, tmp_path, 2)
    remark = run.wait("notice")["text"]
    assert remark.startswith("READY=1 came from a process that had ended before it was heard")
    run.wait("gave_up")
    assert run.exit() == 1
    assert len(run.seen("notice")) == 1
    assert run.seen("worker_ready") == []


@pytest.mark.skipif(shutil.which("systemd-notify") is None, reason="there is no systemd-notify")
@pytest.mark.parametrize("option", ["", "--no-block"])
def test_systemd_notify_and_then_the_server(sidecar, option):
    script = f"systemd-notify --ready {option}; exec {' '.join(SERVER)}"
    run = sidecar("--ready", "notify", program=("sh", "-c", script))
    run.wait("serving")
    for number in range(2, 8):
        run.swap(number)
    assert run.stop() == 0
