"""The result of a rollout, as plain values and as a table. Pure."""

from __future__ import annotations

from sidecar.base.columns import columns
from sidecar.rollout.state import DONE, FAILED, UNTOUCHED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sidecar.rollout.state import Member, RolloutState


def summary(state: RolloutState, dry_run: bool = False) -> dict[str, Any]:
    """Everything, in the order of the rollout; after a dry run, which has only looked, that all of
    them could be reloaded is the good end.
    """
    members = state.members.values()
    counts = {each: len(state.in_state(each)) for each in (DONE, FAILED, UNTOUCHED)}
    if state.engine_lost:
        outcome = "lost"
    elif state.interrupts:
        outcome = "interrupted"
    elif dry_run:
        outcome = "failed" if counts[FAILED] else "looked"
    else:
        outcome = "stopped" if counts[UNTOUCHED] else "failed"
    return {
        "outcome": "done" if counts[DONE] == len(members) and not dry_run else outcome,
        "dry_run": dry_run,
        **counts,
        "containers": [one(each) for each in members],
    }


def one(member: Member) -> dict[str, Any]:
    """One container."""
    return {
        "name": member.target.name,
        "id": member.target.id,
        "outcome": member.state,
        "was": member.was,
        "serves": member.serves,
        **({"files": member.files} if member.files else {}),
        **({"kind": member.kind, "cause": member.cause} if member.kind else {}),
    }


def table(report: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    rows = [("CONTAINER", "OUTCOME", "SERVES", "")]
    rows += [
        (each["name"], each["outcome"], serves(each), remark(each)) for each in report["containers"]
    ]
    return [*columns(rows), "", sentence(report)]


def serves(each: Mapping[str, Any]) -> str:
    """The generation, and the one before, if that was another."""
    if each["serves"] is None:
        return (
            "nothing"
            if each.get("kind") == "vanished"
            else "unknown"
            if each["outcome"] == FAILED
            else "-"
        )
    return (
        f"{each['serves']}"
        if each["was"] in (None, each["serves"])
        else f"{each['was']} -> {each['serves']}"
    )


def remark(each: Mapping[str, Any]) -> str:
    """What went wrong, and what the files are then."""
    if each["outcome"] != FAILED:
        return ""
    files = {
        "new": "the old generation serves, though its files are new"
        if each["serves"] == each["was"] is not None
        else "its files are new",
        "partly new": "its files may be partly new",
        "put back": "its files are put back",
    }.get(each.get("files", ""))
    return f"{each['cause']} ({files})" if files else f"{each['cause']}"


def sentence(report: Mapping[str, Any]) -> str:
    """The end in one line."""
    if report["dry_run"] and report["outcome"] in ("looked", "failed"):
        return (
            "a dry run, nothing has been changed: "
            f"{report['untouched']} can be reloaded, {report['failed']} cannot"
        )
    counts = f"{report['done']} done, {report['failed']} failed, {report['untouched']} untouched"
    how = {
        "done": "the rollout is done",
        "failed": "the rollout is through, not everywhere with success",
        "stopped": "the rollout has stopped",
        "interrupted": "the rollout was interrupted",
        "lost": "the rollout has lost the engine",
    }[report["outcome"]]
    return f"{how}: {counts}"


def names(members: Sequence[Member]) -> str:
    """Some of them by name."""
    return ", ".join(each.target.name for each in members)
