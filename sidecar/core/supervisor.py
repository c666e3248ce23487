"""The decisions: what to do next, from what has happened. No process, no socket, no clock; see
docs/how-it-works.md.

`observe(fact, now)` writes a fact down and decides nothing. `reconcile(now)` looks at the whole
state and returns orders; the caller performs them, observes what came of them, and reconciles again
until there are none. `deadline` is then the next moment at which reconcile could say something new:
not a list of timers kept beside the state, but the earliest moment that the last reconcile asked
about (`_is_due`) and found in the future, so the two cannot disagree.

The road not taken: callbacks per timer and per child. Each is simple alone; what a TERM means
between a HUP, a crash and a drain deadline is then nowhere in one place, and cannot be simulated.
"""

from __future__ import annotations

from sidecar.base.exhaustive import assert_never
from sidecar.base.record import Record
from sidecar.core import facts, orders
from sidecar.core.backoff import AutoRestartTimer, Backoff, RateLimit
from sidecar.core.containment import Containment, error_location
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
from sidecar.core.worker_table import WorkerTable
from sidecar.settings import launchers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.settings.table import Settings

# A worker that never took connections has nothing to finish: it gets this long (seconds) between
# the retire signal and SIGKILL. One that was given up before it was ready, and can have had some,
# keeps the next generation from beginning for no longer than this, either.
NEVER_READY_GRACE_S = 2.0
# How long (seconds) sidecar waits for what it has killed before it goes on all the same (an
# uninterruptible process may take for ever). A stop has 5 s for all that comes after the drain
# timeout: `sidecar check` says so.
KILL_GRACE_S = 3.0
# Signals of one kind that wait for a program are one signal (signal(7)): the next TTOU or TTIN
# comes this much later (seconds).
RESIZE_SIGNAL_INTERVAL_S = 0.1
# TTIN in a loop makes no more workers than this, or four times those in the settings.
MAX_WORKERS_BY_SIGNAL = 64
# And it makes ten at once, as somebody's hand may, then one in so many seconds; sent in turn with
# TTOU, it would else start and end processes as fast as it comes.
GROWTH_INTERVAL_S = 1.0
GROWTH_BURST_S = 9.0
# A stop signal that comes again within this time (seconds) is the same one: `timeout` sends it to
# its child and then to the group.
DUPLICATE_SIGNAL_S = 0.1
# A worker that is too big this soon (seconds) after it was ready may be of a program that just is:
# its slot is recycled ever more seldom, after the longest pause at the most. Not the slot's own
# backoff: min_uptime is about crashes, and a crash of the next worker is to be mended at once.
RECYCLE_MIN_UPTIME_S = 600.0
RECYCLE_MAX_PAUSE_S = 600.0


# The triggers that nobody has pulled: the first start, what has died, a listener that a program has
# broken.
AUTOMATIC_TRIGGERS = ("start", "crash", "listener")


class PendingSwap(Record):
    """A swap that is to be begun, at `not_before` at the earliest.

    `supersedes`: the code or environment has changed under the generation that is coming, which is
    to be given up. `changed`: what has changed. `settings_from`: use the settings and environment
    of that generation, 0 for the current ones.
    """

    trigger: str
    not_before: float
    supersedes: bool = False
    changed: tuple[str, ...] = ()
    settings_from: int = 0


class Failure(Record):
    """Why a coming generation cannot take over. `exit_status`: what sidecar ends with if it ends
    because of it. `permanent`: another attempt can only end in the same way.
    """

    cause: str
    exit_status: int
    output: str = ""
    permanent: bool = False


# What a shell calls the status of a program that is not found.
COMMAND_NOT_FOUND_STATUS = 127

# What is said of a program whose leader goes away and leaves its work to others.
DAEMONIZED_HINT = (
    " and left processes behind (the program seems to daemonize: run it in the foreground)"
)

# How many changed paths are told.
MAX_CHANGED_NAMES = 20


def merge_changed(earlier: tuple[str, ...], later: tuple[str, ...]) -> tuple[str, ...]:
    """Each once, the latest last, no more of them than anybody wants to read."""
    return tuple(dict.fromkeys([*(each for each in earlier if each not in later), *later]))[
        -MAX_CHANGED_NAMES:
    ]


class StopState:
    """How far the stop has come. `asked` counts stop signals, `heeded` those that have been acted
    upon.
    """

    __slots__ = (
        "signals_received",
        "last_signal_at",
        "signals_handled",
        "lame_duck",
        "phase",
        "exit_reason",
        "signal",
        "exit_status",
        "phase_ends_at",
    )

    def __init__(self) -> None:
        self.signals_received = 0
        self.last_signal_at = float("-inf")
        self.signals_handled = 0
        self.signal = ""
        self.lame_duck = True
        self.phase = ""
        self.phase_ends_at = 0.0
        self.exit_status = 0
        self.exit_reason = ""


class Supervisor:
    """The state of one run. `random_fraction` draws a number in [0, 1): for jitter only."""

    def __init__(
        self, settings: Settings, now: float, random_fraction: Callable[[], float]
    ) -> None:
        self.settings = settings
        self.random_fraction = random_fraction
        self.worker_table = WorkerTable()
        self.size = settings.workers
        # How many of them may have been started by now: signals make more at a pace.
        self._slots_open = settings.workers
        self._growth_limit = RateLimit(GROWTH_INTERVAL_S, GROWTH_BURST_S)
        self._next_slot_at = float("-inf")
        self.number = 0
        self.ever_ready = False
        self.stop_state = StopState()
        self.exited = False
        self._pending_swap: PendingSwap | None = PendingSwap("start", now)
        self._failure: Failure | None = None
        self._swap_backoff = Backoff(settings.min_uptime, settings.max_backoff)
        # How often in a row nothing has served, which counts against --max-failures; and why, if
        # that has not been looked at yet.
        self._outages = Backoff(settings.min_uptime, settings.max_backoff)
        self._latest_outage: Failure | None = None
        self._slot_backoffs: dict[int, Backoff] = {}
        self._recycle_backoffs: dict[int, Backoff] = {}
        self._auto_restart = AutoRestartTimer()
        # The last generation that has held out, and what it was begun with.
        self._last_stable: tuple[int, Settings] | None = None
        # The generation with which somebody has asked for what there is now, and which failed; 0 if
        # there was none since the generation that serves was begun.
        self._rejected = 0
        # What has changed since the generation that serves was begun.
        self._changed: tuple[str, ...] = ()
        self._to_forward: list[tuple[str, tuple[int, ...]]] = []
        self._probe_unavailable_logged = False
        self._limit_logged = False
        self._pacing_logged = False
        self._delay_logged_for = 0
        #: The last generation that failed and why, until one serves again.
        self.failed_swap: tuple[int, str] | None = None
        self._orders: list[orders.AnyOrder] = []
        self._deadline = float("inf")
        self._containment = Containment()

    # --- observe: write the fact down

    def observe(self, fact: facts.AnyFact, now: float) -> None:
        """Write down what happened at `now`."""
        match fact:
            case facts.SwapTriggered():
                self._saw_swap_triggered(fact, now)
            case facts.SettingsChanged():
                self._saw_settings_changed(fact, now)
            case facts.StopRequested():
                self._saw_stop_requested(fact, now)
            case facts.SizeChanged():
                self._saw_size_changed(fact, now)
            case facts.SignalForwardRequested():
                self._saw_signal_forward_requested(fact, now)
            case facts.GenerationPrepared():
                self._saw_generation_prepared(fact, now)
            case facts.PreparationFailed():
                self._saw_preparation_failed(fact, now)
            case facts.TimingChanged():
                self._saw_timing_changed(fact, now)
            case facts.WorkerStarted():
                self._saw_worker_started(fact, now)
            case facts.ProgramExecuted():
                self._saw_program_executed(fact, now)
            case facts.SpawnFailed():
                self._saw_spawn_failed(fact, now)
            case facts.WorkerReady():
                self._saw_worker_ready(fact, now)
            case facts.AcceptingCountChanged():
                self._saw_accepting_count_changed(fact, now)
            case facts.MemoryLimitExceeded():
                self._saw_memory_limit_exceeded(fact, now)
            case facts.ReadinessProbeUnavailable():
                self._saw_readiness_probe_unavailable(fact, now)
            case facts.WorkerExited():
                self._saw_worker_exited(fact, now)
            case facts.GroupEmptied():
                self._saw_group_emptied(fact, now)
            case _:
                assert_never(fact)

    def _saw_swap_triggered(self, fact: facts.SwapTriggered, now: float) -> None:
        if self.stop_state.signals_received:
            return  # nothing new is begun
        splay = (
            self.settings.env_splay * self.random_fraction() if fact.trigger == "envdir" else 0.0
        )
        unasked = fact.trigger in AUTOMATIC_TRIGGERS and self.worker_table.coming is None
        like = self._generation_to_keep() if unasked else 0
        self._request_swap(
            PendingSwap(fact.trigger, now + splay, fact.supersedes, fact.changed, like)
        )

    def _request_swap(self, pending: PendingSwap) -> bool:
        """Ask for a swap. One answers all that ask, at the earliest moment and under the name it has
        there; whether that is this one's.
        """
        earlier = self._pending_swap
        self._pending_swap = pending
        if earlier is None:
            return True
        first = earlier if earlier.not_before <= pending.not_before else pending
        self._pending_swap = first.replace(
            supersedes=earlier.supersedes or pending.supersedes,
            changed=merge_changed(earlier.changed, pending.changed),
            # Who asks for a swap asks for what there is now.
            settings_from=pending.settings_from
            if pending.settings_from == earlier.settings_from
            else 0,
        )
        return first is pending

    def _saw_settings_changed(self, fact: facts.SettingsChanged, now: float) -> None:
        """Times and counts hold at once, also for what is under way; the signals are those each
        generation was begun with.
        """
        if self.stop_state.signals_received:
            return  # the bound of a stop stays what it was
        before, self.settings = self.settings, fact.settings
        after = fact.settings
        if after.workers != before.workers:  # else it may be what TTIN and TTOU have made of it
            self._resize(after.workers, "")
        for pace in (self._swap_backoff, self._outages, *self._slot_backoffs.values()):
            pace.set_limits(after.min_uptime, after.max_backoff)
        clock = (after.enable_auto_restart, after.auto_restart_interval)
        if (
            clock != (before.enable_auto_restart, before.auto_restart_interval)
            and self.worker_table.current is not None
        ):
            self._arm_auto_restart(now)

    def _saw_stop_requested(self, fact: facts.StopRequested, now: float) -> None:
        stop = self.stop_state
        if fact.signal == stop.signal and now < stop.last_signal_at + DUPLICATE_SIGNAL_S:
            return
        if stop.signals_received == 0:
            stop.lame_duck = fact.lame_duck
        stop.signals_received += 1
        stop.last_signal_at = now
        stop.signal = fact.signal

    def _saw_size_changed(self, fact: facts.SizeChanged, now: float) -> None:
        size = max(1, self.size + fact.by)
        if fact.signal:
            # A signal may come from a program that has gone mad; a command comes from somebody.
            most = max(self._max_workers(), self.size)
            if size > most:
                if not self._limit_logged:
                    self._limit_logged = True
                    self._log("worker_limit_reached", workers=most, signal=fact.signal)
                return
        self._resize(size, fact.signal)

    def _max_workers(self) -> int:
        """How many workers signals can bring about."""
        return self.settings.max_workers or max(MAX_WORKERS_BY_SIGNAL, 4 * self.settings.workers)

    def _resize(self, size: int, signal: str) -> None:
        self._limit_logged = False
        self._log("scaled", workers=size, before=self.size, signal=signal)
        self.size = size
        if not signal:
            self._slots_open = size

    def _saw_signal_forward_requested(self, fact: facts.SignalForwardRequested, now: float) -> None:
        self._to_forward.append((fact.signal, fact.pids))

    def _saw_generation_prepared(self, fact: facts.GenerationPrepared, now: float) -> None:
        coming = self.worker_table.coming
        if coming is not None and coming.number == fact.generation and coming.state == PREPARING:
            coming.move(STARTING)
            coming.room, coming.room_reason = fact.room, fact.room_reason

    def _saw_preparation_failed(self, fact: facts.PreparationFailed, now: float) -> None:
        coming = self.worker_table.coming
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
        generation = self.worker_table.generations[fact.generation]
        if generation.state == SERVING:
            worker.replaces_pid = next(
                (
                    each.pid
                    for each in self.worker_table.ready()
                    if each.slot == fact.slot and each.oversize_bytes
                ),
                0,
            )
        generation.workers.append(worker)
        self._log("worker_started", generation=fact.generation, slot=fact.slot, pid=fact.pid)

    def _saw_program_executed(self, fact: facts.ProgramExecuted, now: float) -> None:
        worker = self.worker_table.find(fact.pid)
        if worker is not None and worker.executed_at is None:
            worker.executed_at = now

    def _saw_spawn_failed(self, fact: facts.SpawnFailed, now: float) -> None:
        self._log("spawn_failed", generation=fact.generation, slot=fact.slot, cause=fact.cause)
        self._lose_worker(fact.generation, fact.slot, Failure(fact.cause, 1), now, lived=0.0)

    def _saw_worker_ready(self, fact: facts.WorkerReady, now: float) -> None:
        worker = self.worker_table.find(fact.pid)
        if worker is not None and worker.state == STARTING:
            self._mark_ready(worker, now)

    def _saw_accepting_count_changed(self, fact: facts.AcceptingCountChanged, now: float) -> None:
        worker = self.worker_table.find(fact.pid)
        coming = self.worker_table.coming
        if worker is None:
            return
        if coming is None or worker.generation != coming.number:
            if not worker.shrunk_by:
                worker.accepting_before = fact.accepting
            return
        worker.accepting = fact.accepting
        if fact.accepting > worker.max_accepting:
            worker.max_accepting = fact.accepting
            worker.max_accepting_at = now

    def _saw_memory_limit_exceeded(self, fact: facts.MemoryLimitExceeded, now: float) -> None:
        worker = self.worker_table.find(fact.pid)
        if worker is not None:
            worker.oversize_bytes = fact.memory_bytes

    def _saw_readiness_probe_unavailable(
        self, fact: facts.ReadinessProbeUnavailable, now: float
    ) -> None:
        worker = self.worker_table.find(fact.pid)
        if worker is not None:
            worker.readiness = "interval"
        if not self._probe_unavailable_logged:
            self._probe_unavailable_logged = True
            self._log(
                "readiness_probe_unavailable", cause=fact.cause, interval=self.settings.interval
            )

    def _saw_worker_exited(self, fact: facts.WorkerExited, now: float) -> None:
        worker = self.worker_table.find(fact.pid)
        if worker is None:
            return
        asked = not worker.active
        # Dying of the signal we sent is a clean exit, also if it is told as an exit status (a JVM's
        # 143), and so is dying of our SIGKILL.
        clean = asked and (
            worker.state == KILLED
            or (fact.code == 0 and not fact.signal)
            or worker.retire_signal in (fact.signal, fact.reported_signal)
        )
        lived = now - worker.started_at
        if self._is_stable(worker, now):
            self.worker_table.generations[worker.generation].was_stable = True
        self._log(
            "worker_exited" if clean else "worker_died",
            generation=worker.generation, slot=worker.slot, pid=worker.pid, cause=fact.cause, lived=lived,
            role=self._role(worker), wait_status=fact.wait_status,
        )  # fmt: skip
        if worker.state != KILLED and not fact.group_empty:
            worker.move(LINGERING)
            worker.remaining = fact.remaining
            worker.strays = fact.strays
            # A leader that was asked and then left by itself has told its own: asked a second time,
            # some would drop what they have in hand. What has left its group it hardly has.
            worker.remaining_asked = (
                asked and fact.code == 0 and not fact.signal and not fact.strays
            )
            if not asked:
                worker.retired_at = now
                worker.kill_at = now + self._drain_time(worker)
        elif fact.group_empty:
            self.worker_table.remove(worker)
        if not asked:
            served = 0.0 if worker.ready_at is None else now - worker.ready_at
            ended = fact.note or (
                fact.cause + ("" if worker.ready_at is not None else " before it was ready")
            )
            if not fact.note and self._seems_to_daemonize(worker, fact, now):
                ended += DAEMONIZED_HINT
            status = fact.shell_status or 1
            # The program is not there: no pause brings it.
            hopeless = bool(fact.note) and status == COMMAND_NOT_FOUND_STATUS
            failure = Failure(ended, status, permanent=hopeless)
            self._lose_worker(worker.generation, worker.slot, failure, now, lived=served)

    def _seems_to_daemonize(self, worker: Worker, fact: facts.WorkerExited, now: float) -> bool:
        """Whether its leader soon went away, content, and left processes to do the work."""
        content = fact.code == 0 and not fact.signal and not fact.group_empty
        return content and not self._is_stable(worker, now)

    def _role(self, worker: Worker) -> str:
        """What a worker that has ended was: new, current or old; stopping, once sidecar stops."""
        if self.stop_state.signals_received:
            return "stopping"
        generation = self.worker_table.generations[worker.generation]
        if not worker.active or generation.state == OUTDATED:
            return "old"
        if generation.state == SERVING:
            return "old" if self.worker_table.coming is not None else "current"
        return "new"

    def _saw_group_emptied(self, fact: facts.GroupEmptied, now: float) -> None:
        worker = self.worker_table.find(fact.pid)
        if worker is not None:
            self.worker_table.remove(worker)

    def _mark_ready(self, worker: Worker, now: float) -> None:
        worker.move(READY)
        worker.ready_at = worker.max_accepting_at = now
        self.ever_ready = True
        if worker.readiness == "interval":
            self.worker_table.generations[worker.generation].ready_by_time = True
        self._log(
            "worker_ready", generation=worker.generation, slot=worker.slot, pid=worker.pid,
            after=now - worker.started_at, by=worker.readiness,
        )  # fmt: skip

    def _lose_worker(
        self, number: int, slot: int, failure: Failure, now: float, lived: float
    ) -> None:
        """A slot lost its worker unasked: that fails a coming generation, and paces the slot of one
        that serves.
        """
        generation = self.worker_table.generations[number]
        if generation.state in (PREPARING, STARTING):
            self._failure = self._failure or failure
        else:
            self._slot_backoff(slot).record_failure(now, lived, self.random_fraction())
            current = self.worker_table.current
            if current is not None and not self.worker_table.active():
                self._swap_backoff.record_failure(
                    now, now - current.serving_at, self.random_fraction()
                )
                self._record_outage(failure, now, now - current.serving_at)

    def _slot_backoff(self, slot: int) -> Backoff:
        return self._slot_backoffs.setdefault(
            slot, Backoff(self.settings.min_uptime, self.settings.max_backoff)
        )

    # --- reconcile: look at the whole state, say what to do

    def reconcile(self, now: float) -> list[orders.AnyOrder]:
        """What to do at `now`; to be called again with what came of it, until it is nothing."""
        self._deadline = float("inf")
        if self.exited:
            return []
        self._step(self._check_start_deadlines, now)
        self._step(self._retire_remaining, now)
        self._step(self._advance_stop, now)
        if self.stop_state.phase != "leaving":
            self._step(self._open_slots, now)
            self._step(self._handle_failed_generation, now)
            self._step(self._stop_after_failures, now)
            self._step(self._take_over, now)
            self._step(self._retire_surplus, now)
            self._step(self._begin_swap, now)
            self._step(self._make_room, now)
            self._step(self._start_missing_workers, now)
            self._step(self._rebalance_processes, now)
            self._step(self._recycle_oversize, now)
        self._step(self._forward_signals, now)
        self._step(self._kill_overdue, now)
        self._step(self._remove_finished, now)
        self._step(self._exit_when_empty, now)
        given, self._orders = self._orders, []
        return given

    def _step(self, step: Callable[[float], None], now: float) -> None:
        """Take one step. One that raises keeps no other from its own, and what it had decided
        before is done; it is taken again after a pause.
        """
        name = step.__name__
        if not self._is_due(self._containment.paused_until(name), now):
            return
        try:
            step(now)
        except Exception as error:
            self._is_due(self._containment.record_failure(name, now, self.random_fraction()), now)
            kind, where = type(error).__name__, error_location(error)
            if self._containment.should_report(f"{kind} {where}", now, self.random_fraction()):
                self._log("internal_error", error=kind, where=where)

    @property
    def pending_swap(self) -> PendingSwap | None:
        """The swap that is wanted, and not begun yet."""
        return self._pending_swap

    @property
    def next_restart(self) -> float:
        """The moment of the next automatic restart, infinity if there is none."""
        return self._auto_restart.due_at if self.settings.enable_auto_restart else float("inf")

    def has_lost_slot(self) -> bool:
        """Whether a slot has no ready worker because it has lost one. Otherwise those that are
        missing have only just been asked for.
        """
        ready = {worker.slot for worker in self.worker_table.ready()}
        return any(
            slot < self.size and slot not in ready and pace.last_failure_at > float("-inf")
            for slot, pace in self._slot_backoffs.items()
        )

    def pending_respawns(self) -> dict[int, float]:
        """The slots that wait to be filled again, and until when."""
        held = {worker.slot for worker in self.worker_table.active()}
        return (
            {
                slot: pace.not_before
                for slot, pace in self._slot_backoffs.items()
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
        return self._deadline

    def _is_due(self, moment: float, now: float) -> bool:
        """Whether `moment` has come; if not, it is a deadline."""
        if moment <= now:
            return True
        self._deadline = min(self._deadline, moment)
        return False

    def _check_start_deadlines(self, now: float) -> None:
        """Time alone makes a worker ready (readiness interval) or overdue (any other), and a
        preparation too.
        """
        coming = self.worker_table.coming
        if (
            coming is not None
            and coming.state == PREPARING
            and self._is_due(coming.begun_at + self.settings.start_timeout, now)
        ):
            cause = f"the check has not ended within {self.settings.start_timeout:g} s"
            self._failure = self._failure or Failure(cause, 1)
        for worker in self.worker_table.active():
            if worker.state != STARTING:
                continue
            if worker.readiness == "interval" and worker.executed_at is not None:
                if self._is_due(worker.executed_at + self.settings.interval, now):
                    self._mark_ready(worker, now)
            elif self._is_due(worker.started_at + self.settings.start_timeout, now):
                limit = f"within {self.settings.start_timeout:g} s"
                cause = (
                    f"not ready {limit} (readiness {worker.readiness})"
                    if worker.executed_at is not None
                    else f"its program could not be run {limit} (a hung file system?)"
                )
                self._log(
                    "worker_overdue",
                    generation=worker.generation,
                    slot=worker.slot,
                    pid=worker.pid,
                    cause=cause,
                )
                self._retire([worker], now)
                self._lose_worker(worker.generation, worker.slot, Failure(cause, 1), now, lived=0.0)

    def _open_slots(self, now: float) -> None:
        """Open the slots that signals have asked for, at a pace; one that is filled is open."""
        filled = max((each.slot for each in self.worker_table.active()), default=-1)
        self._slots_open = min(self.size, max(self._slots_open, filled + 1))
        while self._slots_open < self.size and self._is_due(self._next_slot_at, now):
            self._slots_open += 1
            self._next_slot_at = self._growth_limit.use(now)
        waiting = self.size - self._slots_open
        if waiting and not self._pacing_logged:
            self._log("scaling_paced", waiting=waiting, pause=GROWTH_INTERVAL_S)
            self._pacing_logged = True
        elif not waiting and self._growth_limit.used_until <= now:
            self._pacing_logged = False

    # --- the swap

    def _handle_failed_generation(self, now: float) -> None:
        """A coming generation that has failed is given up; what it has taken over already goes on
        serving.
        """
        coming, failure = self.worker_table.coming, self._failure
        if coming is None or failure is None:
            self._failure = None
            return
        if self._is_only_one_ready(coming):
            # Nothing else takes connections: better this generation with a slot missing than none.
            self._serve_without_swap(coming, now)
            self._failure = None
            return
        taken = any(worker.state == READY and worker.took_over for worker in coming.workers)
        if (
            coming.trigger not in AUTOMATIC_TRIGGERS
            and not coming.settings_from
            and self.worker_table.current is not None
        ):
            self._rejected = coming.number
        still = sorted(
            {
                worker.generation
                for worker in self.worker_table.ready()
                if worker.generation != coming.number
            }
        )
        if not still and not taken:
            self._record_outage(failure, now)
        stay = [
            worker
            for worker in self.worker_table.active()
            if worker.took_over or worker.generation != coming.number
        ]
        enough = self._should_give_up(stay)
        pause = None
        if (
            not enough
            and self.stop_state.signals_received == 0
            and self._retries_automatically(coming, still, taken)
        ):
            pause = self._schedule_retry(coming.trigger, now)
        # What is not tried again is due at the next interval, not at the one that is over; nor is
        # what was tried again for the interval's sake.
        if self._auto_restart.due_at <= now or coming.trigger == "interval":
            self._arm_auto_restart(now)
        self._log(
            "swap_failed", generation=coming.number, trigger=coming.trigger, cause=failure.cause, lasted=now - coming.begun_at,
            still=still, degraded=taken, again=None if enough else self._next_attempt_in(now), changed=list(coming.changed),
            output=failure.output,
        )  # fmt: skip
        if pause is not None:
            trigger = (
                self._pending_swap.trigger if self._pending_swap is not None else coming.trigger
            )
            self._log("retry_scheduled", trigger=trigger, pause=pause)
        self.failed_swap = (coming.number, failure.cause)
        if coming.settings_from and not self._rejected:
            self._last_stable = None
        self._give_up(coming, now)
        self._failure = None

    def _record_outage(self, failure: Failure, now: float, lived: float = 0.0) -> None:
        """A start has failed, or what served has died after `lived` seconds, and nothing else takes
        connections: one of --max-failures in a row, unless something has held out since the last.
        """
        current = self.worker_table.current
        if current is not None:
            self._outages.record_uptime(current.serving_at, now)
        self._outages.record_failure(now, lived, 0.0)
        self._latest_outage = failure

    def _should_give_up(self, left: list[Worker]) -> bool:
        """Whether --max-failures have come in a row and no worker is left to hope for. One is enough
        if the program is not there and never was.
        """
        most = self.settings.max_failures
        absent = (
            self._latest_outage is not None
            and self._latest_outage.permanent
            and not self.ever_ready
        )
        enough = most > 0 and (absent or most <= self._outages.failures)
        return enough and not left and self.stop_state.signals_received == 0

    def _stop_after_failures(self, now: float) -> None:
        """End by itself when the latest failure has made it hopeless, with what that ends with."""
        failure, stop = self._latest_outage, self.stop_state
        if failure is None or self.worker_table.coming is not None:
            return
        hopeless = self._should_give_up(self.worker_table.active())
        self._latest_outage = None
        if not hopeless:
            return
        stop.signals_received += 1
        stop.lame_duck = False
        stop.exit_status = failure.exit_status
        stop.exit_reason = failure.cause
        self._log(
            "gave_up",
            failures=self._outages.failures,
            cause=failure.cause,
            status=failure.exit_status,
        )
        self._advance_stop(now)

    def _retries_automatically(self, failed: Generation, still: list[int], taken: bool) -> bool:
        """Whether a failed generation is followed by another attempt that nobody has asked for.

        While something serves, who asked for a swap has been told how it ended, and asks again; a
        file or an envdir is changed again; the interval comes again. What nobody asked for is
        always mended.
        """
        serves = bool(still) or taken
        return not serves or failed.trigger in AUTOMATIC_TRIGGERS or self.settings.as_server_starter

    def _schedule_retry(self, trigger: str, now: float) -> float | None:
        """Request another attempt after a pause: the pause, None if something else comes first."""
        current = self.worker_table.current
        if current is not None:
            self._swap_backoff.record_uptime(current.serving_at, now)
        again = self._swap_backoff.record_failure(now, 0.0, self.random_fraction())
        like = self._generation_to_keep()
        if like and trigger not in AUTOMATIC_TRIGGERS:
            trigger = "crash"  # what was asked for has failed; this is for what has died
        return (
            again - now
            if self._request_swap(PendingSwap(trigger, again, settings_from=like))
            else None
        )

    def _next_attempt_in(self, now: float) -> float | None:
        """In how many seconds a generation will be begun without a further word, None if never."""
        if self.stop_state.signals_received:
            return None
        due_at = self.next_restart if self._pending_swap is None else self._pending_swap.not_before
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
        coming = self.worker_table.coming
        if coming is None or coming.state != STARTING:
            return
        mine = [worker for worker in coming.workers if worker.active]
        if self._is_only_one_ready(coming):
            self._serve_without_swap(coming, now)
            return
        waiting = self._empty_slots(coming)
        if (
            any(worker.state == STARTING for worker in mine)
            or not mine
            or (waiting and not self._surge(coming))
        ):
            return
        grown_at = max(self._fully_grown_at(worker, coming) for worker in mine)
        if not self._is_due(grown_at, now):
            return
        if not self._is_due(grown_at + self.settings.kill_old_delay, now):
            self._log_delay(mine, coming)
            return
        for worker in mine:
            worker.took_over = True
        replaced = [
            old for worker in mine for old in self.worker_table.others_in_slot(worker.slot, coming)
        ]
        if replaced:
            self._log_retiring(replaced, coming)
            self._retire(replaced, now)
        if not waiting:
            self._serve(coming, now)

    def _fully_grown_at(self, worker: Worker, coming: Generation) -> float:
        """When a ready worker of `coming` is all that it will be: it has as many processes as what
        it replaces, or no more came.
        """
        had = max(
            (old.accepting_before for old in self.worker_table.others_in_slot(worker.slot, coming)),
            default=0,
        )
        enough = worker.max_accepting >= had or worker.readiness != "accept"
        return worker.max_accepting_at + (0.0 if enough else self.settings.start_timeout)

    def workers_to_shrink_for(self, pid: int) -> list[int] | None:
        """In slow start, the workers that the coming worker `pid` is to replace and that have not
        been asked to shrink yet.

        None if it does not matter how many processes of `pid` take connections.
        """
        coming, worker = self.worker_table.coming, self.worker_table.find(pid)
        if (
            coming is None
            or worker is None
            or not self.settings.slow_start
            or worker.generation != coming.number
            or not worker.active
        ):
            return None
        return [
            old.pid
            for old in self.worker_table.others_in_slot(worker.slot, coming)
            if not old.shrunk_by
        ]

    def _rebalance_processes(self, now: float) -> None:
        """Slow start: an old worker has a process less for every one of its successor that takes
        connections, and always one.

        Where no successor is coming any more (the swap failed, or a newer one begins), it gets back
        what it gave.
        """
        coming = self.worker_table.coming
        for old in self.worker_table.ready():
            if coming is not None and old.generation == coming.number:
                continue
            successor = (
                coming.in_slot(old.slot)
                if coming is not None and coming.state == STARTING
                else None
            )
            takers = (
                successor.accepting if successor is not None and successor.state == READY else 0
            )
            fewer = max(0, min(takers, old.accepting_before - 1))
            if fewer == old.shrunk_by or not self._is_due(
                old.last_resized_at + RESIZE_SIGNAL_INTERVAL_S, now
            ):
                continue
            signal, step = ("TTOU", 1) if fewer > old.shrunk_by else ("TTIN", -1)
            old.shrunk_by += step
            old.last_resized_at = now
            self._log(
                "worker_shrunk", generation=old.generation, slot=old.slot, pid=old.pid, signal=signal, left=old.accepting_before - old.shrunk_by,
                had=old.accepting_before, new=takers,
            )  # fmt: skip
            self._orders.append(orders.ForwardSignal(old.pid, signal))

    def _is_only_one_ready(self, coming: Generation) -> bool:
        """Whether `coming` takes connections and nothing else does (a first start, or what served
        has died meanwhile).
        """
        return any(
            worker.state == READY for worker in coming.workers
        ) and not self.worker_table.ready_outside(coming)

    def _serve_without_swap(self, coming: Generation, now: float) -> None:
        if coming.trigger not in ("start", "crash"):
            # Who asked for a swap hears of its end, also if what was to be replaced has died
            # meanwhile.
            self._log_retiring([], coming)
        self._serve(coming, now)

    def _serve(self, generation: Generation, now: float) -> None:
        """`generation` serves from now on; the one before is outdated, and its workers leave."""
        before = self.worker_table.current
        if before is not None:
            self._outages.record_uptime(before.serving_at, now)
            self._remember_if_stable(before, now)
            before.move(OUTDATED)
        generation.move(SERVING)
        generation.serving_at = now
        self.failed_swap = None
        if not generation.settings_from:
            self._rejected = 0
        self._changed = ()
        self._arm_auto_restart(now)
        self._log(
            "serving", generation=generation.number, trigger=generation.trigger, took=now - generation.begun_at,
            changed=list(generation.changed), pids=[worker.pid for worker in generation.workers if worker.active],
        )  # fmt: skip
        # Workers that were being restarted in the generation before have nobody to replace any
        # more.
        late = [
            worker
            for worker in self.worker_table.active()
            if worker.generation != generation.number and worker.state == STARTING
        ]
        self._retire(late, now)

    def _arm_auto_restart(self, now: float) -> None:
        """The automatic restart is an interval away, if there is to be one."""
        self._auto_restart.stop()
        if self.settings.enable_auto_restart:
            self._auto_restart.start(
                now, self.settings.auto_restart_interval, self.random_fraction()
            )

    def _retire_surplus(self, now: float) -> None:
        """Fewer workers are wanted than there are slots filled."""
        surplus = [worker for worker in self.worker_table.active() if worker.slot >= self.size]
        if not surplus:
            return
        coming = self.worker_table.coming
        # A coming worker that has not taken over may still fail: nothing is given away for it.
        ready = [
            worker
            for worker in self.worker_table.ready()
            if coming is None or worker.generation != coming.number or worker.took_over
        ]
        if ready and all(worker.slot >= self.size for worker in ready):
            # None of those that are to stay takes connections yet: one of the others does so until
            # then.
            surplus.remove(ready[0])
        self._retire(surplus, now)

    def _begin_swap(self, now: float) -> None:
        """Begin the swap that is wished for, if the moment is right."""
        if self.stop_state.phase:
            return
        coming = self.worker_table.coming
        current = self.worker_table.current
        if coming is None:
            if current is not None and not self.worker_table.active():
                # A retry that waits for its turn does not keep this one from its own.
                again = max(now, self._swap_backoff.not_before)
                like, barred = self._generation_to_restore(current, now)
                if (
                    self._request_swap(PendingSwap("crash", again, settings_from=like))
                    and again > now
                ):
                    if barred:
                        self._log("revert_impossible", generation=current.number, like=barred)
                    self._log("retry_scheduled", trigger="crash", pause=again - now)
            elif (
                self._pending_swap is None
                and self.settings.enable_auto_restart
                and current is not None
                and self._auto_restart_due(now)
            ):
                self._log(
                    "interval_due",
                    interval=self.settings.auto_restart_interval,
                    forced=bool(self.worker_table.leaving()),
                )
                self._pending_swap = PendingSwap("interval", now)
        pending = self._pending_swap
        if pending is None:
            return
        if coming is not None and (
            not pending.supersedes
            or any(worker.active and worker.took_over for worker in coming.workers)
        ):
            return
        if not self._is_due(pending.not_before, now):
            return
        if coming is not None:
            self._log(
                "swap_superseded",
                generation=coming.number,
                trigger=pending.trigger,
                lasted=now - coming.begun_at,
            )
            self._failure = None
            self._give_up(coming, now)
        if any(
            not self._is_due(self._waited_for_until(worker), now)
            for worker in self.worker_table.leaving_never_ready()
        ):
            return
        self._pending_swap = None
        self.number += 1
        self._changed = merge_changed(self._changed, pending.changed)
        self._slots_open = self.size
        settings = self.settings
        if served := self.worker_table.generations.get(pending.settings_from):
            settings = served.settings
        elif pending.settings_from and self._last_stable is not None:
            settings = self._last_stable[1]
        generation = Generation(self.number, pending.trigger, now, settings, self._changed)
        generation.settings_from = pending.settings_from
        self.worker_table.generations[self.number] = generation
        self._log(
            "swap_started",
            generation=self.number,
            trigger=pending.trigger,
            changed=list(pending.changed),
        )
        refused = self._rejected if pending.settings_from else 0
        self._orders.append(
            orders.Prepare(
                self.number, pending.trigger, self._changed, pending.settings_from, refused
            )
        )

    # --- going back: what time alone made ready may never have worked, and what was refused did not

    def _generation_to_keep(self) -> int:
        """The generation that serves, or did last, if what there is now was refused since: what
        nobody asks for is begun like it, because it worked. 0 if there is no such.
        """
        current = self.worker_table.current
        if not self._rejected or current is None or self.settings.as_server_starter:
            return 0
        return current.number

    @property
    def last_stable(self) -> int:
        """The last generation of which a worker was ready for --min-uptime, 0 if there is none: a
        later one may get its settings and environment.
        """
        return self._last_stable[0] if self._last_stable is not None else 0

    def _is_stable(self, worker: Worker, now: float) -> bool:
        """Whether it takes connections, or took them, for --min-uptime."""
        until = now if worker.retired_at is None else worker.retired_at
        least = self._swap_backoff.min_uptime
        return worker.ready_at is not None and until - worker.ready_at >= least

    def _remember_if_stable(self, served: Generation, now: float) -> bool:
        """Note a generation that has served if it has held out; whether it has."""
        if not served.was_stable and not any(self._is_stable(each, now) for each in served.workers):
            return False
        self._last_stable = (served.number, served.settings)
        return True

    def _generation_to_restore(self, died: Generation, now: float) -> tuple[int, int]:
        """The generation to go back to now that all workers of `died` have died, 0 for none; and
        the one to which only other listeners bar the way.

        There is a way back for what time alone made ready and what died soon. Once: if what went
        back dies soon, too, there is none. What went back and held out is begun again as it was,
        because nobody has asked for anything else.
        """
        held_out = self._remember_if_stable(died, now)
        if kept_on := self._generation_to_keep():
            return kept_on, 0
        if died.settings_from and not held_out:
            self._last_stable = None
        good = self._last_stable
        wanted = died.settings_from if held_out else died.ready_by_time
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
        coming = self.worker_table.coming
        if (
            self.stop_state.phase
            or coming is None
            or coming.state != STARTING
            or coming.room_checked
        ):
            return
        coming.room_checked = True
        never = coming.settings.overlap == "never"
        if never or (coming.settings.overlap == "auto" and coming.room == 0):
            coming.waits_until_alone = True
            old = [
                worker
                for worker in self.worker_table.active()
                if worker.generation != coming.number
            ]
            if old:
                why = "--overlap never" if never else coming.room_reason
                self._log(
                    "overlap_skipped",
                    generation=coming.number,
                    pids=[each.pid for each in old],
                    signal=self._swap_signal(old),
                    why=why,
                )
                self._retire(old, now)
        elif self._surge(coming) != self.settings.max_surge and self.worker_table.active():
            self._log(
                "overlap_limited",
                generation=coming.number,
                surge=self._surge(coming),
                why=coming.room_reason,
            )

    def _auto_restart_due(self, now: float) -> bool:
        if not self._is_due(self._auto_restart.due_at, now):
            return False
        return not self.worker_table.leaving() or self._is_due(self._auto_restart.forced_at, now)

    def _empty_slots(self, generation: Generation) -> list[int]:
        """The slots in which `generation` has no worker, those where nobody serves first."""
        mine = {worker.slot for worker in generation.workers if worker.active}
        held = {worker.slot for worker in self.worker_table.active()}
        return sorted(
            (slot for slot in range(self._slots_open) if slot not in mine),
            key=lambda slot: (slot in held, slot),
        )

    def _start_missing_workers(self, now: float) -> None:
        """Start what is missing: of the coming generation as far as --max-surge allows, else of the
        serving one.
        """
        coming, current = self.worker_table.coming, self.worker_table.current
        if (
            self.stop_state.phase == ""
            and coming is not None
            and coming.state == STARTING
            and self._failure is None
        ):
            vacant = self._empty_slots(coming)
            # Where nobody else serves, being there comes before being small.
            if coming.waits_until_alone and self._live_process_count(now, coming):
                vacant = []
            surge = self._surge(coming)
            if (
                vacant
                and surge
                and any(worker.generation != coming.number for worker in self.worker_table.active())
            ):
                vacant = vacant[: max(0, self.size + surge - self._live_process_count(now))]
            for slot in vacant:
                self._spawn(coming, slot)
        elif (
            current is not None
            and self.worker_table.active()
            and (coming is None or coming.state == PREPARING)
        ):
            held = {worker.slot for worker in self.worker_table.active()}
            for slot in range(self._slots_open):
                if slot not in held and self._is_due(self._slot_backoff(slot).not_before, now):
                    self._spawn(current, slot)

    def _recycle_oversize(self, now: float) -> None:
        """Replace a worker that is too big by another of the serving generation, started beside it:
        one slot at a time.
        """
        going = [
            (worker, other)
            for other in self.worker_table.active()
            if other.replaces_pid
            and (worker := self.worker_table.find(other.replaces_pid)) is not None
            and worker.active
            and worker.slot == other.slot
        ]
        delay = self.settings.kill_old_delay
        for worker, other in going:
            if other.ready_at is not None and self._is_due(other.ready_at + delay, now):
                self._finish_recycling(worker, other, now)
        current, pending = self.worker_table.current, self._pending_swap
        # What a swap is about to replace is not worth a successor of its own.
        soon = self.worker_table.coming is not None or (
            pending is not None and pending.not_before <= now
        )
        if going or soon or current is None or self.stop_state.phase:
            return
        big = [worker for worker in self.worker_table.ready() if worker.oversize_bytes]
        for worker in sorted(big, key=lambda worker: -worker.oversize_bytes):
            again = max(
                self._slot_backoff(worker.slot).not_before,
                self._recycle_backoff(worker.slot).not_before,
            )
            if worker.slot < self.size and self._is_due(again, now):
                self._log(
                    "recycling", generation=worker.generation, slot=worker.slot, pid=worker.pid,
                    memory=worker.oversize_bytes, limit=self.settings.max_memory,
                )  # fmt: skip
                self._spawn(current, worker.slot)
                return

    def _finish_recycling(self, worker: Worker, other: Worker, now: float) -> None:
        lived = now - (worker.ready_at if worker.ready_at is not None else now)
        again = self._recycle_backoff(worker.slot).record_failure(
            now, lived, self.random_fraction()
        )
        self._log(
            "recycled", generation=worker.generation, slot=worker.slot, pid=worker.pid, by=other.pid,
            memory=worker.oversize_bytes, lived=lived, pause=again - now,
        )  # fmt: skip
        self._retire([worker], now)

    def _recycle_backoff(self, slot: int) -> Backoff:
        return self._recycle_backoffs.setdefault(
            slot, Backoff(RECYCLE_MIN_UPTIME_S, RECYCLE_MAX_PAUSE_S)
        )

    def _live_process_count(self, now: float, besides: Generation | None = None) -> int:
        """How many processes there are (besides a generation's), less those that even SIGKILL has
        not moved for a while: nothing can wait for them.
        """
        number = besides.number if besides is not None else None
        there = [worker for worker in self.worker_table.workers() if worker.generation != number]
        return sum(
            worker.state != KILLED or not self._is_due(worker.kill_at + KILL_GRACE_S, now)
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
            signal = self._retire_signal(self.worker_table.generations[worker.generation].settings)
            worker.move(DRAINING)
            worker.retired_at = now
            worker.retire_signal = signal
            worker.kill_at = now + self._drain_time(worker)
            self._orders.append(orders.Retire(worker.pid, signal))

    def _retire_remaining(self, now: float) -> None:
        """Report that processes have outlived their leader, and ask them to leave, once: nobody else
        will, and they go on accepting with old code.
        """
        for worker in self.worker_table.leaving():
            left, worker.remaining = worker.remaining, None
            if left is None:
                continue
            own = self.worker_table.generations[worker.generation].settings
            signal = "" if worker.remaining_asked else self._retire_signal(own)
            if left:  # else they are ending already
                self._log(
                    "leader_exited", generation=worker.generation, slot=worker.slot, pid=worker.pid, pids=list(left), strays=list(worker.strays), signal=signal,
                    kill_in=max(0.0, worker.kill_at - now), shell=set(left) != set(worker.strays) and launchers.has_shell_parent(own.command),
                )  # fmt: skip
            if signal:
                self._orders.append(orders.RetireGroup(worker.pid, signal))

    def _drain_time(self, worker: Worker) -> float:
        """How long (seconds) it may take to leave: it may have requests in hand, or it has not."""
        drain = self.settings.drain_timeout
        return drain if worker.may_have_connections else min(drain, NEVER_READY_GRACE_S)

    def _waited_for_until(self, worker: Worker) -> float:
        """When the next generation need not wait any longer for one that was never ready."""
        asked_at = worker.retired_at if worker.retired_at is not None else worker.started_at
        return min(worker.kill_at, asked_at + NEVER_READY_GRACE_S)

    def _retire_signal(self, own: Settings) -> str:
        return self._stop_signal(own) if self.stop_state.phase == "leaving" else own.signal_on_hup

    def _kill_overdue(self, now: float) -> None:
        """Kill what has outstayed its time."""
        for worker in self.worker_table.leaving():
            if self._is_due(worker.kill_at, now):
                since = now - (worker.retired_at if worker.retired_at is not None else now)
                self._log(
                    "worker_killed",
                    generation=worker.generation,
                    slot=worker.slot,
                    pid=worker.pid,
                    after=since,
                    leader=worker.state != LINGERING,
                )
                worker.move(KILLED)
                self._orders.append(orders.Kill(worker.pid))

    def _remove_finished(self, _now: float) -> None:
        for generation in self.worker_table.finished():
            generation.move(GONE)
            del self.worker_table.generations[generation.number]
            self._orders.append(orders.ForgetGeneration(generation.number))

    def _forward_signals(self, _now: float) -> None:
        for signal, to in self._to_forward:
            # Not to one that is still starting: until its program has installed a handler, most
            # signals end it.
            self._orders += [
                orders.ForwardSignal(worker.pid, signal)
                for worker in self.worker_table.ready()
                if worker.pid in to
            ]
        self._to_forward.clear()

    # --- the stop

    def _advance_stop(self, now: float) -> None:
        """Carry the stop on: lame duck, drain, kill, exit. Each further stop signal skips a wait."""
        stop = self.stop_state
        if stop.signals_received == 0:
            return
        if stop.phase == "":
            stop.signals_handled = 1
            self._pending_swap = None
            lame_duck = (
                self.settings.lame_duck if stop.lame_duck and self.worker_table.ready() else 0.0
            )
            stop.phase = "lame duck"
            stop.phase_ends_at = now + lame_duck
            coming = self.worker_table.coming
            if coming is not None and self.worker_table.ready_outside(coming) and lame_duck:
                self._give_up(coming, now)
            if not stop.exit_status:
                self._log(
                    "stopping", signal=stop.signal, lame_duck=lame_duck, drain_timeout=self.settings.drain_timeout,
                    sending=self._stop_signal(self.settings), pids=[worker.pid for worker in self.worker_table.workers()],
                )  # fmt: skip
        over = stop.phase == "lame duck" and (
            not self.worker_table.active() or self._is_due(stop.phase_ends_at, now)
        )
        if stop.phase == "lame duck" and not over and stop.signals_received > stop.signals_handled:
            stop.signals_handled += 1
            over = True
        if over:
            stop.phase = "leaving"
            stop.phase_ends_at = float("inf")
            for worker in self.worker_table.leaving():
                worker.kill_at = min(worker.kill_at, now + self.settings.drain_timeout)
            self._retire(list(self.worker_table.workers()), now)
            for generation in self.worker_table.generations.values():
                if generation.state != OUTDATED:
                    generation.move(OUTDATED)
        if stop.phase == "leaving" and stop.signals_received > stop.signals_handled:
            stop.signals_handled = stop.signals_received
            for worker in self.worker_table.leaving():
                worker.kill_at = now

    def _stop_signal(self, settings: Settings) -> str:
        if self.stop_state.signal == "INT" and settings.as_server_starter:
            return "TERM"
        return settings.signal_on_term

    def _exit_when_empty(self, now: float) -> None:
        """End with the last worker, or a while after the last was killed: the last thing that is
        ever said.
        """
        stop = self.stop_state
        if stop.phase != "leaving":
            return
        left = list(self.worker_table.workers())
        if (
            left
            and all(worker.state == KILLED for worker in left)
            and stop.phase_ends_at == float("inf")
        ):
            stop.phase_ends_at = now + KILL_GRACE_S
        if not left or self._is_due(stop.phase_ends_at, now):
            self._log("stopped", status=stop.exit_status, left=[worker.pid for worker in left])
            self._orders.append(orders.Exit(stop.exit_status, stop.exit_reason))
            self.exited = True

    # --- telling

    def _log(self, event: str, **fields: object) -> None:
        self._orders.append(orders.LogEvent(event, fields))

    def _log_retiring(self, workers: list[Worker], coming: Generation) -> None:
        pids = [worker.pid for worker in workers]
        delay = self.settings.kill_old_delay if self._delay_logged_for == coming.number else 0.0
        self._log(
            "retiring",
            generation=coming.number,
            pids=pids,
            signal=self._swap_signal(workers),
            delay=delay,
        )

    def _swap_signal(self, workers: list[Worker]) -> str:
        """The signal that these workers are retired with: that of the generation they are of."""
        return (
            self.worker_table.generations[workers[0].generation].settings.signal_on_hup
            if workers
            else self.settings.signal_on_hup
        )

    def _log_delay(self, mine: list[Worker], coming: Generation) -> None:
        replaced = [
            old for worker in mine for old in self.worker_table.others_in_slot(worker.slot, coming)
        ]
        if replaced and self._delay_logged_for != coming.number:
            self._delay_logged_for = coming.number
            pids, delay = [old.pid for old in replaced], self.settings.kill_old_delay
            self._log(
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
            for worker in self.worker_table.workers()
            if worker.ready_at is not None
        ]
