"""The decisions: what to do next, from what has happened. No process, no socket, no clock; see
docs/how-it-works.md.

`observe(fact, now)` writes a fact down and decides nothing. `reconcile(now)` looks at the whole
state and returns orders; the caller performs them, observes what came of them, and reconciles again
until there are none. `deadline` is then the next moment at which reconcile could say something new:
not a list of timers kept beside the state, but the earliest moment that the last reconcile asked
about (`_reached`) and found in the future, so the two cannot disagree.

The road not taken: callbacks per timer and per child. Each is simple alone; what a TERM means
between a HUP, a crash and a drain deadline is then nowhere in one place, and cannot be simulated.
"""

from __future__ import annotations

from sidecar.base.exhaustive import assert_never
from sidecar.base.record import Record
from sidecar.core import facts, orders
from sidecar.core.backoff import Allowance, Backoff, IntervalClock
from sidecar.core.containment import Containment, place
from sidecar.core.model import (
    DRAINING,
    GONE,
    KILLED,
    LINGERING,
    OUTDATED,
    PREPARING,
    READY,
    SERVING,
    STARTING,
    Generation,
    Worker,
)
from sidecar.core.roster import Roster
from sidecar.settings import launchers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.settings.table import Settings

# A worker that never took connections has nothing to finish: it gets this long (seconds) between
# the retire signal and SIGKILL. One that was given up before it was ready, and can have had some,
# keeps the next generation from beginning for no longer than this, either.
STILLBORN_GRACE = 2.0
# How long (seconds) sidecar waits for what it has killed before it goes on all the same (an
# uninterruptible process may take for ever). A stop has 5 s for all that comes after the drain
# timeout: `sidecar check` says so.
KILL_GRACE = 3.0
# Signals of one kind that wait for a program are one signal (signal(7)): the next TTOU or TTIN
# comes this much later (seconds).
APART = 0.1
# TTIN in a loop makes no more workers than this, or four times those in the settings.
MOST_BY_SIGNAL = 64
# And it makes ten at once, as somebody's hand may, then one in so many seconds; sent in turn with
# TTOU, it would else start and end processes as fast as it comes.
GROWTH = (1.0, 9.0)
# A stop signal that comes again within this time (seconds) is the same one: `timeout` sends it to
# its child and then to the group.
ECHO = 0.1
# A worker that is too big this soon (seconds) after it was ready may be of a program that just is:
# its slot is recycled ever more seldom, after the longest pause at the most. Not the slot's own
# backoff: min_uptime is about crashes, and a crash of the next worker is to be mended at once.
SOON_TOO_BIG, SELDOM = 600.0, 600.0


# The triggers that nobody has pulled: the first start, what has died, a listener that a program has
# broken.
UNASKED = ("start", "crash", "listener")


class Wish(Record):
    """A swap that is wanted. `supersedes`: the code or environment has `changed` under the
    generation that is coming. `like`: with the settings and environment of that generation, 0 for
    those of now.
    """

    trigger: str
    not_before: float
    supersedes: bool = False
    changed: tuple[str, ...] = ()
    like: int = 0


class Failure(Record):
    """Why a coming generation cannot take over, and with which status sidecar would end because of
    it. `hopeless`: another attempt can only end in the same way.
    """

    cause: str
    status: int
    output: str = ""
    hopeless: bool = False


# What a shell calls the status of a program that is not found.
NOT_FOUND = 127

# What is said of a program whose leader goes away and leaves its work to others.
DAEMONIZED = " and left processes behind (the program seems to daemonize: run it in the foreground)"

# How many changed paths are told.
MOST_CHANGED = 20


def merged(earlier: tuple[str, ...], later: tuple[str, ...]) -> tuple[str, ...]:
    """Each once, the latest last, no more of them than anybody wants to read."""
    return tuple(dict.fromkeys([*(each for each in earlier if each not in later), *later]))[
        -MOST_CHANGED:
    ]


class Ending:
    """How far the stop has come. `asked` counts stop signals, `heeded` those that have been acted
    upon.
    """

    __slots__ = (
        "asked",
        "asked_at",
        "heeded",
        "lame_duck",
        "phase",
        "reason",
        "signal",
        "status",
        "until",
    )

    def __init__(self) -> None:
        self.asked = 0
        self.asked_at = float("-inf")
        self.heeded = 0
        self.signal = ""
        self.lame_duck = True
        self.phase = ""
        self.until = 0.0
        self.status = 0
        self.reason = ""


class Supervisor:
    """The state of one run. `chance` draws a number in [0, 1): for jitter only."""

    def __init__(self, settings: Settings, now: float, chance: Callable[[], float]) -> None:
        self.settings = settings
        self.chance = chance
        self.roster = Roster()
        self.size = settings.workers
        # How many of them may have been started by now: signals make more at a pace.
        self._slots_open = settings.workers
        self._growth = Allowance(*GROWTH)
        self._growth_at = float("-inf")
        self.number = 0
        self.ever_ready = False
        self.ending = Ending()
        self.exited = False
        self._wish: Wish | None = Wish("start", now)
        self._failure: Failure | None = None
        self._attempts = Backoff(settings.min_uptime, settings.max_backoff)
        # How often in a row nothing has served, which counts against --max-failures; and why, if
        # that has not been looked at yet.
        self._outages = Backoff(settings.min_uptime, settings.max_backoff)
        self._outage: Failure | None = None
        self._slots: dict[int, Backoff] = {}
        self._recycled: dict[int, Backoff] = {}
        self._interval = IntervalClock()
        # The last generation that has held out, and what it was begun with.
        self._good: tuple[int, Settings] | None = None
        # The generation with which somebody has asked for what there is now, and which failed; 0 if
        # there was none since the generation that serves was begun.
        self._refused = 0
        # What has changed since the generation that serves was begun.
        self._unserved: tuple[str, ...] = ()
        self._passed: list[tuple[str, tuple[int, ...]]] = []
        self._said_forbidden = False
        self._said_most = False
        self._said_paced = False
        self._said_delay = 0
        #: The last generation that failed and why, until one serves again.
        self.failed: tuple[int, str] | None = None
        self._orders: list[orders.AnyOrder] = []
        self._next = float("inf")
        self._containment = Containment()

    # --- observe: write the fact down

    def observe(self, fact: facts.AnyFact, now: float) -> None:
        """Write down what happened at `now`."""
        match fact:
            case facts.SwapTriggered():
                self._saw_swap_triggered(fact, now)
            case facts.Configured():
                self._saw_configured(fact, now)
            case facts.StopAsked():
                self._saw_stop_asked(fact, now)
            case facts.SizeChanged():
                self._saw_size_changed(fact, now)
            case facts.SignalPassed():
                self._saw_signal_passed(fact, now)
            case facts.Prepared():
                self._saw_prepared(fact, now)
            case facts.PreparationFailed():
                self._saw_preparation_failed(fact, now)
            case facts.TimingChanged():
                self._saw_timing_changed(fact, now)
            case facts.WorkerStarted():
                self._saw_worker_started(fact, now)
            case facts.WorkerExecuted():
                self._saw_worker_executed(fact, now)
            case facts.SpawnFailed():
                self._saw_spawn_failed(fact, now)
            case facts.WorkerReady():
                self._saw_worker_ready(fact, now)
            case facts.WorkerSpread():
                self._saw_worker_spread(fact, now)
            case facts.GrewTooBig():
                self._saw_grew_too_big(fact, now)
            case facts.LookForbidden():
                self._saw_look_forbidden(fact, now)
            case facts.WorkerExited():
                self._saw_worker_exited(fact, now)
            case facts.GroupEmptied():
                self._saw_group_emptied(fact, now)
            case _:
                assert_never(fact)

    def _saw_swap_triggered(self, fact: facts.SwapTriggered, now: float) -> None:
        if self.ending.asked:
            return  # nothing new is begun
        splay = self.settings.env_splay * self.chance() if fact.trigger == "envdir" else 0.0
        unasked = fact.trigger in UNASKED and self.roster.coming is None
        like = self._kept_on() if unasked else 0
        self._want(Wish(fact.trigger, now + splay, fact.supersedes, fact.changed, like))

    def _want(self, wish: Wish) -> bool:
        """Wish for a swap. One answers all wishes, at the earliest moment and under the name it has
        there; whether that is this one's.
        """
        earlier = self._wish
        self._wish = wish
        if earlier is None:
            return True
        first = earlier if earlier.not_before <= wish.not_before else wish
        self._wish = first.replace(
            supersedes=earlier.supersedes or wish.supersedes,
            changed=merged(earlier.changed, wish.changed),
            # Who asks for a swap asks for what there is now.
            like=wish.like if wish.like == earlier.like else 0,
        )
        return first is wish

    def _saw_configured(self, fact: facts.Configured, now: float) -> None:
        """Times and counts hold at once, also for what is under way; the signals are those each
        generation was begun with.
        """
        if self.ending.asked:
            return  # the bound of a stop stays what it was
        before, self.settings = self.settings, fact.settings
        after = fact.settings
        if after.workers != before.workers:  # else it may be what TTIN and TTOU have made of it
            self._resize(after.workers, "")
        for pace in (self._attempts, self._outages, *self._slots.values()):
            pace.limit(after.min_uptime, after.max_backoff)
        clock = (after.enable_auto_restart, after.auto_restart_interval)
        if (
            clock != (before.enable_auto_restart, before.auto_restart_interval)
            and self.roster.current is not None
        ):
            self._wind(now)

    def _saw_stop_asked(self, fact: facts.StopAsked, now: float) -> None:
        ending = self.ending
        if fact.signal == ending.signal and now < ending.asked_at + ECHO:
            return
        if ending.asked == 0:
            ending.lame_duck = fact.lame_duck
        ending.asked += 1
        ending.asked_at = now
        ending.signal = fact.signal

    def _saw_size_changed(self, fact: facts.SizeChanged, now: float) -> None:
        size = max(1, self.size + fact.by)
        if fact.signal:
            # A signal may come from a program that has gone mad; a command comes from somebody.
            most = max(self._most_workers(), self.size)
            if size > most:
                if not self._said_most:
                    self._said_most = True
                    self._say("worker_limit_reached", workers=most, signal=fact.signal)
                return
        self._resize(size, fact.signal)

    def _most_workers(self) -> int:
        """How many workers signals can bring about."""
        return self.settings.max_workers or max(MOST_BY_SIGNAL, 4 * self.settings.workers)

    def _resize(self, size: int, signal: str) -> None:
        self._said_most = False
        self._say("scaled", workers=size, before=self.size, signal=signal)
        self.size = size
        if not signal:
            self._slots_open = size

    def _saw_signal_passed(self, fact: facts.SignalPassed, now: float) -> None:
        self._passed.append((fact.signal, fact.to))

    def _saw_prepared(self, fact: facts.Prepared, now: float) -> None:
        coming = self.roster.coming
        if coming is not None and coming.number == fact.generation and coming.state == PREPARING:
            coming.move(STARTING)
            coming.room, coming.why = fact.room, fact.why

    def _saw_preparation_failed(self, fact: facts.PreparationFailed, now: float) -> None:
        coming = self.roster.coming
        if coming is not None and coming.number == fact.generation:
            self._failure = Failure(fact.cause, 1, fact.output)

    def _saw_timing_changed(self, fact: facts.TimingChanged, now: float) -> None:
        self.settings = self.settings.replace(
            enable_auto_restart=fact.enable_auto_restart,
            auto_restart_interval=fact.auto_restart_interval,
            kill_old_delay=fact.kill_old_delay,
        )

    def _saw_worker_started(self, fact: facts.WorkerStarted, now: float) -> None:
        worker = Worker(fact.generation, fact.slot, fact.pid, fact.readiness, now)
        generation = self.roster.generations[fact.generation]
        if generation.state == SERVING:
            worker.succeeds = next(
                (
                    each.pid
                    for each in self.roster.ready()
                    if each.slot == fact.slot and each.too_big
                ),
                0,
            )
        generation.workers.append(worker)
        self._say("worker_started", generation=fact.generation, slot=fact.slot, pid=fact.pid)

    def _saw_worker_executed(self, fact: facts.WorkerExecuted, now: float) -> None:
        worker = self.roster.find(fact.pid)
        if worker is not None and worker.executed_at is None:
            worker.executed_at = now

    def _saw_spawn_failed(self, fact: facts.SpawnFailed, now: float) -> None:
        self._say("spawn_failed", generation=fact.generation, slot=fact.slot, cause=fact.cause)
        self._lost(fact.generation, fact.slot, Failure(fact.cause, 1), now, lived=0.0)

    def _saw_worker_ready(self, fact: facts.WorkerReady, now: float) -> None:
        worker = self.roster.find(fact.pid)
        if worker is not None and worker.state == STARTING:
            self._became_ready(worker, now)

    def _saw_worker_spread(self, fact: facts.WorkerSpread, now: float) -> None:
        worker = self.roster.find(fact.pid)
        coming = self.roster.coming
        if worker is None:
            return
        if coming is None or worker.generation != coming.number:
            if not worker.fewer:
                worker.had = fact.takers
            return
        worker.takers = fact.takers
        if fact.takers > worker.most:
            worker.most = fact.takers
            worker.spread_at = now

    def _saw_grew_too_big(self, fact: facts.GrewTooBig, now: float) -> None:
        worker = self.roster.find(fact.pid)
        if worker is not None:
            worker.too_big = fact.memory

    def _saw_look_forbidden(self, fact: facts.LookForbidden, now: float) -> None:
        worker = self.roster.find(fact.pid)
        if worker is not None:
            worker.readiness = "interval"
        if not self._said_forbidden:
            self._said_forbidden = True
            self._say(
                "readiness_probe_unavailable", cause=fact.cause, interval=self.settings.interval
            )

    def _saw_worker_exited(self, fact: facts.WorkerExited, now: float) -> None:
        worker = self.roster.find(fact.pid)
        if worker is None:
            return
        asked = not worker.serving
        # Dying of the signal we sent is a clean exit, also if it is told as an exit status (a JVM's
        # 143), and so is dying of our SIGKILL.
        clean = asked and (
            worker.state == KILLED
            or (fact.code == 0 and not fact.signal)
            or worker.retired_by in (fact.signal, fact.reported)
        )
        lived = now - worker.started_at
        if self._was_good(worker, now):
            self.roster.generations[worker.generation].held_out = True
        self._say(
            "worker_exited" if clean else "worker_died",
            generation=worker.generation, slot=worker.slot, pid=worker.pid, cause=fact.cause, lived=lived,
            role=self._role(worker), wait_status=fact.wait_status,
        )  # fmt: skip
        if worker.state != KILLED and not fact.alone:
            worker.move(LINGERING)
            worker.left = fact.left
            worker.strays = fact.strays
            # A leader that was asked and then left by itself has told its own: asked a second time,
            # some would drop what they have in hand. What has left its group it hardly has.
            worker.left_asked = asked and fact.code == 0 and not fact.signal and not fact.strays
            if not asked:
                worker.retired_at = now
                worker.kill_at = now + self._grace(worker)
        elif fact.alone:
            self.roster.remove(worker)
        if not asked:
            served = 0.0 if worker.ready_at is None else now - worker.ready_at
            ended = fact.note or (
                fact.cause + ("" if worker.ready_at is not None else " before it was ready")
            )
            if not fact.note and self._seems_to_daemonize(worker, fact, now):
                ended += DAEMONIZED
            status = fact.shell_status or 1
            # The program is not there: no pause brings it.
            hopeless = bool(fact.note) and status == NOT_FOUND
            failure = Failure(ended, status, hopeless=hopeless)
            self._lost(worker.generation, worker.slot, failure, now, lived=served)

    def _seems_to_daemonize(self, worker: Worker, fact: facts.WorkerExited, now: float) -> bool:
        """Whether its leader soon went away, content, and left processes to do the work."""
        content = fact.code == 0 and not fact.signal and not fact.alone
        return content and not self._was_good(worker, now)

    def _role(self, worker: Worker) -> str:
        """What a worker that has ended was: new, current or old; stopping, once sidecar stops."""
        if self.ending.asked:
            return "stopping"
        generation = self.roster.generations[worker.generation]
        if not worker.serving or generation.state == OUTDATED:
            return "old"
        if generation.state == SERVING:
            return "old" if self.roster.coming is not None else "current"
        return "new"

    def _saw_group_emptied(self, fact: facts.GroupEmptied, now: float) -> None:
        worker = self.roster.find(fact.pid)
        if worker is not None:
            self.roster.remove(worker)

    def _became_ready(self, worker: Worker, now: float) -> None:
        worker.move(READY)
        worker.ready_at = worker.spread_at = now
        self.ever_ready = True
        if worker.readiness == "interval":
            self.roster.generations[worker.generation].by_time = True
        self._say(
            "worker_ready", generation=worker.generation, slot=worker.slot, pid=worker.pid,
            after=now - worker.started_at, by=worker.readiness,
        )  # fmt: skip

    def _lost(self, number: int, slot: int, failure: Failure, now: float, lived: float) -> None:
        """A slot lost its worker unasked: that fails a coming generation, and paces the slot of one
        that serves.
        """
        generation = self.roster.generations[number]
        if generation.state in (PREPARING, STARTING):
            self._failure = self._failure or failure
        else:
            self._pace(slot).failed(now, lived, self.chance())
            current = self.roster.current
            if current is not None and not self.roster.serving():
                self._attempts.failed(now, now - current.serving_at, self.chance())
                self._serves_nothing(failure, now, now - current.serving_at)

    def _pace(self, slot: int) -> Backoff:
        return self._slots.setdefault(
            slot, Backoff(self.settings.min_uptime, self.settings.max_backoff)
        )

    # --- reconcile: look at the whole state, say what to do

    def reconcile(self, now: float) -> list[orders.AnyOrder]:
        """What to do at `now`; to be called again with what came of it, until it is nothing."""
        self._next = float("inf")
        if self.exited:
            return []
        self._step(self._ripen, now)
        self._step(self._retire_left, now)
        self._step(self._end, now)
        if self.ending.phase != "leaving":
            self._step(self._widen, now)
            self._step(self._judge, now)
            self._step(self._give_up_for_good, now)
            self._step(self._take_over, now)
            self._step(self._trim, now)
            self._step(self._begin, now)
            self._step(self._make_room, now)
            self._step(self._grow, now)
            self._step(self._shift, now)
            self._step(self._recycle, now)
        self._step(self._pass_on, now)
        self._step(self._enforce, now)
        self._step(self._bury, now)
        self._step(self._exit, now)
        given, self._orders = self._orders, []
        return given

    def _step(self, step: Callable[[float], None], now: float) -> None:
        """Take one step. One that raises keeps no other from its own, and what it had decided
        before is done; it is taken again after a pause.
        """
        name = step.__name__
        if not self._reached(self._containment.held_until(name), now):
            return
        try:
            step(now)
        except Exception as error:
            self._reached(self._containment.failed(name, now, self.chance()), now)
            kind, where = type(error).__name__, place(error)
            if self._containment.news(f"{kind} {where}", now, self.chance()):
                self._say("internal_error", error=kind, where=where)

    @property
    def wish(self) -> Wish | None:
        """The swap that is wanted, and not begun yet."""
        return self._wish

    @property
    def next_restart(self) -> float:
        """The moment of the next automatic restart, infinity if there is none."""
        return self._interval.due_at if self.settings.enable_auto_restart else float("inf")

    def lost(self) -> bool:
        """Whether a slot has no ready worker because it has lost one. Otherwise those that are
        missing have only just been asked for.
        """
        ready = {worker.slot for worker in self.roster.ready()}
        return any(
            slot < self.size and slot not in ready and pace.failed_at > float("-inf")
            for slot, pace in self._slots.items()
        )

    def respawns(self) -> dict[int, float]:
        """The slots that wait to be filled again, and until when."""
        held = {worker.slot for worker in self.roster.serving()}
        return (
            {
                slot: pace.not_before
                for slot, pace in self._slots.items()
                if slot < self.size and slot not in held
            }
            if held
            else {}
        )

    @property
    def deadline(self) -> float:
        """The next moment at which reconcile could say something new; infinity where only a fact
        can bring that about.
        """
        return self._next

    def _reached(self, moment: float, now: float) -> bool:
        """Whether `moment` has come; if not, it is a deadline."""
        if moment <= now:
            return True
        self._next = min(self._next, moment)
        return False

    def _ripen(self, now: float) -> None:
        """Time alone makes a worker ready (readiness interval) or overdue (any other), and a
        preparation too.
        """
        coming = self.roster.coming
        if (
            coming is not None
            and coming.state == PREPARING
            and self._reached(coming.begun_at + self.settings.start_timeout, now)
        ):
            cause = f"the check has not ended within {self.settings.start_timeout:g} s"
            self._failure = self._failure or Failure(cause, 1)
        for worker in self.roster.serving():
            if worker.state != STARTING:
                continue
            if worker.readiness == "interval" and worker.executed_at is not None:
                if self._reached(worker.executed_at + self.settings.interval, now):
                    self._became_ready(worker, now)
            elif self._reached(worker.started_at + self.settings.start_timeout, now):
                limit = f"within {self.settings.start_timeout:g} s"
                cause = (
                    f"not ready {limit} (readiness {worker.readiness})"
                    if worker.executed_at is not None
                    else f"its program could not be run {limit} (a hung file system?)"
                )
                self._say(
                    "worker_overdue",
                    generation=worker.generation,
                    slot=worker.slot,
                    pid=worker.pid,
                    cause=cause,
                )
                self._retire([worker], now)
                self._lost(worker.generation, worker.slot, Failure(cause, 1), now, lived=0.0)

    def _widen(self, now: float) -> None:
        """Open the slots that signals have asked for, at a pace; one that is filled is open."""
        filled = max((each.slot for each in self.roster.serving()), default=-1)
        self._slots_open = min(self.size, max(self._slots_open, filled + 1))
        while self._slots_open < self.size and self._reached(self._growth_at, now):
            self._slots_open += 1
            self._growth_at = self._growth.use(now)
        waiting = self.size - self._slots_open
        if waiting and not self._said_paced:
            self._say("scaling_paced", waiting=waiting, pause=GROWTH[0])
            self._said_paced = True
        elif not waiting and self._growth.used <= now:
            self._said_paced = False

    # --- the swap

    def _judge(self, now: float) -> None:
        """A coming generation that has failed is given up; what it has taken over already goes on
        serving.
        """
        coming, failure = self.roster.coming, self._failure
        if coming is None or failure is None:
            self._failure = None
            return
        if self._serves_alone(coming):
            # Nothing else takes connections: better this generation with a slot missing than none.
            self._serve_alone(coming, now)
            self._failure = None
            return
        taken = any(worker.state == READY and worker.took_over for worker in coming.workers)
        if coming.trigger not in UNASKED and not coming.like and self.roster.current is not None:
            self._refused = coming.number
        still = sorted(
            {
                worker.generation
                for worker in self.roster.ready()
                if worker.generation != coming.number
            }
        )
        if not still and not taken:
            self._serves_nothing(failure, now)
        stay = [
            worker
            for worker in self.roster.serving()
            if worker.took_over or worker.generation != coming.number
        ]
        enough = self._is_hopeless(stay)
        pause = None
        if not enough and self.ending.asked == 0 and self._is_tried_again(coming, still, taken):
            pause = self._try_again(coming.trigger, now)
        # What is not tried again is due at the next interval, not at the one that is over; nor is
        # what was tried again for the interval's sake.
        if self._interval.due_at <= now or coming.trigger == "interval":
            self._wind(now)
        self._say(
            "swap_failed", generation=coming.number, trigger=coming.trigger, cause=failure.cause, lasted=now - coming.begun_at,
            still=still, degraded=taken, again=None if enough else self._next_attempt(now), changed=list(coming.changed),
            output=failure.output,
        )  # fmt: skip
        if pause is not None:
            trigger = self._wish.trigger if self._wish is not None else coming.trigger
            self._say("retry_scheduled", trigger=trigger, pause=pause)
        self.failed = (coming.number, failure.cause)
        if coming.like and not self._refused:
            self._good = None
        self._give_up(coming, now)
        self._failure = None

    def _serves_nothing(self, failure: Failure, now: float, lived: float = 0.0) -> None:
        """A start has failed, or what served has died after `lived` seconds, and nothing else takes
        connections: one of --max-failures in a row, unless something has held out since the last.
        """
        current = self.roster.current
        if current is not None:
            self._outages.held_out(current.serving_at, now)
        self._outages.failed(now, lived, 0.0)
        self._outage = failure

    def _is_hopeless(self, left: list[Worker]) -> bool:
        """Whether --max-failures have come in a row and no worker is left to hope for. One is enough
        if the program is not there and never was.
        """
        most = self.settings.max_failures
        absent = self._outage is not None and self._outage.hopeless and not self.ever_ready
        enough = most > 0 and (absent or most <= self._outages.failures)
        return enough and not left and self.ending.asked == 0

    def _give_up_for_good(self, now: float) -> None:
        """End by itself when the latest failure has made it hopeless, with what that ends with."""
        failure, ending = self._outage, self.ending
        if failure is None or self.roster.coming is not None:
            return
        hopeless = self._is_hopeless(self.roster.serving())
        self._outage = None
        if not hopeless:
            return
        ending.asked += 1
        ending.lame_duck = False
        ending.status = failure.status
        ending.reason = failure.cause
        self._say(
            "gave_up", failures=self._outages.failures, cause=failure.cause, status=failure.status
        )
        self._end(now)

    def _is_tried_again(self, failed: Generation, still: list[int], taken: bool) -> bool:
        """Whether a failed generation is followed by another attempt that nobody has asked for.

        While something serves, who asked for a swap has been told how it ended, and asks again; a
        file or an envdir is changed again; the interval comes again. What nobody asked for is
        always mended.
        """
        serves = bool(still) or taken
        return not serves or failed.trigger in UNASKED or self.settings.as_server_starter

    def _try_again(self, trigger: str, now: float) -> float | None:
        """Wish for another attempt after a pause: the pause, None if something else comes first."""
        current = self.roster.current
        if current is not None:
            self._attempts.held_out(current.serving_at, now)
        again = self._attempts.failed(now, 0.0, self.chance())
        like = self._kept_on()
        if like and trigger not in UNASKED:
            trigger = "crash"  # what was asked for has failed; this is for what has died
        return again - now if self._want(Wish(trigger, again, like=like)) else None

    def _next_attempt(self, now: float) -> float | None:
        """In how many seconds a generation will be begun without a further word, None if never."""
        if self.ending.asked:
            return None
        due_at = self.next_restart if self._wish is None else self._wish.not_before
        return max(0.0, due_at - now) if due_at < float("inf") else None

    def _give_up(self, generation: Generation, now: float) -> None:
        """`generation` will not take over any more; those of its workers that have are all there is
        in their slots, and stay.
        """
        generation.move(OUTDATED)
        self._retire([worker for worker in generation.workers if not worker.took_over], now)

    def _take_over(self, now: float) -> None:
        """Retire old workers whose slot has a new one that is ready; the last of them makes the new
        generation the serving one.
        """
        coming = self.roster.coming
        if coming is None or coming.state != STARTING:
            return
        mine = [worker for worker in coming.workers if worker.serving]
        if self._serves_alone(coming):
            self._serve_alone(coming, now)
            return
        waiting = self._vacant(coming)
        if (
            any(worker.state == STARTING for worker in mine)
            or not mine
            or (waiting and not self._surge(coming))
        ):
            return
        grown_at = max(self._grown_at(worker, coming) for worker in mine)
        if not self._reached(grown_at, now):
            return
        if not self._reached(grown_at + self.settings.kill_old_delay, now):
            self._say_delay(mine, coming)
            return
        for worker in mine:
            worker.took_over = True
        replaced = [
            old for worker in mine for old in self.roster.older_in_slot(worker.slot, coming)
        ]
        if replaced:
            self._say_retiring(replaced, coming)
            self._retire(replaced, now)
        if not waiting:
            self._serve(coming, now)

    def _grown_at(self, worker: Worker, coming: Generation) -> float:
        """When a ready worker of `coming` is all that it will be: it has as many processes as what
        it replaces, or no more came.
        """
        had = max((old.had for old in self.roster.older_in_slot(worker.slot, coming)), default=0)
        enough = worker.most >= had or worker.readiness != "accept"
        return worker.spread_at + (0.0 if enough else self.settings.start_timeout)

    def replaces(self, pid: int) -> list[int] | None:
        """In slow start, the workers that the coming worker `pid` is to replace and that have not
        been asked to shrink yet.

        None if it does not matter how many processes of `pid` take connections.
        """
        coming, worker = self.roster.coming, self.roster.find(pid)
        if (
            coming is None
            or worker is None
            or not self.settings.slow_start
            or worker.generation != coming.number
            or not worker.serving
        ):
            return None
        return [old.pid for old in self.roster.older_in_slot(worker.slot, coming) if not old.fewer]

    def _shift(self, now: float) -> None:
        """Slow start: an old worker has a process less for every one of its successor that takes
        connections, and always one.

        Where no successor is coming any more (the swap failed, or a newer one begins), it gets back
        what it gave.
        """
        coming = self.roster.coming
        for old in self.roster.ready():
            if coming is not None and old.generation == coming.number:
                continue
            successor = (
                coming.in_slot(old.slot)
                if coming is not None and coming.state == STARTING
                else None
            )
            takers = successor.takers if successor is not None and successor.state == READY else 0
            fewer = max(0, min(takers, old.had - 1))
            if fewer == old.fewer or not self._reached(old.resized_at + APART, now):
                continue
            signal, step = ("TTOU", 1) if fewer > old.fewer else ("TTIN", -1)
            old.fewer += step
            old.resized_at = now
            self._say(
                "worker_shrunk", generation=old.generation, slot=old.slot, pid=old.pid, signal=signal, left=old.had - old.fewer,
                had=old.had, new=takers,
            )  # fmt: skip
            self._orders.append(orders.Pass(old.pid, signal))

    def _serves_alone(self, coming: Generation) -> bool:
        """Whether `coming` takes connections and nothing else does (a first start, or what served
        has died meanwhile).
        """
        return any(
            worker.state == READY for worker in coming.workers
        ) and not self.roster.ready_outside(coming)

    def _serve_alone(self, coming: Generation, now: float) -> None:
        if coming.trigger not in ("start", "crash"):
            # Who asked for a swap hears of its end, also if what was to be replaced has died
            # meanwhile.
            self._say_retiring([], coming)
        self._serve(coming, now)

    def _serve(self, generation: Generation, now: float) -> None:
        """`generation` serves from now on; the one before is outdated, and its workers leave."""
        before = self.roster.current
        if before is not None:
            self._outages.held_out(before.serving_at, now)
            self._remember(before, now)
            before.move(OUTDATED)
        generation.move(SERVING)
        generation.serving_at = now
        self.failed = None
        if not generation.like:
            self._refused = 0
        self._unserved = ()
        self._wind(now)
        self._say(
            "serving", generation=generation.number, trigger=generation.trigger, took=now - generation.begun_at,
            changed=list(generation.changed), pids=[worker.pid for worker in generation.workers if worker.serving],
        )  # fmt: skip
        # Workers that were being restarted in the generation before have nobody to replace any
        # more.
        late = [
            worker
            for worker in self.roster.serving()
            if worker.generation != generation.number and worker.state == STARTING
        ]
        self._retire(late, now)

    def _wind(self, now: float) -> None:
        """The automatic restart is an interval away, if there is to be one."""
        self._interval.stop()
        if self.settings.enable_auto_restart:
            self._interval.wind(now, self.settings.auto_restart_interval, self.chance())

    def _trim(self, now: float) -> None:
        """Fewer workers are wanted than there are slots filled."""
        surplus = [worker for worker in self.roster.serving() if worker.slot >= self.size]
        if not surplus:
            return
        coming = self.roster.coming
        # A coming worker that has not taken over may still fail: nothing is given away for it.
        ready = [
            worker
            for worker in self.roster.ready()
            if coming is None or worker.generation != coming.number or worker.took_over
        ]
        if ready and all(worker.slot >= self.size for worker in ready):
            # None of those that are to stay takes connections yet: one of the others does so until
            # then.
            surplus.remove(ready[0])
        self._retire(surplus, now)

    def _begin(self, now: float) -> None:
        """Begin the swap that is wished for, if the moment is right."""
        if self.ending.phase:
            return
        coming = self.roster.coming
        current = self.roster.current
        if coming is None:
            if current is not None and not self.roster.serving():
                # A retry that waits for its turn does not keep this one from its own.
                again = max(now, self._attempts.not_before)
                like, barred = self._way_back(current, now)
                if self._want(Wish("crash", again, like=like)) and again > now:
                    if barred:
                        self._say("revert_impossible", generation=current.number, like=barred)
                    self._say("retry_scheduled", trigger="crash", pause=again - now)
            elif (
                self._wish is None
                and self.settings.enable_auto_restart
                and current is not None
                and self._interval_due(now)
            ):
                self._say(
                    "interval_due",
                    interval=self.settings.auto_restart_interval,
                    forced=bool(self.roster.leaving()),
                )
                self._wish = Wish("interval", now)
        wish = self._wish
        if wish is None:
            return
        if coming is not None and (
            not wish.supersedes
            or any(worker.serving and worker.took_over for worker in coming.workers)
        ):
            return
        if not self._reached(wish.not_before, now):
            return
        if coming is not None:
            self._say(
                "swap_superseded",
                generation=coming.number,
                trigger=wish.trigger,
                lasted=now - coming.begun_at,
            )
            self._failure = None
            self._give_up(coming, now)
        if any(
            not self._reached(self._out_of_the_way_at(worker), now)
            for worker in self.roster.stillborn()
        ):
            return
        self._wish = None
        self.number += 1
        self._unserved = merged(self._unserved, wish.changed)
        self._slots_open = self.size
        settings = self.settings
        if served := self.roster.generations.get(wish.like):
            settings = served.settings
        elif wish.like and self._good is not None:
            settings = self._good[1]
        generation = Generation(self.number, wish.trigger, now, settings, self._unserved)
        generation.like = wish.like
        self.roster.generations[self.number] = generation
        self._say(
            "swap_started", generation=self.number, trigger=wish.trigger, changed=list(wish.changed)
        )
        refused = self._refused if wish.like else 0
        self._orders.append(
            orders.Prepare(self.number, wish.trigger, self._unserved, wish.like, refused)
        )

    # --- going back: what time alone made ready may never have worked, and what was refused did not

    def _kept_on(self) -> int:
        """The generation that serves, or did last, if what there is now was refused since: what
        nobody asks for is begun like it, because it worked. 0 if there is no such.
        """
        current = self.roster.current
        if not self._refused or current is None or self.settings.as_server_starter:
            return 0
        return current.number

    @property
    def last_good(self) -> int:
        """The last generation of which a worker was ready for --min-uptime, 0 if there is none: a
        later one may get its settings and environment.
        """
        return self._good[0] if self._good is not None else 0

    def _was_good(self, worker: Worker, now: float) -> bool:
        """Whether it takes connections, or took them, for --min-uptime."""
        until = now if worker.retired_at is None else worker.retired_at
        least = self._attempts.min_uptime
        return worker.ready_at is not None and until - worker.ready_at >= least

    def _remember(self, served: Generation, now: float) -> bool:
        """Note a generation that has served if it has held out; whether it has."""
        if not served.held_out and not any(self._was_good(each, now) for each in served.workers):
            return False
        self._good = (served.number, served.settings)
        return True

    def _way_back(self, died: Generation, now: float) -> tuple[int, int]:
        """The generation to go back to now that all workers of `died` have died, 0 for none; and
        the one to which only other listeners bar the way.

        There is a way back for what time alone made ready and what died soon. Once: if what went
        back dies soon, too, there is none. What went back and held out is begun again as it was,
        because nobody has asked for anything else.
        """
        held_out = self._remember(died, now)
        if kept_on := self._kept_on():
            return kept_on, 0
        if died.like and not held_out:
            self._good = None
        good = self._good
        wanted = died.like if held_out else died.by_time
        if good is None or not wanted or self.settings.as_server_starter:
            return 0, 0
        return (good[0], 0) if good[1].port == self.settings.port else (0, good[0])

    def _surge(self, coming: Generation) -> int:
        """How many workers there may be beyond those that are wanted while `coming` takes over, 0
        for any number.
        """
        if coming.settings.overlap != "auto" or not coming.room or coming.room >= self.size:
            return self.settings.max_surge
        return min(self.settings.max_surge or coming.room, coming.room)

    def _make_room(self, now: float) -> None:
        """A coming generation is about to start: say so if there is not room for all of it, and if
        there is none, make it.

        The old workers then leave before the new ones start. What connects meanwhile waits in the
        listeners' queues; but if the new ones fail, nothing serves. So this is done only where it
        was asked for, or where a single one more would not fit.
        """
        coming = self.roster.coming
        if self.ending.phase or coming is None or coming.state != STARTING or coming.fits:
            return
        coming.fits = True
        never = coming.settings.overlap == "never"
        if never or (coming.settings.overlap == "auto" and coming.room == 0):
            coming.alone = True
            old = [worker for worker in self.roster.serving() if worker.generation != coming.number]
            if old:
                why = "--overlap never" if never else coming.why
                self._say(
                    "overlap_skipped",
                    generation=coming.number,
                    pids=[each.pid for each in old],
                    signal=self._swap_signal(old),
                    why=why,
                )
                self._retire(old, now)
        elif self._surge(coming) != self.settings.max_surge and self.roster.serving():
            self._say(
                "overlap_limited",
                generation=coming.number,
                surge=self._surge(coming),
                why=coming.why,
            )

    def _interval_due(self, now: float) -> bool:
        if not self._reached(self._interval.due_at, now):
            return False
        return not self.roster.leaving() or self._reached(self._interval.forced_at, now)

    def _vacant(self, generation: Generation) -> list[int]:
        """The slots in which `generation` has no worker, those where nobody serves first."""
        mine = {worker.slot for worker in generation.workers if worker.serving}
        held = {worker.slot for worker in self.roster.serving()}
        return sorted(
            (slot for slot in range(self._slots_open) if slot not in mine),
            key=lambda slot: (slot in held, slot),
        )

    def _grow(self, now: float) -> None:
        """Start what is missing: of the coming generation as far as --max-surge allows, else of the
        serving one.
        """
        coming, current = self.roster.coming, self.roster.current
        if (
            self.ending.phase == ""
            and coming is not None
            and coming.state == STARTING
            and self._failure is None
        ):
            vacant = self._vacant(coming)
            # Where nobody else serves, being there comes before being small.
            if coming.alone and self._crowd(now, coming):
                vacant = []
            surge = self._surge(coming)
            if (
                vacant
                and surge
                and any(worker.generation != coming.number for worker in self.roster.serving())
            ):
                vacant = vacant[: max(0, self.size + surge - self._crowd(now))]
            for slot in vacant:
                self._spawn(coming, slot)
        elif (
            current is not None
            and self.roster.serving()
            and (coming is None or coming.state == PREPARING)
        ):
            held = {worker.slot for worker in self.roster.serving()}
            for slot in range(self._slots_open):
                if slot not in held and self._reached(self._pace(slot).not_before, now):
                    self._spawn(current, slot)

    def _recycle(self, now: float) -> None:
        """Replace a worker that is too big by another of the serving generation, started beside it:
        one slot at a time.
        """
        going = [
            (worker, other)
            for other in self.roster.serving()
            if other.succeeds
            and (worker := self.roster.find(other.succeeds)) is not None
            and worker.serving
            and worker.slot == other.slot
        ]
        delay = self.settings.kill_old_delay
        for worker, other in going:
            if other.ready_at is not None and self._reached(other.ready_at + delay, now):
                self._swap_out(worker, other, now)
        current, wish = self.roster.current, self._wish
        # What a swap is about to replace is not worth a successor of its own.
        soon = self.roster.coming is not None or (wish is not None and wish.not_before <= now)
        if going or soon or current is None or self.ending.phase:
            return
        big = [worker for worker in self.roster.ready() if worker.too_big]
        for worker in sorted(big, key=lambda worker: -worker.too_big):
            again = max(self._pace(worker.slot).not_before, self._thinning(worker.slot).not_before)
            if worker.slot < self.size and self._reached(again, now):
                self._say(
                    "recycling", generation=worker.generation, slot=worker.slot, pid=worker.pid,
                    memory=worker.too_big, limit=self.settings.max_memory,
                )  # fmt: skip
                self._spawn(current, worker.slot)
                return

    def _swap_out(self, worker: Worker, other: Worker, now: float) -> None:
        lived = now - (worker.ready_at if worker.ready_at is not None else now)
        again = self._thinning(worker.slot).failed(now, lived, self.chance())
        self._say(
            "recycled", generation=worker.generation, slot=worker.slot, pid=worker.pid, by=other.pid,
            memory=worker.too_big, lived=lived, pause=again - now,
        )  # fmt: skip
        self._retire([worker], now)

    def _thinning(self, slot: int) -> Backoff:
        return self._recycled.setdefault(slot, Backoff(SOON_TOO_BIG, SELDOM))

    def _crowd(self, now: float, besides: Generation | None = None) -> int:
        """How many processes there are (besides a generation's), less those that even SIGKILL has
        not moved for a while: nothing can wait for them.
        """
        number = besides.number if besides is not None else None
        there = [worker for worker in self.roster.workers() if worker.generation != number]
        return sum(
            worker.state != KILLED or not self._reached(worker.kill_at + KILL_GRACE, now)
            for worker in there
        )

    def _spawn(self, generation: Generation, slot: int) -> None:
        self._orders.append(orders.Spawn(generation.number, slot, self.size, generation.trigger))

    # --- leaving

    def _retire(self, workers: list[Worker], now: float) -> None:
        """Ask each to leave, once; from then on it drains. The signal is what its own program
        understands.
        """
        for worker in workers:
            if worker.state not in (STARTING, READY):
                continue
            signal = self._retire_signal(self.roster.generations[worker.generation].settings)
            worker.move(DRAINING)
            worker.retired_at = now
            worker.retired_by = signal
            worker.kill_at = now + self._grace(worker)
            self._orders.append(orders.Retire(worker.pid, signal))

    def _retire_left(self, now: float) -> None:
        """Say that processes have outlived their leader, and ask them to leave, once: nobody else
        will, and they go on accepting with old code.
        """
        for worker in self.roster.leaving():
            left, worker.left = worker.left, None
            if left is None:
                continue
            own = self.roster.generations[worker.generation].settings
            signal = "" if worker.left_asked else self._retire_signal(own)
            if left:  # else they are ending already
                self._say(
                    "leader_exited", generation=worker.generation, slot=worker.slot, pid=worker.pid, pids=list(left), strays=list(worker.strays), signal=signal,
                    kill_in=max(0.0, worker.kill_at - now), shell=set(left) != set(worker.strays) and launchers.has_shell_parent(own.command),
                )  # fmt: skip
            if signal:
                self._orders.append(orders.RetireGroup(worker.pid, signal))

    def _grace(self, worker: Worker) -> float:
        """How long (seconds) it may take to leave: it may have requests in hand, or it has not."""
        drain = self.settings.drain_timeout
        return drain if worker.may_have_connections else min(drain, STILLBORN_GRACE)

    def _out_of_the_way_at(self, worker: Worker) -> float:
        """When the next generation need not wait any longer for one that was never ready."""
        asked_at = worker.retired_at if worker.retired_at is not None else worker.started_at
        return min(worker.kill_at, asked_at + STILLBORN_GRACE)

    def _retire_signal(self, own: Settings) -> str:
        return self._stop_signal(own) if self.ending.phase == "leaving" else own.signal_on_hup

    def _enforce(self, now: float) -> None:
        """Kill what has outstayed its time."""
        for worker in self.roster.leaving():
            if self._reached(worker.kill_at, now):
                since = now - (worker.retired_at if worker.retired_at is not None else now)
                self._say(
                    "worker_killed",
                    generation=worker.generation,
                    slot=worker.slot,
                    pid=worker.pid,
                    after=since,
                    leader=worker.state != LINGERING,
                )
                worker.move(KILLED)
                self._orders.append(orders.Kill(worker.pid))

    def _bury(self, _now: float) -> None:
        for generation in self.roster.gone():
            generation.move(GONE)
            del self.roster.generations[generation.number]
            self._orders.append(orders.Close(generation.number))

    def _pass_on(self, _now: float) -> None:
        for signal, to in self._passed:
            # Not to one that is still starting: until its program has installed a handler, most
            # signals end it.
            self._orders += [
                orders.Pass(worker.pid, signal)
                for worker in self.roster.ready()
                if worker.pid in to
            ]
        self._passed.clear()

    # --- the stop

    def _end(self, now: float) -> None:
        """Carry the stop on: lame duck, drain, kill, exit. Each further stop signal skips a wait."""
        ending = self.ending
        if ending.asked == 0:
            return
        if ending.phase == "":
            ending.heeded = 1
            self._wish = None
            lame_duck = self.settings.lame_duck if ending.lame_duck and self.roster.ready() else 0.0
            ending.phase = "lame duck"
            ending.until = now + lame_duck
            coming = self.roster.coming
            if coming is not None and self.roster.ready_outside(coming) and lame_duck:
                self._give_up(coming, now)
            if not ending.status:
                self._say(
                    "stopping", signal=ending.signal, lame_duck=lame_duck, drain_timeout=self.settings.drain_timeout,
                    sending=self._stop_signal(self.settings), pids=[worker.pid for worker in self.roster.workers()],
                )  # fmt: skip
        over = ending.phase == "lame duck" and (
            not self.roster.serving() or self._reached(ending.until, now)
        )
        if ending.phase == "lame duck" and not over and ending.asked > ending.heeded:
            ending.heeded += 1
            over = True
        if over:
            ending.phase = "leaving"
            ending.until = float("inf")
            for worker in self.roster.leaving():
                worker.kill_at = min(worker.kill_at, now + self.settings.drain_timeout)
            self._retire(list(self.roster.workers()), now)
            for generation in self.roster.generations.values():
                if generation.state != OUTDATED:
                    generation.move(OUTDATED)
        if ending.phase == "leaving" and ending.asked > ending.heeded:
            ending.heeded = ending.asked
            for worker in self.roster.leaving():
                worker.kill_at = now

    def _stop_signal(self, settings: Settings) -> str:
        if self.ending.signal == "INT" and settings.as_server_starter:
            return "TERM"
        return settings.signal_on_term

    def _exit(self, now: float) -> None:
        """End with the last worker, or a while after the last was killed: the last thing that is
        ever said.
        """
        ending = self.ending
        if ending.phase != "leaving":
            return
        left = list(self.roster.workers())
        if left and all(worker.state == KILLED for worker in left) and ending.until == float("inf"):
            ending.until = now + KILL_GRACE
        if not left or self._reached(ending.until, now):
            self._say("stopped", status=ending.status, left=[worker.pid for worker in left])
            self._orders.append(orders.Exit(ending.status, ending.reason))
            self.exited = True

    # --- telling

    def _say(self, event: str, **fields: object) -> None:
        self._orders.append(orders.Say(event, fields))

    def _say_retiring(self, workers: list[Worker], coming: Generation) -> None:
        pids = [worker.pid for worker in workers]
        delay = self.settings.kill_old_delay if self._said_delay == coming.number else 0.0
        self._say(
            "retiring",
            generation=coming.number,
            pids=pids,
            signal=self._swap_signal(workers),
            delay=delay,
        )

    def _swap_signal(self, workers: list[Worker]) -> str:
        """The signal that these workers are retired with: that of the generation they are of."""
        return (
            self.roster.generations[workers[0].generation].settings.signal_on_hup
            if workers
            else self.settings.signal_on_hup
        )

    def _say_delay(self, mine: list[Worker], coming: Generation) -> None:
        replaced = [
            old for worker in mine for old in self.roster.older_in_slot(worker.slot, coming)
        ]
        if replaced and self._said_delay != coming.number:
            self._said_delay = coming.number
            pids, delay = [old.pid for old in replaced], self.settings.kill_old_delay
            self._say(
                "retire_delayed",
                generation=coming.number,
                pids=pids,
                signal=self._swap_signal(replaced),
                delay=delay,
            )

    def status_rows(self) -> list[tuple[int, int]]:
        """(generation, pid) of each worker that has ever been ready, for the status file."""
        return [
            (worker.generation, worker.pid)
            for worker in self.roster.workers()
            if worker.ready_at is not None
        ]
