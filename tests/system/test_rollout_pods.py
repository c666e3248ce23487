"""Pods, without a cluster: an API server that speaks the real protocols (HTTP, exec's websocket
channels); its pods are real sidecars.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from kubernetes.config import incluster_config

from sidecar.rollout.engine import MAX_OUTPUT_BYTES
from sidecar.rollout.plan import Plan
from sidecar.rollout.pods import Pods
from sidecar.rollout.summary import sentence
from tests.support import PATIENCE, ROOT, Sidecar, until

NAMES = ("web-1", "web-2", "web-10")


class Cluster:
    """The pods of one namespace, and the API server in front of them."""

    def __init__(self, tmp_path) -> None:
        self.pods = {name: Sidecar("--control", f"{tmp_path}/{name}.sock") for name in NAMES}
        self.gone: set[str] = set()
        self.without: set[str] = set()
        self.asked: list[str] = []
        # Answers that are no success, as real API servers give them: to the list, and by pod to the
        # handshake of an exec. And pods that have been deleted and are still there.
        self.list_refused: tuple[int, dict] | None = None
        self.exec_refused: dict[str, tuple[int, dict]] = {}
        self.deleted: set[str] = set()
        self.says: dict[str, bytes] = {}
        self.before_exec = lambda name, argv: None
        self.directory = tmp_path
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):  # a client that has had enough
                    cluster.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.config = tmp_path / "kubeconfig"
        self.config.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {
                            "name": "c",
                            "cluster": {"server": f"http://127.0.0.1:{self.server.server_port}"},
                        }
                    ],
                    "users": [{"name": "u", "user": {"token": "t"}}],
                    "contexts": [
                        {"name": name, "context": {"cluster": "c", "user": "u", "namespace": name}}
                        for name in ("other", "shop")
                    ],
                    "current-context": "other",
                }
            )
        )

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        for each in self.pods.values():
            each.clean_up()

    def pod(self, name: str) -> dict:
        containers = [{"name": "proxy", "image": "x"}, {"name": "app", "image": "x"}]
        return {
            "metadata": {
                "name": name,
                "namespace": "shop",
                **({"deletionTimestamp": "2026-11-26T00:00:00Z"} if name in self.deleted else {}),
                "annotations": {"kubectl.kubernetes.io/default-container": "app"},
            },
            "spec": {"containers": containers},
            "status": {"phase": "Running"},
        }

    def answer(self, request) -> None:
        path, query = urlsplit(request.path).path.split("/"), parse_qs(urlsplit(request.path).query)
        assert path[:6] == ["", "api", "v1", "namespaces", "shop", "pods"]
        assert request.headers["authorization"] == "Bearer t"
        if len(path) == 6:
            self.asked.append(query["labelSelector"][0])
            if self.list_refused:
                self.say(request, *self.list_refused)
                return
            found = [
                self.pod(name)
                for name in NAMES
                if name not in self.gone and query["labelSelector"] == ["app=web"]
            ]
            self.say(request, 200, {"kind": "PodList", "apiVersion": "v1", "items": found})
        elif path[6] in self.gone:
            self.say(request, *not_found(path[6]))
        elif len(path) == 7:
            self.say(request, 200, self.pod(path[6]))
        else:
            assert query["container"] == ["app"]
            if path[6] in self.exec_refused:
                # Before the protocol is changed, as it is done: with a body.
                self.say(request, *self.exec_refused[path[6]])
                return
            self.execute(request, path[6], query["command"])

    def say(self, request, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def execute(self, request, name: str, argv: list[str]) -> None:
        key = request.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        request.send_response(101)
        request.send_header("Upgrade", "websocket")
        request.send_header("Connection", "Upgrade")
        request.send_header(
            "Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        )
        request.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        request.end_headers()
        request.close_connection = True
        self.before_exec(name, argv)
        if name in self.without:
            failure = f'error executing command in container: exec: "{argv[0]}": executable file not found in $PATH'
            self.frame(
                request, 3, {"status": "Failure", "reason": "InternalError", "message": failure}
            )
            return
        command = [sys.executable, "-m", *argv, "--control", f"{self.directory}/{name}.sock"]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, check=False)
        if name in self.gone:
            return  # the connection just ends
        if name in self.says:
            done.stdout = self.says[name]
        for channel, data in ((1, done.stdout), (2, done.stderr)):
            # In pieces, as large output comes.
            for start in range(0, len(data), 1000):
                self.frame(request, channel, data[start : start + 1000])
        causes = [{"reason": "ExitCode", "message": str(done.returncode)}]
        failure = {
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "message": "command terminated",
            "details": {"causes": causes},
        }
        self.frame(request, 3, failure if done.returncode else {"status": "Success"})
        request.wfile.write(b"\x88\x02\x03\xe8")

    def frame(self, request, channel: int, data: bytes | dict) -> None:
        payload = bytes([channel]) + (
            data if isinstance(data, bytes) else json.dumps(data).encode()
        )
        head = (
            bytes([0x82, len(payload)])
            if len(payload) < 126
            else b"\x82\x7e" + len(payload).to_bytes(2, "big")
        )
        request.wfile.write(head + payload)


def refusal(code: int, reason: str, message: str) -> tuple[int, dict]:
    """An answer of an API server that is no success."""
    return code, {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def not_found(name: str) -> tuple[int, dict]:
    return refusal(404, "NotFound", f'pods "{name}" not found')


def forbidden(verb: str, resource: str) -> tuple[int, dict]:
    return refusal(
        403,
        "Forbidden",
        f'{resource} is forbidden: User "system:serviceaccount:shop:deploy" cannot {verb} resource '
        f'"{resource}" in API group "" in the namespace "shop": '
        'RBAC: role.rbac.authorization.k8s.io "deploy" not found',
    )


def no_kubelet() -> tuple[int, dict]:
    """The node is down."""
    said = "error dialing backend: dial tcp 10.0.0.7:10250: connect: connection refused"
    return refusal(500, "InternalError", said)


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    for each in made.pods.values():
        each.wait("serving")
    yield made
    made.close()


def rollout(cluster: Cluster, *words: str) -> tuple[int, list[dict], str]:
    file = [word for word in words[:1] if not word.startswith("-")]
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "rollout", *file, "--context", "shop", *words[len(file) :]], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env={**os.environ, "KUBECONFIG": str(cluster.config), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}, cwd=ROOT, timeout=PATIENCE,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def outcomes(events: list[dict]) -> dict[str, tuple]:
    return {
        each["name"]: (each["outcome"], each["serves"], each.get("kind"))
        for each in events[-1]["containers"]
    }


def serving(cluster: Cluster) -> dict[str, int]:
    return {
        name: max(event["generation"] for event in each.seen("serving"))
        for name, each in cluster.pods.items()
    }


def test_pods_are_found_by_selector_and_reloaded_one_after_the_other(cluster):
    status, events, errors = rollout(cluster, "--selector", "app=web", "--yes")
    assert (status, errors) == (0, "")
    assert cluster.asked == ["app=web"]
    assert events[0]["containers"] == ["web-1", "web-2", "web-10"]
    assert outcomes(events) == dict.fromkeys(NAMES, ("done", 2, None))
    until(lambda: serving(cluster) == dict.fromkeys(NAMES, 2), "generation 2 everywhere")


def test_a_pod_without_sidecar_is_named_before_anything_is_touched(cluster):
    cluster.without.add("web-2")
    status, events, _ = rollout(cluster, "--selector", "app=web", "--yes")
    assert status == 1
    assert outcomes(events) == {
        "web-1": ("untouched", 1, None),
        "web-2": ("failed", None, "no-sidecar"),
        "web-10": ("untouched", 1, None),
    }


def test_a_pod_that_vanishes_midway(cluster):
    def vanish(name: str, argv: list[str]) -> None:
        if name == "web-2" and "reload" in argv:
            cluster.gone.add(name)

    cluster.before_exec = vanish
    status, events, _ = rollout(cluster, "--selector", "app=web", "--max-failures", "1", "--yes")
    assert status == 1
    assert outcomes(events) == {
        "web-1": ("done", 2, None),
        "web-2": ("failed", None, "vanished"),
        "web-10": ("done", 2, None),
    }


def test_a_pod_that_hangs(cluster):
    def freeze(name: str, argv: list[str]) -> None:
        if name == "web-1" and "reload" in argv:
            os.kill(cluster.pods[name].pid, signal.SIGSTOP)
            threading.Event().wait(PATIENCE)

    cluster.before_exec = freeze
    status, events, _ = rollout(cluster, "--selector", "app=web", "--timeout", "1s", "--yes")
    os.kill(cluster.pods["web-1"].pid, signal.SIGCONT)
    assert status == 1
    assert outcomes(events)["web-1"] == ("failed", None, "hung")
    assert outcomes(events)["web-2"] == ("untouched", 1, None)


def test_a_reader_that_leaves_does_not_stop_it_halfway(cluster):
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "rollout", "--context", "shop", "--selector", "app=web", "--yes"],
        cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "KUBECONFIG": str(cluster.config), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
    )  # fmt: skip
    process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait(PATIENCE)) == (b"", 0)
    process.stderr.close()
    assert serving(cluster) == dict.fromkeys(NAMES, 2)


def test_without_the_right_to_exec_each_pod_is_refused_and_nothing_is_lost(cluster):
    cluster.exec_refused = dict.fromkeys(NAMES, forbidden("get", "pods/exec"))
    status, events, errors = rollout(cluster, "--selector", "app=web", "--yes")
    assert (status, errors, events[-1]["outcome"]) == (1, "", "failed")
    assert outcomes(events)["web-1"] == ("failed", None, "refused")
    cause = next(each["cause"] for each in events[-1]["containers"] if each["name"] == "web-1")
    assert 'cannot get resource "pods/exec"' in cause
    assert "docs/rollout.md" in cause


def test_a_pod_on_a_dead_node_fails_by_itself(cluster):
    cluster.exec_refused = {"web-2": no_kubelet()}
    status, events, _ = rollout(cluster, "--selector", "app=web", "--max-failures", "1", "--yes")
    assert (status, events[-1]["outcome"]) == (1, "failed")
    assert outcomes(events) == {
        "web-1": ("done", 2, None),
        "web-2": ("failed", None, "unreachable"),
        "web-10": ("done", 2, None),
    }
    assert "error dialing backend" in json.dumps(events)


def test_a_node_that_dies_midway_costs_its_pod(cluster):
    def die(name: str, argv: list[str]) -> None:
        if name == "web-1" and "reload" in argv:
            cluster.exec_refused[name] = no_kubelet()

    cluster.before_exec = die
    status, events, _ = rollout(cluster, "--selector", "app=web", "--max-failures", "1", "--yes")
    assert (status, events[-1]["outcome"]) == (1, "failed")
    assert outcomes(events)["web-1"] == ("failed", None, "unreachable")
    assert outcomes(events)["web-2"] == ("done", 2, None)


def test_a_container_that_does_not_run(cluster):
    said = 'unable to upgrade connection: container not found ("app")'
    cluster.exec_refused = {"web-2": refusal(500, "InternalError", said)}
    status, events, _ = rollout(cluster, "--selector", "app=web", "--max-failures", "1", "--yes")
    assert status == 1
    assert outcomes(events)["web-2"] == ("failed", None, "vanished")


def test_a_forbidden_list_is_an_error_in_words(cluster):
    cluster.list_refused = forbidden("list", "pods")
    status, events, errors = rollout(cluster, "--selector", "app=web", "--yes")
    assert (status, events) == (3, [])
    assert errors.startswith("sidecar rollout: the cluster refuses: pods is forbidden")
    assert len(errors.splitlines()) == 1


def test_a_pod_that_is_deleted_gracefully_midway_has_vanished(cluster):
    """The API server marks it, the kubelet sends TERM, and sidecar says no to the reload."""

    def delete(name: str, argv: list[str]) -> None:
        if name == "web-2" and "reload" in argv:
            cluster.deleted.add(name)
            os.kill(cluster.pods[name].pid, signal.SIGTERM)
            cluster.pods[name].wait("stopping")

    cluster.before_exec = delete
    status, events, _ = rollout(cluster, "--selector", "app=web", "--max-failures", "1", "--yes")
    assert status == 1
    assert outcomes(events) == {
        "web-1": ("done", 2, None),
        "web-2": ("failed", None, "vanished"),
        "web-10": ("done", 2, None),
    }


def test_a_dry_run_that_finds_all_well_says_so(cluster):
    status, events, _ = rollout(cluster, "--selector", "app=web", "--dry-run")
    assert (status, events[-1]["outcome"], events[-1]["dry_run"]) == (0, "looked", True)
    assert sentence(events[-1]).endswith("nothing has been changed: 3 can be reloaded, 0 cannot")
    cluster.without.add("web-2")
    status, events, _ = rollout(cluster, "--selector", "app=web", "--dry-run")
    assert (status, events[-1]["outcome"]) == (1, "failed")
    assert sentence(events[-1]).endswith("nothing has been changed: 2 can be reloaded, 1 cannot")


def test_hooks_find_the_values_in_their_environment(cluster, tmp_path):
    plan = tmp_path / "plan.yml"
    plan.write_text(
        "targets: {selector: app=web}\nconfirm: no\n"
        "after-each: [[sh, -c, 'echo $ROLLOUT_NAME $ROLLOUT_OLD $ROLLOUT_NEW $ROLLOUT_OUTCOME']]\n"
        "after: [[sh, -c, 'echo $1 $ROLLOUT_DONE', sh, '{outcome}']]\n"
    )
    status, events, errors = rollout(cluster, str(plan))
    assert (status, errors) == (0, "")
    assert [each["output"] for each in events if each["event"] == "hook"] == [
        *([f"{name} 1 2 done"] for name in NAMES),
        ["done 3"],
    ]


@pytest.mark.parametrize(
    "said",
    [
        b'{"generation": "$(touch it)", "ready": true, "reasons": []}',
        b'{"generation": true, "ready": true, "reasons": []}',
        b'{"generation": -1, "ready": true, "reasons": []}',
        b'{"generation": 1, "ready": "yes", "reasons": []}',
        b'{"generation": 1, "ready": true, "reasons": "none"}',
        b'{"ready": true, "reasons": []}',
        b"[" * 100_000,
        b'{"generation": ' + b"9" * 5000 + b', "ready": true, "reasons": []}',
        b"\xff\xfe",
        b"",
    ],
)
def test_an_answer_of_another_shape_is_refused(cluster, said):
    cluster.says["web-2"] = said
    status, events, errors = rollout(cluster, "--selector", "app=web", "--yes")
    assert (status, errors) == (1, "")
    assert outcomes(events)["web-2"] == ("failed", None, "refused")
    assert outcomes(events)["web-1"] == ("untouched", 1, None)


def test_output_without_an_end_is_not_taken(cluster):
    cluster.says["web-2"] = b"x" * (MAX_OUTPUT_BYTES + 1)
    status, events, _ = rollout(cluster, "--selector", "app=web", "--yes")
    assert status == 1
    assert outcomes(events)["web-2"] == ("failed", None, "refused")


def test_in_a_pod_the_namespace_is_that_of_its_service_account(tmp_path, monkeypatch):
    for name, text in (("token", "t"), ("ca.crt", "c"), ("namespace", "shop\n")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", f"{tmp_path}/token")
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", f"{tmp_path}/ca.crt")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/none")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert Pods(Plan(selector="app=web"), 1.0).namespace == "shop"
    assert Pods(Plan(selector="app=web", namespace="other"), 1.0).namespace == "other"
    (tmp_path / "namespace").unlink()
    assert Pods(Plan(selector="app=web"), 1.0).namespace == "default"


def test_nothing_to_select_and_no_cluster(cluster, tmp_path):
    assert rollout(cluster, "--selector", "app=none", "--yes")[0] == 1
    cluster.server.shutdown()
    cluster.server.server_close()
    assert rollout(cluster, "--selector", "app=web", "--yes")[0] == 3
    cluster.config.unlink()
    status, _, errors = rollout(cluster, "--selector", "app=web", "--yes")
    assert status == 3
    assert "no cluster is configured" in errors
