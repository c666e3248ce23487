"""The dev loop in a container: the compose file's profile `dev`, and files that the engine copies
in.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time

import pytest

from .conftest import HARDENED
from .containers import PATIENCE, Load, fetch

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

APP = """
import os
GREETING = os.environ.get("GREETING", "")

def app(environ, start_response):
    body = f"version {} {GREETING}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def version(number: int | str) -> str:
    return APP.replace("{}", str(number), 1)


def wait(question, what: str, log) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if question():
                return
        except OSError:
            pass
        time.sleep(0.05)
    pytest.fail(f"never: {what}; the log:\n{log()}")


def test_the_profile_dev_serves_what_is_saved_and_never_what_is_broken(compose_project, images):
    """Through the bind mount, with a read-only root, as uid 1000. Nobody who asks meanwhile gets an
    error.
    """
    project = compose_project
    project.run("--profile", "dev", "up", "--build", "-d", "dev")
    port = project.port_of("dev")
    app, env = project.directory / "examples/hello/app.py", project.directory / "env/GREETING"

    def log() -> str:
        return project.log("dev")

    project.wait_answer("dev", env.read_text().strip())
    wait(lambda: "watching" in log(), "the watch", log)
    good = app.read_text()
    with Load(port, lambda body: body.partition(" from generation")[0]) as load:
        app.write_text(good.replace("{GREETING} from", "{GREETING}, mended, from"))
        # Not by the answers alone: a generation answers before it has been seen to, and a save then
        # gives it up.
        wait(lambda: "generation 2 serves" in log(), "generation 2", log)
        load.wait_for(env.read_text().strip() + ", mended,", 5)
        app.write_text("x = = 1\n")
        wait(lambda: "save to try again" in log(), "the failure", log)
        load.wait_for(env.read_text().strip() + ", mended,", 20)
        app.write_text(good)
        load.wait_for(env.read_text().strip(), 5)
        env.write_text("from the host\n")
        load.wait_for("from the host", 5)
    assert load.failed == []
    said = log()
    assert "mended" in said
    assert "environment: GREETING" in said
    assert "\033" not in said
    container = next(
        each
        for each in project.containers()
        if each["Config"]["Labels"]["com.docker.compose.service"] == "dev"
    )
    assert container["HostConfig"]["ReadonlyRootfs"] is True
    assert container["Config"]["User"] == "1000:1000"

    def health() -> str:
        inspected = subprocess.run(
            ["docker", "inspect", container["Id"]], capture_output=True, text=True, check=True
        ).stdout
        return json.loads(inspected)[0]["State"]["Health"]["Status"]

    wait(lambda: health() == "healthy", "a healthy container", log)
    project.run("--profile", "dev", "stop")
    assert [each["State"]["ExitCode"] for each in project.containers()] == [0]


def put(running, directory: str, files: dict[str, str]) -> None:
    """`docker cp` into the container."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(text), int(time.time()), 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    assert running.container.put_archive(directory, buffer.getvalue())


PROGRAM = ("gunicorn", "-w", "1", "--worker-tmp-dir", "/dev/shm", "--no-control-socket", "app:app")


def test_files_copied_in_by_the_engine_are_served(run_container, images, tmp_path):
    """As `docker compose watch` syncs them: one swap, and a broken one changes nothing."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "app.py").write_text(version(1))
    os.chmod(tree, 0o755)
    running = run_container(
        "--log-format", "json", "--port", "8080", "--watch", "/tree", "--watch-settle", "800ms", "--dir", "/tree", "--", *PROGRAM,
        app="", image=images.example, mounts={tree: ("/tree", "rw")},
    )  # fmt: skip
    running.wait_event("watching")
    running.wait_event("serving")
    put(running, "/tree", {"app.py": version(2), "more.py": "x = 1\n"})
    assert running.wait_event("serving", generation=2)["trigger"] == "watch"
    running.wait_event("generation_ended", generation=1)  # until then it may take a connection
    assert fetch(running.port)[1].startswith("version 2")
    put(running, "/tree", {"app.py": "x = = 1\n"})
    running.wait_event("swap_failed", generation=3)
    assert fetch(running.port)[1].startswith("version 2")
    put(running, "/tree", {"app.py": version(3)})
    running.wait_event("serving", generation=4)
    assert len(running.events("swap_started")) == 4
    assert running.stop() == 0


def test_files_copied_into_the_containers_own_file_system_are_served(run_container, images):
    """An overlay, without any mount."""
    running = run_container(
        "--log-format", "json", "--port", "8080", "--watch", "/app/examples/hello", "--",
        *PROGRAM[:-1], "examples.hello.app:app", app="", image=images.example,
    )  # fmt: skip
    running.wait_event("watching")
    running.wait_event("serving")
    put(running, "/app/examples/hello", {"app.py": version(2)})
    running.wait_event("serving", generation=2)
    running.wait_event("generation_ended", generation=1)  # until then it may take a connection
    assert fetch(running.port)[1].startswith("version 2")
    assert running.stop() == 0


@pytest.mark.parametrize("user", ["1000:1000", "12345:12345"])
def test_a_changed_envdir_swaps_without_privilege_or_a_place_to_write(run_container, envdir, user):
    (envdir / "GREETING").write_text("one\n")
    running = run_container(
        "--envdir",
        "/env",
        "--watch-env",
        mounts={envdir: ("/env", "ro")},
        user=user,
        network_mode="none",
        **HARDENED,
    )
    assert running.wait_event("watching")["mode"] == "inotify"
    running.wait_event("serving")
    (envdir / "GREETING").write_text("two\n")
    assert running.wait_event("serving", trigger="envdir")["changed"] == ["GREETING"]
    assert running.stop() == 0
    assert not running.events("helper_exited")
