"""Who is told how things are, in each turn in which that has changed: readers of the status file,
and the service manager.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sidecar.core.supervisor import Supervisor
    from sidecar.system.service_manager import ServiceManager
    from sidecar.system.status_file import StatusFile

    Say = Callable[[str, Mapping[str, Any]], None]


class StatusFileReport:
    """The job that writes the status file, if there is one."""

    def __init__(self, say: Say, file: StatusFile | None, supervisor: Supervisor) -> None:
        self._say = say
        self._file = file
        self._supervisor = supervisor
        self._failed = ""

    def deadline(self) -> float:
        """Never by itself."""
        return float("inf")

    def on_deadline(self, _now: float) -> None:
        """Write what has changed. What fails is said once."""
        if self._file is None:
            return
        try:
            self._file.write(self._supervisor.status_rows())
            self._file.write_failure(self._supervisor.failed_swap)
            self._failed = ""
        except OSError as error:
            cause = error.strerror or str(error)
            if cause != self._failed:
                what = f"write --status-file {self._file.path}"
                self._say("action_failed", {"what": what, "cause": cause})
            self._failed = cause


class ServiceManagerReport:
    """The job that tells the service manager."""

    def __init__(self, say: Say, manager: ServiceManager, supervisor: Supervisor) -> None:
        self._say = say
        self._manager = manager
        self._supervisor = supervisor

    def deadline(self) -> float:
        """When what found no room is sent again."""
        return self._manager.retry_at

    def on_deadline(self, now: float) -> None:
        """Tell what has changed."""
        if cause := self._manager.send(self._supervisor, now):
            what = f"tell the service manager at NOTIFY_SOCKET={self._manager.address}"
            self._say("action_failed", {"what": what, "cause": cause})
