"""The pods of a Kubernetes cluster, through the kubernetes client.

The configuration is kubectl's (KUBECONFIG, --context; in a pod, its service account). Nothing is
copied into a pod: its files come from images and volumes.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

import kubernetes
import urllib3.exceptions
from kubernetes.client.exceptions import ApiException
from kubernetes.config import incluster_config
from kubernetes.config.config_exception import ConfigException
from kubernetes.stream import stream
from websocket import ABNF, WebSocketBadStatusException, WebSocketException

from sidecar.rollout.engine import (
    MAX_OUTPUT_BYTES,
    EngineLost,
    Finished,
    StepFailed,
    Target,
    TargetError,
    TargetVanished,
    natural_sort_key,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO, Any

    from sidecar.rollout.plan import Plan

# The container that `kubectl exec` takes, where there are several.
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
CONNECT_TIMEOUT_S = 20
# An answer that is not JSON is cut to this: a proxy's may be a whole page.
MAX_MESSAGE_CHARS = 300
# The statuses of a command that is not there, or cannot be run.
NO_COMMAND = (126, 127)
# The channels of an exec.
OUT, ERR, OUTCOME = 1, 2, 3


class Pods:
    """The pods that a plan's selector chooses. No call takes longer than `timeout_s`."""

    def __init__(self, plan: Plan, timeout_s: float) -> None:
        """Raises EngineLost."""
        self._selector, self._timeout_s = plan.selector, timeout_s
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
                namespace = _own_namespace()
        except (ConfigException, OSError) as error:
            raise EngineLost(f"no cluster is configured: {error}") from None
        self.namespace = plan.namespace or namespace or "default"

    def find(self) -> list[Target]:
        """Those that run and are not being deleted, by name. Raises EngineLost."""
        try:
            with self._errors_translated(), self._core() as core:
                found = core.list_namespaced_pod(
                    self.namespace,
                    label_selector=self._selector,
                    field_selector="status.phase=Running",
                    _request_timeout=CONNECT_TIMEOUT_S,
                ).items
        except TargetError as error:
            raise EngineLost(str(error)) from None
        targets = []
        for pod in found:
            if pod.metadata.deletion_timestamp is None:
                part = (pod.metadata.annotations or {}).get(
                    DEFAULT_CONTAINER
                ) or pod.spec.containers[0].name
                targets.append(
                    Target(pod.metadata.name, f"{self.namespace}/{pod.metadata.name}", part)
                )
        return sorted(targets, key=lambda each: natural_sort_key(each.name))

    def execute(self, target: Target, argv: Sequence[str]) -> Finished:
        """As `kubectl exec` does, without input and terminal."""
        with self._errors_translated(), self._core() as core:
            answer = stream(
                core.connect_get_namespaced_pod_exec, target.name, self.namespace, container=target.part, command=list(argv),
                stdin=False, stdout=True, stderr=True, tty=False, _preload_content=False, _request_timeout=self._timeout_s,
            )  # fmt: skip
            try:
                out, err, outcome = self._output(answer)
            finally:
                answer.close()
        status = _status(outcome)
        # A sidecar that is stopping refuses every command. Or the command was killed with its pod,
        # or the connection has ended.
        if status not in (0, *NO_COMMAND):
            self.check(target)
        return Finished(status, out, err or outcome)

    def _output(self, answer: Any) -> tuple[str, str, str]:
        """Everything that comes on the channels. The client's own reader has no size limit, and
        breaks characters that lie across two frames.
        """
        parts = {OUT: bytearray(), ERR: bytearray(), OUTCOME: bytearray()}
        until, left = time.monotonic() + self._timeout_s, MAX_OUTPUT_BYTES
        # If the connection breaks, there is no outcome.
        with contextlib.suppress(WebSocketException, OSError):
            while (left_s := until - time.monotonic()) > 0:
                answer.sock.settimeout(left_s)
                kind, frame = answer.sock.recv_data_frame(True)
                if kind == ABNF.OPCODE_CLOSE:
                    break
                if kind in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) and frame.data[:1]:
                    if frame.data[0] in parts:
                        parts[frame.data[0]] += frame.data[1:]
                    left -= len(frame.data)
                    if left < 0:
                        raise StepFailed("refused", "its sidecar writes without an end")
        out, err, outcome = (part.decode(errors="replace") for part in parts.values())
        return out, err, outcome

    def check(self, target: Target) -> None:
        """A pod that is being deleted counts as gone."""
        with self._errors_translated(), self._core() as core:
            pod = core.read_namespaced_pod(
                target.name, self.namespace, _request_timeout=CONNECT_TIMEOUT_S
            )
        if pod.metadata.deletion_timestamp is not None or pod.status.phase != "Running":
            raise TargetVanished("it has ended meanwhile")

    def put(self, target: Target, directory: str, archive: IO[bytes]) -> None:
        """Not with pods."""
        raise StepFailed("copy", "nothing is copied into a pod")

    def get(self, target: Target, directory: str, into: IO[bytes], most: int) -> None:
        """Not with pods."""
        raise StepFailed("copy", "nothing is copied out of a pod")

    def owner(self, target: Target) -> int:
        """Not with pods."""
        raise StepFailed("copy", "nothing is copied into a pod")

    @contextlib.contextmanager
    def _core(self) -> Iterator[Any]:
        """A client of its own: an exec changes its client while it runs."""
        with kubernetes.client.ApiClient(self._settings) as client:
            yield kubernetes.client.CoreV1Api(client)

    @contextlib.contextmanager
    def _errors_translated(self) -> Iterator[None]:
        """The client's errors in our words."""
        try:
            yield
        except ApiException as error:
            raise _trouble(error) from None
        except (urllib3.exceptions.HTTPError, WebSocketException, OSError) as error:
            raise EngineLost(f"the cluster does not answer: {error}") from None


def _own_namespace() -> str:
    """The namespace of the pod that this runs in, which is what kubectl takes there."""
    # Beside the token that the client reads.
    directory = os.path.dirname(incluster_config.SERVICE_TOKEN_FILENAME)
    try:
        with open(os.path.join(directory, "namespace"), encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _trouble(error: ApiException) -> TargetError:
    """What an answer of the API server means that is no success."""
    status, body = error.status, error.body
    # An exec is answered while its websocket is opened: the client says status 0, and keeps the
    # answer in the exception that it was handling.
    if not status and isinstance(error.__context__, WebSocketBadStatusException):
        status, body = error.__context__.status_code, error.__context__.resp_body
    said = _message(body) or str(error.reason or error)
    if not status:
        return EngineLost(f"the cluster does not answer any more: {said}")
    if status == 404:
        return TargetVanished("it is gone")
    if status in (401, 403):
        return StepFailed(
            "refused", f"the cluster refuses: {said} (docs/rollout.md has the rights)"
        )
    if status >= 500 and "container not found" in said:
        return TargetVanished("its container does not run")
    if status >= 500:
        # The API server answers; the kubelet behind it does not, for one.
        return StepFailed("unreachable", f"it cannot be reached: {said}")
    return StepFailed("refused", f"the cluster refuses: {said}")


def _status(outcome: str) -> int:
    """The exit status; 126 for what could not be begun, -1 where the answer has ended without
    saying.
    """
    try:
        said = json.loads(outcome)
        if said.get("status") == "Success":
            return 0
        for cause in (said.get("details") or {}).get("causes") or ():
            if cause.get("reason") == "ExitCode":
                return int(cause["message"])
        message = str(said.get("message", ""))
    except (ValueError, TypeError, AttributeError, LookupError):
        return -1
    begun = "executable file not found" not in message and "no such file" not in message
    return -1 if begun else NO_COMMAND[0]


def _message(body: str | bytes | None) -> str:
    """The sentence in an answer's body, "" where there is none."""
    with contextlib.suppress(ValueError, TypeError, LookupError):
        return str(json.loads(body or "")["message"])
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    return " ".join(text.split())[:MAX_MESSAGE_CHARS]
