"""What is done to one container, in a thread of its own: every step is told, and whatever goes
wrong is raised as TargetError.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile

from sidecar.base.record import Record
from sidecar.rollout.engine import NoSidecar, StepFailed, TargetError, TooLarge
from sidecar.rollout.plan import filled
from sidecar.rollout.state import HookOutput, StatusRead, StepStarted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO, Any

    from sidecar.rollout.archive import Archive
    from sidecar.rollout.engine import Engine, Finished, Target
    from sidecar.rollout.plan import Plan

    Report = Callable[[Record], None]

# Where it is: on PATH, or as a directory that was copied into an image of another kind.
COMMANDS = ("sidecar", "/opt/sidecar/bin/sidecar")

# So much (characters) of its complaint is told.
MAX_LINE_CHARS = 500

# What is replaced is saved for a rollback: in memory up to this size (bytes), then in a file that
# has no name. How much a directory holds is the container's to say, and a sparse file of no size
# there is a large one here: no container may have more than MAX_SAVED_BYTES saved.
SAVED_IN_MEMORY_BYTES, MAX_SAVED_BYTES = 1 << 24, 1 << 30


class ServingStatus(Record):
    """What a container's sidecar says of itself, with the shapes that it has to have: a container
    may say anything.
    """

    generation: int | None
    ready: bool
    reasons: tuple[str, ...]
    stopping: bool


def look(engine: Engine, target: Target, plan: Plan, report: Report) -> None:
    """Which generation serves?"""
    report(StatusRead(target.id, _status(engine, target, plan).generation))


def roll(
    engine: Engine, target: Target, plan: Plan, archives: Sequence[Archive], report: Report
) -> None:
    """The whole of it: hooks, copies, reload, verification."""
    report(StepStarted(target.id, "look"))
    old = _status(engine, target, plan).generation
    report(StatusRead(target.id, old))
    values = {
        "name": target.name,
        "id": target.id,
        "old": _shown(old),
        "new": _shown(old),
        "outcome": "failed",
    }
    if plan.before_each:
        report(StepStarted(target.id, "before-each"))
        hooks(plan.before_each, "before-each", values, plan.timeout, report)
    try:
        saved = _copy(engine, target, archives, plan.rollback, report)
        try:
            new = _reload(engine, target, plan, old, report)
        except NoSidecar as error:
            # It answered before. Its container is ending, or was started again.
            engine.check(target)
            raise StepFailed("left", str(error)) from None
        except TargetError:
            if saved:
                _put_back(engine, target, saved, report)
            raise
        values |= {"new": _shown(new), "outcome": "done"}
    except TargetError:
        # It serves on, so it goes back to wherever `before-each` took it from. Its own failure is
        # the one to report.
        if plan.after_each:
            report(StepStarted(target.id, "after-each"))
            try:
                hooks(plan.after_each, "after-each", values, plan.timeout, report)
            except TargetError as error:
                report(HookOutput(target.id, "after-each", [str(error)]))
        raise
    if plan.after_each:
        report(StepStarted(target.id, "after-each"))
        hooks(plan.after_each, "after-each", values, plan.timeout, report)


def hooks(
    commands: Sequence[Sequence[str]],
    name: str,
    values: Mapping[str, object],
    timeout: float,
    report: Callable[[HookOutput], None],
) -> None:
    """Run these here, one after the other. Raises StepFailed at the first that fails.

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
            raise StepFailed("hook", f"{name}: {argv[0]} cannot be run: {error.strerror}") from None
        try:
            said = process.communicate(timeout=timeout)[0].splitlines()
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise StepFailed(
                "hook", f"{name}: {argv[0]} did not end within {timeout:g} s"
            ) from None
        if said:
            report(HookOutput(str(values.get("id", "")), name, said))
        if process.returncode:
            how = (
                f"exited with status {process.returncode}"
                if process.returncode > 0
                else f"was killed by signal {-process.returncode}"
            )
            raise StepFailed("hook", f"{name}: {argv[0]} {how}")


def _copy(
    engine: Engine, target: Target, archives: Sequence[Archive], keep: bool, report: Report
) -> list[tuple[str, IO[bytes]]]:
    """Put everything where it belongs; what was there before, if that is to be saved."""
    saved: list[tuple[str, IO[bytes]]] = []
    for archive in archives:
        report(StepStarted(target.id, f"copy {archive.destination}"))
        if keep:
            before: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=SAVED_IN_MEMORY_BYTES)  # noqa: SIM115
            left = MAX_SAVED_BYTES - sum(file.tell() for _, file in saved)
            try:
                engine.get(target, archive.destination, before, left)
            except TooLarge:
                before.close()
                raise StepFailed(
                    "copy",
                    f"{archive.destination} holds more than --rollback keeps "
                    f"({MAX_SAVED_BYTES >> 20} MiB of a container)",
                ) from None
            saved.append((archive.destination, before))
        owner = engine.owner(target) if archive.secret else 0
        with archive.open_for(owner) as file:
            report(StepStarted(target.id, f"copy {archive.destination}", "partly new"))
            engine.put(target, archive.destination, file)
    if archives:
        report(StepStarted(target.id, "reload", "new"))
    return saved


def _put_back(
    engine: Engine, target: Target, saved: Sequence[tuple[str, IO[bytes]]], report: Report
) -> None:
    report(StepStarted(target.id, "rollback", "partly new"))
    for directory, file in saved:
        file.seek(0)
        engine.put(target, directory, file)
    report(StepStarted(target.id, "rollback", "put back"))


def _reload(engine: Engine, target: Target, plan: Plan, old: int | None, report: Report) -> int:
    """A new generation, which has to be the one that serves; its number."""
    report(StepStarted(target.id, "reload"))
    done = _sidecar(
        engine, target, plan, "reload", "--wait", "--json", "--timeout", f"{plan.timeout:g}"
    )
    answer = _last_object(done)
    if done.status or answer.get("done"):
        _status_after_reload(engine, target, plan, report)
        if done.status == 4:
            raise StepFailed(
                "timeout", f"its reload has not come to an end within {plan.timeout:g} s"
            )
        cause = answer.get("cause")
        raise StepFailed(
            "failed",
            (cause if isinstance(cause, str) else "")
            or _complaint(done)
            or f"its reload ended with status {done.status}",
        )
    report(StepStarted(target.id, "verify"))
    now = _status_after_reload(engine, target, plan, report)
    begun, serving = answer.get("generation", 0), now.generation
    if (
        serving is None
        or not _is_generation(begun)
        or serving < begun
        or (old is not None and serving <= old)
    ):
        raise StepFailed(
            "unverified",
            f"generation {_shown(serving)} serves after its reload, and {_shown(old)} did before",
        )
    if not now.ready:
        raise StepFailed("unready", f"it is not ready after its reload: {'; '.join(now.reasons)}")
    return serving


def _status_after_reload(
    engine: Engine, target: Target, plan: Plan, report: Report
) -> ServingStatus:
    """What it serves after its reload, told. Raises TargetVanished where it is being deleted or stopped,
    which no outcome of a reload says.
    """
    now = _status(engine, target, plan)
    report(StatusRead(target.id, now.generation))
    if now.stopping:
        engine.check(target)
    return now


def _status(engine: Engine, target: Target, plan: Plan) -> ServingStatus:
    done = _sidecar(engine, target, plan, "status", "--json")
    answer = _last_object(done)
    generation, ready, reasons = (answer.get(name) for name in ("generation", "ready", "reasons"))
    if (
        done.status
        or not (generation is None or _is_generation(generation))
        or not isinstance(ready, bool)
        or not isinstance(reasons, list)
        or "generation" not in answer
    ):
        raise StepFailed(
            "refused",
            f"its sidecar does not say its status: {_complaint(done) or f'status {done.status}'}",
        )
    return ServingStatus(
        generation, ready, tuple(map(str, reasons)), stopping=answer.get("state") == "stopping"
    )


def _is_generation(value: object) -> bool:
    """Whether this is a generation's number."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _sidecar(engine: Engine, target: Target, plan: Plan, *words: str) -> Finished:
    """Run the container's own command. Raises NoSidecar, besides what the engine raises."""
    extra = ("--control", plan.control) if plan.control else ()
    for command in COMMANDS:
        done = engine.execute(target, [command, *words, *extra])
        if done.status == 3:
            raise NoSidecar(
                f"its sidecar cannot be asked: {_complaint(done).removeprefix(f'sidecar {words[0]}: ')}"
            )
        if done.status not in (126, 127):
            return done
    raise NoSidecar("there is no sidecar in it")


def _last_object(done: Finished) -> dict[str, Any]:
    """The last object that it wrote."""
    for line in reversed(done.out.splitlines()):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _complaint(done: Finished) -> str:
    """The last line of its complaint."""
    lines = (done.err or done.out).split("\n")
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return line if len(line) <= MAX_LINE_CHARS else line[:MAX_LINE_CHARS] + "…"


def _shown(generation: int | None) -> str:
    return "-" if generation is None else str(generation)
