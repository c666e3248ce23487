"""Programs that take jobs from a queue and have no port: their recipes and profiles by a real run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT, free_port, until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

BIN = Path(sys.executable).parent
SWAPS, JOBS = 3, 12
# The programs; each has a page and a profile by its name.
QUEUES = ("celery", "rq")


class Queue:
    """Somewhere to put jobs. `program` is the plainest way to work at them."""

    def __init__(self, name: str, folder: Path, url: str = "") -> None:
        self.name, self.folder = name, folder
        self.env = {
            "TASKS": str(folder), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "RQ_REDIS_URL": url, "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        module = "examples.recipes.celery_tasks"
        self.program = (
            ("celery", "-A", module, "worker", "-c", "1") if name == "celery" else ("rq", "worker")
        )

    def put(self, *numbers: int) -> None:
        """Ask for a file for each number."""
        code = (
            "import sys; from examples.recipes.celery_tasks import greet; [greet.delay(n) for n in sys.argv[1:]]"
            if self.name == "celery"
            else "import os, sys, redis, rq; q = rq.Queue(connection=redis.Redis.from_url(os.environ['RQ_REDIS_URL']));"
            " [q.enqueue('examples.recipes.rq_jobs.greet', n) for n in sys.argv[1:]]"
        )
        subprocess.run(
            [sys.executable, "-c", code, *map(str, numbers)],
            env={**os.environ, **self.env}, cwd=ROOT, check=True,
        )  # fmt: skip

    def done(self) -> int:
        """How many files there are."""
        return len(list(self.folder.glob("greeted-*")))


@pytest.fixture(params=QUEUES)
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    name = request.param
    if not (BIN / name).exists():
        pytest.skip(f"{name} is not installed")
    if name == "celery":
        yield Queue(name, tmp_path)
        return
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    words = [
        "redis-server",
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--save",
        "",
        "--dir",
        str(tmp_path),
    ]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as redis:
        try:
            yield Queue(name, tmp_path, f"redis://127.0.0.1:{port}/0")
        finally:
            redis.terminate()


def test_recipe_loses_no_job_in_a_swap(sidecar, queue):
    """The command as it stands on the page; a job that runs is finished by who has begun it."""
    page = (ROOT / "docs" / "recipes" / f"{queue.name}.md").read_text()
    words = shlex.split(re.search(r"^sidecar run (.*)$", page, re.MULTILINE)[1])
    at = words.index("--")
    run = sidecar(
        *words[:at], program=tuple(words[at + 1 :]), env=queue.env, port=False, cwd=ROOT
    )  # fmt: skip
    assert run.wait("worker_ready")["by"] == "notify"
    for number in range(SWAPS):
        queue.put(*range(number * JOBS, (number + 1) * JOBS))
        before = queue.done()
        until(lambda before=before: queue.done() > before, "a job")
        run.swap(number + 2)
    until(lambda: queue.done() == SWAPS * JOBS, "all jobs")
    assert run.seen("worker_died") == run.seen("worker_killed") == []
    assert run.stop() == 0


def test_profile_waits_longer_than_a_start_that_fails_takes(sidecar, queue):
    """Nobody can look at it, which is said, and it has 10 s instead of one."""
    run = sidecar(program=queue.program, env=queue.env, port=False, cwd=ROOT)
    assert "whether it works or not" in run.wait("notice")["text"]
    ready = run.wait("worker_ready")
    assert ready["by"] == "interval"
    assert ready["after"] >= 10.0
    queue.put(1)
    until(queue.done, "the job")
    assert run.stop() == 0
