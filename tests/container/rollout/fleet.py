"""What the tests of rollouts share: containers with one label of their own, and a rollout that runs."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import subprocess
import sys
import tarfile

import docker.errors

from tests.container.conftest import APPS, LABEL
from tests.container.containers import PATIENCE, get
from tests.support import until

PROGRAM = [
    "--port",
    "8080",
    "--envdir",
    "/srv/env",
    "--drain-timeout",
    "5s",
    "--",
    "python3",
    "/apps/released.py",
]


def archive(**files: str) -> bytes:
    """A tar archive of these files of /srv (env_X is env/X), and the directories for them."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as made:
        for name in ("srv", "srv/code", "srv/env"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            made.addfile(info)
        for name, text in files.items():
            info = tarfile.TarInfo("srv/" + name)
            info.size = len(text)
            made.addfile(info, io.BytesIO(text.encode()))
    return whole.getvalue()


class Fleet:
    """Some containers with one label of their own; what each serves is asked at its port."""

    def __init__(self, engine, image: str, label: str) -> None:
        self.engine, self.image, self.label = engine, image, label
        self.containers: dict[str, object] = {}

    def start(self, *names: str, **options) -> None:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda name: self._start(name, **options), names))

    def _start(self, name: str, labels=None, **options) -> None:
        # Names of an engine are shared with other sessions.
        container = self.engine.containers.create(
            self.image, options.pop("command", PROGRAM), name=f"{self.label}-{name}", detach=True,
            labels={LABEL: str(os.getpid()), "rollout": self.label, **(labels or {})}, environment={"NAME": name},
            volumes={str(APPS): {"bind": "/apps", "mode": "ro"}}, ports={"8080/tcp": ("127.0.0.1", None)}, **options,
        )  # fmt: skip
        self.containers[name] = container
        container.put_archive(
            "/", archive(**{"code/release.json": '{"version": "v1"}', "code/old": "old"})
        )
        container.start()

    def wait(self) -> None:
        """Until all of them serve. The engine publishes a port before anything listens behind it."""
        for name in self.containers:
            port = self.port(name)
            until(lambda port=port: answers(port), f"{name} serves")

    def execute(self, name: str, *argv: str) -> tuple[int, str]:
        status, output = self.containers[name].exec_run(list(argv))
        return status, output.decode()

    def port(self, name: str) -> int:
        self.containers[name].reload()
        return int(self.containers[name].ports["8080/tcp"][0]["HostPort"])

    def serves(self, name: str) -> tuple[int, str]:
        """The generation and the version that really answer."""
        _, body = get(self.port(name))
        return body["generation"], body["version"]

    def all_serve(self) -> dict[str, tuple[int, str]]:
        return {name: self.serves(name) for name in self.containers}

    def come_to_serve(self, expected: dict[str, tuple[int, str]]) -> None:
        """Wait until they do. A swap is over when the new generation serves; until the old one has
        left, it may still take a connection.
        """
        until(lambda: self.all_serve() == expected, f"they serve {expected}")

    def named(self, report: dict) -> dict[str, dict]:
        """The report's containers by their short names."""
        return {each["name"].removeprefix(f"{self.label}-"): each for each in report["containers"]}

    def remove(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            list(pool.map(self._remove, self.containers.values()))

    def _remove(self, container) -> None:
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)


class Rollout:
    """`sidecar rollout` in a process of its own; its JSON lines as they come."""

    def __init__(self, *words: str, cwd=None, **environ: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "rollout", *words], cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd(), **environ},
        )  # fmt: skip
        self.events: list[dict] = []

    def wait(self, event: str, **fields) -> dict:
        """The next event of this kind."""
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == event and all(
                self.events[-1].get(key) == value for key, value in fields.items()
            ):
                return self.events[-1]
        raise AssertionError(
            f"never: {event} {fields}; {self.events}; {self.process.stderr.read()}"
        )

    def end(self) -> tuple[int, dict]:
        """The exit status and the report."""
        # Not communicate(): it knows nothing of what `wait` has left in the buffer.
        self.events += [json.loads(line) for line in self.process.stdout]
        self.errors = self.process.stderr.read()
        self.process.wait(2 * PATIENCE)
        report = self.events[-1] if self.events and self.events[-1]["event"] == "report" else {}
        return self.process.returncode, report


def answers(port: int) -> bool:
    try:
        return get(port)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def outcomes(fleet: Fleet, report: dict) -> dict[str, str]:
    return {name: each["outcome"] for name, each in fleet.named(report).items()}
