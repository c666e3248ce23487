"""kubectl, and what the tests say with it. Nothing that Kubernetes 1.20 and its kubectl do not
know.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from .manifests import BASE, container_of, documents

CLIENT = Path(__file__).parent / "client.py"

# How long (seconds) what must come may take: a kubelet looks at its volumes once a minute, and has
# to be told by a cache.
PATIENCE = 240


class NoClusterError(Exception):
    """The API server does not answer, or does not let us."""


class Cluster:
    """A namespace. `SIDECAR_KUBE_IMAGE` is the image of pods and load; `SIDECAR_KUBE_PULL` its
    imagePullPolicy (Never, where it was loaded into the nodes), `SIDECAR_KUBE_NODE` a node that all
    pods go to.
    """

    def __init__(self, namespace: str) -> None:
        self.image = os.environ["SIDECAR_KUBE_IMAGE"]
        self.pull = os.environ.get("SIDECAR_KUBE_PULL", "IfNotPresent")
        self.node = os.environ.get("SIDECAR_KUBE_NODE", "")
        self.namespace = namespace
        asked = subprocess.run(
            ["kubectl", "get", "--raw", "/version", "--request-timeout=10s"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode:
            raise NoClusterError(asked.stderr.strip())
        self.version = json.loads(asked.stdout)["gitVersion"]
        made = subprocess.run(
            ["kubectl", "create", "namespace", namespace],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise NoClusterError(made.stderr.strip())

    def remove(self) -> None:
        subprocess.run(
            ["kubectl", "delete", "namespace", self.namespace, "--timeout=300s"],
            check=True,
            capture_output=True,
        )

    def kubectl(self, *words: str, given: str | None = None) -> str:
        done = subprocess.run(
            ["kubectl", "-n", self.namespace, *words],
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def apply(self, *resources: dict[str, Any]) -> None:
        self.kubectl(
            "apply",
            "-f",
            "-",
            given=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(resources)}),
        )

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def until(self, condition: Any, what: str) -> Any:
        """What `condition()` says, once that is true. The API is asked twice a second: it has no
        word for most of what is waited for.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            found = condition()
            if found:
                return found
            assert time.monotonic() < deadline, (
                f"never came: {what}; the pods' logs:\n{self.logs()}"
            )
            time.sleep(0.5)

    # --- what is deployed

    def deploy(self) -> None:
        """The base that is shipped, with the image given; wait until it is rolled out."""
        resources = [
            each
            for path in sorted(BASE.glob("*.yaml"))
            if path.name != "kustomization.yaml"
            for each in documents(path)
        ]
        # The Deployment last: a pod whose Secret is not there yet waits for the kubelet's next try.
        resources.sort(key=lambda each: each["kind"] == "Deployment")
        self.apply(
            *(
                placed(each, self.image, self.pull, self.node)
                if each["kind"] == "Deployment"
                else each
                for each in resources
            )
        )
        self.rolled_out()

    def rolled_out(self) -> None:
        self.kubectl("rollout", "status", "deployment/hello", f"--timeout={PATIENCE}s")

    def config(self, **data: str) -> None:
        """Change the ConfigMap, and have the kubelets look at once: any change of a pod makes them."""
        self.apply({**documents(BASE / "configmap.yaml")[0], "data": data})
        self._nudge()

    def secret(self, **data: str) -> None:
        self.apply({**documents(BASE / "secret.yaml")[0], "stringData": data})
        self._nudge()

    def _nudge(self) -> None:
        self.kubectl(
            "annotate",
            "pods",
            "-l",
            "app.kubernetes.io/name=hello",
            "--overwrite",
            f"nudged={time.time_ns()}",
        )

    # --- the pods

    def pods(self) -> list[dict[str, Any]]:
        """Those that are not being deleted."""
        found = self.get("pods", "-l", "app.kubernetes.io/name=hello")["items"]
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]

    def names(self) -> list[str]:
        return [each["metadata"]["name"] for each in self.pods()]

    def restarts(self) -> int:
        return sum(
            each["restartCount"]
            for pod in self.pods()
            for each in pod["status"].get("containerStatuses", ())
        )

    def ready(self, pod: str) -> bool:
        conditions = self.get("pod", pod)["status"].get("conditions", ())
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def log(self, pod: str) -> str:
        return self.kubectl("logs", pod, "-c", "hello")

    def logs(self) -> str:
        return "\n".join(f"--- {name}\n{self.log(name)}" for name in self.names())

    def events(self, pod: str, name: str) -> list[dict[str, Any]]:
        """Sidecar's own lines of this event."""
        lines = [
            json.loads(line) for line in self.log(pod).splitlines() if line.startswith('{"time"')
        ]
        return [line for line in lines if line["event"] == name]

    def wait_event_in_all(self, name: str, more_than: dict[str, int]) -> None:
        """Return when each of these pods has said that event more often than it had."""
        for pod, before in more_than.items():
            self.until(
                lambda pod=pod, before=before: len(self.events(pod, name)) > before,
                f"{name} in {pod}",
            )

    def counts(self, name: str) -> dict[str, int]:
        return {pod: len(self.events(pod, name)) for pod in self.names()}

    def variables(self, pod: str, name: str) -> set[str]:
        """What the workers of this pod have in this variable."""
        code = (
            "import glob, sys\n"
            "for path in glob.glob('/proc/[0-9]*/environ'):\n"
            "    try: each = dict(one.split('=', 1) for one in open(path).read().split(chr(0)) if '=' in one)\n"
            "    except OSError: continue\n"
            "    if 'SERVER_STARTER_GENERATION' in each: print(each.get(sys.argv[1], ''))"
        )
        return set(
            self.kubectl("exec", pod, "-c", "hello", "--", "python3", "-c", code, name).splitlines()
        )


def client_pod(name: str, host: str, image: str, pull: str, node: str) -> dict[str, Any]:
    """A pod that runs client.py against `host`; on `node`, if that is one."""
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "load",
                "image": image,
                "imagePullPolicy": pull,
                "command": ["python3", "-u", "-c", CLIENT.read_text(), host],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
        **({"nodeName": node} if node else {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "load"}},
        "spec": spec,
    }


def placed(workload: dict[str, Any], image: str, pull: str, node: str) -> dict[str, Any]:
    """The Deployment with this image; on `node`, if that is one."""
    workload = copy.deepcopy(workload)
    if node:
        workload["spec"]["template"]["spec"]["nodeName"] = node
    container_of(workload).update(image=image, imagePullPolicy=pull)
    return workload


class Load:
    """client.py in a pod of the namespace, at the Service; as a context manager."""

    def __init__(self, cluster: Cluster, host: str = "hello") -> None:
        self.cluster, self.host = cluster, host
        self.name = f"load-{time.time_ns()}"

    def __enter__(self) -> Load:
        self.cluster.apply(
            client_pod(
                self.name, self.host, self.cluster.image, self.cluster.pull, self.cluster.node
            )
        )
        self.cluster.until(
            lambda: self.cluster.get("pod", self.name)["status"].get("phase") == "Running",
            "the load's pod",
        )
        self.cluster.until(lambda: sum(self.told()["answers"].values()), "the load's first answer")
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.kubectl("delete", "pod", self.name, "--timeout=120s")

    def told(self) -> dict[str, Any]:
        lines = self.cluster.kubectl("logs", self.name).splitlines()
        return json.loads(lines[-1]) if lines else {"answers": {}, "failed": 0, "causes": []}

    def wait_for(self, answer: str, times: int = 100) -> None:
        wanted = self.told()["answers"].get(answer, 0) + times
        self.cluster.until(
            lambda: self.told()["answers"].get(answer, 0) >= wanted,
            f"{answer!r}, {times} times; {self.told()}",
        )

    def lost_nothing(self) -> None:
        told = self.told()
        assert told["failed"] == 0, told["causes"]
