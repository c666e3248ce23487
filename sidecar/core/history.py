"""What has happened so far, as far as anybody will ask: the last events, the lives of the last
generations, and counts.

It is told every line that the log is told, and nothing else, so `status`, the metrics and the log
cannot disagree. All of it is bounded. Moments are seconds since the epoch. Names only, never a
value: what goes in here is shown to anybody who may ask. What a check wrote stays out for the same
reason.
"""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# How many events and generations are remembered.
EVENTS, LIVES = 200, 40

# Upper bounds of the histogram of swap durations (seconds), as Prometheus has them: cumulative, the
# last is infinity.
BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

# What is not remembered of an event.
PRIVATE = ("output",)


class Chronicle:
    """Told by `note`; asked by `report`."""

    def __init__(self) -> None:
        #: The last events, oldest first: {"number", "time", "event", … its fields}.
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self.number = 0
        #: The last generations by number: {"generation", "trigger", "changed", "begun", "serving",
        #: "outdated", "gone", "outcome", "cause"}.
        self.lives: dict[int, dict[str, Any]] = {}
        #: Swaps by (trigger, outcome): served, failed, superseded.
        self.swaps: dict[tuple[str, str], int] = {}
        self.seconds = [0] * (len(BUCKETS) + 1)
        self.seconds_sum = 0.0
        #: Workers that ended unasked, those of a coming generation not counted; workers killed for
        #: staying too long.
        self.deaths = 0
        #: Workers replaced because they had grown too big.
        self.recycled = 0
        self.kills = 0
        #: How often sidecar has been upgraded in place, and the last time: {"version", "before",
        #: "at"}.
        self.upgrades = 0
        self.last_upgrade: dict[str, Any] | None = None
        #: Workers that were started, and those of them that took the place of one that had died.
        self.starts = 0
        self.restarts = 0
        self._died: set[tuple[int, int]] = set()
        #: Swaps that have failed since a generation last began to serve.
        self.failing = 0
        #: How often each helper has ended.
        self.helpers: dict[str, int] = {}
        self.last_swap: dict[str, Any] | None = None
        self.last_failure: dict[str, Any] | None = None

    def note(self, event: str, fields: Mapping[str, Any], now: float) -> dict[str, Any]:
        """Remember the event that happened at `now`; the record of it."""
        self.number += 1
        record = {
            "number": self.number,
            "time": now,
            "event": event,
            **{name: fields[name] for name in fields if name not in PRIVATE},
        }
        self.events.append(record)
        self._count_in(event, fields, now)
        return record

    def _count_in(self, event: str, fields: Mapping[str, Any], now: float) -> None:
        match event:
            case "swap_started":
                self._swap_started(fields, now)
            case "serving":
                self._serving(fields, now)
            case "swap_failed":
                self._swap_failed(fields, now)
            case "swap_superseded":
                self._ends(fields, now, "superseded", "")
                self._count(self.lives.get(fields["generation"], fields)["trigger"], "superseded")
            case "generation_ended":
                self._generation_ended(fields, now)
            case "worker_started":
                self._worker_started(fields)
            case "worker_died":
                self._worker_died(fields)
            case "helper_exited":
                helper = fields["helper"]
                self.helpers[helper] = self.helpers.get(helper, 0) + 1
            case "worker_killed":
                self.kills += 1
            case "recycled":
                self.recycled += 1
            case "upgraded":
                self.upgrades += 1
                versions = {name: fields[name] for name in ("version", "before")}
                self.last_upgrade = {**versions, "at": now}

    def _swap_started(self, fields: Mapping[str, Any], now: float) -> None:
        self.lives[fields["generation"]] = {
            "generation": fields["generation"], "trigger": fields["trigger"], "changed": list(fields["changed"]), "begun": now,
            "serving": None, "outdated": None, "gone": None, "outcome": "coming", "cause": "",
        }  # fmt: skip
        while len(self.lives) > LIVES:
            # The one that serves may be older than many that failed.
            del self.lives[
                min(
                    (number for number, life in self.lives.items() if life["gone"] is not None),
                    default=min(self.lives),
                )
            ]

    def _serving(self, fields: Mapping[str, Any], now: float) -> None:
        for life in self.lives.values():
            if life["outcome"] == "serving":
                life.update(outcome="served", outdated=now)
        self._ends(fields, now, "serving", "")
        self._count(fields["trigger"], "served")
        self.failing = 0
        took = fields["took"]
        self.seconds[
            next((at for at, bound in enumerate(BUCKETS) if took <= bound), len(BUCKETS))
        ] += 1
        self.seconds_sum += took
        self.last_swap = {
            "generation": fields["generation"],
            "trigger": fields["trigger"],
            "at": now,
            "took": took,
        }

    def _swap_failed(self, fields: Mapping[str, Any], now: float) -> None:
        self._ends(fields, now, "failed", fields["cause"])
        self._count(fields["trigger"], "failed")
        self.failing += 1
        told = {name: fields[name] for name in ("generation", "trigger", "cause", "lasted")}
        self.last_failure = {**told, "at": now}

    def _generation_ended(self, fields: Mapping[str, Any], now: float) -> None:
        life = self.lives.get(fields["generation"])
        if life is not None:
            life["gone"] = now
            if life["outcome"] in ("serving", "coming"):
                life["outcome"] = "served" if life["serving"] else "given up"
            life["outdated"] = life["outdated"] or now
        self._died = {each for each in self._died if each[0] != fields["generation"]}

    def _worker_started(self, fields: Mapping[str, Any]) -> None:
        place = (fields["generation"], fields["slot"])
        self.starts += 1
        self.restarts += place in self._died
        self._died.discard(place)

    def _worker_died(self, fields: Mapping[str, Any]) -> None:
        if fields["role"] == "current":
            self.deaths += 1
            self._died.add((fields["generation"], fields["slot"]))

    def _ends(self, fields: Mapping[str, Any], now: float, outcome: str, cause: str) -> None:
        life = self.lives.get(fields["generation"])
        if life is not None:
            life.update(outcome=outcome, cause=cause)
            life["serving" if outcome == "serving" else "outdated"] = now

    def _count(self, trigger: str, outcome: str) -> None:
        self.swaps[trigger, outcome] = self.swaps.get((trigger, outcome), 0) + 1

    # --- asked

    def report(self) -> dict[str, Any]:
        """All of it but the events, as plain values."""
        return {
            "last_swap": self.last_swap and {**self.last_swap},
            "last_failure": self.last_failure and {**self.last_failure},
            "swaps": [
                {"trigger": trigger, "outcome": outcome, "count": count}
                for (trigger, outcome), count in sorted(self.swaps.items())
            ],
            "swap_seconds": {
                "bounds": list(BUCKETS),
                "counts": list(self.seconds),
                "sum": self.seconds_sum,
            },
            "upgrades": self.upgrades,
            "last_upgrade": self.last_upgrade and {**self.last_upgrade},
            "deaths": self.deaths,
            "kills": self.kills,
            "recycled": self.recycled,
            "starts": self.starts,
            "restarts": self.restarts,
            "failing": self.failing,
            "helpers": dict(self.helpers),
            "timeline": [{**life} for life in self.lives.values()],
        }
