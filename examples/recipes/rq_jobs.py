"""Jobs for RQ, and a worker that says when it takes them."""

import os
import time
from pathlib import Path

import rq

from sidecar.worker import ready

FOLDER = Path(os.environ.get("TASKS", "/tmp/tasks"))


class Worker(rq.Worker):
    """RQ's own; with --ready notify it says so when it has registered at Redis."""

    def register_birth(self) -> None:
        """Be known to others."""
        super().register_birth()
        ready()


def greet(name: str) -> None:
    """Take a while, and leave a file."""
    time.sleep(0.2)
    (FOLDER / f"greeted-{name}").touch()
