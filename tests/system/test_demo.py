"""What README shows first: the demo, and the commands that it prints."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, free_port, get, until


def test_the_demo_serves_swaps_and_stops_by_ctrl_c(tmp_path):
    if importlib.util.find_spec("gunicorn") is None:
        pytest.skip("gunicorn is not installed; pip install -e '.[servers]'")
    port = free_port()
    env = {
        **os.environ,
        "BIN": str(Path(sys.executable).parent),
        "PORT": str(port),
        "TMPDIR": str(tmp_path),
    }
    with (
        (tmp_path / "out").open("wb") as out,
        subprocess.Popen(
            [ROOT / "examples" / "demo"],
            cwd=ROOT,
            env=env,
            stdout=out,
            stderr=out,
            start_new_session=True,
        ) as demo,
    ):
        try:
            said = (tmp_path / "out").read_text
            until(lambda: "generation 1 serves" in said(), "generation 1")
            assert "generation 1" in get(port)
            pid_file = Path(re.search(r"kill -HUP \$\(cat (\S+)\)", said()).group(1))
            os.kill(int(pid_file.read_text()), signal.SIGHUP)
            until(lambda: "generation 2 serves" in said(), "generation 2")
            os.killpg(demo.pid, signal.SIGINT)
            demo.wait(60)
            assert "stopped, status 0" in said()
            assert not pid_file.parent.exists()
        finally:
            demo.kill()
