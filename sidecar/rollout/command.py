"""The entry point of `sidecar rollout`: words and a plan's file in, the loop over course.py's orders, the
exit status out.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time

from sidecar.base.errors import SettingsError
from sidecar.base.printable import printable
from sidecar.rollout import job, plan, show, summary
from sidecar.rollout.course import (
    DONE,
    FAILED,
    INF,
    UNDER_WAY,
    WAITING,
    Begin,
    Course,
    Ended,
    Fact,
    Interrupted,
    Member,
    Said,
    Stepped,
)
from sidecar.rollout.fleet import Failed, Lost, Trouble
from sidecar.rollout.parcel import parcels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sidecar.base.record import Record
    from sidecar.rollout.fleet import Fleet, Target
    from sidecar.rollout.parcel import Parcel
    from sidecar.rollout.plan import Plan

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

OK, NOT_ALL, WRONG, UNREACHABLE = 0, 1, 2, 3

# What is asked of the engine beyond what the container's own sidecar is given (seconds).
GRACE = 5.0
# So many containers are looked at at a time; it changes nothing.
LOOKERS = 8
# Whoever was given up is asked once more what it serves, and has this long to answer (seconds).
LAST_LOOK = 5.0


def main(words: Sequence[str]) -> int:
    """The command; its exit status."""
    if words and words[0] in ("--help", "-h"):
        print(HELP, end="")
        return OK
    packed: list[Parcel] = []
    try:
        file, text, rest = "", "", list(words)
        if rest and not rest[0].startswith("-"):
            file = rest.pop(0)
            text = _read(file)
        wanted = plan.resolve(rest, file, text)
        copies = [(each, False) for each in wanted.copy] + (
            [(wanted.envdir, True)] if wanted.envdir else []
        )
        packed, problems = parcels(copies, os.path.dirname(file))
        if problems:
            raise SettingsError(problems)
        fleet = _fleet(wanted)
        return Rollout(wanted, fleet, packed, show.face(wanted.json)).run()
    except SettingsError as error:
        for problem in error.problems:
            print(f"sidecar rollout: {problem}", file=sys.stderr)
        return WRONG
    except Lost as error:
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


def _fleet(wanted: Plan) -> Fleet:
    """Raises SettingsError where its extra is not installed, Lost where it cannot be reached."""
    extra, what = (
        ("kubernetes", "kubernetes client") if wanted.selector else ("docker", "docker SDK")
    )
    # Longer than the course's patience, which is the one to say what hangs.
    patience = wanted.timeout + 2 * GRACE
    try:
        if wanted.selector:
            from sidecar.rollout.pods import Pods  # noqa: PLC0415

            return Pods(wanted, patience)
        from sidecar.rollout.containers import Containers  # noqa: PLC0415

        return Containers(wanted, patience)
    except ModuleNotFoundError as error:
        where = f" ({error.name} is missing)"
        raise SettingsError(
            [f"needs the {what}{where}: pip install 'sidecar-starter[{extra}]'"]
        ) from None


class Rollout:
    """One run of a plan."""

    def __init__(
        self, wanted: Plan, fleet: Fleet, packed: Sequence[Parcel], face: show.Lines
    ) -> None:
        self.plan, self.fleet, self.packed, self.face = wanted, fleet, packed, face
        # What threads and the signal handler tell, each fact with the course it belongs to. A put()
        # of this kind may interrupt another.
        self.news: queue.SimpleQueue[tuple[Course | None, Record]] = queue.SimpleQueue()

    def run(self) -> int:
        """Find, look, ask, roll, report. Raises Lost."""
        targets = self.fleet.find()
        if not targets:
            print("sidecar rollout: no container that runs is like that", file=sys.stderr)
            return NOT_ALL
        copies = [f"{each.destination}: {each.count} files" for each in self.packed]
        self.face.tell("found", containers=[each.name for each in targets], copies=copies)
        for parcel in self.packed:
            if parcel.skipped:
                self.face.tell(
                    "notice",
                    text=f"not copied, neither files nor links: {', '.join(parcel.skipped)}",
                )
        members = [Member(each) for each in targets]
        course = Course(
            members, self.plan.parallel, self.plan.max_failures, self.plan.timeout + GRACE
        )
        with self._interruptible():
            self._look(course)
        if self.plan.dry_run or course.stopping:
            return self._report(
                course, OK if not course.of(FAILED) and not course.stopping else NOT_ALL
            )
        if self.plan.confirm:
            if not (sys.stdin.isatty() and sys.stdout.isatty()):
                print(
                    "sidecar rollout: there is nobody to ask; say --yes, or `confirm: no` in the plan",
                    file=sys.stderr,
                )
                return WRONG
            if not self._confirmed(len(course.of(WAITING))):
                print("sidecar rollout: nothing has been changed", file=sys.stderr)
                return NOT_ALL
        with self._interruptible():
            return self._roll(course)

    def _look(self, course: Course) -> None:
        """What everybody serves now. Who cannot say it has failed already, and is never touched."""
        survey = Course(list(course.members.values()), LOOKERS, INF, course.timeout)
        self._drive(
            survey, "looking", lambda target, tell: job.look(self.fleet, target, self.plan, tell)
        )
        survey.again()
        course.lost, course.interrupts = survey.lost, survey.interrupts
        if not self.plan.dry_run and course.stopping:
            self._say_stopping(course, "nothing has been changed")

    def _roll(self, course: Course) -> int:
        values: dict[str, object] = {"containers": len(course.members)}
        if not self._hooks("before", values):
            return self._report(course, NOT_ALL)

        def work(target: Target, tell: Callable[[Record], None]) -> None:
            job.roll(self.fleet, target, self.plan, self.packed, tell)

        self._drive(course, "rolling", work)
        self._look_again(course)
        course.end()
        found = summary.summary(course)
        values |= {key: found[key] for key in ("done", "failed", "untouched", "outcome")}
        well = self._hooks("after", values) and found["outcome"] == DONE
        return self._report(course, OK if well else NOT_ALL)

    def _look_again(self, course: Course) -> None:
        """Whoever was lost out of sight, and may be there again."""
        uncertain = [
            each for each in course.of(FAILED) if each.serves is None and each.kind != "vanished"
        ]
        if not uncertain:
            return
        again = Course([Member(each.target) for each in uncertain], LOOKERS, INF, LAST_LOOK)
        self._drive(
            again,
            "looking again",
            lambda target, tell: job.look(self.fleet, target, self.plan, tell),
            aloud=False,
        )
        for each in uncertain:
            each.serves = again.members[each.target.id].serves

    def _hooks(self, name: str, values: Mapping[str, object]) -> bool:
        """Run those before or after all; whether they went well."""
        commands = self.plan.before if name == "before" else self.plan.after
        try:
            job.hooks(
                commands,
                name,
                values,
                self.plan.timeout,
                lambda said: self.face.tell("hook", hook=said.hook, output=said.lines),
            )
        except Failed as error:
            self.face.tell(
                "stopping",
                text=str(error) + ("; nothing has been changed" if name == "before" else ""),
            )
            return False
        return True

    def _report(self, course: Course, status: int) -> int:
        course.end()
        self.face.tell("report", **summary.summary(course, self.plan.dry_run))
        return UNREACHABLE if course.lost else status

    def _confirmed(self, count: int) -> bool:
        try:
            answer = input(
                f"Roll over {count} containers, {min(count, self.plan.parallel)} at a time? [y/N] "
            )
        except EOFError:
            return False
        return answer.strip().lower() in ("y", "yes")

    # --- the loop

    def _drive(
        self,
        course: Course,
        what: str,
        work: Callable[[Target, Callable[[Record], None]], None],
        aloud: bool = True,
    ) -> None:
        """Do what the course orders until it is over."""
        if aloud:
            self.face.begin(what, len(course.of(WAITING)))
        said = course.interrupts
        try:
            patience = 0.0
            while True:
                for fact in self._heard(course, patience):
                    course.observe(fact, time.monotonic())
                    if aloud:
                        self._show(course, fact)
                orders = course.reconcile(time.monotonic())
                for order in orders:
                    if isinstance(order, Begin):
                        self._begin(course, course.members[order.id].target, work)
                    else:
                        self.news.put((course, Ended(order.id, order.kind, order.cause)))
                if course.interrupts > said:
                    said = course.interrupts
                    self._say_stopping(
                        course, "once more gives up what is under way" if said == 1 else ""
                    )
                if course.over:
                    break
                patience = 0.0 if orders else course.deadline - time.monotonic()
        finally:
            if aloud:
                self.face.end()
        if aloud and course.stopping and course.of(WAITING):
            self._say_stopping(course, "no other container is begun")

    def _begin(
        self,
        course: Course,
        target: Target,
        work: Callable[[Target, Callable[[Record], None]], None],
    ) -> None:
        def tell(fact: Record) -> None:
            self.news.put((course, fact))

        def body() -> None:
            try:
                work(target, tell)
                tell(Ended(target.id))
            except Trouble as error:
                tell(Ended(target.id, error.kind, str(error)))
            except Exception as error:  # said, and counted as any other
                tell(Ended(target.id, "error", f"{type(error).__name__}: {error}"))

        threading.Thread(target=body, name=target.name, daemon=True).start()

    def _heard(self, course: Course, patience: float) -> Iterator[Record]:
        """The facts that have come, at least one within this time. What is heard too late, of an
        earlier course, is nothing any more.
        """
        with contextlib.suppress(queue.Empty):
            whose, fact = self.news.get(timeout=None if patience == INF else max(0.0, patience))
            while True:
                if whose in (course, None):
                    yield fact
                whose, fact = self.news.get_nowait()

    def _show(self, course: Course, fact: Record) -> None:
        if isinstance(fact, Said):
            self.face.tell(
                "hook", hook=fact.hook, name=course.members[fact.id].target.name, output=fact.lines
            )
        elif isinstance(fact, Fact):
            member = course.members[fact.id]
            if isinstance(fact, Stepped):
                self.face.tell("step", name=member.target.name, step=fact.step)
            elif isinstance(fact, Ended):
                self.face.tell(member.state, **summary.one(member))

    def _say_stopping(self, course: Course, more: str) -> None:
        failed, under_way = course.of(FAILED), course.of(UNDER_WAY)
        parts = (
            ["the engine is lost"] if course.lost else ["interrupted"] if course.interrupts else []
        )
        parts = parts or [
            f"{len(failed)} failed and {self.plan.max_failures} may ({summary.names(failed)})"
        ]
        parts += [f"under way: {summary.names(under_way)}"] if under_way else []
        self.face.tell("stopping", text="; ".join([*parts, *([more] if more else [])]))

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Meanwhile, ^C and TERM end the rollout in order."""
        before = {
            each: signal.signal(each, lambda *_: self.news.put((None, Interrupted())))
            for each in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
