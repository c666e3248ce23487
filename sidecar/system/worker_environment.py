"""The variables of a worker: sidecar's own as it was given them, who the worker's user is, its slot,
and its own pid.
"""

from __future__ import annotations

from sidecar.system.procfs import MARK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.system.users import Credentials

# What a worker is given by sidecar alone: one inherited from sidecar's own parent would speak of
# other sockets.
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

# What a worker finds its sockets by.
OF_ITS_SOCKETS = ("LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "SERVER_STARTER_PORT")


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What a worker has of the environment that sidecar was started with."""
    return {name: value for name, value in _as_given(environ).items() if name not in NOT_PASSED_ON}


def _as_given(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what Python adds to its own at start-up: LC_CTYPE, where it finds no
    locale (PEP 538).
    """
    given = dict(environ)
    if "LC_CTYPE" in given:
        try:
            with open("/proc/self/environ", "rb") as block:
                began_with = block.read().split(b"\0")
        except OSError:
            return given
        if not any(entry.startswith(b"LC_CTYPE=") for entry in began_with):
            del given["LC_CTYPE"]
    return given


def logged_in(environ: Mapping[str, str], user: Credentials | None) -> dict[str, str]:
    """The environment with the variables that say who the workers' user is."""
    changed = {**environ, **(user.login if user is not None else {})}
    return {name: value for name, value in changed.items() if value is not None}


def in_slot(environ: Mapping[str, str], slot: int, workers: str) -> dict[str, str]:
    """A generation's environment as the worker in this slot has it, of so many workers."""
    return {**environ, "SIDECAR_WORKER": str(slot), "SIDECAR_WORKERS": workers}


def without_sockets(environ: Mapping[str, str]) -> dict[str, str]:
    """A worker's environment for a process that is given none of its sockets."""
    return {name: value for name, value in environ.items() if name not in OF_ITS_SOCKETS}


def with_own_pid(environ: Mapping[str, str], pid: int, worker: bool) -> dict[str, str]:
    """What only the new process itself can say: its pid, by which systemd's protocol tells whom the
    sockets are for, and by which all that a worker starts is known.
    """
    found = dict(environ)
    if "LISTEN_FDS" in found:
        found["LISTEN_PID"] = str(pid)
    if worker:
        found[MARK] = str(pid)
    return found
