"""The variables of a worker: the ones that sidecar was started with, those that say who the worker's
user is, its slot, and its own pid.
"""

from __future__ import annotations

from sidecar.system.procfs import WORKER_PID_VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.system.users import Credentials

# What a worker gets from sidecar only. What sidecar's own parent has set would name other sockets.
NOT_PASSED_ON = (
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "SIDECAR_CHANGED",
)

# The variables by which a worker finds its sockets.
SOCKET_VARIABLES = ("LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "SERVER_STARTER_PORT")


def passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """What a worker gets of the environment that sidecar was started with."""
    given = _without_python_additions(environ)
    return {name: value for name, value in given.items() if name not in NOT_PASSED_ON}


def _without_python_additions(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what Python adds to its own at start-up: LC_CTYPE, if there is no
    locale (PEP 538).
    """
    given = dict(environ)
    if "LC_CTYPE" in given:
        try:
            with open("/proc/self/environ", "rb") as block:
                started_with = block.read().split(b"\0")
        except OSError:
            return given
        if not any(entry.startswith(b"LC_CTYPE=") for entry in started_with):
            del given["LC_CTYPE"]
    return given


def with_login_variables(environ: Mapping[str, str], user: Credentials | None) -> dict[str, str]:
    """The environment with the variables that say who the workers' user is (None: sidecar's)."""
    changed = {**environ, **(user.login_variables if user is not None else {})}
    return {name: value for name, value in changed.items() if value is not None}


def with_slot(environ: Mapping[str, str], slot: int, workers: str) -> dict[str, str]:
    """A generation's environment for the worker in this slot. `workers` is how many there are."""
    return {**environ, "SIDECAR_WORKER": str(slot), "SIDECAR_WORKERS": workers}


def without_sockets(environ: Mapping[str, str]) -> dict[str, str]:
    """A worker's environment for a process that gets none of its sockets."""
    return {name: value for name, value in environ.items() if name not in SOCKET_VARIABLES}


def with_own_pid(environ: Mapping[str, str], pid: int, is_worker: bool) -> dict[str, str]:
    """The environment with what only the new process itself can say: its pid.

    By LISTEN_PID, systemd's protocol tells whom the sockets are for. By SIDECAR_WORKER_PID, sidecar
    knows all that a worker starts.
    """
    found = dict(environ)
    if "LISTEN_FDS" in found:
        found["LISTEN_PID"] = str(pid)
    if is_worker:
        found[WORKER_PID_VARIABLE] = str(pid)
    return found
