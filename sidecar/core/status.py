"""What `status` says: the supervisor's state at one moment, as plain values. Ages and waits are
seconds.

Pure: whoever asks adds what only the system knows (memory, wall-clock times).
"""

from __future__ import annotations

from sidecar.core.model import DRAINING, KILLED, LINGERING, OUTDATED, READY
from sidecar.core.starting import has_lost_slot, pending_respawns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sidecar.core.model import Generation, Worker
    from sidecar.core.supervisor import Supervisor


def readiness(supervisor: Supervisor) -> list[str]:
    """Why it is not ready to be sent requests; nothing, if it is."""
    reasons = []
    if supervisor.stop_state.phase == "lame duck":
        reasons.append("stopping: lame duck")
    elif supervisor.stop_state.signals_received:
        reasons.append("stopping")
    if not supervisor.worker_table.ready():
        reasons.append(
            "no worker is ready"
            if supervisor.ever_ready
            else "starting: no worker has been ready yet"
        )
    return reasons


def status(supervisor: Supervisor, now: float) -> dict[str, Any]:
    """The generations and their workers, what is waited for, and whether it serves."""
    table = supervisor.worker_table
    reasons = readiness(supervisor)
    current = table.current
    pending = supervisor.pending_swap
    return {
        "state": _state(supervisor, reasons),
        "ready": not reasons,
        "reasons": reasons,
        "generation": current.number if current is not None else None,
        "workers": supervisor.size,
        "generations": [_generation(each, now) for each in table.generations.values()],
        "next_swap": None
        if pending is None
        else {"trigger": pending.trigger, "in": max(0.0, pending.not_before - now)},
        "next_restart_in": _finite(supervisor.next_restart - now),
        "respawns": [
            {"slot": slot, "in": max(0.0, moment - now)}
            for slot, moment in sorted(pending_respawns(supervisor).items())
        ],
        "failed": None
        if supervisor.failed_swap is None
        else {"generation": supervisor.failed_swap[0], "cause": supervisor.failed_swap[1]},
    }


# What runs a program that is another word of its command; and those of its options with a value.
_INTERPRETERS = ("python", "pypy", "node", "deno", "bun", "ruby", "perl", "php", "java")
_VALUED = ("-X", "-W", "-I", "-r", "-cp")


def program(command: Sequence[str]) -> str:
    """What people call the program of a command: its file's name, or that of the script or module
    that an interpreter runs.
    """
    names = [word.rpartition("/")[2] for word in command]
    if names[0].rstrip("0123456789.") in _INTERPRETERS:
        for before, word, name in zip(command, command[1:], names[1:], strict=False):
            if word in ("-c", "-e"):
                break
            if before in ("-m", "-jar") or (before not in _VALUED and not word.startswith("-")):
                return name
    return names[0]


def _state(supervisor: Supervisor, reasons: list[str]) -> str:
    if supervisor.stop_state.signals_received:
        return "stopping"
    if reasons:
        return "starting" if not supervisor.ever_ready else "down"
    if supervisor.worker_table.coming is not None:
        return "swapping"
    # Fewer than there were to be, or of a generation that was to be replaced.
    ready = supervisor.worker_table.ready()
    return (
        "serving"
        if (len(ready) >= supervisor.size or not has_lost_slot(supervisor))
        and all(each.generation == ready[-1].generation for each in ready)
        else "degraded"
    )


def _generation(generation: Generation, now: float) -> dict[str, Any]:
    workers = [_worker(each, now) for each in generation.workers]
    draining = generation.state == OUTDATED and any(
        each["state"] in (DRAINING, LINGERING, KILLED, READY) for each in workers
    )
    return {
        "generation": generation.number,
        "state": "draining" if draining else generation.state,
        "trigger": generation.trigger,
        "like": generation.settings_from or None,
        "age": now - generation.begun_at,
        "serving_for": _finite(now - generation.serving_at),
        "workers": workers,
    }


def _worker(worker: Worker, now: float) -> dict[str, Any]:
    return {
        "slot": worker.slot,
        "pid": worker.pid,
        "state": worker.state,
        "age": now - worker.started_at,
        "ready_after": None if worker.ready_at is None else worker.ready_at - worker.started_at,
        "killed_in": _finite(worker.kill_at - now),
    }


def _finite(seconds: float) -> float | None:
    """JSON has no infinity."""
    return seconds if abs(seconds) != float("inf") else None
