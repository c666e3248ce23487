"""`sidecar rollout` over real containers of a real engine: who runs what afterwards is asked of the
containers, not of the report.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading

import docker.errors
import pytest

from sidecar.rollout import job
from sidecar.rollout.archive import archives
from sidecar.rollout.containers import Containers
from sidecar.rollout.engine import StepFailed
from sidecar.rollout.plan import Plan, copy
from tests.support import free_port, until

from .conftest import APPS, LABEL
from .containers import PATIENCE, PYTHON_IMAGE, Load, get

pytestmark = [pytest.mark.container, pytest.mark.timeout(300)]

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
SECRET = "hunter2-is-no-secret"


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

    def named(self, report: dict) -> dict[str, dict]:
        """The report's containers by their short names."""
        return {each["name"].removeprefix(f"{self.label}-"): each for each in report["containers"]}

    def remove(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            list(pool.map(self._remove, self.containers.values()))

    def _remove(self, container) -> None:
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)


@pytest.fixture(scope="module")
def fleets(engine, images):
    """Makes a fleet of containers that serve v1, by their names."""
    made = []

    def make(label: str, *names: str, **options) -> Fleet:
        fleet = Fleet(engine, images.sidecar, f"sidecar-test-{label}-{os.getpid()}")
        made.append(fleet)
        fleet.start(*names, **options)
        fleet.wait()
        return fleet

    yield make
    for fleet in made:
        fleet.remove()


@pytest.fixture(scope="module")
def shop(fleets):
    """Three containers that the tests use one after the other, whatever they serve by then."""
    return fleets("shop", "1", "2", "3")


@pytest.fixture
def release(tmp_path):
    """Makes a directory to be copied."""
    source = tmp_path / "build"
    source.mkdir()

    def make(version: str, **more):
        (source / "release.json").write_text(json.dumps({"version": version, **more}))
        return f"{source}:/srv/code"

    return make


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
        out, self.errors = self.process.communicate(timeout=2 * PATIENCE)
        self.events += [json.loads(line) for line in out.splitlines()]
        report = self.events[-1] if self.events and self.events[-1]["event"] == "report" else {}
        return self.process.returncode, report


def answers(port: int) -> bool:
    try:
        return get(port)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def outcomes(fleet: Fleet, report: dict) -> dict[str, str]:
    return {name: each["outcome"] for name, each in fleet.named(report).items()}


@contextlib.contextmanager
def nginx(tmp_path, ports):
    """A real nginx on this machine in front of these; it hides no failure of theirs."""
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed")
    port = free_port()
    servers = "".join(f"server 127.0.0.1:{each} max_fails=0; " for each in ports)
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log; worker_processes 1; events {{}}\n"
        f"http {{ access_log off; proxy_temp_path {tmp_path}/p; client_body_temp_path {tmp_path}/b; fastcgi_temp_path {tmp_path}/f;\n"
        f"uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s; upstream fleet {{ {servers} }}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://fleet; proxy_next_upstream off; }} }} }}\n"
    )
    process = subprocess.Popen(
        ["nginx", "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")]
    )
    try:
        while True:
            assert process.poll() is None
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), PATIENCE).close()
                break
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)


# --- twenty, under load


def test_twenty_containers_behind_nginx_one_bad_in_the_middle(fleets, release, tmp_path):
    names = [str(number) for number in range(1, 21)]
    fleet = fleets("web", *names)
    with nginx(tmp_path, [fleet.port(name) for name in names]) as port:
        with Load(
            port, lambda body: json.loads(body)["version"], clients=2, patience=4 * PATIENCE
        ) as load:
            load.wait_for("v1", 40)
            rollout = Rollout(
                "--label",
                f"rollout={fleet.label}",
                "--copy",
                release("v2", broken=["11"]),
                "--parallel",
                "4",
                "--yes",
            )
            status, report = rollout.end()
            load.wait_for("v1", 40)
            found = outcomes(fleet, report)
            assert (status, report["outcome"], report["failed"]) == (1, "stopped", 1)
            assert found["11"] == "failed"
            assert [found[name] for name in names[:10]] == ["done"] * 10
            # Those that were under way when it failed are done; nothing was begun afterwards.
            failed = next(
                number for number, each in enumerate(rollout.events) if each["event"] == "failed"
            )
            begun = {each["name"] for each in rollout.events[:failed] if each["event"] == "step"}
            assert {
                each["name"] for each in rollout.events[failed:] if each["event"] == "step"
            } <= begun
            assert report["done"] + report["untouched"] == 19
            assert found["20"] == "untouched"
            # The report says what really serves.
            expected = {name: (2, "v2") if found[name] == "done" else (1, "v1") for name in names}
            assert fleet.all_serve() == expected
            assert {name: each["serves"] for name, each in fleet.named(report).items()} == {
                name: each[0] for name, each in expected.items()
            }
            bad = fleet.named(report)["11"]
            assert (bad["kind"], bad["files"], bad["was"], bad["serves"]) == ("failed", "new", 1, 1)
            assert "exited with status 1" in bad["cause"]

            # Once more, and the one may fail.
            rollout = Rollout(
                "--label",
                f"rollout={fleet.label}",
                "--copy",
                release("v3", broken=["11"]),
                "--parallel",
                "4",
                "--max-failures",
                "1",
                "--yes",
            )
            status, report = rollout.end()
            load.wait_for("v3", 40)
            assert (status, report["outcome"], report["done"], report["untouched"]) == (
                1,
                "failed",
                19,
                0,
            )
            assert {name for name, each in fleet.all_serve().items() if each[1] != "v3"} == {"11"}
        assert load.failed == []
        assert load.answers["v1"] > 80


# --- what is asked for


def test_dry_run_says_who_serves_what_and_changes_nothing(shop, release):
    before = shop.all_serve()
    status, report = Rollout(
        "--label", f"rollout={shop.label}", "--copy", release("dry"), "--dry-run"
    ).end()
    assert status == 0
    assert {name: each["serves"] for name, each in shop.named(report).items()} == {
        name: each[0] for name, each in before.items()
    }
    assert set(outcomes(shop, report).values()) == {"untouched"}
    assert shop.all_serve() == before
    assert shop.execute("1", "grep", "-c", "dry", "/srv/code/release.json")[0] == 1


def test_in_a_pipe_nobody_is_asked_and_nothing_is_done_without_yes(shop):
    before = shop.all_serve()
    rollout = Rollout("--label", f"rollout={shop.label}")
    assert rollout.end()[0] == 2
    assert "say --yes" in rollout.errors
    assert shop.all_serve() == before


@pytest.mark.parametrize(("answer", "changes"), [(b"n\n", 0), (b"y\n", 1)])
def test_on_a_terminal_it_asks_shows_bars_and_ends_with_a_table(shop, answer, changes):
    before = shop.all_serve()
    ours, theirs = pty.openpty()
    words = ["rollout", "--label", f"rollout={shop.label}", "--parallel", "3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while piece := os.read(ours, 4096):
            seen += piece
            if seen.endswith(b"[y/N] "):
                os.write(ours, answer)
    os.close(ours)
    assert process.wait(PATIENCE) == (0 if changes else 1), seen.decode()
    assert b"looking" in seen
    assert (b"rolling" in seen) == bool(changes)
    assert (
        b"the rollout is done: 3 done, 0 failed, 0 untouched"
        if changes
        else b"nothing has been changed"
    ) in seen, seen.decode()
    assert [each[0] for each in shop.all_serve().values()] == [
        each[0] + changes for each in before.values()
    ]


def test_a_compose_service_is_found_and_what_compose_run_started_is_not(fleets):
    labels = {"com.docker.compose.project": f"p{os.getpid()}", "com.docker.compose.service": "web"}
    fleet = fleets("compose", "a", labels={**labels, "com.docker.compose.oneoff": "False"})
    fleet.start("b", labels={**labels, "com.docker.compose.oneoff": "True"})
    fleet.start("c", labels={**labels, "com.docker.compose.service": "db"})
    status, report = Rollout("--project", f"p{os.getpid()}", "--service", "web", "--yes").end()
    assert (status, outcomes(fleet, report)) == (0, {"a": "done"})


def test_a_plan_with_copy_envdir_and_hooks_never_says_a_secret(shop, release, tmp_path):
    before = shop.all_serve()
    release("planned")
    (tmp_path / "build" / "notes.tmp").write_text("not for them")
    (tmp_path / "build" / ".git").mkdir()
    (tmp_path / "build" / ".git" / "config").write_text("nor this")
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "TOKEN").write_text(SECRET)
    (tmp_path / "deploy.yml").write_text(
        f"""
targets:
  labels: {{rollout: {shop.label}}}
copy:
  - from: build
    to: /srv/code
    exclude: ["*.tmp", .git/]
envdir: {{from: env, to: /srv/env}}
confirm: no
parallel: 2
before: [[sh, -c, 'echo before $ROLLOUT_CONTAINERS >> log']]
before-each: [[sh, -c, 'echo out $1 $2 >> log', sh, '{{name}}', '{{old}}']]
after-each:
  - [sh, -c, 'echo in $ROLLOUT_NAME $ROLLOUT_OLD $ROLLOUT_NEW $ROLLOUT_OUTCOME >> log; echo told']
after: [[sh, -c, 'echo after $1 >> log', sh, '{{done}} {{failed}} {{untouched}} {{outcome}}']]
"""
    )
    rollout = Rollout("deploy.yml", cwd=tmp_path)
    status, report = rollout.end()
    assert (status, report["outcome"]) == (0, "done"), rollout.events
    assert shop.all_serve() == {
        name: (number + 1, "planned") for name, (number, _) in before.items()
    }
    assert get(shop.port("2"))[1]["secret"] == SECRET
    assert SECRET not in json.dumps(rollout.events) + rollout.errors
    assert shop.execute("1", "stat", "-c", "%a %u", "/srv/env/TOKEN")[1].strip() == "400 1000"
    assert shop.execute("1", "ls", "-A", "/srv/code")[1].split() == ["old", "release.json"]
    lines = (tmp_path / "log").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before 3", "after 3 0 0 done")
    assert sorted(lines[1:-1]) == sorted(
        line for name, (number, _) in before.items()
        for line in (f"out {shop.label}-{name} {number}", f"in {shop.label}-{name} {number} {number + 1} done")
    )  # fmt: skip
    assert [each["output"] for each in rollout.events if each["event"] == "hook"] == [["told"]] * 3


def test_a_container_that_has_too_much_for_a_rollback_is_left_alone(shop, release, monkeypatch):
    """A sparse file costs nothing there, and would fill the disk here."""
    before = shop.serves("1")
    container = shop.containers["1"]
    made = container.exec_run(["truncate", "-s", "10G", "/srv/code/sparse"], user="root")
    assert made.exit_code == 0
    monkeypatch.setattr(job, "MAX_SAVED_BYTES", 1 << 20)
    plan = Plan(label=(f"rollout={shop.label}",), rollback=True)
    fleet = Containers(plan, PATIENCE)
    target = next(each for each in fleet.find() if each.name == f"{shop.label}-1")
    packed, _ = archives([(copy(release("large")), False)], "")
    told: list[object] = []
    with pytest.raises(StepFailed, match="holds more than --rollback keeps"):
        job.roll(fleet, target, plan, packed, told.append)
    assert shop.serves("1") == before
    assert "large" not in shop.execute("1", "cat", "/srv/code/release.json")[1]
    container.exec_run(["rm", "/srv/code/sparse"], user="root")


def test_a_hook_that_fails_before_all_leaves_everything_alone_and_one_before_a_container_that_one(
    shop, tmp_path
):
    before = shop.all_serve()
    plan = tmp_path / "deploy.yml"
    plan.write_text(
        f"targets: {{labels: [rollout={shop.label}]}}\nconfirm: no\nbefore: [['false']]\n"
    )
    rollout = Rollout(str(plan))
    status, report = rollout.end()
    assert (status, report["untouched"]) == (1, 3)
    assert "before: false exited with status 1" in rollout.events[-2]["text"]
    plan.write_text(
        f"targets: {{labels: [rollout={shop.label}]}}\nconfirm: no\nbefore-each: [[test, '{{name}}', '!=', {shop.label}-2]]\n"
    )
    status, report = Rollout(str(plan)).end()
    assert (status, outcomes(shop, report)) == (1, {"1": "done", "2": "failed", "3": "untouched"})
    assert (shop.named(report)["2"]["kind"], shop.named(report)["2"]["serves"]) == (
        "hook",
        before["2"][0],
    )
    assert {name: number for name, (number, _) in shop.all_serve().items()} == {
        "1": before["1"][0] + 1, "2": before["2"][0], "3": before["3"][0],
    }  # fmt: skip


# --- what goes wrong


def test_a_failed_reload_is_rolled_back_where_that_is_wanted(shop, release, tmp_path):
    before = shop.serves("1")
    was = shop.execute("1", "cat", "/srv/code/release.json")[1]
    status, report = Rollout(
        "--label",
        f"rollout={shop.label}",
        "--copy",
        release("worse", broken=["1"]),
        "--rollback",
        "--yes",
    ).end()
    found = shop.named(report)
    assert (status, report["failed"], report["untouched"]) == (1, 1, 2)
    assert found["1"]["files"] == "put back"
    # The container's own sidecar tries again after a while, with the files of before: a later
    # generation of the same.
    assert found["1"]["serves"] >= before[0]
    assert shop.serves("1")[1] == before[1]
    assert shop.execute("1", "cat", "/srv/code/release.json")[1] == was
    # What it came back to can be reloaded.
    assert shop.execute("1", "sidecar", "reload", "--wait")[0] == 0


def test_a_directory_that_is_not_there_is_named(shop, release):
    status, report = Rollout(
        "--label",
        f"rollout={shop.label}",
        "--copy",
        release("x").replace("/srv/code", "/srv/cod"),
        "--yes",
    ).end()
    assert (status, report["failed"], report["untouched"]) == (1, 1, 2)
    assert shop.named(report)["1"]["cause"] == "/srv/cod is no directory of the container"


def test_a_container_without_sidecar_is_named_before_anything_is_touched(engine, shop):
    before = shop.all_serve()
    other = Fleet(engine, PYTHON_IMAGE, shop.label)
    try:
        other.start(
            "none",
            command=["python3", "-c", "import time; print('up', flush=True); time.sleep(600)"],
        )
        rollout = Rollout("--label", f"rollout={shop.label}", "--yes")
        status, report = rollout.end()
        assert (status, report["failed"], report["untouched"], report["outcome"]) == (
            1,
            1,
            3,
            "stopped",
        )
        assert shop.named(report)["none"]["cause"] == "there is no sidecar in it"
        assert shop.all_serve() == before
        # One may fail: the others are done.
        status, report = Rollout(
            "--label", f"rollout={shop.label}", "--max-failures", "1", "--yes"
        ).end()
        assert (status, report["done"], report["failed"], report["outcome"]) == (1, 3, 1, "failed")
    finally:
        other.remove()


@pytest.fixture
def pair(fleets, request, release):
    """Two containers, and a rollout that is in the middle of the first one's reload."""
    fleet = fleets(f"pair{abs(hash(request.node.name)) % 10000}", "1", "2")
    begun = []

    def begin(*words: str, **environ: str) -> Rollout:
        rollout = Rollout(
            "--label",
            f"rollout={fleet.label}",
            "--copy",
            release("v2", waiting=["1"]),
            "--yes",
            *words,
            **environ,
        )
        begun.append(rollout)
        rollout.wait("step", step="reload")
        # It is asked for; and now it is under way. (A container that is frozen while the engine
        # starts an exec in it stays frozen: the engine holds a lock then, and neither unpauses nor
        # removes it.)
        until(
            lambda: str(fleet.containers["1"].top()).count("released.py") == 3,
            "sidecar, and a process of each generation",
        )
        return rollout

    yield fleet, begin
    for rollout in begun:
        rollout.process.kill()
        rollout.process.communicate()
    fleet.remove()


def test_one_that_vanishes_midway(pair):
    fleet, begin = pair
    rollout = begin("--max-failures", "1")
    fleet.containers["1"].remove(force=True)
    status, report = rollout.end()
    first, second = fleet.named(report).values()
    assert (status, first["outcome"], first["kind"], first["serves"]) == (
        1,
        "failed",
        "vanished",
        None,
    )
    assert (second["outcome"], fleet.serves("2")) == ("done", (2, "v2"))


def test_one_that_hangs_is_given_up_and_looked_at_again(pair, tmp_path):
    fleet, begin = pair
    rollout = begin("--timeout", "2s", TMPDIR=str(tmp_path))
    fleet.containers["1"].pause()
    status, report = rollout.end()
    assert not list(tmp_path.glob("sidecar-*"))
    fleet.containers["1"].unpause()
    first, second = fleet.named(report).values()
    assert (status, first["outcome"], first["kind"], first["serves"]) == (1, "failed", "hung", None)
    assert second["outcome"] == "untouched"


def test_a_reload_that_does_not_come_to_an_end_is_no_hang_and_the_old_generation_is_known_to_serve(
    pair,
):
    fleet, begin = pair
    status, report = begin("--timeout", "1s").end()
    first = fleet.named(report)["1"]
    assert (status, first["kind"], first["serves"], first["files"]) == (1, "timeout", 1, "new")
    assert fleet.serves("1") == (1, "v1")


def test_an_interrupt_lets_what_is_under_way_end(pair):
    fleet, begin = pair
    rollout = begin()
    rollout.process.send_signal(signal.SIGINT)
    assert "under way: " in rollout.wait("stopping")["text"]
    fleet.containers["1"].put_archive("/", archive(**{"code/go": ""}))
    status, report = rollout.end()
    assert (status, report["outcome"], outcomes(fleet, report)) == (
        1,
        "interrupted",
        {"1": "done", "2": "untouched"},
    )
    assert fleet.all_serve() == {"1": (2, "v2"), "2": (1, "v1")}


def test_a_second_interrupt_gives_it_up_and_says_who_serves_what(pair):
    fleet, begin = pair
    rollout = begin()
    rollout.process.send_signal(signal.SIGINT)
    rollout.wait("stopping")
    rollout.process.send_signal(signal.SIGTERM)
    status, report = rollout.end()
    first = fleet.named(report)["1"]
    assert (status, report["outcome"], first["kind"], first["serves"]) == (
        1,
        "interrupted",
        "interrupted",
        1,
    )


class Wire:
    """A unix socket in front of the engine's, that can be cut."""

    def __init__(self, path) -> None:
        self.path = str(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                server = socket.socket(socket.AF_UNIX)
                server.connect(
                    os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix(
                        "unix://"
                    )
                )
                self.sockets += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := one.recv(1 << 16):
                other.sendall(piece)
            other.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for each in list(self.sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def test_an_engine_that_is_lost_midway(pair, tmp_path):
    fleet, begin = pair
    wire = Wire(tmp_path / "engine.sock")
    try:
        rollout = begin("--max-failures", "5", DOCKER_HOST=f"unix://{wire.path}")
    finally:
        wire.cut()
    status, report = rollout.end()
    first, second = fleet.named(report).values()
    assert (status, report["outcome"], first["outcome"], first["kind"]) == (
        3,
        "lost",
        "failed",
        "lost",
    )
    assert (first["serves"], second["outcome"]) == (None, "untouched")


def test_an_engine_that_cannot_be_reached(tmp_path):
    rollout = Rollout("--label", "x=y", "--yes", DOCKER_HOST=f"unix://{tmp_path}/nobody")
    assert rollout.end()[0] == 3
    assert "the engine cannot be reached: No such file or directory" in rollout.errors


def test_nothing_that_is_like_that(engine):
    rollout = Rollout("--label", f"nobody={os.getpid()}", "--yes")
    assert (rollout.end()[0], rollout.errors) == (
        1,
        "sidecar rollout: no container that runs is like that\n",
    )
