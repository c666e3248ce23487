"""What deploy/kubernetes ships: each file as it is, and what kustomize makes of an overlay."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parent.parent.parent / "deploy" / "kubernetes"
BASE = DEPLOY / "base"
OVERLAYS = sorted(path.parent for path in DEPLOY.glob("overlays/*/kustomization.yaml"))

# What `patches` needs. kubectl brings kustomize: up to 1.20 version 2.0, from 1.21 on a current
# one.
OLDEST = (4, 0)


def documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def of_kind(resources: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The one resource of this kind."""
    found = [each for each in resources if each["kind"] == kind]
    assert len(found) == 1, f"{len(found)} {kind}"
    return found[0]


def container_of(deployment: dict[str, Any], name: str = "hello") -> dict[str, Any]:
    pod = deployment["spec"]["template"]["spec"]
    return next(each for each in pod["containers"] if each["name"] == name)


def variables_of(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"]}


def built(directory: Path) -> list[dict[str, Any]]:
    """The resources of a kustomization. Skips where there is nothing to build it with."""
    done = subprocess.run(
        [*kustomize(), str(directory)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


@functools.cache
def kustomize() -> tuple[str, ...]:
    if shutil.which("kustomize"):
        return "kustomize", "build"
    if not shutil.which("kubectl"):
        pytest.skip("neither kustomize nor kubectl is installed: the overlays cannot be built here")
    told = subprocess.run(
        ["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True, check=True
    ).stdout
    version = json.loads(told).get("kustomizeVersion", "v2.0")
    if tuple(int(part) for part in version.lstrip("v").split(".")[:2]) < OLDEST:
        pytest.skip(
            f"this kubectl's kustomize {version} is older than {OLDEST[0]}: the overlays cannot be built here"
        )
    return "kubectl", "kustomize"
