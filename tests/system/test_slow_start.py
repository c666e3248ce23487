"""--slow-start with tiny programs: who does not know TTOU is not sent it, and where nothing can be
counted it is refused.
"""

from __future__ import annotations

import subprocess
import sys

from tests.support import ROOT, until

# A master without handlers and two processes that take connections. TTOU would stop it, and TTIN
# too (signal(7)).
DEAF = """
import os, signal, socket
listener = socket.socket(fileno=3)
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while True:
            listener.accept()[0].close()
    children.append(child)
signal.signal(signal.SIGTERM, lambda *_: ([os.kill(child, 15) for child in children], os._exit(0)))
while True:
    signal.pause()
"""


def test_a_program_that_does_not_know_ttou_is_replaced_as_a_whole_and_that_is_said(sidecar):
    run = sidecar("--slow-start", program=(sys.executable, "-S", "-c", DEAF))
    run.wait("serving")
    until(lambda: len(children(run.workers()[0])) == 2, "both processes")
    run.swap(2)
    assert [each["what"] for each in run.seen("action_failed")] == [
        "replace its processes one by one (--slow-start)"
    ]
    assert run.seen("worker_shrunk") == []
    assert run.stop() == 0


def test_without_a_listener_to_look_at_it_is_refused():
    words = [
        sys.executable,
        "-m",
        "sidecar",
        "run",
        "--slow-start",
        "--port",
        "127.0.0.1:u0",
        "--",
        "true",
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "--slow-start: there is no TCP or unix listener to look at" in done.stderr


def children(pid: int) -> list[str]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()
