"""What the supervisor knows: the state of one run, which all its decisions look at.

An upgrade in place hands it on field by field, under these names (upgrade/state.py).
"""

from __future__ import annotations

from sidecar.base.record import Record
from sidecar.core import orders
from sidecar.core.backoff import AutoRestartTimer, Backoff, RateLimit
from sidecar.core.containment import Containment
from sidecar.core.worker_table import WorkerTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.settings.table import Settings

# Signals make ten workers at once, as somebody may who types, then one in each interval. Otherwise
# TTIN and TTOU, sent in turn, would start and end processes as fast as they come.
GROWTH_INTERVAL_S = 1.0
GROWTH_BURST_S = 9.0


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


class StopState:
    """How far the stop has come."""

    __slots__ = (
        "exit_reason",
        "exit_status",
        "lame_duck",
        "last_signal_at",
        "phase",
        "phase_ends_at",
        "signal",
        "signals_handled",
        "signals_received",
    )

    def __init__(self) -> None:
        #: How many stop signals have come, and how many of them were acted upon.
        self.signals_received = 0
        self.signals_handled = 0
        #: The last one, and when it came.
        self.signal = ""
        self.last_signal_at = float("-inf")
        #: Whether to serve on for the lame-duck time.
        self.lame_duck = True
        #: "" (no stop), "lame duck" or "leaving", and when that is over at the latest.
        self.phase = ""
        self.phase_ends_at = 0.0
        #: What sidecar exits with. The reason is for the termination log.
        self.exit_status = 0
        self.exit_reason = ""


class State:
    """The state of one run. Moments are seconds on the caller's clock.

    `random_fraction` draws a number in [0, 1), for jitter only.
    """

    def __init__(
        self, settings: Settings, now: float, random_fraction: Callable[[], float]
    ) -> None:
        self.random_fraction = random_fraction
        #: The settings in force. A generation keeps those it was begun with.
        self.settings = settings
        self.worker_table = WorkerTable()

        # --- how many workers (scaling.py)
        #: How many there are to be, and how many of them may be started by now.
        self.size = settings.workers
        self.open_slots = settings.workers
        self.growth_limit = RateLimit(GROWTH_INTERVAL_S, GROWTH_BURST_S)
        self.next_slot_at = float("-inf")
        #: Whether the log has said that no more workers can be had by signals, or only slowly.
        self.worker_limit_logged = False
        self.scaling_paced_logged = False

        # --- the swap
        #: The number of the generation begun last.
        self.number = 0
        #: Whether any worker has ever been ready.
        self.ever_ready = False
        #: The swap that is to be begun next.
        self.pending_swap: PendingSwap | None = PendingSwap("start", now)
        #: Why the generation that is coming has failed.
        self.swap_failure: Failure | None = None
        #: The pauses between swaps that fail or do not last.
        self.swap_backoff = Backoff(settings.min_uptime, settings.max_backoff)
        self.auto_restart = AutoRestartTimer()
        #: What has changed since the generation that serves was begun.
        self.changed: tuple[str, ...] = ()
        #: The generation for which the log has said that --kill-old-delay is waited for.
        self.delay_logged_for = 0
        #: The last generation that failed and why, until one serves again.
        self.failed_swap: tuple[int, str] | None = None

        # --- failures (failures.py)
        #: How often in a row nothing has served, which counts against --max-failures; and the
        #: latest reason, until it was looked at.
        self.outages = Backoff(settings.min_uptime, settings.max_backoff)
        self.latest_outage: Failure | None = None
        #: By slot: the pauses between workers that die.
        self.slot_backoffs: dict[int, Backoff] = {}

        # --- what to go back to (fallback.py)
        #: The last generation that was stable, 0 if there is none, and what it was begun with.
        self.last_stable = 0
        self.last_stable_settings: Settings | None = None
        #: The generation with which the current settings were asked for, and which failed; 0 if
        #: there was none since the generation that serves was begun.
        self.rejected = 0

        # --- workers with too much memory (recycling.py)
        #: By slot: the pauses between workers that are replaced soon after they were ready.
        self.recycle_backoffs: dict[int, Backoff] = {}

        # --- the stop (stopping.py)
        self.stop_state = StopState()
        #: Whether the order to exit was given.
        self.exited = False

        # --- the rest
        #: Signals that are to be forwarded, each with the workers it is for.
        self.signals_to_forward: list[tuple[str, tuple[int, ...]]] = []
        #: Whether the log has said that readiness cannot be seen.
        self.probe_unavailable_logged = False
        #: The orders that the steps of a reconcile have decided so far.
        self.decided: list[orders.AnyOrder] = []
        #: The next moment at which reconcile could say something new; infinity where only a fact
        #: can bring that about.
        self.deadline = float("inf")
        self.containment = Containment()

    def is_due(self, moment: float, now: float) -> bool:
        """Whether `moment` has come; if not, it is a deadline."""
        if moment <= now:
            return True
        self.deadline = min(self.deadline, moment)
        return False

    def order(self, order: orders.AnyOrder) -> None:
        """Decide on an order."""
        self.decided.append(order)

    def log(self, event: str, **fields: object) -> None:
        """Decide on a line of the log."""
        self.decided.append(orders.LogEvent(event, fields))

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for: nothing new is begun."""
        return self.stop_state.signals_received > 0
