"""A pod's life under a real engine: the Deployment that is shipped, its volumes written as the
kubelet writes them, under load.

Only the splay is shorter than shipped: it is what keeps a fleet apart, and one pod would merely
wait for it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.manifests import BASE, DEPLOY, built, documents, of_kind

from .containers import Load, fetch, in_background
from .pod import Pod, Volume

pytestmark = [pytest.mark.container, pytest.mark.timeout(600)]

SHORTER = {"SIDECAR_ENV_SPLAY": "300ms"}


def greeting(body: str) -> str:
    return body.partition(" from generation")[0]


class Life:
    """A pod of the example and its two volumes."""

    def __init__(
        self,
        run: Callable[..., Any],
        image: str,
        deployment: dict[str, Any],
        where: Path,
        links_last: bool,
    ) -> None:
        self.config = Volume(where / "config", links_last=links_last)
        self.secret = Volume(where / "secret", mode=0o440, group=1000, links_last=links_last)
        self.greetings = documents(BASE / "configmap.yaml")[0]["data"]
        self.config.write(self.greetings)
        self.secret.write({"API_TOKEN": "first-token-9f3a"})
        volumes = {"config": self.config.path, "secret": self.secret.path}
        volumes.update({name: where / name for name in ("code",) if (where / name).exists()})
        self.pod = Pod(run, deployment, volumes, image, SHORTER)
        self.running = self.pod.running

    def serves(self, generation: int) -> dict[str, Any]:
        return self.running.wait_event("serving", generation=generation)


@pytest.fixture
def live(run_container, images, tmp_path):
    def start(deployment: dict[str, Any] | None = None, links_last: bool = True) -> Life:
        return Life(
            run_container,
            images.example,
            deployment or documents(BASE / "deployment.yaml")[0],
            tmp_path,
            links_last,
        )

    return start


@pytest.mark.parametrize(
    "links_last", [True, False], ids=["kubelet of today", "kubelet before the order changed"]
)
def test_a_pods_life(live, links_last):
    life = live(links_last=links_last)
    pod, running = life.pod, life.running
    life.serves(1)
    pod.wait_probe("startupProbe", True)
    assert pod.probe("readinessProbe")
    assert pod.probe("livenessProbe")
    assert "Uid:\t1000\t1000\t1000\t1000" in running.proc("status")
    assert "CapBnd:\t0000000000000000" in running.proc("status")
    port = running.port

    with Load(port, greeting) as load:
        # A ConfigMap changes.
        load.wait_for("Hello from Kubernetes", 50)
        life.config.write({"GREETING": "Changed", "ADDED": "1"})
        assert life.serves(2)["trigger"] == "envdir"
        load.wait_for("Changed", 50)
        assert running.events("environment_changed")[-1]["names"] == ["ADDED", "GREETING"]
        assert pod.environments()[0]["ADDED"] == "1"

        # The same again, swapped in all the same, is nothing; a real change comes next, and is the
        # next generation.
        life.config.write({"GREETING": "Changed", "ADDED": "1"})
        life.config.write({"GREETING": "Changed again"})
        life.serves(3)
        load.wait_for("Changed again", 50)
        assert [event["names"] for event in running.events("environment_changed")] == [
            ["ADDED", "GREETING"]
        ] * 2
        assert "ADDED" not in pod.environments()[0]
    assert load.failed == []

    with Load(port, greeting) as load:
        # A bad one: the check refuses it, what serves goes on serving, ready, and it is said.
        life.config.write({"GREETING": "Bad", "GUNICORN_CMD_ARGS": "--no-such-option"})
        failed = running.wait_event("swap_failed")
        assert failed["generation"] == 4
        assert failed["still"] == [3]
        assert "unrecognized arguments: --no-such-option" in failed["output"]
        load.wait_for("Changed again", 50)
        assert pod.probe("readinessProbe")
        assert "sidecar_consecutive_failures 0.0" not in pod.ask("admin", "/metrics")[1]

        # Back to the good one.
        life.config.write({"GREETING": "Changed again"})
        life.serves(5)
        load.wait_for("Changed again", 50)
        assert "sidecar_consecutive_failures 0.0" in pod.ask("admin", "/metrics")[1]

        # A Secret is rotated.
        life.secret.write({"API_TOKEN": "second-token-c71e"})
        life.serves(6)
        load.wait_for("Changed again", 50)
        assert {each["API_TOKEN"] for each in pod.environments()} == {"second-token-c71e"}
    assert load.failed == []
    assert "Bad" not in load.answers

    told = pod.says()
    assert "API_TOKEN" in told
    assert "first-token" not in told
    assert "second-token" not in told


def test_a_pod_that_is_deleted_leaves_without_losing_a_request(live):
    """Not ready at once, serving on; what still comes is answered, what is in flight when the lame
    duck ends is finished.
    """
    life = live()
    pod, running = life.pod, life.running
    life.serves(1)
    port, slow, status = running.port, [], []

    def retired() -> bool:
        return any("Handling signal: term" in line for line in running.lines)

    # The engine sends TERM and, when the pod's grace is over, KILL, as a kubelet does.
    with (
        Load(port, greeting) as load,
        in_background(lambda: status.append(running.stop(grace=pod.grace))),
    ):
        load.wait_for("Hello from Kubernetes", 50)
        pod.wait_probe("readinessProbe", False)
        assert pod.probe("livenessProbe")
        asked = json.loads(pod.ask("admin", "/readyz")[1])
        assert asked["ready"] is False
        # The proxies have not heard yet. They have to within the lame duck, which is the manifest's
        # 10 s: so the load is counted, and small enough for a machine that manages thirty requests
        # a second.
        load.wait_for("Hello from Kubernetes", 60)
        # Longer than what is left of the lame duck: the drain has to wait for it.
        with in_background(lambda: slow.append((fetch(port, "/slow?12")[0], retired()))):
            load.wait_for("Hello from Kubernetes", 20)
            # Now they have.
            load.__exit__()
            assert load.failed == []
            assert not retired()
    assert status == [0]
    assert slow == [(200, True)]
    stopping = running.events("stopping")[0]
    assert stopping["lame_duck"] == 10
    assert running.events("stopped")[0]["left"] == []
    assert not running.events("worker_killed")
    assert not running.events("worker_died")


def test_the_exec_probes(live):
    life = live(of_kind(built(DEPLOY / "overlays" / "exec-probes"), "Deployment"))
    pod, running = life.pod, life.running
    life.serves(1)
    assert pod.probe("startupProbe")
    assert pod.probe("readinessProbe")
    assert pod.probe("livenessProbe")
    assert set(pod.ports) == {"http"}
    status = []
    with in_background(lambda: status.append(running.stop(grace=pod.grace))):
        pod.wait_probe("readinessProbe", False)
        assert pod.probe("livenessProbe")
        running.container.kill("SIGTERM")  # a second one ends the lame duck
    assert status == [0]


def commit(code: Path, name: str, answer: str) -> None:
    """What git-sync does with a commit: a directory of its own, the link swapped at once, the one
    before removed later.
    """
    tree = code / ".worktrees" / name
    tree.mkdir(parents=True)
    text = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'%s from generation']\n"
    (tree / "app.py").write_text(text % answer if answer else "def app(:\n")
    (code / f"{name}.tmp").symlink_to(f".worktrees/{name}")
    (code / f"{name}.tmp").rename(code / "current")


def test_a_commit_in_a_code_volume(live, tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    commit(code, "1a1a", "first")
    life = live(of_kind(built(DEPLOY / "overlays" / "code-volume"), "Deployment"))
    running = life.running
    life.serves(1)
    with Load(running.port, greeting) as load:
        load.wait_for("first", 50)
        commit(code, "2b2b", "second")
        assert life.serves(2)["trigger"] == "watch"
        load.wait_for("second", 50)
        shutil.rmtree(code / ".worktrees" / "1a1a")
        commit(code, "3c3c", "")
        assert running.wait_event("swap_failed")["still"] == [2]
        load.wait_for("second", 50)
        commit(code, "4d4d", "fourth")
        life.serves(4)
        load.wait_for("fourth", 50)
    assert load.failed == []
