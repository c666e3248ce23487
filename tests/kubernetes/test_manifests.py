"""deploy/kubernetes by itself: every file fits Kubernetes' own schemas, the parts fit each other,
and the times add up. No cluster.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.settings.table import TABLE
from sidecar.system import envdir
from tests.support import ROOT

from .cluster import client_pod, placed
from .manifests import (
    BASE,
    DEPLOY,
    OVERLAYS,
    built,
    container_of,
    documents,
    kustomize,
    of_kind,
    variables_of,
)

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="kubernetes-validate is not installed: no schemas"
)

RESOURCES = sorted(path for path in DEPLOY.glob("**/*.yaml") if path.name != "kustomization.yaml")
# An overlay's deployment.yaml is a part of one, merged into the base's.
WHOLE = [path for path in RESOURCES if path.name != "deployment.yaml" or path.parent == BASE]
# Of kinds that an operator brings there is no schema here.
FOREIGN = ("monitoring.coreos.com/",)

# What a pod, Deployment or Service may have since 1.21 and later: an older API server drops it
# silently.
NEWER = {
    "grpc", "hostUsers", "os", "schedulingGates", "resourceClaims", "minDomains", "matchLabelKeys", "nodeAffinityPolicy", "sleep",
    "nodeTaintsPolicy", "restartPolicy", "resizePolicy", "stopSignal", "internalTrafficPolicy", "trafficDistribution",
    "loadBalancerClass", "supplementalGroupsPolicy", "appArmorProfile", "clusterTrustBundle", "recursiveReadOnly",
}  # fmt: skip

STOP_SECONDS = 5  # what `sidecar check` adds for the end of what was killed


def oldest_schema() -> str:
    names = os.listdir(Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema")
    return min(
        (name.split("-")[0].lstrip("v") for name in names),
        key=lambda each: tuple(map(int, each.split("."))),
    )


def valid(resource: dict[str, Any], version: str) -> None:
    if not resource["apiVersion"].startswith(FOREIGN):
        kubernetes_validate.validate(resource, version, strict=True)


def seconds(text: str) -> float:
    return TABLE["lame_duck"].kind(text)


def name_of(path: Path) -> str:
    return str(path.relative_to(DEPLOY))


@pytest.mark.parametrize("path", WHOLE, ids=name_of)
def test_each_file_fits_the_schema_of_old_and_new(path):
    for resource in documents(path):
        valid(resource, oldest_schema())
        valid(resource, kubernetes_validate.latest_version())


def test_a_misspelt_field_would_be_found():
    deployment = documents(BASE / "deployment.yaml")[0]
    deployment["spec"]["template"]["spec"]["terminationGraceSeconds"] = 40
    with pytest.raises(kubernetes_validate.ValidationError):
        valid(deployment, oldest_schema())


@pytest.mark.parametrize("overlay", [BASE, *OVERLAYS], ids=lambda path: path.name)
def test_what_kustomize_makes_fits_the_schema_too(overlay):
    resources = built(overlay)
    for resource in resources:
        valid(resource, oldest_schema())
        valid(resource, kubernetes_validate.latest_version())
    fits_together(resources)


def test_the_base_fits_together():
    fits_together([each for path in WHOLE if path.parent == BASE for each in documents(path)])


def fits_together(resources: list[dict[str, Any]]) -> None:
    """What refers to something finds it; what must not be there is not."""
    deployment, service = of_kind(resources, "Deployment"), of_kind(resources, "Service")
    template = deployment["spec"]["template"]
    pod, labels = template["spec"], template["metadata"]["labels"]
    container = container_of(deployment)
    ports = {each["name"] for each in container["ports"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    assert {each["targetPort"] for each in service["spec"]["ports"]} <= ports
    maps = {each["metadata"]["name"] for each in resources if each["kind"] == "ConfigMap"}
    assert volumes["config"]["configMap"]["name"] in maps
    # `kubectl exec`, `kubectl logs` and `sidecar rollout` mean the program, whatever is beside it.
    assert template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == "hello"
    assert (
        volumes["secret"]["secret"]["secretName"]
        == of_kind(resources, "Secret")["metadata"]["name"]
    )
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container[name]
        assert ("exec" in probe) != ("httpGet" in probe)
        assert "exec" in probe or probe["httpGet"]["port"] in ports
    for each in (*pod["containers"], *pod.get("initContainers", ())):
        assert {one["configMapRef"]["name"] for one in each.get("envFrom", ())} <= maps
        assert {mount["name"] for mount in each["volumeMounts"]} <= set(volumes)
        assert not [
            mount for mount in each["volumeMounts"] if "subPath" in mount or "subPathExpr" in mount
        ]
        assert each["name"] != "hello" or "envFrom" not in each
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert {"memory", "cpu"} <= set(each["resources"]["requests"])
        assert "memory" in each["resources"]["limits"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    # Else every Service of the namespace would be in the program's environment, and one called
    # "sidecar" look like settings.
    assert pod["enableServiceLinks"] is False
    variables = variables_of(container)
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert [mounted[directory] for directory in variables["SIDECAR_ENVDIR"].split()] == [
        "config",
        "secret",
    ]
    assert os.path.dirname(variables["SIDECAR_CONTROL"]) in mounted
    for each in resources:
        if each["kind"] in ("PodDisruptionBudget", "PodMonitor"):
            assert each["spec"]["selector"]["matchLabels"].items() <= labels.items()
        if each["kind"] == "PodMonitor":
            assert {endpoint["port"] for endpoint in each["spec"]["podMetricsEndpoints"]} <= ports
        if each["kind"] == "HorizontalPodAutoscaler":
            assert each["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
            assert "replicas" not in deployment["spec"]


def keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def test_the_base_needs_nothing_newer_than_kubernetes_1_20():
    for path in (each for each in WHOLE if each.parent == BASE):
        for resource in documents(path):
            assert resource["apiVersion"] in ("v1", "apps/v1")
            assert not keys(resource) & NEWER


def test_the_newer_fields_are_looked_for_where_they_would_be():
    assert keys(
        {"spec": {"containers": [{"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}]}}
    ) & NEWER == {"sleep"}


# --- what sidecar itself makes of the settings


def settings_of(deployment: dict[str, Any]) -> dict[str, str]:
    return variables_of(container_of(deployment))


def test_every_variable_of_sidecars_is_a_setting():
    known = {each.variable for each in TABLE.values()}
    for overlay in [BASE, *OVERLAYS]:
        path = overlay / "deployment.yaml"
        pod = documents(path)[0]["spec"]["template"]["spec"] if path.exists() else {}
        for container in pod.get("containers", ()):
            names = {each["name"] for each in container.get("env", ())}
            assert {name for name in names if name.startswith("SIDECAR_")} <= known, path
            assert container["name"] != "hello" or names


def test_a_stop_fits_into_the_grace_with_a_margin():
    deployment = documents(BASE / "deployment.yaml")[0]
    variables = settings_of(deployment)
    pod = deployment["spec"]["template"]["spec"]
    assert "lifecycle" not in container_of(deployment), (
        "a preStop hook takes its time from the grace, too: add it here"
    )
    longest = (
        seconds(variables["SIDECAR_LAME_DUCK"])
        + seconds(variables["SIDECAR_DRAIN_TIMEOUT"])
        + STOP_SECONDS
    )
    assert longest < pod["terminationGracePeriodSeconds"]
    # The Service forgets a pod that is not ready, or deleted, sooner than its lame duck ends.
    probe = container_of(deployment)["readinessProbe"]
    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) < seconds(
        variables["SIDECAR_LAME_DUCK"]
    )


@pytest.mark.parametrize("overlay", [BASE, *OVERLAYS], ids=lambda path: path.name)
def test_liveness_bears_a_stall_of_a_busy_node(overlay):
    deployment = (
        of_kind(built(overlay), "Deployment")
        if overlay != BASE
        else documents(BASE / "deployment.yaml")[0]
    )
    probe = container_of(deployment)["livenessProbe"]
    assert probe["timeoutSeconds"] >= 10
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 60


def test_the_repository_is_said_in_one_place(tmp_path):
    """An overlay of one's own says it once, and both of git-sync's containers have it."""
    (tmp_path / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"resources: [{os.path.relpath(DEPLOY / 'overlays' / 'code-volume', tmp_path)}]\n"
        "configMapGenerator:\n"
        '  - {name: git-sync, behavior: merge, literals: ["GITSYNC_REPO=https://own/one.git"]}\n'
    )
    resources = built(tmp_path)
    assert "git.example" not in json.dumps(resources)
    (found,) = (
        each
        for each in resources
        if each["kind"] == "ConfigMap" and each["metadata"]["name"].startswith("git-sync")
    )
    assert found["data"]["GITSYNC_REPO"] == "https://own/one.git"
    pod = of_kind(resources, "Deployment")["spec"]["template"]["spec"]
    where = [
        each["envFrom"][0]["configMapRef"]["name"]
        for each in (*pod["initContainers"], *pod["containers"])
        if each["name"].startswith("git-sync")
    ]
    assert where == [found["metadata"]["name"]] * 2


def check(deployment: dict[str, Any], where: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """`sidecar check` with the Deployment's settings, `where` in place of its directories; the
    program is in the image.
    """
    if not (ROOT / "sidecar" / "cli" / "check.py").exists():
        pytest.skip("this sidecar has no `sidecar check`")
    environ = {**os.environ, **settings_of(deployment)}
    environ |= {"SIDECAR_ENVDIR": str(where), "SIDECAR_CONTROL": f"{where}/control.sock"}
    environ["SIDECAR_DIR"] = str(where)
    argv = [
        sys.executable,
        "-m",
        "sidecar",
        "check",
        "--json",
        "--max-failures=0",
        *more,
        *container_of(deployment)["args"],
    ]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("overlay", [BASE, *OVERLAYS], ids=lambda path: path.name)
def test_sidecar_check_agrees(overlay, tmp_path):
    deployment = (
        of_kind(built(overlay), "Deployment")
        if overlay != BASE
        else documents(BASE / "deployment.yaml")[0]
    )
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    right = check(deployment, tmp_path, "--grace", f"{grace}s")
    assert right.returncode == 0, right.stderr
    assert json.loads(right.stdout)["problems"] == []
    wrong = check(deployment, tmp_path, "--grace", f"{grace}s", "--pre-stop", "10s")
    assert wrong.returncode == 2
    assert "lame-duck 10 s" in wrong.stdout


def test_the_examples_are_an_environment(tmp_path):
    for name, part in (("configmap.yaml", "data"), ("secret.yaml", "stringData")):
        for key, value in documents(BASE / name)[0][part].items():
            (tmp_path / key).write_text(value)
    reading = envdir.read([str(tmp_path)], True)
    assert set(reading.variables) == {"GREETING", "API_TOKEN"}
    assert not reading.remarks


# --- what tests/kubernetes/test_cluster.py sends into a cluster


@pytest.mark.parametrize("node", ["", "node-1"])
def test_what_a_cluster_is_given_fits_the_schema(node):
    for each in (
        client_pod("load-1", "hello", "example:1", "Never", node),
        placed(documents(BASE / "deployment.yaml")[0], "example:1", "Never", node),
    ):
        valid(each, oldest_schema())
        spec = each["spec"].get("template", each)["spec"]
        assert spec.get("nodeName", "") == node
        assert [(one["image"], one["imagePullPolicy"]) for one in spec["containers"]] == [
            ("example:1", "Never")
        ]


def test_the_clusters_client_counts_answers_and_failures(sidecar, tmp_path):
    """As it runs there, from `-c`: told by what it is asked for, and that what fails is seen."""
    gunicorn = (sys.executable, "-m", "gunicorn", "--no-control-socket", "examples.hello.app:app")
    running = sidecar("--control", str(tmp_path / "control.sock"), program=gunicorn, cwd=ROOT)
    running.wait("serving")
    argv = [
        sys.executable,
        "-u",
        "-c",
        (ROOT / "tests/kubernetes/client.py").read_text(),
        f"127.0.0.1:{running.port}",
        "2",
        "0.01",
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout is not None
            told = (json.loads(line) for line in client.stdout)
            assert (
                next(each for each in told if each["answers"].get("Hello", 0) > 20)["failed"] == 0
            )
            running.stop()
            failed = next(each for each in told if each["failed"])
            assert "Connection" in failed["causes"][0]
            client.terminate()
            assert client.wait() == 0
        finally:
            client.kill()


# --- the page


def page() -> str:
    return (ROOT / "docs" / "kubernetes.md").read_text()


def test_the_pages_yaml_is_what_the_overlay_has():
    shown = [yaml.safe_load(block.split("```")[0]) for block in page().split("```yaml\n")[1:]]
    shipped = container_of(documents(DEPLOY / "overlays" / "code-volume" / "deployment.yaml")[0])[
        "env"
    ]
    assert shown
    assert all(each in shipped for block in shown for each in block["env"])


def test_the_pages_numbers_are_the_deployments():
    deployment = documents(BASE / "deployment.yaml")[0]
    variables, grace = (
        settings_of(deployment),
        deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"],
    )
    duck, drain = (
        seconds(variables["SIDECAR_LAME_DUCK"]),
        seconds(variables["SIDECAR_DRAIN_TIMEOUT"]),
    )
    for said in (
        f"`terminationGracePeriodSeconds` ({grace} s)", f"`--lame-duck` ({duck:g} s)", f"(`--drain-timeout`, {drain:g} s)",
        f"| {duck:g} s |", f"| at most {duck + drain:g} s |", f"| at most {duck + drain + STOP_SECONDS:g} s |",
        f"| {grace} s |", f"--grace {grace}s`",
        f"`--env-splay` ({seconds(variables['SIDECAR_ENV_SPLAY']):g} s)",
    ):  # fmt: skip
        assert said in page()


def test_the_pages_overlays_are_those_there_are():
    rows = re.findall(r"^\| `(base|overlays/[a-z-]+)` \|", page(), re.MULTILINE)
    assert sorted(rows) == sorted(str(path.relative_to(DEPLOY)) for path in (BASE, *OVERLAYS))


def test_the_pages_kustomize_command_works():
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    kustomize()
    commands = re.findall(r"^    (kubectl kustomize .+)$", page(), re.MULTILINE)
    assert commands
    for command in commands:
        done = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "kind: Deployment" in done.stdout
