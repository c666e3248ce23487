"""A namespace of a real cluster, and what is in it. Only where it was asked for: `make
test-kubernetes`.
"""

from __future__ import annotations

import os
import shutil

import pytest

from .cluster import Cluster, NoClusterError


@pytest.fixture(scope="module")
def cluster():
    """A namespace of its own in the cluster that KUBECONFIG points to; it goes at the end, with all
    that is in it.
    """
    if not os.environ.get("SIDECAR_KUBE"):
        pytest.skip("a real cluster is used only when asked for: make test-kubernetes")
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG is not set: say which cluster")
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed (Debian: apt-get install kubernetes-client)")
    if not os.environ.get("SIDECAR_KUBE_IMAGE"):
        pytest.skip(
            "SIDECAR_KUBE_IMAGE is not set: an image that the cluster's nodes have or can pull (docker build --target example)"
        )
    try:
        made = Cluster(f"sidecar-test-{os.getpid()}")
    except NoClusterError as error:
        pytest.skip(f"no cluster: {error}")
    try:
        yield made
    finally:
        made.remove()
