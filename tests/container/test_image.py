"""The image itself: what is in it, what it says of itself, and /opt/sidecar in an image that has no
Python.
"""

from __future__ import annotations

import json
import re
import subprocess

import pytest

import sidecar

from .containers import Load, fetch

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

HARDENED = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "user": "1000:1000",
}
# Asked every second, so that a test need not wait for the ten seconds of the image.
OFTEN = {"healthcheck": {"interval": 1_000_000_000}}


def run_inside(image: str, *command: str) -> str:
    argv = [
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        "--entrypoint",
        command[0],
        image,
        *command[1:],
    ]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def wait_health(running, status: str) -> None:
    """Return when the engine itself says so, in its stream of events or in the container's state."""
    events = running.container.client.events(
        decode=True, filters={"container": running.container.id, "event": "health_status"}
    )
    try:
        if running.state["Health"]["Status"] == status:
            return
        for event in events:
            if event["status"] == f"health_status: {status}":
                return
    finally:
        events.close()


def test_image_says_what_it_is_and_which_version(engine, images):
    config = engine.images.get(images.sidecar).attrs["Config"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == sidecar.__version__
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert config["Healthcheck"]["Test"] == ["CMD", "sidecar", "health"]


def test_everything_in_it_has_one_date_and_no_trace_of_its_making(one_container):
    """The same input makes the same bytes (docs/docker.md tells how to compare two builds)."""

    def found(*words: str) -> str:
        status, output = one_container.container.exec_run(["find", "/opt/sidecar", *words])
        assert status == 0, output
        return output.decode()

    assert found("-maxdepth", "0") == "/opt/sidecar\n"
    assert found("-mindepth", "1", "-newermt", "1970-01-02") == ""
    assert found("-perm", "/022", "-not", "-type", "l") == ""
    assert found("-name", "RECORD", "-o", "-name", "direct_url.json") == ""


def test_about_names_every_package_and_the_glibc_it_needs(one_container):
    status, about = one_container.container.exec_run(["cat", "/opt/sidecar/ABOUT"])
    assert status == 0
    names = dict.fromkeys(line.split(":")[0] for line in about.decode().splitlines())
    assert list(names) == ["needs", "python", "package", "library"]


def test_nothing_but_the_two_commands_is_on_path(bare):
    assert run_inside(bare, "ls", "/opt/sidecar/bin").split() == ["sidecar", "start_server"]
    missing = subprocess.run(
        ["docker", "run", "--rm", "--entrypoint", "python3", bare],
        capture_output=True,
        text=True,
        check=False,
    )
    assert missing.returncode == 127


def test_in_an_image_without_python_it_serves_swaps_watches_and_is_healthy(
    run_container, bare, tmp_path
):
    """As uid 1000, with a read-only root and no capability; a saved file swaps under load: no
    request fails.
    """
    conf = tmp_path / "conf"
    conf.mkdir(mode=0o755)
    settings = tmp_path / "settings"
    settings.mkdir(mode=0o755)
    (settings / "good.yml").write_text("workers: 7\n")
    first = run_inside(bare, "cat", "/conf/nginx.conf")
    (conf / "nginx.conf").write_text(first)
    running = run_container(
        image=bare, app="", environment={"SIDECAR_LOG_FORMAT": "json", "SIDECAR_ADMIN": "9100"},
        mounts={conf: ("/conf", "ro"), settings: ("/settings", "ro")},
        ports={"8080/tcp": ("127.0.0.1", None), "9100/tcp": ("127.0.0.1", None)}, **HARDENED, **OFTEN,
    )  # fmt: skip
    running.wait_event("serving", generation=1)
    running.wait_event("watching")
    wait_health(running, "healthy")
    with Load(running.port, lambda body: body.strip()) as load:
        load.wait_for("first", 200)
        running.container.kill("HUP")
        running.wait_event("serving", generation=2)
        load.wait_for("first", 200)
        (conf / "nginx.conf").write_text(first.replace("first", "second"))
        changed = running.wait_event("serving", generation=3)
        load.wait_for("second", 200)
        (conf / "nginx.conf").write_text(
            first.replace("first", "third").replace("return", "no such word")
        )
        running.wait_event("swap_failed", generation=4)
        load.wait_for("second", 200)
    assert not load.failed
    assert changed["trigger"] == "watch"
    status, said = running.container.exec_run(["sidecar", "status", "--json"])
    assert status == 0
    assert json.loads(said)["pid"] == 1
    assert running.container.exec_run(["sidecar", "health"]) == (0, b"ready\n")
    admin = int(running.container.ports["9100/tcp"][0]["HostPort"])
    assert fetch(admin, "/readyz")[0] == 200
    assert "sidecar_generation 3" in fetch(admin, "/metrics")[1]
    # The settings file has a reader, a process like the watcher.
    found = running.container.exec_run(
        ["sidecar", "check", "--config", "/settings/good.yml", "--", "nginx"]
    )[1]
    assert re.search(rb"workers +7 +/settings/good.yml:1", found), found
    # Its own interpreter is nobody else's business.
    worker = running.events("worker_started", generation=3)[0]["pid"]
    status, environ = running.container.exec_run(
        ["perl", "-0ne", "print qq($_\\n)", f"/proc/{worker}/environ"]
    )
    assert status == 0
    names = {line.split(b"=")[0].rstrip(b"\0") for line in environ.splitlines()}
    assert not {name for name in names if name.startswith((b"PYTHON", b"LD_", b"LC_"))}
    assert running.stop() == 0
    assert not running.events("worker_killed")


def test_what_is_never_ready_is_never_healthy(run_container):
    running = run_container(
        "--log-format", "json", "--port", "8080", "--max-failures", "0", "--max-backoff", "100ms", "--", "false", app="",
        healthcheck={"interval": 1_000_000_000, "start_period": 1_000_000, "retries": 2},
    )  # fmt: skip
    wait_health(running, "unhealthy")
    last = running.state["Health"]["Log"][-1]
    assert last["ExitCode"] == 1
    assert "no worker has been ready yet" in last["Output"]


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        ({}, {}),
        ({}, {"tmpfs": {"/run": "uid=1000"}}),
        ({"SIDECAR_CONTROL": "/dev/shm/mine"}, {}),
        ({}, {"init": True}),
    ],
    ids=["/dev/shm", "/run", "SIDECAR_CONTROL", "not PID 1"],
)
def test_health_finds_the_socket_wherever_it_could_be_made(run_container, environment, options):
    running = run_container(environment=environment, **HARDENED, **options)
    running.wait_event("serving")
    where = running.wait_event("control_socket_opened")["path"]
    assert where.startswith(
        environment.get("SIDECAR_CONTROL") or ("/run" if "tmpfs" in options else "/dev/shm")
    )
    assert running.container.exec_run(["sidecar", "health"], user="1000") == (0, b"ready\n")
    # The fast way, which leaves the client and all that it imports alone.
    code = "import sys, os; from sidecar.control import health as probe; print(probe.healthy([], os.environ), 'json' in sys.modules)"
    found = running.container.exec_run(
        ["/opt/sidecar/libexec/python3", "-IS", "-c", code], user="1000"
    )
    assert found == (0, b" False\n" if "init" in options else b"ready False\n")
