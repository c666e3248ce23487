"""What is done to one container, in a thread of its own: every step is told, and whatever goes
wrong is raised as Trouble.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile

from sidecar.base.record import Record
from sidecar.rollout.course import Looked, Said, Stepped
from sidecar.rollout.fleet import Absent, Failed, TooMuch, Trouble
from sidecar.rollout.plan import filled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO, Any

    from sidecar.rollout.fleet import Finished, Fleet, Target
    from sidecar.rollout.parcel import Parcel
    from sidecar.rollout.plan import Plan

    Tell = Callable[[Record], None]

# Where it is: on PATH, or as a directory that was copied into an image of another kind.
COMMANDS = ("sidecar", "/opt/sidecar/bin/sidecar")

# So much (characters) of its complaint is told.
LONGEST_LINE = 500

# What is replaced is kept for a rollback: in memory up to this size (bytes), then in a file that
# has no name. How much a directory holds is the container's to say, and a sparse file of no size
# there is a large one here: no container may have more than MOST_KEPT kept.
KEPT, MOST_KEPT = 1 << 24, 1 << 30


class Serving(Record):
    """What a container's sidecar says of itself, with the shapes that it has to have: a container
    may say anything.
    """

    generation: int | None
    ready: bool
    reasons: tuple[str, ...]
    stopping: bool


def look(fleet: Fleet, target: Target, plan: Plan, tell: Tell) -> None:
    """Which generation serves?"""
    tell(Looked(target.id, _status(fleet, target, plan).generation))


def roll(fleet: Fleet, target: Target, plan: Plan, parcels: Sequence[Parcel], tell: Tell) -> None:
    """The whole of it: hooks, copies, reload, verification."""
    tell(Stepped(target.id, "look"))
    old = _status(fleet, target, plan).generation
    tell(Looked(target.id, old))
    values = {
        "name": target.name,
        "id": target.id,
        "old": _shown(old),
        "new": _shown(old),
        "outcome": "failed",
    }
    if plan.before_each:
        tell(Stepped(target.id, "before-each"))
        hooks(plan.before_each, "before-each", values, plan.timeout, tell)
    try:
        kept = _copy(fleet, target, parcels, plan.rollback, tell)
        try:
            new = _reload(fleet, target, plan, old, tell)
        except Absent as error:
            # It answered before. Its container is ending, or was started again.
            fleet.check(target)
            raise Failed("left", str(error)) from None
        except Trouble:
            if kept:
                _put_back(fleet, target, kept, tell)
            raise
        values |= {"new": _shown(new), "outcome": "done"}
    except Trouble:
        # It serves on, so it goes back to wherever `before-each` took it from. Its own failure is
        # the one to tell.
        if plan.after_each:
            tell(Stepped(target.id, "after-each"))
            try:
                hooks(plan.after_each, "after-each", values, plan.timeout, tell)
            except Trouble as error:
                tell(Said(target.id, "after-each", [str(error)]))
        raise
    if plan.after_each:
        tell(Stepped(target.id, "after-each"))
        hooks(plan.after_each, "after-each", values, plan.timeout, tell)


def hooks(
    commands: Sequence[Sequence[str]],
    name: str,
    values: Mapping[str, object],
    timeout: float,
    tell: Callable[[Said], None],
) -> None:
    """Run these here, one after the other. Raises Failed at the first that fails.

    Each finds the values in its environment too, which is the way to give them to a shell.
    """
    environment = {**os.environ, **{f"ROLLOUT_{key.upper()}": str(values[key]) for key in values}}
    for command in commands:
        argv = filled(command, values)
        try:
            # Its own process group: a ^C is for the rollout, which ends in order.
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0,
                text=True, errors="replace", env=environment,
            )  # fmt: skip
        except OSError as error:
            raise Failed("hook", f"{name}: {argv[0]} cannot be run: {error.strerror}") from None
        try:
            said = process.communicate(timeout=timeout)[0].splitlines()
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Failed("hook", f"{name}: {argv[0]} did not end within {timeout:g} s") from None
        if said:
            tell(Said(str(values.get("id", "")), name, said))
        if process.returncode:
            how = (
                f"exited with status {process.returncode}"
                if process.returncode > 0
                else f"was killed by signal {-process.returncode}"
            )
            raise Failed("hook", f"{name}: {argv[0]} {how}")


def _copy(
    fleet: Fleet, target: Target, parcels: Sequence[Parcel], keep: bool, tell: Tell
) -> list[tuple[str, IO[bytes]]]:
    """Put everything where it belongs; what was there before, if that is to be kept."""
    kept: list[tuple[str, IO[bytes]]] = []
    for parcel in parcels:
        tell(Stepped(target.id, f"copy {parcel.destination}"))
        if keep:
            before: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=KEPT)  # noqa: SIM115
            left = MOST_KEPT - sum(file.tell() for _, file in kept)
            try:
                fleet.get(target, parcel.destination, before, left)
            except TooMuch:
                before.close()
                raise Failed(
                    "copy",
                    f"{parcel.destination} holds more than --rollback keeps "
                    f"({MOST_KEPT >> 20} MiB of a container)",
                ) from None
            kept.append((parcel.destination, before))
        owner = fleet.owner(target) if parcel.secret else 0
        with parcel.archive(owner) as archive:
            tell(Stepped(target.id, f"copy {parcel.destination}", "partly new"))
            fleet.put(target, parcel.destination, archive)
    if parcels:
        tell(Stepped(target.id, "reload", "new"))
    return kept


def _put_back(
    fleet: Fleet, target: Target, kept: Sequence[tuple[str, IO[bytes]]], tell: Tell
) -> None:
    tell(Stepped(target.id, "rollback", "partly new"))
    for directory, archive in kept:
        archive.seek(0)
        fleet.put(target, directory, archive)
    tell(Stepped(target.id, "rollback", "put back"))


def _reload(fleet: Fleet, target: Target, plan: Plan, old: int | None, tell: Tell) -> int:
    """A new generation, which has to be the one that serves; its number."""
    tell(Stepped(target.id, "reload"))
    done = _sidecar(
        fleet, target, plan, "reload", "--wait", "--json", "--timeout", f"{plan.timeout:g}"
    )
    answer = _last(done)
    if done.status or answer.get("done"):
        _seen(fleet, target, plan, tell)
        if done.status == 4:
            raise Failed("timeout", f"its reload has not come to an end within {plan.timeout:g} s")
        cause = answer.get("cause")
        raise Failed(
            "failed",
            (cause if isinstance(cause, str) else "")
            or _line(done)
            or f"its reload ended with status {done.status}",
        )
    tell(Stepped(target.id, "verify"))
    now = _seen(fleet, target, plan, tell)
    begun, serving = answer.get("generation", 0), now.generation
    if (
        serving is None
        or not _number(begun)
        or serving < begun
        or (old is not None and serving <= old)
    ):
        raise Failed(
            "unverified",
            f"generation {_shown(serving)} serves after its reload, and {_shown(old)} did before",
        )
    if not now.ready:
        raise Failed("unready", f"it is not ready after its reload: {'; '.join(now.reasons)}")
    return serving


def _seen(fleet: Fleet, target: Target, plan: Plan, tell: Tell) -> Serving:
    """What it serves after its reload, told. Raises Vanished where it is being deleted or stopped,
    which no outcome of a reload says.
    """
    now = _status(fleet, target, plan)
    tell(Looked(target.id, now.generation))
    if now.stopping:
        fleet.check(target)
    return now


def _status(fleet: Fleet, target: Target, plan: Plan) -> Serving:
    done = _sidecar(fleet, target, plan, "status", "--json")
    answer = _last(done)
    generation, ready, reasons = (answer.get(name) for name in ("generation", "ready", "reasons"))
    if (
        done.status
        or not (generation is None or _number(generation))
        or not isinstance(ready, bool)
        or not isinstance(reasons, list)
        or "generation" not in answer
    ):
        raise Failed(
            "refused",
            f"its sidecar does not say its status: {_line(done) or f'status {done.status}'}",
        )
    return Serving(
        generation, ready, tuple(map(str, reasons)), stopping=answer.get("state") == "stopping"
    )


def _number(value: object) -> bool:
    """Whether this is a generation's number."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _sidecar(fleet: Fleet, target: Target, plan: Plan, *words: str) -> Finished:
    """Run the container's own command. Raises Absent, besides what the fleet raises."""
    extra = ("--control", plan.control) if plan.control else ()
    for command in COMMANDS:
        done = fleet.execute(target, [command, *words, *extra])
        if done.status == 3:
            raise Absent(
                f"its sidecar cannot be asked: {_line(done).removeprefix(f'sidecar {words[0]}: ')}"
            )
        if done.status not in (126, 127):
            return done
    raise Absent("there is no sidecar in it")


def _last(done: Finished) -> dict[str, Any]:
    """The last object that it wrote."""
    for line in reversed(done.out.splitlines()):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _line(done: Finished) -> str:
    """The last line of its complaint."""
    lines = (done.err or done.out).split("\n")
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "…"


def _shown(generation: int | None) -> str:
    return "-" if generation is None else str(generation)
