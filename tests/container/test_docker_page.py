"""Every command of docs/docker.md is run: here, or by the test that is named here."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.support import ROOT, until

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

# What builds and brings up is done by fixtures, from the same files, with images that can be had
# without a registry.
ELSEWHERE = {
    "docker build --target sidecar -t sidecar .": "the fixture `images`",
    "docker build --target example -t sidecar-example .": "the fixture `images`",
    "docker build -t sidecar-bare examples/bare": "the fixture `bare`",
    "sidecar run --port 8080 --envdir /run/secrets,upper,prefix=APP_ -- gunicorn app:app": "test_secrets_are_variables_…, below",
    "docker compose --profile prod up --build --detach prod front": "test_prod.py, the fixture `prod`",
    "docker compose --profile prod kill -s HUP prod": "test_prod.py::test_a_swap_behind_nginx_loses_nothing",
    "docker compose --profile prod stop": "test_prod.py::test_what_is_in_flight_when_it_is_stopped_is_answered",
}
OURS = ("bare", "patient", "quick")


def commands() -> list[str]:
    page = (ROOT / "docs/docker.md").read_text()
    return [
        line
        for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
        for line in block.splitlines()
    ]


@pytest.fixture
def names():
    """The containers' names on the page, and what they are called here; gone at the end."""
    mine = {name: f"sidecar-docs-{os.getpid()}-{name}" for name in OURS}
    yield mine
    subprocess.run(["docker", "rm", "-f", "-v", *mine.values()], capture_output=True, check=False)


def test_each_command_of_the_page_does_what_it_is_there_for(images, bare, names):
    assert set(ELSEWHERE) <= set(commands())
    said = {}
    for line in commands():
        if line in ELSEWHERE:
            continue
        command = re.sub(r"\bsidecar-bare$", bare, line)
        command = re.sub(r"\bsidecar-example$", images.example, command)
        command = re.sub(r"(--entrypoint \w+) sidecar", rf"\1 {images.sidecar}", command)
        command = command.replace("127.0.0.1:8083:", "127.0.0.1:0:")
        command = re.sub(rf"\b({'|'.join(OURS)})\b", lambda found: names[found[1]], command)
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        said[line] = done.stdout
        # A person is slower than this: `docker run` returns before anything in the container runs.
        if started := re.search(r"--name (\S+)", command):
            live = ["docker", "exec", started[1], "sidecar", "health", "--live"]
            until(
                lambda live=live: (
                    subprocess.run(live, capture_output=True, check=False).returncode == 0
                ),
                f"{started[1]} runs",
            )
    assert (
        "serving" in said["docker exec bare sidecar status"]
        or "starting" in said["docker exec bare sidecar status"]
    )
    for name in ("patient", "quick"):
        state = subprocess.run(
            ["docker", "inspect", "-f", "{{.State.ExitCode}} {{.Config.StopTimeout}}", names[name]],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert state[0] == "0"


def test_secrets_are_variables_with_the_names_asked_for_and_a_changed_one_swaps(
    run_container, envdir
):
    (envdir / "greeting").write_text("first secret\n")
    running = run_container(
        "--envdir", "/run/secrets,upper", "--watch-env", mounts={envdir: ("/run/secrets", "ro")}
    )
    running.wait_event("serving", generation=1)
    assert running.get()[1]["greeting"] == "first secret"
    running.wait_event("watching")
    (envdir / "greeting").write_text("second secret\n")
    assert running.wait_event("environment_changed")["names"] == ["GREETING"]
    running.wait_event("serving", generation=2)
    running.wait_event("worker_exited")
    assert running.get()[1]["greeting"] == "second secret"
    assert not [line for line in running.lines if "secret\n" in line or "first secret" in line]
