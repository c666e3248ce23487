"""A pod's container under the Docker engine, as its Deployment describes it: what is shipped is
what is tested.

Podman's `kube play` would read the Deployment itself, but writes a ConfigMap's volume once and
never again, and that change is what this is about. So the volumes are written here, step by step as
the kubelet does it (kubernetes/kubernetes pkg/volume/util/atomic_writer.go), and mounted as
directories, as in a pod. Probes are asked by the tests; what takes a pod out of its Service is not
here, but in tests/kubernetes.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from tests.kubernetes.manifests import variables_of

from .containers import PATIENCE, Running


class Volume:
    """A ConfigMap or Secret in a directory; `write` is what the kubelet does when it has changed.

    `links_last`: the names are linked after the swap, as current kubelets do it; older ones link
    them before.
    """

    def __init__(
        self, path: Path, mode: int = 0o644, group: int = 0, links_last: bool = True
    ) -> None:
        self.path, self.mode, self.group, self.links_last = path, mode, group, links_last
        path.mkdir()
        path.chmod(0o755)

    def write(self, payload: dict[str, str]) -> None:
        """Writes even what is there already: a kubelet does not, the writers of projected volumes
        do.
        """
        stamp = self.path / f"..2026_11_22_10_00_00.{time.monotonic_ns()}"
        stamp.mkdir()
        stamp.chmod(0o755)
        for name, value in payload.items():
            (stamp / name).write_text(value)
            (stamp / name).chmod(self.mode)
            if os.geteuid() == 0:
                os.chown(stamp / name, 0, self.group)
        data = self.path / "..data"
        old = os.readlink(data) if data.is_symlink() else ""
        if not self.links_last:
            self._link(payload)
        (self.path / "..data_tmp").symlink_to(stamp.name)
        os.rename(self.path / "..data_tmp", data)
        if self.links_last:
            self._link(payload)
        for link in self.path.iterdir():
            if not link.name.startswith("..") and link.name not in payload:
                link.unlink()
        if old:
            shutil.rmtree(self.path / old)

    def _link(self, names: Any) -> None:
        for name in names:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")


class Pod:
    """The container "hello" of a Deployment. `volumes` says which directory stands for which
    volume; emptyDirs need none.

    `variables` are set instead of the Deployment's: said where it is done.
    """

    def __init__(
        self,
        run_container: Any,
        deployment: dict[str, Any],
        volumes: dict[str, Path],
        image: str,
        variables: dict[str, str],
    ) -> None:
        spec = deployment["spec"]["template"]["spec"]
        container = next(each for each in spec["containers"] if each["name"] == "hello")
        self.grace = spec["terminationGracePeriodSeconds"]
        self.probes = {
            name: container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")
        }
        self.ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        who, locked = spec["securityContext"], container["securityContext"]
        empty = {each["name"] for each in spec["volumes"] if "emptyDir" in each} - set(volumes)
        mounts = container["volumeMounts"]
        assert locked["allowPrivilegeEscalation"] is False
        assert not any("subPath" in each for each in mounts)
        self.running: Running = run_container(
            *container["args"],
            image=image,
            app="",
            mounts={
                volumes[each["name"]]: (each["mountPath"], "ro")
                for each in mounts
                if each["name"] in volumes
            },
            tmpfs={each["mountPath"]: "mode=1777" for each in mounts if each["name"] in empty},
            environment={**variables_of(container), **variables},
            user=f"{who['runAsUser']}:{who['runAsGroup']}",
            group_add=[str(who["fsGroup"])],
            read_only=locked["readOnlyRootFilesystem"],
            cap_drop=locked["capabilities"]["drop"],
            security_opt=["no-new-privileges:true"],
            mem_limit=container["resources"]["limits"]["memory"].removesuffix("i").lower(),
            ports={f"{port}/tcp": ("127.0.0.1", None) for port in self.ports.values()},
        )

    def published(self, name: str) -> int:
        """Where the port of this name can be reached, on 127.0.0.1."""
        self.running.container.reload()
        return int(self.running.container.ports[f"{self.ports[name]}/tcp"][0]["HostPort"])

    def probe(self, name: str) -> bool:
        """What a kubelet would make of this probe now."""
        probe = self.probes[name]
        if "exec" in probe:
            return self.running.container.exec_run(probe["exec"]["command"])[0] == 0
        asked = probe["httpGet"]
        return 200 <= self.ask(asked["port"], asked["path"])[0] < 400

    def wait_probe(self, name: str, wanted: bool) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.probe(name) is not wanted:
            assert time.monotonic() < deadline, (
                f"{name} never said {wanted}; the log:\n" + "\n".join(self.running.lines)
            )
            time.sleep(0.05)

    def ask(self, port: str, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.published(port), timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (ConnectionError, http.client.BadStatusLine):
            return 0, ""
        finally:
            connection.close()

    def environments(self) -> list[dict[str, str]]:
        """The environment of each process of the generation that was started last."""
        told = self.running.python(
            "import json, os\n"
            "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
            "    try: each = dict(one.split('=', 1) for one in open(f'/proc/{pid}/environ').read().split(chr(0)) if '=' in one)\n"
            "    except OSError: continue\n"
            "    if 'SERVER_STARTER_GENERATION' in each: print(json.dumps(each))"
        )
        each = [json.loads(line) for line in told.splitlines()]
        newest = max(int(one["SERVER_STARTER_GENERATION"]) for one in each)
        return [one for one in each if int(one["SERVER_STARTER_GENERATION"]) == newest]

    def says(self) -> str:
        """All that sidecar tells about itself: log, status by the control socket, and status,
        metrics and events over HTTP.
        """
        status, told = self.running.container.exec_run(["sidecar", "status", "--json"])
        assert status == 0, told
        said = ["\n".join(self.running.lines), told.decode()]
        for path in ("/status", "/metrics", "/"):
            status, told = self.ask("admin", path)
            assert status == 200, told
            said.append(told)
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.published("admin"), timeout=PATIENCE
        )
        connection.request("GET", "/events", headers={"Last-Event-ID": "0"})
        answer = connection.getresponse()
        # The stream has no end: up to the event that was logged last before it was asked for.
        last = self.running.events()[-1]["message"]
        told = ""
        while last not in told:
            line = answer.readline().decode()
            assert line, f"the events ended before {last!r}"
            told += line
        connection.close()
        return "\n".join([*said, told])
