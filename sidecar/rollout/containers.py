"""The containers of a Docker engine, through the docker SDK.

DOCKER_HOST says where the engine is (unix, TCP, TLS, ssh). A command's output is read from a plain
streamed answer, not from the SDK's hijacked socket: the SDK polls that one without a time limit, and
loses what was read ahead with the headers.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
import time

import docker
import docker.errors
import requests.exceptions
import urllib3.exceptions

from sidecar.rollout.engine import (
    MAX_OUTPUT_BYTES,
    EngineLost,
    Finished,
    StepFailed,
    Target,
    TargetError,
    TargetVanished,
    TooLarge,
    natural_sort_key,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO, Any

    from sidecar.rollout.plan import Plan

# An engine that does not answer its version within this time cannot be reached.
CONNECT_TIMEOUT_S = 20
# A container that may be ending just now is looked at so often, with this pause between.
ENDING_LOOKS, ENDING_PAUSE_S = 20, 0.1
PROJECT, SERVICE, ONEOFF = (
    "com.docker.compose.project",
    "com.docker.compose.service",
    "com.docker.compose.oneoff",
)


class Containers:
    """The containers that a plan chooses. No call takes longer than `timeout_s`."""

    def __init__(self, plan: Plan, timeout_s: float) -> None:
        """Raises EngineLost."""
        self.labels = list(plan.label)
        for name, value in ((PROJECT, plan.project), (SERVICE, plan.service)):
            if value:
                self.labels.append(f"{name}={value}")
        self.composed = bool(plan.project or plan.service)
        try:
            self._api = docker.from_env(timeout=CONNECT_TIMEOUT_S, max_pool_size=64).api
        except (
            docker.errors.DockerException,
            requests.exceptions.RequestException,
            ValueError,
            OSError,
        ) as error:
            raise EngineLost(f"the engine cannot be reached: {_reason(error)}") from None
        self._api.timeout = timeout_s

    def find(self) -> list[Target]:
        """Those that run, by name. Of a compose project, those that `compose run` started are left out."""
        with self._errors_translated():
            found = self._api.containers(filters={"label": self.labels})
        targets = [
            Target(each["Names"][0].lstrip("/"), each["Id"])
            for each in found
            if each.get("Names") and not (self.composed and each["Labels"].get(ONEOFF) == "True")
        ]
        return sorted(targets, key=lambda each: natural_sort_key(each.name))

    def execute(self, target: Target, argv: Sequence[str]) -> Finished:
        """As the container's own user, without a terminal."""
        with self._errors_translated(target):
            made = self._api.exec_create(target.id, list(argv))["Id"]
            url = f"{self._api.base_url}/v{self._api.api_version}/exec/{made}/start"
            with self._api.post(
                url, json={"Detach": False, "Tty": False}, stream=True, timeout=self._api.timeout
            ) as answer:
                if answer.status_code >= 400:
                    raise docker.errors.APIError(answer.reason, answer, answer.text.strip())
                out, err = _read_frames(answer.raw)
            status = self._api.exec_inspect(made)["ExitCode"]
        # It was killed with its container, or by somebody else: the engine does not tell which.
        if status is None or status > 128:
            self._running(target)
        return Finished(
            -1 if status is None else status,
            out.decode(errors="replace"),
            err.decode(errors="replace"),
        )

    def put(self, target: Target, directory: str, archive: IO[bytes]) -> None:
        """As root, so owners and modes are those of the archive."""
        with self._errors_translated(target, directory):
            self._api.put_archive(target.id, directory, archive)

    def get(self, target: Target, directory: str, into: IO[bytes], most: int) -> None:
        """Everything below the directory."""
        with self._errors_translated(target, directory):
            pieces = self._api.get_archive(target.id, directory.rstrip("/") + "/.")[0]
            with contextlib.closing(pieces):
                for piece in pieces:
                    if into.tell() + len(piece) > most:
                        raise TooLarge(f"{directory} holds too much")
                    into.write(piece)

    def owner(self, target: Target) -> int:
        """A name is looked up where the container has it: in its own /etc/passwd."""
        with self._errors_translated(target):
            name = (
                self._api.inspect_container(target.id)["Config"].get("User", "").partition(":")[0]
                or "0"
            )
        if name.isdecimal():
            return int(name)
        file = io.BytesIO()
        try:
            self.get(target, "/etc/passwd", file, MAX_OUTPUT_BYTES)
            file.seek(0)
            with tarfile.open(fileobj=file) as archive:
                found = archive.extractfile("passwd")
                text = found.read().decode(errors="replace") if found else ""
        except (tarfile.TarError, LookupError, TooLarge):
            raise StepFailed("copy", "its /etc/passwd cannot be read") from None
        for line in text.splitlines():
            parts = line.split(":")
            if parts[0] == name and len(parts) > 2 and parts[2].isdecimal():
                return int(parts[2])
        raise StepFailed("copy", f"its user {name!r} is not in its /etc/passwd")

    def check(self, target: Target) -> None:
        """The engine learns of an end a moment after it: look several times."""
        for _ in range(ENDING_LOOKS):
            self._running(target)
            time.sleep(ENDING_PAUSE_S)

    def _running(self, target: Target) -> None:
        """Raises TargetVanished unless the container runs."""
        with self._errors_translated(target):
            state: dict[str, Any] = self._api.inspect_container(target.id)["State"]
        if not state.get("Running"):
            raise TargetVanished(f"it has ended meanwhile, with status {state.get('ExitCode')}")

    @contextlib.contextmanager
    def _errors_translated(self, target: Target | None = None, path: str = "") -> Iterator[None]:
        """Turn the SDK's errors into TargetError and its kinds."""
        try:
            yield
        except TargetError:
            raise
        except docker.errors.APIError as error:
            said = str(error.explanation or error)
            if target is None:
                raise EngineLost(f"the engine refuses: {said}") from None
            if error.status_code == 404 and "Could not find the file" in said:
                raise StepFailed("copy", f"{path} is no directory of the container") from None
            if error.status_code == 404 or "is not running" in said:
                raise TargetVanished(
                    "it is gone" if error.status_code == 404 else "it does not run any more"
                ) from None
            raise StepFailed("refused", f"the engine refuses: {said}") from None
        except requests.exceptions.ReadTimeout:
            raise StepFailed("hung", "the engine does not come to an end with it") from None
        except (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            docker.errors.DockerException,
            ConnectionError,
        ) as error:
            raise EngineLost(f"the engine does not answer any more: {_reason(error)}") from None


def _read_frames(raw: Any) -> tuple[bytearray, bytearray]:
    """Standard output and standard error, which come as frames of the docker API.

    A frame is the number of the stream, three zeros, the length in four bytes, and the content.
    """
    parts = {1: bytearray(), 2: bytearray()}
    left = MAX_OUTPUT_BYTES
    while len(head := raw.read(8)) == 8:
        length = int.from_bytes(head[4:], "big")
        left -= length
        if left < 0:
            raise StepFailed("refused", "its sidecar writes without an end")
        parts[2 if head[0] == 2 else 1] += raw.read(length)
    return parts[1], parts[2]


def _reason(error: BaseException) -> str:
    """The text of the innermost cause, which is the specific one."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return str(error)
