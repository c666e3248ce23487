"""The compose file, brought up from a copy of what it needs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from .containers import NGINX_IMAGE, PATIENCE, PYTHON_IMAGE, fetch


class Project:
    """A compose project of its own, in `directory`: its containers, networks, volumes and images go
    at the end. Skips where there is no compose.
    """

    def __init__(self, directory: Path) -> None:
        self.command = compose_command()
        self.directory = directory
        self.name = f"sidecar-test-{os.getpid()}"
        # DEMO_PORT 0: any free one. The classic builder is the one that every engine has.
        self.environ = {
            **os.environ, "COMPOSE_PROJECT_NAME": self.name, "PYTHON_IMAGE": PYTHON_IMAGE, "DEMO_PORT": "0",
            "DEMO_DEV_PORT": "0", "DEMO_PROD_PORT": "0", "NGINX_IMAGE": NGINX_IMAGE,
            "COMPOSE_DOCKER_CLI_BUILD": "0", "DOCKER_BUILDKIT": "0",
        }  # fmt: skip

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        # Whatever still runs then is not what a test is about.
        profiles = ("--profile", "dev", "--profile", "prod")
        self.run(*profiles, "down", "--timeout", "0", "--rmi", "local", "--volumes")

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self.command, *arguments], cwd=self.directory, env=self.environ, capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def port_of(self, service: str) -> int:
        """Where 8080 of the service is published, on 127.0.0.1."""
        return int(self.run("--profile", "dev", "port", service, "8080").rpartition(":")[2])

    def containers(self) -> list[dict]:
        ids = subprocess.run(
            ["docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={self.name}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        return json.loads(
            subprocess.run(
                ["docker", "inspect", *ids], capture_output=True, text=True, check=True
            ).stdout
        )

    def log(self, service: str) -> str:
        """What the service has written. Asked of the engine: compose takes half a second to say it."""
        labels = (f"project={self.name}", f"service={service}")
        filters = [f"--filter=label=com.docker.compose.{each}" for each in labels]
        said = ""
        for container in subprocess.run(
            ["docker", "ps", "-aq", *filters], capture_output=True, text=True, check=True
        ).stdout.split():
            said += subprocess.run(
                ["docker", "logs", container],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=True,
            ).stdout
        return said

    def wait_answer(self, service: str, wanted: str) -> None:
        """Ask the service until it listens; the answer must be `wanted`."""
        port = self.port_of(service)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionError):
                status, body = fetch(port)
                assert status == 200
                assert wanted in body
                return
        pytest.fail("it never answered; the log:\n" + self.run("logs"))


def compose_command() -> list[str]:
    """Compose as a plugin of docker's, or the command of old. Skips where there is neither."""
    if (
        shutil.which("docker")
        and subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False
        ).returncode
        == 0
    ):
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    return pytest.skip("neither `docker compose` nor `docker-compose` is installed")
