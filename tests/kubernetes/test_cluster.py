"""A pod's life in a real cluster: `make test-kubernetes`, with

    KUBECONFIG=...            which cluster
    SIDECAR_KUBE_IMAGE=...    an image of `docker build --target example .` that its nodes have or can pull
    SIDECAR_KUBE_PULL=Never   where it was loaded into the nodes (IfNotPresent)
    SIDECAR_KUBE_NODE=...     one node, that has it, for all pods (any)

It makes a namespace, applies deploy/kubernetes/base as it is shipped (but for the image), and asks
from a pod of the same image. Everything goes with the namespace. Kubernetes 1.20 and its kubectl
are enough. Some minutes, most of them waiting for kubelets.

They have been run against Kubernetes 1.20 with kubectl 1.32. Without a cluster their parts are run:
client.py against a real sidecar, what is applied against the schemas (test_manifests.py), the same
story under a real engine (tests/container/test_pod.py).
"""

from __future__ import annotations

import subprocess

import pytest

from .cluster import Cluster, Load
from .manifests import BASE, documents

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

GREETING = documents(BASE / "configmap.yaml")[0]["data"]["GREETING"]

# Asked in the load's pod: what a pod says on its two ports until it is not ready any more, each
# time both; "" if it never is.
WATCH = """
import http.client, sys, time
def ask(port, path):
    connection = http.client.HTTPConnection(sys.argv[1], port, timeout=10)
    connection.request("GET", path)
    return connection.getresponse().status
for _ in range(600):
    ready, serves = ask(9100, "/readyz"), ask(8080, "/")
    if ready != 200:
        print(ready, serves)
        break
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def hello(cluster: Cluster) -> Cluster:
    """The base, rolled out."""
    cluster.deploy()
    return cluster


def test_the_pods_are_ready_and_nothing_was_restarted(hello):
    assert len(hello.pods()) == 2
    assert all(hello.ready(name) for name in hello.names())
    assert hello.restarts() == 0
    for name in hello.names():
        assert len(hello.events(name, "serving")) == 1
        assert (
            hello.kubectl("exec", name, "-c", "hello", "--", "sidecar", "health", "--ready").strip()
            == "ready"
        )


def test_changes_under_load_swap_within_the_pods(hello):
    """A ConfigMap, a bad one, the good one again, a Secret: the same pods, no restart, no failed
    request, no value told.
    """
    pods = hello.names()
    with Load(hello) as load:
        load.wait_for(GREETING)
        before = hello.counts("serving")
        hello.config(GREETING="Changed")
        hello.wait_event_in_all("serving", before)
        load.wait_for("Changed")

        before = hello.counts("swap_failed")
        hello.config(GREETING="Bad", GUNICORN_CMD_ARGS="--no-such-option")
        hello.wait_event_in_all("swap_failed", before)
        assert all(hello.ready(name) for name in pods)
        load.wait_for("Changed")
        assert "Bad" not in load.told()["answers"]

        before = hello.counts("serving")
        hello.config(GREETING="Changed")
        hello.wait_event_in_all("serving", before)

        before = hello.counts("serving")
        hello.secret(API_TOKEN="second-token-c71e")
        hello.wait_event_in_all("serving", before)
        for name in pods:
            assert hello.variables(name, "API_TOKEN") == {"second-token-c71e"}
        load.wait_for("Changed")
        load.lost_nothing()
    assert hello.names() == pods
    assert hello.restarts() == 0
    told = (
        hello.logs()
        + hello.kubectl("describe", "pods")
        + hello.kubectl("get", "events", "-o", "json")
    )
    assert "API_TOKEN" in told
    assert "second-token" not in told


def test_a_pod_deleted_under_load_is_a_lame_duck_first(hello):
    name = hello.names()[0]
    address = hello.get("pod", name)["status"]["podIP"]
    with Load(hello) as load:
        log = subprocess.Popen(
            ["kubectl", "-n", hello.namespace, "logs", "-f", name, "-c", "hello"],
            stdout=subprocess.PIPE,
            text=True,
        )
        watch = [
            "kubectl",
            "-n",
            hello.namespace,
            "exec",
            load.name,
            "--",
            "python3",
            "-c",
            WATCH,
            address,
        ]
        watching = subprocess.Popen(watch, stdout=subprocess.PIPE, text=True)
        try:
            hello.kubectl("delete", "pod", name, "--timeout=120s")
            assert watching.communicate(timeout=120)[0].split() == ["503", "200"]
            told = log.communicate(timeout=120)[0]
        finally:
            for process in (log, watching):
                process.kill()
                process.wait()
        hello.rolled_out()
        load.wait_for(next(iter(load.told()["answers"])))
        load.lost_nothing()
    assert '"event": "stopping"' in told
    assert '"event": "stopped"' in told
    assert '"event": "worker_killed"' not in told


def test_a_rollout_under_load_loses_nothing(hello):
    pods = hello.names()
    with Load(hello) as load:
        hello.kubectl("rollout", "restart", "deployment/hello")
        hello.rolled_out()
        hello.until(
            lambda: (
                not {each["metadata"]["name"] for each in hello.get("pods")["items"]} & set(pods)
            ),
            "the end of the old pods",
        )
        load.wait_for(next(iter(load.told()["answers"])))
        load.lost_nothing()
    assert not set(hello.names()) & set(pods)
