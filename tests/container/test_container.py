"""The image under a real Docker engine: what sidecar promises as the first process of a container.

Nothing here is measured in seconds. That something ended by itself shows in its exit status (the
engine's SIGKILL makes 137) and in its log; that something has come shows in the log, too.
"""

from __future__ import annotations

import json
import time

import pytest

from .conftest import HARDENED
from .containers import PATIENCE, Load, fetch, in_background, terminal

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]


def generation_of(body: str) -> int:
    return json.loads(body)["generation"]


def wait_no_zombies(running, count: int) -> None:
    """Return when no process in there waits to be reaped and `count` are left."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        states = running.processes()
        if "Z" not in states.values() and len(states) == count:
            return
    pytest.fail(f"still there: {states}; the log:\n" + "\n".join(running.lines))


# --- the image itself


def test_image_runs_sidecar_as_nobody_in_particular(engine, images):
    config = engine.images.get(images.sidecar).attrs["Config"]
    assert config["Entrypoint"] == ["sidecar", "run"]
    assert config["Cmd"] is None
    assert config["User"] == "1000:1000"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.title"] == "sidecar"


def test_everything_is_compiled_already(one_container):
    code = """
import pathlib
for source in pathlib.Path("/opt/sidecar/lib").rglob("*.py"):
    if not list((source.parent / "__pycache__").glob(source.stem + ".*.pyc")):
        print(source)
"""
    assert one_container.python(code) == ""


def test_modules_of_the_application_do_not_get_into_pid_1(run_container):
    running = run_container(
        environment={"PYTHONPATH": "/apps/hostile"}, working_dir="/apps/hostile"
    )
    running.wait_event("serving")
    assert running.get()[0] == 200


def test_python3_is_the_images_own_not_sidecars(one_container):
    found = one_container.python("import shutil; print(shutil.which('python3'))")
    assert not found.startswith("/opt/sidecar")


# --- PID 1


def test_sidecar_is_pid_1_and_has_one_thread(one_container):
    assert "sidecar run" in one_container.proc("cmdline")
    assert "Threads:\t1\n" in one_container.proc("status")
    assert one_container.get()[1]["parent"] == 1


def test_orphans_are_reaped_and_never_taken_for_a_worker(run_container):
    running = run_container()
    running.wait_event("serving")
    before = running.get()[1]["pid"]
    adopters = running.get("/orphans")[1]
    assert len(adopters) == 50
    assert set(adopters) == {1}
    wait_no_zombies(running, 2)
    assert running.get()[1]["pid"] == before
    assert len(running.events("worker_started")) == 1
    assert not running.events("worker_died")
    assert not running.events("worker_exited")


def test_what_docker_exec_leaves_behind_is_reaped(run_container):
    running = run_container()
    running.wait_event("serving")
    running.python(
        "import os\nfor _ in range(20):\n    if os.fork() == 0:\n        os.read(0, 1)\n        os._exit(3)"
    )
    wait_no_zombies(running, 2)
    assert running.stop() == 0


def test_orphans_are_reaped_and_nothing_is_made_of_it_where_docker_init_is_pid_1(run_container):
    running = run_container(init=True)
    running.wait_event("serving")
    sidecar = running.get()[1]["parent"]
    assert sidecar != 1
    before = len(running.lines)
    assert set(running.get("/orphans")[1]) == {sidecar}
    wait_no_zombies(running, 3)
    assert {event["event"] for event in running.events()[before:]} == {"orphan_reaped"}
    assert {event["level"] for event in running.events()} == {"info"}
    assert running.stop() == 0


def test_start_server_is_the_other_door(run_container):
    """Server::Starter's command is there too, as PID 1, and says its lines."""
    running = run_container(
        "--port",
        "8080",
        "--",
        "python3",
        "/apps/web.py",
        app="",
        entrypoint=["start_server"],
        **HARDENED,
    )
    running.wait_until(
        lambda: any(line.startswith("starting new worker") for line in running.lines),
        "the first worker",
    )
    assert running.get()[1]["parent"] == 1
    running.container.kill("HUP")
    running.wait_until(
        lambda: any(line.startswith("old worker ") for line in running.lines),
        "the old worker's end",
    )
    assert running.get()[1]["generation"] == 2
    assert running.stop() == 0
    assert running.lines[-1] == "exiting"


# --- leaving


def test_docker_stop_lets_the_request_in_flight_be_answered(run_container):
    running = run_container()
    running.wait_event("serving")
    port, answers = running.port, []
    with in_background(lambda: answers.append(fetch(port, "/slow"))):
        running.wait_line("slow request begun")
        assert running.stop() == 0
    assert answers == [(200, '"slow"')]
    assert running.events("stopped")[0]["left"] == []
    assert not running.events("worker_killed")
    assert not running.state["OOMKilled"]


def test_a_pid_1_that_does_not_listen_is_what_137_looks_like(run_container):
    """The control to every stop here: the same image, the same engine, no handler."""
    running = run_container(
        "-c",
        "import time; print('up', flush=True); time.sleep(600)",
        app="",
        entrypoint=["python3"],
    )
    running.wait_line("up")
    assert running.stop(grace=1) == 137


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_every_stop_signal_an_image_may_name_stops_cleanly(run_container, name):
    running = run_container(stop_signal=name)
    running.wait_event("serving")
    assert running.stop() == 0
    assert running.events("stopping")[0]["signal"] == name.removeprefix("SIG")
    assert [line for line in running.lines if line.startswith("worker got")] == [
        "worker got SIGTERM"
    ]


def test_ctrl_c_in_a_terminal_stops_once(run_container):
    running = run_container(tty=True, stdin_open=True)
    running.wait_event("serving")
    with terminal(running) as keyboard:
        keyboard.send(b"\x03")
        assert running.wait() == 0
    assert [event["signal"] for event in running.events("stopping")] == ["INT"]
    assert [line for line in running.lines if line.startswith("worker got")] == [
        "worker got SIGTERM"
    ]
    assert not running.events("worker_died")


def test_a_worker_deaf_to_the_stop_is_killed_by_sidecar_not_by_the_engine(run_container):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    running = run_container(
        "--log-format", "json", "--drain-timeout", "500ms", "--", "python3", "-c", code, app=""
    )
    running.wait_line("deaf")
    running.wait_event("serving")
    assert running.stop() == 0
    assert running.events("worker_killed")
    assert running.events("stopped")[0]["left"] == []


# --- swapping


def test_hup_swaps_under_load_and_brings_the_changed_envdir(run_container, envdir):
    (envdir / "GREETING").write_text("first\n")
    running = run_container("--workers", "2", "--envdir", "/env", mounts={envdir: ("/env", "ro")})
    running.wait_event("serving", generation=1)
    with Load(running.port, lambda body: json.loads(body)["greeting"]) as load:
        load.wait_for("first", 50)
        for generation, greeting in ((2, "second"), (3, "third")):
            (envdir / "GREETING").write_text(f"{greeting}\n")
            running.container.kill("HUP")
            running.wait_event("serving", generation=generation)
            load.wait_for(greeting, 50)
    assert not load.failed
    running.wait_event("generation_ended", generation=2)
    assert running.get()[1]["generation"] == 3


def test_the_demonstration_swaps_under_load(run_container, images, checkout):
    running = run_container(
        image=images.example, app="", environment={"SIDECAR_LOG_FORMAT": "json"}, **HARDENED
    )
    running.wait_event("serving", generation=1)
    greeting = (checkout / "env/GREETING").read_text().strip()
    with Load(running.port, lambda body: greeting in body) as load:
        load.wait_for(True, 50)
        running.container.kill("HUP")
        running.wait_event("serving", generation=2)
        load.wait_for(True, 50)
    assert not load.failed
    assert not load.answers[False]
    assert running.stop() == 0


def test_a_broken_generation_changes_nothing(run_container, envdir):
    running = run_container("--envdir", "/env", app="breakable.py", mounts={envdir: ("/env", "ro")})
    running.wait_event("serving", generation=1)
    (envdir / "BROKEN").write_text("top secret\n")
    with Load(running.port, generation_of) as load:
        running.container.kill("HUP")
        failed = running.wait_event("swap_failed", generation=2)
        load.wait_for(1, 50)
    assert not load.failed
    assert set(load.answers) == {1}
    assert "9" in failed["cause"]
    assert not [line for line in running.lines if "top secret" in line]


# --- the exit status of a program that cannot be started


@pytest.mark.parametrize(
    ("program", "status"),
    [
        (["no-such-program"], 127),
        (["/apps/web.py.missing"], 127),
        (["/apps/not-executable"], 126),
        (["python3", "-c", "raise SystemExit(3)"], 3),
        (["python3", "-c", "import os; os.kill(os.getpid(), 11)"], 128 + 11),
    ],
    ids=["not found", "path not found", "not executable", "exits 3", "segfault"],
)
def test_the_container_ends_with_the_programs_own_status(run_container, program, status):
    running = run_container("--log-format", "json", "--max-failures", "1", "--", *program, app="")
    assert running.wait() == status
    # What is not there, or may not be run, is refused before anything is started.
    assert [each["status"] for each in running.events("gave_up")] == [status] * (
        status not in (126, 127)
    )


@pytest.mark.parametrize(
    "arguments",
    [["--no-such-option", "--", "true"], ["--workers", "none", "--", "true"], ["--port", "8080"]],
    ids=["unknown option", "bad value", "no program"],
)
def test_a_bad_setting_is_refused_with_status_2(run_container, arguments):
    running = run_container(*arguments, app="")
    assert running.wait() == 2
    assert not running.events("worker_started")
    assert running.lines


def test_the_reason_is_left_where_kubernetes_looks_for_it(run_container, tmp_path):
    reason = tmp_path / "termination-log"
    reason.touch()
    reason.chmod(0o666)
    running = run_container(
        "--max-failures", "1", "--", "no-such-program", app="", mounts={reason: ("/dev/termination-log", "rw")}, **HARDENED
    )  # fmt: skip
    assert running.wait() == 127
    assert "no-such-program" in reason.read_text()


# --- little privilege, little room


@pytest.mark.parametrize("user", ["1000:1000", "12345:12345"])
def test_it_needs_no_privilege_no_place_to_write_and_no_network(run_container, user):
    """Ready by accept, which looks into /proc and other processes' memory, all the same."""
    running = run_container("--ready", "accept", user=user, network_mode="none", **HARDENED)
    running.wait_event("serving")
    assert running.events("worker_ready")[0]["by"] == "accept"
    assert not running.events("readiness_probe_unavailable")
    uid, gid = map(int, user.split(":"))
    status, who = running.get_inside()
    assert (status, who["user"], who["group"]) == (200, [uid] * 3, [gid] * 3)
    running.container.kill("HUP")
    running.wait_event("serving", generation=2)
    running.wait_event("generation_ended", generation=1)
    assert running.get_inside()[1]["generation"] == 2
    assert running.stop() == 0


def test_auto_readiness_is_accept_in_a_container(one_container):
    assert one_container.events("worker_ready")[0]["by"] == "accept"
    assert not one_container.events("readiness_probe_unavailable")


def test_nothing_is_written_to_the_containers_file_system(run_container):
    running = run_container()
    running.wait_event("serving")
    running.container.kill("HUP")
    running.wait_event("serving", generation=2)
    assert running.stop() == 0
    # Where something is mounted, the engine itself makes the place.
    changed = [change["Path"] for change in running.container.diff() or []]
    assert [path for path in changed if path != "/apps"] == []


AS_ROOT = (
    "--log-format",
    "json",
    "--port",
    "80",
    "--user",
    "1000",
    "--drain-timeout",
    "2s",
    "--",
    "python3",
    "/apps/web.py",
)


@pytest.mark.parametrize(
    "arguments", [AS_ROOT, ("--group", "1000", *AS_ROOT)], ids=["user alone", "user and group"]
)
def test_root_binds_and_the_workers_are_unprivileged(run_container, arguments):
    running = run_container(*arguments, app="", user="0:0")
    running.wait_event("serving")
    status, who = running.get_inside(port=80)
    assert status == 200
    assert who["user"] == [1000] * 3
    assert who["group"] == [1000] * 3
    assert set(who["groups"]) <= {1000}
    assert "CapEff:\t0000000000000000" in running.proc("status", who["pid"])
    assert "Uid:\t0\t0\t0\t0" in running.proc("status")
    running.container.kill("HUP")
    running.wait_event("serving", generation=2)
    assert running.stop() == 0
    assert not running.events("action_failed")


def test_root_sees_the_readiness_of_unprivileged_workers(run_container):
    """A container's root has no CAP_SYS_PTRACE: it looks as the worker's own user."""
    running = run_container(*AS_ROOT, app="", user="0:0")
    for generation in range(1, 6):
        running.wait_event("serving", generation=generation)
        running.container.kill("HUP")
    running.wait_event("serving", generation=6)
    assert {event["by"] for event in running.events("worker_ready")} == {"accept"}
    assert not running.events("readiness_probe_unavailable")


def test_root_without_cap_kill_retires_its_workers_all_the_same(run_container):
    """It may not signal another user's process, but it may become that user for the moment."""
    running = run_container(
        *AS_ROOT, app="", user="0:0", cap_drop=["ALL"], cap_add=["SETUID", "SETGID"]
    )
    running.wait_event("serving")
    running.container.kill("HUP")
    running.wait_event("serving", generation=2)
    running.wait_event("worker_exited")
    assert running.stop() == 0
    assert [line for line in running.lines if line.startswith("worker got")] == [
        "worker got SIGTERM"
    ] * 2
    assert not running.events("action_failed")


def test_root_that_may_not_become_another_user_is_refused_at_once(run_container):
    running = run_container(*AS_ROOT, app="", user="0:0", cap_drop=["ALL"])
    assert running.wait() == 1
    assert any("needs CAP_SETUID and CAP_SETGID" in line for line in running.lines)


def test_no_room_for_another_process_keeps_the_old_generation(run_container):
    running = run_container(pids_limit=24)
    running.wait_event("serving", generation=1)
    assert running.get("/fill")[1] > 0
    running.container.kill("HUP")
    refused = running.wait_event("spawn_failed", generation=2)
    assert (
        "process" in refused["cause"].lower()
        or "EAGAIN" in refused["cause"]
        or "temporarily" in refused["cause"]
    )
    running.wait_event("swap_failed", generation=2)
    assert running.get()[1]["generation"] == 1
    running.get("/release")
    running.container.kill("HUP")
    running.wait_until(
        lambda: [event for event in running.events("serving") if event["generation"] > 1],
        "a later generation",
    )
    running.wait_event("generation_ended", generation=1)  # until then it may take a connection
    assert running.get()[1]["generation"] > 1
    assert running.stop() == 0


def test_another_process_of_the_container_killed_for_memory_is_not_the_end(run_container):
    code = "x = bytearray(512 << 20)"
    running = run_container(mem_limit="96m", memswap_limit="96m")
    running.wait_event("serving")
    status, _ = running.container.exec_run(["python3", "-c", code])
    assert status != 0
    assert running.get()[0] == 200
    assert running.stop() == 0


# --- compose


def test_the_compose_file_builds_serves_and_swaps(compose_project, images):
    """A changed file and a HUP, as the comment in compose.yml says; nobody who asks meanwhile is
    refused.
    """
    compose_project.run("up", "--build", "-d")
    port = compose_project.port_of("app")
    compose_project.wait_answer(
        "app", (compose_project.directory / "env/GREETING").read_text().strip()
    )
    with Load(port, lambda body: "a changed greeting" in body) as load:
        load.wait_for(False, 20)
        (compose_project.directory / "env/GREETING").write_text("a changed greeting\n")
        compose_project.run("kill", "-s", "HUP")
        load.wait_for(True, 20)
    assert not load.failed
    compose_project.run("stop")
    assert [container["State"]["ExitCode"] for container in compose_project.containers()] == [0]


def test_pid_1_is_upgraded_in_place(run_container):
    """USR2 without privileges, on a read-only root: the container's first process, and its workers,
    stay the same ones.
    """
    running = run_container(**HARDENED)
    running.wait_event("serving")
    before = running.processes()
    for count in (1, 2):
        running.container.kill("SIGUSR2")
        running.wait_until(
            lambda count=count: len(running.events("upgraded")) == count, f"{count} upgrades"
        )
    assert running.processes().keys() == before.keys()
    running.container.kill("SIGHUP")
    running.wait_event("generation_ended", generation=1)
    assert [each["pid"] for each in running.events("upgraded")] == [1, 1]
    wait_no_zombies(running, len(before))
