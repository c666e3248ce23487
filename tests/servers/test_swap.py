"""Promise 1 with real server programs: a hundred HUPs under load, and not one failed request.

Where a server cuts kept connections when it is asked to leave, the client opens another (`Load.reopened`), as every HTTP client does; what
a server would lose of new connections is avoided as the README says: for uvicorn, `defer` on the listener.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, Load

pytestmark = pytest.mark.servers

BIN = Path(sys.executable).parent
SWAPS = int(os.environ.get("SIDECAR_SWAPS", "100"))

GUNICORN = (str(BIN / "gunicorn"), "--no-control-socket", "--chdir", str(ROOT))

# name: options of sidecar, command, whether kept connections outlive a swap uncut
PROGRAMS = {
    "the bundled example": (("--workers", "2"), (*GUNICORN, "-w", "1", "examples.hello.app:app"), True),
    "gunicorn gthread": ((), (*GUNICORN, "-w", "1", "--threads", "4", "--keep-alive", "5", "examples.hello.app:app"), True),
    "uvicorn": (
        ("--port", "127.0.0.1:0,defer"),
        (str(BIN / "uvicorn"), "--fd", "3", "--no-access-log", "--log-level", "warning", "--app-dir", str(ROOT), "tests.apps.asgi:app"),
        False,
    ),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hundred_hups_lose_no_request(sidecar, name):
    options, program, uncut = PROGRAMS[name]
    module = Path(program[0]).name
    if importlib.util.find_spec(module) is None or not shutil.which(program[0]):
        pytest.skip(f"{module} is not installed; pip install -e '.[servers]'")
    run = sidecar(*options, program=program, port="--port" not in options, env={"GUNICORN_CMD_ARGS": ""})
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
