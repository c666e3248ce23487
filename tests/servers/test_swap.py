"""Promise 1 with real server programs: many HUPs under load, and not one failed request.

A hundred in all, and as many for each as SIDECAR_SWAPS says. (tests/system/test_continuity.py has a
hundred with a tiny program; it costs real ones 40 s of processor time each.)

Where a server cuts kept connections when it is asked to leave, the client opens another
(`Load.reopened`), as every HTTP client does; what a server would lose of new connections is avoided
as the README says: for uvicorn, `defer` on the listener and leaving in two steps.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, Load

pytestmark = pytest.mark.servers

BIN = Path(sys.executable).parent
SWAPS = int(os.environ.get("SIDECAR_SWAPS", "25"))

GUNICORN = (str(BIN / "gunicorn"), "--no-control-socket", "--chdir", str(ROOT))

UVICORN = (
    str(BIN / "uvicorn"),
    "--fd",
    "3",
    "--no-access-log",
    "--log-level",
    "warning",
    "--app-dir",
    str(ROOT),
    "examples.asgi.app:app",
)
DEFER = ("--port", "127.0.0.1:0,defer")

# name: options of sidecar, module it needs, command, whether kept connections outlive a swap uncut
PROGRAMS = {
    "the bundled example": (
        ("--workers", "2"),
        "gunicorn",
        (*GUNICORN, "-w", "1", "examples.hello.app:app"),
        True,
    ),
    "gunicorn gthread": (
        (),
        "gunicorn",
        (*GUNICORN, "-w", "1", "--threads", "4", "--keep-alive", "5", "examples.hello.app:app"),
        True,
    ),
    "gunicorn asgi": (
        (),
        "gunicorn",
        (*GUNICORN, "-w", "1", "-k", "asgi", "examples.asgi.app:app"),
        False,
    ),
    "uvicorn": (DEFER, "uvicorn", (sys.executable, "-m", "examples.asgi.serve"), False),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PROGRAMS)
def test_many_hups_lose_no_request(sidecar, name):
    options, module, program, uncut = PROGRAMS[name]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed; pip install -e '.[servers]'")
    run = sidecar(
        *options, program=program, port="--port" not in options, env={"GUNICORN_CMD_ARGS": ""}
    )
    run.wait("serving")
    with Load(run.port) as load:
        for number in range(2, SWAPS + 2):
            run.swap(number, gone=False)
    assert load.failures == []
    assert load.answered > SWAPS
    if uncut:
        assert load.reopened == 0
    assert run.seen("worker_died") == []
    assert run.seen("swap_failed") == []
    assert run.stop() == 0


def test_uvicorn_alone_refuses_nobody_and_keeps_nobody_waiting(sidecar):
    """It resets a few of the connections that it has just accepted (README, "The program"); none is
    refused, none times out.
    """
    if importlib.util.find_spec("uvicorn") is None:
        pytest.skip("uvicorn is not installed; pip install -e '.[servers]'")
    run = sidecar(*DEFER, program=UVICORN, port=False)
    run.wait("serving")
    with Load(run.port) as load:
        for number in range(2, 12):
            run.swap(number, gone=False)
    assert [failure for failure in load.failures if "ConnectionReset" not in failure] == []
    assert len(load.failures) < load.answered / 20
