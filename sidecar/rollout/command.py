"""The entry point of `sidecar rollout`: reads the arguments and the plan's file, runs the loop over
state.py's orders, returns the exit status.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from typing import assert_never

from sidecar.base.errors import SettingsError
from sidecar.base.printable import printable
from sidecar.rollout import job, output, plan, summary
from sidecar.rollout.archive import archives
from sidecar.rollout.engine import EngineLost, StepFailed, TargetError
from sidecar.rollout.state import (
    DONE,
    FAILED,
    INFINITY,
    UNDER_WAY,
    WAITING,
    Begin,
    Ended,
    GiveUp,
    HookOutput,
    Interrupted,
    Member,
    RolloutState,
    StepStarted,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sidecar.base.record import Record
    from sidecar.rollout.archive import Archive
    from sidecar.rollout.engine import Engine, Target
    from sidecar.rollout.plan import Plan
    from sidecar.rollout.state import Order

    Work = Callable[[Target, Callable[[Record], None]], None]

HELP = """\
usage: sidecar rollout [PLAN.yml] [OPTION ...]

A change, rolled over many containers: a few at a time, each reloaded by its own
sidecar and looked at before the next one is begun. It stops where that fails.

which containers (that run):
  --label NAME=VALUE      of a Docker engine (DOCKER_HOST), by label *
  --project NAME          of this compose project
  --service NAME          of this compose service
  --selector SELECTOR     or pods by label, with kubectl's own configuration
  --namespace NAME        of this namespace, --context NAME of this context
what is done to each:
  --copy SRC:DEST         put what is in SRC, a directory here, into DEST *
  --exclude PATTERN       but not this, as in .gitignore *
  --envdir SRC:DEST       put an envdir there, for its user's eyes only
  --control PATH          its sidecar's control socket, if that is elsewhere
how:
  --parallel N            so many at a time (1)
  --max-failures N        go on after so many failures (0)
  --timeout TIME          each step of a container takes that long at most (2m)
  --rollback              put the files back where the reload fails
  --dry-run               look at all of them and change nothing
  --yes                   do not ask
  --json                  JSON lines, as in a pipe

* may be given several times. The plan's file: docs/rollout.md.
Exit status: 0 all are done; 1 not all; 2 wrong words; 3 no engine answers.
"""

OK, NOT_ALL, USAGE_ERROR, UNREACHABLE = 0, 1, 2, 3

# The engine has so much longer than the container's own sidecar.
GRACE_S = 5.0
# How many containers are asked for their status at a time: that changes nothing in them.
MAX_PARALLEL_LOOKS = 8
# A container that was given up is asked once more what it serves, and has this long to answer.
LAST_LOOK_TIMEOUT_S = 5.0


def main(words: Sequence[str]) -> int:
    """Run the command with these arguments; its exit status."""
    if words and words[0] in ("--help", "-h"):
        print(HELP, end="")
        return OK
    packed: list[Archive] = []
    try:
        file, text, rest = "", "", list(words)
        if rest and not rest[0].startswith("-"):
            file = rest.pop(0)
            text = _read(file)
        wanted = plan.resolve(rest, file, text)
        copies = [(each, False) for each in wanted.copy] + (
            [(wanted.envdir, True)] if wanted.envdir else []
        )
        packed, problems = archives(copies, os.path.dirname(file))
        if problems:
            raise SettingsError(problems)
        engine = _connect(wanted)
        return Rollout(wanted, engine, packed, output.choose(wanted.json)).run()
    except SettingsError as error:
        for problem in error.problems:
            print(f"sidecar rollout: {problem}", file=sys.stderr)
        return USAGE_ERROR
    except EngineLost as error:
        print(f"sidecar rollout: {printable(str(error))}", file=sys.stderr)
        return UNREACHABLE
    except KeyboardInterrupt:
        print("sidecar rollout: interrupted; nothing has been changed", file=sys.stderr)
        return NOT_ALL
    finally:
        for each in packed:
            each.close()


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8") as stream:
            return stream.read(1 << 20)
    except OSError as error:
        raise SettingsError(
            [f"{file}: the plan cannot be read: {(error.strerror or str(error)).lower()}"]
        ) from None
    except UnicodeDecodeError:
        raise SettingsError([f"{file}: it is not UTF-8"]) from None


def _connect(wanted: Plan) -> Engine:
    """The engine that the plan names.

    Raises SettingsError if its client is not installed, EngineLost if it cannot be reached.
    """
    extra, what = (
        ("kubernetes", "kubernetes client") if wanted.selector else ("docker", "docker SDK")
    )
    # Longer than the state's own timeout, which is the one that reports what hangs.
    timeout_s = wanted.timeout + 2 * GRACE_S
    try:
        if wanted.selector:
            from sidecar.rollout.pods import Pods  # noqa: PLC0415

            return Pods(wanted, timeout_s)
        from sidecar.rollout.containers import Containers  # noqa: PLC0415

        return Containers(wanted, timeout_s)
    except ModuleNotFoundError as error:
        where = f" ({error.name} is missing)"
        raise SettingsError(
            [f"needs the {what}{where}: pip install 'sidecar-starter[{extra}]'"]
        ) from None


class Rollout:
    """One run of a plan."""

    def __init__(
        self, wanted: Plan, engine: Engine, packed: Sequence[Archive], lines: output.JsonLines
    ) -> None:
        self.plan, self.engine, self.archives, self.output = wanted, engine, packed, lines
        # What threads and the signal handler report, each fact with the phase it belongs to. In a
        # SimpleQueue a put() may interrupt another one.
        self.facts: queue.SimpleQueue[tuple[RolloutState | None, Record]] = queue.SimpleQueue()

    def run(self) -> int:
        """Find the containers, look at them, ask the user, roll, report; the exit status.

        Raises EngineLost.
        """
        targets = self.engine.find()
        if not targets:
            print("sidecar rollout: no container that runs is like that", file=sys.stderr)
            return NOT_ALL
        copies = [f"{each.destination}: {each.count} files" for each in self.archives]
        self.output.emit("found", containers=[each.name for each in targets], copies=copies)
        for each in self.archives:
            if each.skipped:
                self.output.emit(
                    "notice",
                    text=f"not copied, neither files nor links: {', '.join(each.skipped)}",
                )
        members = [Member(each) for each in targets]
        state = RolloutState(
            members, self.plan.parallel, self.plan.max_failures, self.plan.timeout + GRACE_S
        )
        with self._interruptible():
            self._look_at_all(state)
        if self.plan.dry_run or state.stopping:
            return self._finish(
                state, OK if not state.in_state(FAILED) and not state.stopping else NOT_ALL
            )
        if self.plan.confirm:
            if not (sys.stdin.isatty() and sys.stdout.isatty()):
                print(
                    "sidecar rollout: there is nobody to ask; say --yes, or `confirm: no` in the plan",
                    file=sys.stderr,
                )
                return USAGE_ERROR
            if not self._ask(len(state.in_state(WAITING))):
                print("sidecar rollout: nothing has been changed", file=sys.stderr)
                return NOT_ALL
        with self._interruptible():
            return self._roll(state)

    def _look_at_all(self, state: RolloutState) -> None:
        """Which generation each container serves now. One that does not answer has failed, and is
        never touched.
        """
        survey = RolloutState(
            list(state.members.values()), MAX_PARALLEL_LOOKS, INFINITY, state.timeout
        )
        self._run(
            survey,
            "looking",
            lambda target, report: job.look(self.engine, target, self.plan, report),
        )
        survey.requeue_done()
        state.engine_lost, state.interrupts = survey.engine_lost, survey.interrupts
        if not self.plan.dry_run and state.stopping:
            self._explain_stop(state, "nothing has been changed")

    def _roll(self, state: RolloutState) -> int:
        values: dict[str, object] = {"containers": len(state.members)}
        if not self._run_hooks("before", values):
            return self._finish(state, NOT_ALL)

        def work(target: Target, report: Callable[[Record], None]) -> None:
            job.roll(self.engine, target, self.plan, self.archives, report)

        self._run(state, "rolling", work)
        self._look_again(state)
        state.mark_untouched()
        found = summary.summary(state)
        values |= {key: found[key] for key in ("done", "failed", "untouched", "outcome")}
        well = self._run_hooks("after", values) and found["outcome"] == DONE
        return self._finish(state, OK if well else NOT_ALL)

    def _look_again(self, state: RolloutState) -> None:
        """Ask once more those whose generation is not known: they may answer by now."""
        uncertain = [
            each
            for each in state.in_state(FAILED)
            if each.serves is None and each.kind != "vanished"
        ]
        if not uncertain:
            return
        members = [Member(each.target) for each in uncertain]
        again = RolloutState(members, MAX_PARALLEL_LOOKS, INFINITY, LAST_LOOK_TIMEOUT_S)
        self._run(
            again,
            "looking again",
            lambda target, report: job.look(self.engine, target, self.plan, report),
            shown=False,
        )
        for each in uncertain:
            each.serves = again.members[each.target.id].serves

    def _run_hooks(self, name: str, values: Mapping[str, object]) -> bool:
        """Run the hooks before or after all containers; whether they succeeded."""
        commands = self.plan.before if name == "before" else self.plan.after
        try:
            job.hooks(
                commands,
                name,
                values,
                self.plan.timeout,
                lambda found: self.output.emit("hook", hook=found.hook, output=found.lines),
            )
        except StepFailed as error:
            self.output.emit(
                "stopping",
                text=str(error) + ("; nothing has been changed" if name == "before" else ""),
            )
            return False
        return True

    def _finish(self, state: RolloutState, status: int) -> int:
        state.mark_untouched()
        self.output.emit("report", **summary.summary(state, self.plan.dry_run))
        return UNREACHABLE if state.engine_lost else status

    def _ask(self, count: int) -> bool:
        try:
            answer = input(
                f"Roll over {count} containers, {min(count, self.plan.parallel)} at a time? [y/N] "
            )
        except EOFError:
            return False
        return answer.strip().lower() in ("y", "yes")

    # --- the loop

    def _run(self, state: RolloutState, what: str, work: Work, shown: bool = True) -> None:
        """Do what the state orders until it is over."""
        if shown:
            self.output.begin_phase(what, len(state.in_state(WAITING)))
        interrupts = state.interrupts
        try:
            timeout_s = 0.0
            while True:
                for fact in self._received(state, timeout_s):
                    state.observe(fact, time.monotonic())
                    if shown:
                        self._show(state, fact)
                orders = state.reconcile(time.monotonic())
                self._perform(state, orders, work)
                if state.interrupts > interrupts:
                    interrupts = state.interrupts
                    hint = "once more gives up what is under way" if interrupts == 1 else ""
                    self._explain_stop(state, hint)
                if state.over:
                    break
                timeout_s = 0.0 if orders else state.deadline - time.monotonic()
        finally:
            if shown:
                self.output.end_phase()
        if shown and state.stopping and state.in_state(WAITING):
            self._explain_stop(state, "no other container is begun")

    def _perform(self, state: RolloutState, orders: Sequence[Order], work: Work) -> None:
        for order in orders:
            match order:
                case Begin():
                    self._begin(state, state.members[order.id].target, work)
                case GiveUp():
                    self.facts.put((state, Ended(order.id, order.kind, order.cause)))
                case _:
                    assert_never(order)

    def _begin(self, state: RolloutState, target: Target, work: Work) -> None:
        """Start the work on one container, in a thread of its own."""

        def report(fact: Record) -> None:
            self.facts.put((state, fact))

        def body() -> None:
            try:
                work(target, report)
                report(Ended(target.id))
            except TargetError as error:
                report(Ended(target.id, error.kind, str(error)))
            except Exception as error:  # reported, and counted like any other failure
                report(Ended(target.id, "error", f"{type(error).__name__}: {error}"))

        threading.Thread(target=body, name=target.name, daemon=True).start()

    def _received(self, state: RolloutState, timeout_s: float) -> Iterator[Record]:
        """The facts that have come, at least one within this time. Those of an earlier phase have
        come too late, and are dropped.
        """
        with contextlib.suppress(queue.Empty):
            whose, fact = self.facts.get(
                timeout=None if timeout_s == INFINITY else max(0.0, timeout_s)
            )
            while True:
                if whose in (state, None):
                    yield fact
                whose, fact = self.facts.get_nowait()

    def _show(self, state: RolloutState, fact: Record) -> None:
        match fact:
            case HookOutput():
                name = state.members[fact.id].target.name
                self.output.emit("hook", hook=fact.hook, name=name, output=fact.lines)
            case StepStarted():
                name = state.members[fact.id].target.name
                self.output.emit("step", name=name, step=fact.step)
            case Ended():
                member = state.members[fact.id]
                self.output.emit(member.state, **summary.one(member))

    def _explain_stop(self, state: RolloutState, more: str) -> None:
        failed, under_way = state.in_state(FAILED), state.in_state(UNDER_WAY)
        if state.engine_lost:
            parts = ["the engine is lost"]
        elif state.interrupts:
            parts = ["interrupted"]
        else:
            count, allowed = len(failed), self.plan.max_failures
            parts = [f"{count} failed and {allowed} may ({summary.names(failed)})"]
        if under_way:
            parts.append(f"under way: {summary.names(under_way)}")
        self.output.emit("stopping", text="; ".join([*parts, *([more] if more else [])]))

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Meanwhile, ^C and TERM end the rollout in order."""
        before = {
            each: signal.signal(each, lambda *_: self.facts.put((None, Interrupted())))
            for each in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
