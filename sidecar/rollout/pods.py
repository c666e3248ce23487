"""The pods of a Kubernetes cluster, by kubectl's own configuration (KUBECONFIG, --context; in a
pod, its service account), through the kubernetes client. They are only asked and told: their files
come from images and volumes, so nothing is copied.
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

from sidecar.rollout.fleet import (
    MOST_OUTPUT,
    Failed,
    Finished,
    Lost,
    Target,
    Trouble,
    Vanished,
    natural,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO, Any

    from sidecar.rollout.plan import Plan

# The container that `kubectl exec` takes, where there are several.
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
HELLO = 20
# So much (characters) of an answer that is no JSON is told: a proxy's may be a whole page.
LONGEST_MESSAGE = 300
# The statuses of a command that is not there, or cannot be run.
NO_COMMAND = (126, 127)
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
                namespace = _own_namespace()
        except (ConfigException, OSError) as error:
            raise Lost(f"no cluster is configured: {error}") from None
        self.namespace = plan.namespace or namespace or "default"

    def find(self) -> list[Target]:
        """Those that run and are not on their way out, by name. Raises Lost."""
        try:
            with self._spoken(), self._core() as core:
                found = core.list_namespaced_pod(
                    self.namespace,
                    label_selector=self._selector,
                    field_selector="status.phase=Running",
                    _request_timeout=HELLO,
                ).items
        except Trouble as error:
            raise Lost(str(error)) from None
        targets = []
        for pod in found:
            if pod.metadata.deletion_timestamp is None:
                part = (pod.metadata.annotations or {}).get(
                    DEFAULT_CONTAINER
                ) or pod.spec.containers[0].name
                targets.append(
                    Target(pod.metadata.name, f"{self.namespace}/{pod.metadata.name}", part)
                )
        return sorted(targets, key=lambda each: natural(each.name))

    def execute(self, target: Target, argv: Sequence[str]) -> Finished:
        """As `kubectl exec` does, without input and terminal."""
        with self._spoken(), self._core() as core:
            answer = stream(
                core.connect_get_namespaced_pod_exec, target.name, self.namespace, container=target.part, command=list(argv),
                stdin=False, stdout=True, stderr=True, tty=False, _preload_content=False, _request_timeout=self._patience,
            )  # fmt: skip
            try:
                out, err, outcome = self._output(answer)
            finally:
                answer.close()
        status = _status(outcome)
        # A sidecar that is told to leave says no to everything. Or the command was killed with its
        # pod, or the connection has ended.
        if status not in (0, *NO_COMMAND):
            self.check(target)
        return Finished(status, out, err or outcome)

    def _output(self, answer: Any) -> tuple[str, str, str]:
        """What comes on the channels, to the end. The client's own reader takes all there is, and
        cuts characters at the border of two frames.
        """
        parts = {OUT: bytearray(), ERR: bytearray(), OUTCOME: bytearray()}
        until, left = time.monotonic() + self._patience, MOST_OUTPUT
        # A connection that ends in the middle leaves no outcome behind.
        with contextlib.suppress(WebSocketException, OSError):
            while (patience := until - time.monotonic()) > 0:
                answer.sock.settimeout(patience)
                kind, frame = answer.sock.recv_data_frame(True)
                if kind == ABNF.OPCODE_CLOSE:
                    break
                if kind in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) and frame.data[:1]:
                    if frame.data[0] in parts:
                        parts[frame.data[0]] += frame.data[1:]
                    left -= len(frame.data)
                    if left < 0:
                        raise Failed("refused", "its sidecar writes without an end")
        out, err, outcome = (part.decode(errors="replace") for part in parts.values())
        return out, err, outcome

    def check(self, target: Target) -> None:
        """A pod that is being deleted counts as gone."""
        with self._spoken(), self._core() as core:
            pod = core.read_namespaced_pod(target.name, self.namespace, _request_timeout=HELLO)
        if pod.metadata.deletion_timestamp is not None or pod.status.phase != "Running":
            raise Vanished("it has ended meanwhile")

    def put(self, target: Target, directory: str, archive: IO[bytes]) -> None:
        """Not with pods."""
        raise Failed("copy", "nothing is copied into a pod")

    def get(self, target: Target, directory: str, into: IO[bytes], most: int) -> None:
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
            raise _trouble(error) from None
        except (urllib3.exceptions.HTTPError, WebSocketException, OSError) as error:
            raise Lost(f"the cluster does not answer: {error}") from None


def _own_namespace() -> str:
    """The namespace of the pod that this runs in, which is what kubectl takes there."""
    # Beside the token that the client reads.
    directory = os.path.dirname(incluster_config.SERVICE_TOKEN_FILENAME)
    try:
        with open(os.path.join(directory, "namespace"), encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _trouble(error: ApiException) -> Trouble:
    """What an answer of the API server means that is no success."""
    status, body = error.status, error.body
    # An exec is answered while its websocket is opened: the client says status 0, and keeps the
    # answer in the exception that it was handling.
    if not status and isinstance(error.__context__, WebSocketBadStatusException):
        status, body = error.__context__.status_code, error.__context__.resp_body
    said = _message(body) or str(error.reason or error)
    if not status:
        return Lost(f"the cluster does not answer any more: {said}")
    if status == 404:
        return Vanished("it is gone")
    if status in (401, 403):
        return Failed("refused", f"the cluster refuses: {said} (docs/rollout.md has the rights)")
    if status >= 500 and "container not found" in said:
        return Vanished("its container does not run")
    if status >= 500:
        # The API server answers; the kubelet behind it does not, for one.
        return Failed("unreachable", f"it cannot be reached: {said}")
    return Failed("refused", f"the cluster refuses: {said}")


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
    return " ".join(text.split())[:LONGEST_MESSAGE]
