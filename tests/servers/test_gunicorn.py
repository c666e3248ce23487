"""gunicorn as the README prints it, in the oldest version that is promised and in the one installed:
the same command serves, is swapped, and does so under a read-only root.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, Load, get

pytestmark = pytest.mark.servers

OLDEST = "23.0.0"
# What is printed behind `--` in the README's table, with the application that the tests have.
PRINTED = re.findall(r"^\| gunicorn[^|]*\| `(gunicorn [^`]*)app:app`", (ROOT / "README.md").read_text(), re.MULTILINE)  # fmt: skip

# Everything but /proc and /dev is read-only, as with docker run --read-only and no tmpfs.
READ_ONLY = """
mount --make-rprivate / && mount --bind / "$1" && mount -o remount,ro,bind "$1" || exit 99
mount --rbind /proc "$1/proc" && mount --rbind /dev "$1/dev" || exit 99
shift
for place in $1; do mount --bind "$place" "$ROOT$place" && mount -o remount,ro,bind "$ROOT$place" || exit 99; done
shift
exec chroot "$ROOT" "$@"
"""


@pytest.fixture(scope="session")
def oldest(tmp_path_factory) -> Path:
    """A directory with the oldest version, to stand first in PYTHONPATH."""
    place = tmp_path_factory.mktemp("gunicorn")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    done = subprocess.run(
        [*pip, "--target", str(place), f"gunicorn=={OLDEST}"], capture_output=True, text=True, timeout=100
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"pip cannot install gunicorn {OLDEST} here: {done.stderr.strip()[-200:]}")
    return place


def command(printed: str, app: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *shlex.split(printed), "--chdir", str(ROOT), app)


def test_the_readme_has_a_command_for_gunicorn():
    assert "gunicorn " in PRINTED


@pytest.mark.parametrize("version", ["oldest", "installed"])
def test_the_command_of_the_readme_serves_in_every_version(sidecar, version, request):
    place = str(request.getfixturevalue("oldest")) if version == "oldest" else ""
    run = sidecar(
        program=command("gunicorn ", "examples.hello.app:app"),
        env={"PYTHONPATH": f"{place}:{ROOT}", "GUNICORN_CMD_ARGS": ""},
    )
    run.wait("serving")
    with Load(run.port) as load:
        for number in (2, 3, 4):
            run.swap(number)
    assert load.failures == []
    assert load.answered > 0
    assert any(f"gunicorn {OLDEST}" in line for line in run.output) == (version == "oldest")
    assert run.stop() == 0


def test_a_read_only_root_needs_no_option_either(sidecar, tmp_path):
    """Neither for gunicorn's heartbeat nor for its control socket; home cannot be written either."""
    if (
        os.geteuid() != 0
        or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode
    ):
        pytest.skip("only root can make a root read-only, in a mount namespace of its own")
    root = tmp_path / "root"
    root.mkdir()
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    needed = [each for each in mounts if each != "/" and str(ROOT).startswith(each + "/")]
    run = sidecar(
        "--control", "none",
        program=command("gunicorn ", "examples.hello.app:app"),
        env={"GUNICORN_CMD_ARGS": "", "ROOT": str(root), "TMPDIR": ""},
        wrapper=("unshare", "-m", "sh", "-c", READ_ONLY, "sh", str(root), " ".join(needed)),
        cwd=ROOT,
    )  # fmt: skip
    assert "--worker-tmp-dir /dev/shm" in run.wait("profile_applied")["arguments"]
    run.wait("serving")
    assert "generation 1" in get(run.port)
    run.swap(2)
    assert run.stop() == 0
