"""A real engine, the image built from this checkout, containers that never outlive their test."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import docker.errors
import pytest

from .compose_project import Project
from .containers import NGINX_IMAGE, PATIENCE, PYTHON_IMAGE, Running

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent
APPS = HERE / "apps"

LABEL = "sidecar-test.container"
HARDENED = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}


@contextlib.contextmanager
def one_builds() -> Iterator[None]:
    """Where tests run side by side, one of them builds, and the others find it built."""
    with open(Path(tempfile.gettempdir()) / "sidecar-test-builds", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def engine():
    """The Docker engine, with the base image in it; started if it can be. Skips where there is
    none.
    """
    with one_builds():
        made = subprocess.run([HERE / "base-image"], capture_output=True, text=True, check=False)
    if made.returncode == 3:
        pytest.skip(made.stderr.strip())
    assert made.returncode == 0, made.stderr
    client = docker.from_env(timeout=PATIENCE * 2)
    yield client
    left = client.containers.list(all=True, filters={"label": f"{LABEL}={os.getpid()}"})
    client.close()
    assert not left


class Images:
    """What a session builds: the images' ids."""

    def __init__(self, sidecar: str, example: str) -> None:
        self.sidecar = sidecar
        self.example = example


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """What is built and mounted, as it was at one moment: the session sees one state of it, whoever
    is editing.
    """
    copy = tmp_path_factory.mktemp("checkout")
    for name in (
        ".dockerignore",
        "Dockerfile",
        "README.md",
        "compose.yml",
        "compose.watch.yml",
        "pyproject.toml",
    ):
        shutil.copy(CHECKOUT / name, copy)
    for name in ("env", "examples", "image", "sidecar"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="session")
def images(engine, checkout):
    """The image and the demonstration's."""
    # One name for each checkout, so that two of them on one engine do not take each other's away.
    # Stages that nothing else refers to have a name too: their layers are what makes the next build
    # quick, and they go when a newer one takes the name.
    name = "sidecar-test/" + hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]
    targets = ("build", "sidecar", "example-build", "example")
    with one_builds():
        ids = {target: build(engine, checkout, target, f"{name}:{target}") for target in targets}
    return Images(ids["sidecar"], ids["example"])


@pytest.fixture(scope="session")
def bare(engine, images, checkout):
    """An image without Python that /opt/sidecar was copied into: examples/bare, with nginx as the
    program.
    """
    name = "sidecar-test/" + hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]
    with one_builds():
        made = subprocess.run([HERE / "bare-image"], capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        return build(
            engine,
            checkout / "examples/bare",
            "",
            f"{name}:bare",
            SIDECAR_IMAGE=f"{name}:sidecar",
            NGINX_IMAGE=NGINX_IMAGE,
        )


def build(engine, directory: Path, target: str, tag: str, **arguments: str) -> str:
    try:
        before = engine.images.get(tag).id
    except docker.errors.ImageNotFound:
        before = ""
    try:
        image, _ = engine.images.build(
            path=str(directory),
            target=target,
            tag=tag,
            rm=True,
            buildargs=arguments or {"PYTHON_IMAGE": PYTHON_IMAGE},
        )
    except docker.errors.BuildError as error:
        pytest.fail(
            "".join(str(entry.get("stream", entry.get("error", ""))) for entry in error.build_log),
            pytrace=False,
        )
    if before and before != image.id:
        # One that is still in use, by this build or by another session's containers, stays; so it
        # does while the engine is too busy.
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                ["docker", "image", "rm", before], capture_output=True, check=False, timeout=10
            )
    return image.id


@pytest.fixture
def envdir(tmp_path):
    """A directory of variables to mount; any user of a container can read it."""
    path = tmp_path / "env"
    path.mkdir()
    path.chmod(0o755)
    return path


@pytest.fixture
def compose_project(engine, checkout, tmp_path):
    """A copy of what compose builds and mounts, to change; its containers, networks and images go
    at the end.
    """
    with Project(shutil.copytree(checkout, tmp_path / "project")) as project:
        yield project


@contextlib.contextmanager
def starting(engine, images) -> Iterator[Callable[..., Running]]:
    """What runs containers of the image; they go at the end."""
    containers = []

    def run(*arguments, image=images.sidecar, app="web.py", mounts=None, **options):
        """`app`: its program is one of ours, in /apps; "" where the arguments say what to run."""
        volumes = {str(APPS): {"bind": "/apps", "mode": "ro"}}
        volumes.update(
            {
                str(source): {"bind": target, "mode": mode}
                for source, (target, mode) in (mounts or {}).items()
            }
        )
        command = list(arguments)
        if app:
            command = [
                "--log-format",
                "json",
                "--port",
                "8080",
                *command,
                "--",
                "python3",
                f"/apps/{app}",
            ]
        if options.get("network_mode") != "none":
            options.setdefault("ports", {"8080/tcp": ("127.0.0.1", None)})
        container = engine.containers.create(
            image, command, volumes=volumes, labels={LABEL: str(os.getpid())}, detach=True, **options
        )  # fmt: skip
        running = Running(container)
        containers.append(running)
        running.start()
        return running

    try:
        yield run
    finally:
        for running in containers:
            running.remove()


@pytest.fixture
def run_container(engine, images):
    """Run a container of the image, `sidecar run` with these arguments; further words are docker's
    own options.

    The test programs are at /apps. Port 8080 is published where the container has a network.
    """
    with starting(engine, images) as run:
        yield run


@pytest.fixture(scope="session")
def one_container(engine, images):
    """One that serves with two workers, for tests that only look."""
    with starting(engine, images) as run:
        running = run("--workers", "2", **HARDENED)
        running.wait_event("serving")
        yield running
