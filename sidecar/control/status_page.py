"""The page that `sidecar status` prints. Pure."""

from __future__ import annotations

from sidecar.base.columns import columns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

HEADINGS = ("GENERATION", "STATE", "SLOT", "PID", "WORKER", "AGE", "READY AFTER", "MEMORY", "")


def status_page(status: Mapping[str, Any]) -> list[str]:
    """The lines for an answer to the command `status`."""
    lines = [
        f"sidecar {status['version']}, pid {status['pid']}, up {short_duration(status['age'])}:"
        f" {status['state']}"
    ]
    lines += [f"not ready: {reason}" for reason in status["reasons"]]
    if status["listeners"]:
        lines.append("listening on " + ", ".join(status["listeners"]))
    return [
        *lines,
        "",
        *_workers(status["generations"]),
        "",
        *_history(status),
        *_plans(status),
        *(f"settings      {problem}" for problem in status["problems"]),
        *(
            f"stranger      process {pid} has a listener open,"
            " and no generation is known to have it"
            for pid in status.get("strangers", ())
        ),
    ]


def _workers(generations: list[dict[str, Any]]) -> list[str]:
    """The table of workers, and what they have left behind."""
    rows = [HEADINGS]
    for generation in reversed(generations):
        first = (str(generation["generation"]), generation["state"])
        if not generation["workers"]:
            age = short_duration(generation["age"])
            rows.append((*first, "-", "", "", age, "", "", ""))
        for worker in generation["workers"]:
            rows.append((*first, *_worker_cells(worker)))
            first = ("", "")
    orphans = [
        f"worker {worker['slot']} (pid {worker['pid']}) has left processes behind:"
        f" {', '.join(map(str, worker['outlived']))}"
        for generation in generations
        for worker in generation["workers"]
        if worker.get("outlived")
    ]
    return [*columns(rows), *orphans]


def _worker_cells(worker: Mapping[str, Any]) -> tuple[str, ...]:
    after, memory, killed_in = worker["ready_after"], worker["memory"], worker["killed_in"]
    return (
        f"{worker['slot']}",
        f"{worker['pid']}",
        worker["state"],
        short_duration(worker["age"]),
        "" if after is None else f"{after:.2f} s",
        "" if memory is None else f"{memory / 2**20:.0f} MiB",
        "" if killed_in is None else f"killed in {short_duration(max(0.0, killed_in))}",
    )


def _history(status: Mapping[str, Any]) -> list[str]:
    """What happened last, and how often."""
    lines = []
    for what in ("last_swap", "last_failure"):
        if last := status[what]:
            how = f": {last['cause']}" if "cause" in last else f", after {last['took']:.2f} s"
            lines.append(
                f"{what.replace('_', ' '):<14}generation {last['generation']},"
                f" {short_duration(last['ago'])} ago (trigger: {last['trigger']}){how}"
            )
    lines += [
        f"went back     generation {each['generation']} has the settings and environment of"
        f" generation {each['like']}, until the next swap"
        for each in status["generations"]
        if each["state"] == "serving" and each.get("like")
    ]
    if status["failing"] > 1:
        lines.append(f"failures      {status['failing']} in a row")
    if status["recycled"]:
        lines.append(f"recycled      {status['recycled']} workers that were too big")
    if last := status["last_upgrade"]:
        lines.append(
            f"upgrades      {status['upgrades']}, the last {short_duration(last['ago'])} ago,"
            f" from version {last['before']}"
        )
    return lines


def _plans(status: Mapping[str, Any]) -> list[str]:
    """What comes next by itself."""
    lines = []
    if swap := status["next_swap"]:
        lines.append(f"next swap     in {short_duration(swap['in'])} (trigger: {swap['trigger']})")
    elif status["failed"] and status["state"] in ("serving", "degraded"):
        lines.append("next swap     none: what failed is not tried again by itself")
    if status["next_restart_in"] is not None:
        lines.append(f"next restart  in {short_duration(status['next_restart_in'])}")
    return lines


def short_duration(seconds: float) -> str:
    """A duration as people say it: 4s, 12m, 3h, 2d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
