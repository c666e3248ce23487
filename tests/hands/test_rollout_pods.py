"""Pods, without a cluster: an API server that speaks the real protocols (HTTP, exec's websocket
channels); its pods are real sidecars.
"""

from __future__ import annotations

import base64
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

from tests.support import PATIENCE, ROOT, Sidecar, until

NAMES = ("web-1", "web-2", "web-10")


class Cluster:
    """The pods of one namespace, and the API server in front of them."""

    def __init__(self, tmp_path) -> None:
        self.pods = {name: Sidecar("--control", f"{tmp_path}/{name}.sock") for name in NAMES}
        self.gone: set[str] = set()
        self.without: set[str] = set()
        self.asked: list[str] = []
        self.before_exec = lambda name, argv: None
        self.directory = tmp_path
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
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
            found = [
                self.pod(name)
                for name in NAMES
                if name not in self.gone and query["labelSelector"] == ["app=web"]
            ]
            self.say(request, 200, {"kind": "PodList", "apiVersion": "v1", "items": found})
        elif path[6] in self.gone:
            self.say(
                request,
                404,
                {"kind": "Status", "message": f'pods "{path[6]}" not found', "code": 404},
            )
        elif len(path) == 7:
            self.say(request, 200, self.pod(path[6]))
        else:
            assert query["container"] == ["app"]
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


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    for each in made.pods.values():
        each.wait("serving")
    yield made
    made.close()


def rollout(cluster: Cluster, *words: str) -> tuple[int, list[dict], str]:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "rollout", "--context", "shop", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
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


def test_nothing_to_select_and_no_cluster(cluster, tmp_path):
    assert rollout(cluster, "--selector", "app=none", "--yes")[0] == 1
    cluster.server.shutdown()
    cluster.server.server_close()
    assert rollout(cluster, "--selector", "app=web", "--yes")[0] == 3
    cluster.config.unlink()
    status, _, errors = rollout(cluster, "--selector", "app=web", "--yes")
    assert status == 3
    assert "no cluster is configured" in errors
