"""The history of this run: the last events, the last generations, and counts.

It takes every event that the log is given, and nothing else, so that `status`, the metrics and the
log cannot disagree. All of it is bounded. Moments are seconds since the epoch. It holds names, never
a value, because it is shown to anybody who may ask; what a check has written is left out for the
same reason.
"""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# How many events and generations are remembered.
MAX_EVENTS = 200
MAX_GENERATIONS = 40

# Upper bounds of the histogram of swap durations (seconds), as Prometheus has them: cumulative, the
# last is infinity.
BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

# The fields of an event that are not remembered.
PRIVATE_FIELDS = ("output",)


class EventHistory:
    """Takes events with `record`; `summary` gives what they add up to."""

    def __init__(self) -> None:
        #: The last events, oldest first: {"number", "time", "event", and the event's fields}.
        self.events: deque[dict[str, Any]] = deque(maxlen=MAX_EVENTS)
        #: The number of the last event; the first is 1.
        self.number = 0
        #: The last generations by number: {"generation", "trigger", "changed", "begun", "serving",
        #: "outdated", "gone", "outcome", "cause"}.
        self.timeline: dict[int, dict[str, Any]] = {}
        #: Swaps by (trigger, outcome); an outcome is served, failed or superseded.
        self.swaps: dict[tuple[str, str], int] = {}
        #: How many swaps took up to each bound of BUCKETS_S, and how long all of them took.
        self.swap_counts = [0] * (len(BUCKETS_S) + 1)
        self.swap_seconds_sum = 0.0
        #: Workers of the serving generation that ended by themselves.
        self.deaths = 0
        #: Workers that were replaced because they held more than --max-memory.
        self.recycled = 0
        #: Workers that were killed because they did not exit in time.
        self.kills = 0
        #: How often sidecar was upgraded in place, and the last time: {"version", "before", "at"}.
        self.upgrades = 0
        self.last_upgrade: dict[str, Any] | None = None
        #: Workers that were started, and those of them that replaced one that had died.
        self.starts = 0
        self.restarts = 0
        #: The (generation, slot) of each worker that died and was not replaced yet.
        self.empty_slots: set[tuple[int, int]] = set()
        #: Swaps that have failed since a generation last began to serve.
        self.failing = 0
        #: How often each helper has ended.
        self.helpers: dict[str, int] = {}
        self.last_swap: dict[str, Any] | None = None
        self.last_failure: dict[str, Any] | None = None

    def record(self, event: str, fields: Mapping[str, Any], now: float) -> dict[str, Any]:
        """Remember the event, which happened at `now`: what is remembered of it."""
        self.number += 1
        entry = {
            "number": self.number,
            "time": now,
            "event": event,
            **{name: fields[name] for name in fields if name not in PRIVATE_FIELDS},
        }
        self.events.append(entry)
        self._count(event, fields, now)
        return entry

    # A case for each event that is counted, and nothing else.
    def _count(self, event: str, fields: Mapping[str, Any], now: float) -> None:  # noqa: C901
        match event:
            case "swap_started":
                self._begin(fields, now)
            case "serving":
                self._serve(fields, now)
            case "swap_failed":
                self._fail(fields, now)
            case "swap_superseded":
                self._set_outcome(fields, now, "superseded", "")
                begun = self.timeline.get(fields["generation"], fields)
                self._count_swap(begun["trigger"], "superseded")
            case "generation_ended":
                self._finish(fields, now)
            case "worker_started":
                slot = (fields["generation"], fields["slot"])
                self.starts += 1
                self.restarts += slot in self.empty_slots
                self.empty_slots.discard(slot)
            case "worker_died":
                if fields["role"] == "current":
                    self.deaths += 1
                    self.empty_slots.add((fields["generation"], fields["slot"]))
            case "helper_exited":
                self.helpers[fields["helper"]] = self.helpers.get(fields["helper"], 0) + 1
            case "worker_killed":
                self.kills += 1
            case "recycled":
                self.recycled += 1
            case "upgraded":
                self.upgrades += 1
                self.last_upgrade = {
                    "version": fields["version"],
                    "before": fields["before"],
                    "at": now,
                }

    def _begin(self, fields: Mapping[str, Any], now: float) -> None:
        self.timeline[fields["generation"]] = {
            "generation": fields["generation"],
            "trigger": fields["trigger"],
            "changed": list(fields["changed"]),
            "begun": now,
            "serving": None,
            "outdated": None,
            "gone": None,
            "outcome": "coming",
            "cause": "",
        }
        while len(self.timeline) > MAX_GENERATIONS:
            # The one that serves may be older than many that failed.
            gone = (number for number, each in self.timeline.items() if each["gone"] is not None)
            del self.timeline[min(gone, default=min(self.timeline))]

    def _serve(self, fields: Mapping[str, Any], now: float) -> None:
        for each in self.timeline.values():
            if each["outcome"] == "serving":
                each.update(outcome="served", outdated=now)
        self._set_outcome(fields, now, "serving", "")
        self._count_swap(fields["trigger"], "served")
        self.failing = 0
        took = fields["took"]
        bucket = next((at for at, bound in enumerate(BUCKETS_S) if took <= bound), len(BUCKETS_S))
        self.swap_counts[bucket] += 1
        self.swap_seconds_sum += took
        self.last_swap = {
            "generation": fields["generation"],
            "trigger": fields["trigger"],
            "at": now,
            "took": took,
        }

    def _fail(self, fields: Mapping[str, Any], now: float) -> None:
        self._set_outcome(fields, now, "failed", fields["cause"])
        self._count_swap(fields["trigger"], "failed")
        self.failing += 1
        known = {name: fields[name] for name in ("generation", "trigger", "cause", "lasted")}
        self.last_failure = {**known, "at": now}

    def _finish(self, fields: Mapping[str, Any], now: float) -> None:
        life = self.timeline.get(fields["generation"])
        if life is not None:
            life["gone"] = now
            if life["outcome"] in ("serving", "coming"):
                life["outcome"] = "served" if life["serving"] else "given up"
            life["outdated"] = life["outdated"] or now
        self.empty_slots = {each for each in self.empty_slots if each[0] != fields["generation"]}

    def _set_outcome(self, fields: Mapping[str, Any], now: float, outcome: str, cause: str) -> None:
        life = self.timeline.get(fields["generation"])
        if life is not None:
            life.update(outcome=outcome, cause=cause)
            life["serving" if outcome == "serving" else "outdated"] = now

    def _count_swap(self, trigger: str, outcome: str) -> None:
        self.swaps[trigger, outcome] = self.swaps.get((trigger, outcome), 0) + 1

    def summary(self) -> dict[str, Any]:
        """All of it but the events, as plain values."""
        return {
            "last_swap": self.last_swap and {**self.last_swap},
            "last_failure": self.last_failure and {**self.last_failure},
            "swaps": [
                {"trigger": trigger, "outcome": outcome, "count": count}
                for (trigger, outcome), count in sorted(self.swaps.items())
            ],
            "swap_seconds": {
                "bounds": list(BUCKETS_S),
                "counts": list(self.swap_counts),
                "sum": self.swap_seconds_sum,
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
            "timeline": [{**life} for life in self.timeline.values()],
        }
