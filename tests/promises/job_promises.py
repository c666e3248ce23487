"""The promises about the host's jobs, each as something that watches a world with jobs and raises
Broken when it is not kept.

A promise hears of everything that happens to a job (`happened`), and looks at the whole once there
is nothing more to do (`settled`). It keeps a book of its own and does not ask the policies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .programs import INF, Broken
from .promise import BIT

if TYPE_CHECKING:
    from .host_world import HostWorld

MAX_READ = 20.0


class JobPromise:
    """Something about jobs that is to hold always."""

    name = ""

    def __init__(self, world: HostWorld) -> None:
        self.world = world

    def broken(self, how: str) -> Broken:
        """The error to raise."""
        return Broken(self.name, f"at {self.world.now:g} {how}")

    def happened(self, job: str, what: str, detail: Any) -> None:
        """Something has happened to a job."""

    def settled(self) -> None:
        """There is nothing more to do for now."""

    def hindered(self) -> bool:
        """Whether a generation is coming, or settings are being read."""
        return self.world.coming is not None or self.world.reload.policy.under_way


class _Restarted:
    """The book of one process that has to run all the time."""

    def __init__(self, min_pause: float, runs_during_stop: bool) -> None:
        self.min_pause = min_pause
        self.runs_during_stop = runs_during_stop
        self.running = self.outdated = False
        self.since = 0.0
        self.failures = 0
        self.earliest = self.latest = 0.0

    def failed(self, now: float, lived: float) -> None:
        """It has ended, or could not be started."""
        self.running = False
        if self.outdated:
            self.outdated = False
            self.earliest = self.latest = now
            return
        if lived >= 10.0:
            self.failures, pause = 0, 0.0
        else:
            self.failures += 1
            pause = min(5.0, 0.25 * 2.0 ** min(self.failures - 1, 10))
        self.earliest = now + max(self.min_pause, pause / 2)
        self.latest = now + max(self.min_pause, pause)


class PacedRestarts(JobPromise):
    """A helper and the log command are started again whenever they end: never two at once, after a
    pause that doubles while they live less than ten seconds, up to five seconds; in a stop only
    those that are needed until its end. An outdated one is replaced at once.
    """

    name = "Paced restarts"

    def __init__(self, world: HostWorld) -> None:
        super().__init__(world)
        self.book = {
            "watcher": _Restarted(0.1, False),
            "admin": _Restarted(0.1, True),
            "log command": _Restarted(0.0, True),
        }

    def happened(self, job: str, what: str, detail: Any) -> None:
        if job not in self.book:
            return
        one, now = self.book[job], self.world.now
        match what:
            case "started" | "not started":
                if one.running:
                    raise self.broken(f"{job} is started although it runs")
                if self.world.stops and not one.runs_during_stop:
                    raise self.broken(f"{job} is started in a stop")
                if now < one.earliest - BIT:
                    raise self.broken(f"{job} is started before {one.earliest:g}")
                one.running, one.since = True, now
                if what == "not started":
                    one.failed(now, 0.0)
            case "ended":
                one.failed(now, now - one.since)
            case "outdated":
                one.outdated = True

    def settled(self) -> None:
        for job, one in self.book.items():
            wanted = one.runs_during_stop or not self.world.stops
            if wanted and not one.running and self.world.now > one.latest + BIT:
                raise self.broken(f"{job} is not started again, since {one.latest:g}")


class LatestSettings(JobPromise):
    """Whoever asks for a reload is answered by a reading that began after that: one more reading
    for all who ask during one, with what all have said. None is lost, none is done in a stop, and
    none waits for a reader for more than twenty seconds.
    """

    name = "Latest settings"

    def __init__(self, world: HostWorld) -> None:
        super().__init__(world)
        self.waiting: list[tuple[str, tuple[str, ...]]] = []
        #: How many of them the reading that goes on answers.
        self.covered = 0
        self.process = ""
        self.since = 0.0
        self.not_started_at = -INF

    def happened(self, job: str, what: str, detail: Any) -> None:
        if job != "reload":
            return
        stopping = bool(self.world.stops)
        match what:
            case "requested":
                self.waiting.append(detail)
            case "StartReader":
                if self.process:
                    raise self.broken(f"read although a {self.process} runs")
                if stopping or self.covered == len(self.waiting):
                    raise self.broken("read although nobody waits for it")
                self.process, self.since = "reader", self.world.now
                self.covered = len(self.waiting)
            case "reader not started":
                self.process, self.not_started_at = "", self.world.now
            case "DropReader":
                if self.world.now < self.since + MAX_READ - BIT:
                    raise self.broken("the reader was not given its time")
                self.process = ""
            case "DropLookUp":
                if self.covered == len(self.waiting):
                    raise self.broken("what is looked up is dropped for nothing")
                self.process = ""
            case "reader ended" | "look-up ended":
                self.process = ""
            case "ParseAnswer":
                if self.covered < len(self.waiting):
                    raise self.broken("parsed although it has to be read again")
            case "look-up started":
                self.process = "look-up"
            case "RefuseReload" | "PutInForce":
                self._answered(what, detail)

    def _answered(self, what: str, step: Any) -> None:
        if self.world.stops:
            raise self.broken(f"{what} in a stop")
        if self.covered < len(self.waiting) or not self.waiting:
            raise self.broken(f"answered with what was read before the last request: {step}")
        if what == "PutInForce":
            trigger = self.waiting[-1][0]
            changed = tuple(path for _, paths in self.waiting for path in paths)
            watched = any(each == "watch" for each, _ in self.waiting)
            if (step.trigger, step.changed, step.supersedes) != (trigger, changed, watched):
                raise self.broken(f"it is not what was asked for: {step}, {self.waiting}")
        self.waiting, self.covered = [], 0

    def settled(self) -> None:
        if self.world.stops:
            self.waiting, self.covered = [], 0
        elif self.waiting and not self.process and self.not_started_at < self.world.now:
            raise self.broken(f"nobody reads for {self.waiting}")
        if self.process == "reader" and self.world.now > self.since + MAX_READ + BIT:
            raise self.broken("a reader that hangs is waited for")


class _Asked:
    """The book of one worker that a ready command is run for."""

    def __init__(self, now: float) -> None:
        self.running = False
        self.noes = 0
        self.due_at = now

    def ended(self, now: float) -> None:
        """Its command said no, or could not be run."""
        self.running = False
        self.due_at = now + min(1.0, 0.1 * 1.5**self.noes)
        self.noes += 1


class AskedUntilReady(JobPromise):
    """A coming worker's ready command is run until it says yes: one at a time, after pauses that
    grow to a second, and for nobody who is ready, was asked to leave, or has gone.
    """

    name = "Asked until ready"

    def __init__(self, world: HostWorld) -> None:
        super().__init__(world)
        self.book: dict[int, _Asked] = {}

    def happened(self, job: str, what: str, detail: Any) -> None:
        if job != "ready command":
            return
        now = self.world.now
        match what:
            case "worker started":
                self.book[detail] = _Asked(now)
            case "worker done":
                self.book.pop(detail, None)
            case "started":
                one = self.book.get(detail)
                if one is None or not self._is_coming(detail):
                    raise self.broken(f"run for {detail}, which is not coming")
                if one.running or now < one.due_at - BIT:
                    raise self.broken(f"run for {detail} too early")
                one.running = True
            case "ended":
                self.book[detail].ended(now)

    def _is_coming(self, worker: int) -> bool:
        process = self.world.processes.get(worker)
        return process is not None and process.wanted and process.ready_at is None

    def settled(self) -> None:
        for worker, one in self.book.items():
            if not self._is_coming(worker):
                raise self.broken(f"{worker} is still asked for")
            if not one.running and self.world.now > one.due_at + BIT:
                raise self.broken(f"{worker} is not asked for again, since {one.due_at:g}")
        if self.world.quiet:
            return
        for process in self.world.processes.values():
            if process.readiness == "command" and self._is_coming(process.pid):  # noqa: SIM102
                if process.pid not in self.book:
                    raise self.broken(f"{process} is not asked for")


class UpgradeGoesOn(JobPromise):
    """An upgrade waits for a swap and for settings that are being read, is not lost, and ends in
    bounded time. It becomes only what has proved itself, never during a swap, nor after a stop
    began, nor where only a check was asked for.
    """

    name = "Upgrade goes on"

    def __init__(self, world: HostWorld) -> None:
        super().__init__(world)
        self._over()

    def _over(self) -> None:
        self.on_its_way = self.full = self.said = self.passed = False
        self.full_at = 0.0
        self.checks_since: float | None = None

    def happened(self, job: str, what: str, detail: Any) -> None:
        if job != "upgrade":
            return
        now, policy = self.world.now, self.world.upgrade.policy
        match what:
            case "requested":
                self.on_its_way = True
                if not detail and not self.full:
                    self.full, self.full_at = True, now
            case "SayWaiting":
                if self.said or not self.full or self.world.coming is None:
                    raise self.broken(f"says that it waits: {detail}")
                self.said = True
            case "StartCheck":
                if self.checks_since is not None or self.world.stops:
                    raise self.broken("a check is started, not at this moment")
                if self.full and self.hindered():
                    raise self.broken("a check is started during a swap")
                self.checks_since, self.passed = now, False
            case "check passed":
                self.checks_since, self.passed = None, True
            case "BecomeNewVersion":
                if self.hindered() or self.world.stops:
                    raise self.broken("it becomes the new version, not at this moment")
                if not self.full or not self.passed:
                    raise self.broken(
                        "it becomes what nobody has asked for, or has not proved itself"
                    )
            case "FailUpgrade":
                self._failed(detail.cause, now, policy.max_wait_s, policy.max_check_s)
            case "over":
                self._over()

    def _failed(self, cause: str, now: float, max_wait: float, max_check: float) -> None:
        right = {
            "sidecar is stopping": bool(self.world.stops),
            "the new version has not proved within a minute that it can start": (
                self.checks_since is not None and now >= self.checks_since + max_check - BIT
            ),
            "swaps have been going on for five minutes": (
                self.full and self.hindered() and now >= self.full_at + max_wait - BIT
            ),
        }
        if not right[cause]:
            raise self.broken(f"it fails although it is not so: {cause}")

    def settled(self) -> None:
        if not self.on_its_way:
            return
        now, policy = self.world.now, self.world.upgrade.policy
        if self.world.stops:
            raise self.broken("it goes on in a stop")
        if self.checks_since is not None:
            if now > self.checks_since + policy.max_check_s + BIT:
                raise self.broken("a check that hangs is waited for")
        elif not self.full or not self.hindered():
            raise self.broken("nothing hinders it, and it does not go on")
        elif now > self.full_at + policy.max_wait_s + BIT:
            raise self.broken("it waits for ever")
        if self.hindered():
            self.passed = False


JOB_PROMISES: list[type[JobPromise]] = [
    PacedRestarts,
    LatestSettings,
    AskedUntilReady,
    UpgradeGoesOn,
]
