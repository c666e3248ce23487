"""`sidecar rollout` over real containers of a real engine: who runs what afterwards is asked of the
containers, not of the report.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import socket
import subprocess
import sys

import pytest

from sidecar.rollout import job
from sidecar.rollout.archive import archives
from sidecar.rollout.containers import Containers
from sidecar.rollout.engine import StepFailed
from sidecar.rollout.plan import Plan, copy
from tests.container.containers import PATIENCE, Load, get
from tests.container.rollout.fleet import Rollout, outcomes
from tests.support import free_port

pytestmark = [pytest.mark.container, pytest.mark.timeout(300)]
SECRET = "hunter2-is-no-secret"


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
            fleet.come_to_serve(expected)
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
            fleet.come_to_serve(
                {name: (number + 1, "v3") for name, (number, _) in expected.items()}
                | {"11": (1, "v1")}
            )
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
    shop.come_to_serve(
        {name: (number + changes, version) for name, (number, version) in before.items()}
    )


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
    shop.come_to_serve({name: (number + 1, "planned") for name, (number, _) in before.items()})
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
    number, version = before["1"]
    shop.come_to_serve(before | {"1": (number + 1, version)})
