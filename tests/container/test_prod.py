"""compose.yml's profile `prod`: nginx in front, over a unix socket in a volume that both have
mounted.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time

import pytest

from .compose_project import Project
from .containers import PATIENCE, Load, fetch

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

IN_FLIGHT = 6


@pytest.fixture(scope="module")
def prod(checkout, bare, tmp_path_factory):
    """The project, brought up, and nginx's port; `bare` has made the image that nginx is in. The
    last test stops it.
    """
    with Project(shutil.copytree(checkout, tmp_path_factory.mktemp("prod") / "project")) as project:
        # gunicorn then says what it has been asked, before it answers.
        (project.directory / "env/GUNICORN_CMD_ARGS").write_text("--log-level debug\n")
        project.run("--profile", "prod", "up", "--build", "-d", "prod", "front")
        port = int(project.run("--profile", "prod", "port", "front", "8080").rpartition(":")[2])
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionError):
                fetch(port)
                break
        yield project, port


def container(project, service: str) -> dict:
    return next(
        each
        for each in project.containers()
        if each["Config"]["Labels"]["com.docker.compose.service"] == service
    )


def test_a_swap_behind_nginx_loses_nothing(prod):
    project, port = prod
    with Load(port, lambda body: "behind nginx" in body) as load:
        load.wait_for(False, 50)
        (project.directory / "env/GREETING").write_text("behind nginx\n")
        project.run("--profile", "prod", "kill", "-s", "HUP", "prod")
        load.wait_for(True, 50)
        project.run("--profile", "prod", "kill", "-s", "HUP", "prod")
        load.wait_for(True, 50)
    assert not load.failed
    assert container(project, "prod")["State"]["Health"]["Status"] == "healthy"


def test_what_is_in_flight_when_it_is_stopped_is_answered(prod):
    project, port = prod
    answers = []

    def ask() -> None:
        answers.append(fetch(port, "/slow?10"))

    clients = [threading.Thread(target=ask) for _ in range(IN_FLIGHT)]
    for client in clients:
        client.start()
    deadline = time.monotonic() + PATIENCE
    while project.log("prod").count("GET /slow") < IN_FLIGHT:
        assert time.monotonic() < deadline, "they never came through"
    project.run("--profile", "prod", "stop")
    for client in clients:
        client.join(PATIENCE)
    assert [status for status, _ in answers] == [200] * IN_FLIGHT
    assert [each["State"]["ExitCode"] for each in project.containers()] == [0, 0]
