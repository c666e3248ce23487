"""The pods of a Kubernetes cluster, by kubectl's own configuration (KUBECONFIG, --context; in a
pod, its service account), through the kubernetes client. They are only asked and told: their files
come from images and volumes, so nothing is copied.
"""

from __future__ import annotations

import contextlib
import json

import kubernetes
import urllib3.exceptions
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.stream import stream
from websocket import WebSocketException

from sidecar.rollout.fleet import Failed, Finished, Lost, Target, Vanished, natural

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO, Any

    from sidecar.rollout.plan import Plan

# The container that `kubectl exec` takes, where there are several.
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
HELLO = 20
# The channels of an exec.
OUT, ERR, OUTCOME = 1, 2, 3


class Pods:
    """Those that a plan's selector chooses. `patience`: no call takes longer (seconds)."""

    def __init__(self, plan: Plan, patience: float) -> None:
        """Raises Lost."""
        self._selector, self._patience = plan.selector, patience
        self._settings = kubernetes.client.Configuration()
        self._settings.retries = False
        try:
            try:
                kubernetes.config.load_kube_config(
                    context=plan.context or None, client_configuration=self._settings
                )
                contexts, active = kubernetes.config.list_kube_config_contexts()
                chosen = next((each for each in contexts if each["name"] == plan.context), active)
                namespace = chosen["context"].get("namespace", "")
            except ConfigException:
                if plan.context:
                    raise
                kubernetes.config.load_incluster_config(client_configuration=self._settings)
                namespace = ""
        except (ConfigException, OSError) as error:
            raise Lost(f"no cluster is configured: {error}") from None
        self._namespace = plan.namespace or namespace or "default"

    def find(self) -> list[Target]:
        """Those that run and are not on their way out, by name."""
        with self._spoken(), self._core() as core:
            found = core.list_namespaced_pod(
                self._namespace,
                label_selector=self._selector,
                field_selector="status.phase=Running",
                _request_timeout=HELLO,
            ).items
        targets = []
        for pod in found:
            if pod.metadata.deletion_timestamp is None:
                part = (pod.metadata.annotations or {}).get(
                    DEFAULT_CONTAINER
                ) or pod.spec.containers[0].name
                targets.append(
                    Target(pod.metadata.name, f"{self._namespace}/{pod.metadata.name}", part)
                )
        return sorted(targets, key=lambda each: natural(each.name))

    def execute(self, target: Target, argv: Sequence[str]) -> Finished:
        """As `kubectl exec` does, without input and terminal."""
        with self._spoken(), self._core() as core:
            answer = stream(
                core.connect_get_namespaced_pod_exec, target.name, self._namespace, container=target.part, command=list(argv),
                stdin=False, stdout=True, stderr=True, tty=False, _preload_content=False, _request_timeout=self._patience,
            )  # fmt: skip
            try:
                # A connection that ends in the middle leaves no outcome behind.
                with contextlib.suppress(WebSocketException, ConnectionError):
                    answer.run_forever(timeout=self._patience)
                out, err = answer.read_channel(OUT), answer.read_channel(ERR)
                outcome = answer.read_channel(OUTCOME)
            finally:
                answer.close()
        status = _status(outcome)
        # Killed with its pod or by somebody else, or the connection has ended.
        if status < 0 or status > 128:
            self.check(target)
        return Finished(status, out, err or outcome)

    def check(self, target: Target) -> None:
        """A pod that is being deleted counts as gone."""
        with self._spoken(), self._core() as core:
            pod = core.read_namespaced_pod(target.name, self._namespace, _request_timeout=HELLO)
        if pod.metadata.deletion_timestamp is not None or pod.status.phase != "Running":
            raise Vanished("it has ended meanwhile")

    def put(self, target: Target, directory: str, archive: IO[bytes]) -> None:
        """Not with pods."""
        raise Failed("copy", "nothing is copied into a pod")

    def get(self, target: Target, directory: str, into: IO[bytes]) -> None:
        """Not with pods."""
        raise Failed("copy", "nothing is copied out of a pod")

    def owner(self, target: Target) -> int:
        """Not with pods."""
        raise Failed("copy", "nothing is copied into a pod")

    @contextlib.contextmanager
    def _core(self) -> Iterator[Any]:
        """A client of its own: an exec changes its client while it runs."""
        with kubernetes.client.ApiClient(self._settings) as client:
            yield kubernetes.client.CoreV1Api(client)

    @contextlib.contextmanager
    def _spoken(self) -> Iterator[None]:
        """The client's errors in our words."""
        try:
            yield
        except ApiException as error:
            said = _message(error)
            # What a handshake was refused with has no status of its own: it is in the text.
            if error.status == 404 or "404 Not Found" in said or "not found" in said:
                raise Vanished("it is gone") from None
            if not error.status:
                raise Lost(f"the cluster does not answer any more: {said}") from None
            raise Failed("refused", f"the cluster refuses: {said}") from None
        except (urllib3.exceptions.HTTPError, WebSocketException, OSError) as error:
            raise Lost(f"the cluster does not answer: {error}") from None


def _status(outcome: str) -> int:
    """The exit status; 126 for what could not be begun, -1 where the answer has ended without
    saying.
    """
    try:
        said = json.loads(outcome)
    except ValueError:
        return -1
    if said.get("status") == "Success":
        return 0
    for cause in (said.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    return (
        126
        if "executable file not found" in said.get("message", "")
        or "no such file" in said.get("message", "")
        else -1
    )


def _message(error: ApiException) -> str:
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        return str(json.loads(error.body or "")["message"])
    return str(error.reason or error)
