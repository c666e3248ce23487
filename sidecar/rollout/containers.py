"""The containers of a Docker engine, wherever DOCKER_HOST says it is (unix, TCP, TLS, ssh), through
the docker SDK.

A command's output is read from a plain streamed answer, not from the SDK's hijacked socket: that
one is polled without a time limit, and loses what was read ahead with the headers.
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

from sidecar.rollout.fleet import (
    MOST_OUTPUT,
    Failed,
    Finished,
    Lost,
    Target,
    TooMuch,
    Trouble,
    Vanished,
    natural,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO, Any

    from sidecar.rollout.plan import Plan

# An engine that does not say who it is within this time (seconds) cannot be reached.
HELLO = 20
# What ends just now is looked at so often, so many seconds apart.
ENDING_LOOKS, ENDING_PAUSE = 20, 0.1
PROJECT, SERVICE, ONEOFF = (
    "com.docker.compose.project",
    "com.docker.compose.service",
    "com.docker.compose.oneoff",
)


class Containers:
    """Those that a plan chooses, on the engine that this environment names. `patience`: no call
    takes longer (seconds).
    """

    def __init__(self, plan: Plan, patience: float) -> None:
        """Raises Lost."""
        self.labels = list(plan.label)
        for name, value in ((PROJECT, plan.project), (SERVICE, plan.service)):
            if value:
                self.labels.append(f"{name}={value}")
        self.composed = bool(plan.project or plan.service)
        try:
            self._api = docker.from_env(timeout=HELLO, max_pool_size=64).api
        except (
            docker.errors.DockerException,
            requests.exceptions.RequestException,
            ValueError,
            OSError,
        ) as error:
            raise Lost(f"the engine cannot be reached: {_reason(error)}") from None
        self._api.timeout = patience

    def find(self) -> list[Target]:
        """Those that run, by name; of a compose project, not what `compose run` started."""
        with self._spoken():
            found = self._api.containers(filters={"label": self.labels})
        targets = [
            Target(each["Names"][0].lstrip("/"), each["Id"])
            for each in found
            if each.get("Names") and not (self.composed and each["Labels"].get(ONEOFF) == "True")
        ]
        return sorted(targets, key=lambda each: natural(each.name))

    def execute(self, target: Target, argv: Sequence[str]) -> Finished:
        """As the container's own user, without a terminal."""
        with self._spoken(target):
            made = self._api.exec_create(target.id, list(argv))["Id"]
            url = f"{self._api.base_url}/v{self._api.api_version}/exec/{made}/start"
            with self._api.post(
                url, json={"Detach": False, "Tty": False}, stream=True, timeout=self._api.timeout
            ) as answer:
                if answer.status_code >= 400:
                    raise docker.errors.APIError(answer.reason, answer, answer.text.strip())
                out, err = _frames(answer.raw)
            status = self._api.exec_inspect(made)["ExitCode"]
        # Killed with its container, or by somebody else: the engine says the same of both.
        if status is None or status > 128:
            self._running(target)
        return Finished(
            -1 if status is None else status,
            out.decode(errors="replace"),
            err.decode(errors="replace"),
        )

    def put(self, target: Target, directory: str, archive: IO[bytes]) -> None:
        """As root, so owners and modes are those of the archive."""
        with self._spoken(target, directory):
            self._api.put_archive(target.id, directory, archive)

    def get(self, target: Target, directory: str, into: IO[bytes], most: int) -> None:
        """Everything below the directory."""
        with self._spoken(target, directory):
            pieces = self._api.get_archive(target.id, directory.rstrip("/") + "/.")[0]
            with contextlib.closing(pieces):
                for piece in pieces:
                    if into.tell() + len(piece) > most:
                        raise TooMuch(f"{directory} holds too much")
                    into.write(piece)

    def owner(self, target: Target) -> int:
        """A name is looked up where the container has it: in its own /etc/passwd."""
        with self._spoken(target):
            name = (
                self._api.inspect_container(target.id)["Config"].get("User", "").partition(":")[0]
                or "0"
            )
        if name.isdecimal():
            return int(name)
        file = io.BytesIO()
        try:
            self.get(target, "/etc/passwd", file, MOST_OUTPUT)
            file.seek(0)
            with tarfile.open(fileobj=file) as archive:
                found = archive.extractfile("passwd")
                text = found.read().decode(errors="replace") if found else ""
        except (tarfile.TarError, LookupError, TooMuch):
            raise Failed("copy", "its /etc/passwd cannot be read") from None
        for line in text.splitlines():
            parts = line.split(":")
            if parts[0] == name and len(parts) > 2 and parts[2].isdecimal():
                return int(parts[2])
        raise Failed("copy", f"its user {name!r} is not in its /etc/passwd")

    def check(self, target: Target) -> None:
        """The engine hears of an end a moment after it."""
        for _ in range(ENDING_LOOKS):
            self._running(target)
            time.sleep(ENDING_PAUSE)

    def _running(self, target: Target) -> None:
        """Raises Vanished, unless it does."""
        with self._spoken(target):
            state: dict[str, Any] = self._api.inspect_container(target.id)["State"]
        if not state.get("Running"):
            raise Vanished(f"it has ended meanwhile, with status {state.get('ExitCode')}")

    @contextlib.contextmanager
    def _spoken(self, target: Target | None = None, path: str = "") -> Iterator[None]:
        """The SDK's errors in our words."""
        try:
            yield
        except Trouble:
            raise
        except docker.errors.APIError as error:
            said = str(error.explanation or error)
            if target is None:
                raise Lost(f"the engine refuses: {said}") from None
            if error.status_code == 404 and "Could not find the file" in said:
                raise Failed("copy", f"{path} is no directory of the container") from None
            if error.status_code == 404 or "is not running" in said:
                raise Vanished(
                    "it is gone" if error.status_code == 404 else "it does not run any more"
                ) from None
            raise Failed("refused", f"the engine refuses: {said}") from None
        except requests.exceptions.ReadTimeout:
            raise Failed("hung", "the engine does not come to an end with it") from None
        except (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            docker.errors.DockerException,
            ConnectionError,
        ) as error:
            raise Lost(f"the engine does not answer any more: {_reason(error)}") from None


def _frames(raw: Any) -> tuple[bytearray, bytearray]:
    """Standard output and standard error, which come as frames: which one, three zeros, a length,
    and so many bytes.
    """
    parts = {1: bytearray(), 2: bytearray()}
    left = MOST_OUTPUT
    while len(head := raw.read(8)) == 8:
        length = int.from_bytes(head[4:], "big")
        left -= length
        if left < 0:
            raise Failed("refused", "its sidecar writes without an end")
        parts[2 if head[0] == 2 else 1] += raw.read(length)
    return parts[1], parts[2]


def _reason(error: BaseException) -> str:
    """The innermost cause, which is the one that says something."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return str(error)
