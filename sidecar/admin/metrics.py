"""`status` in the format of Prometheus. PID 1 keeps every count, so a new process of the admin goes on
where the one before ended.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from prometheus_client.metrics_core import Metric

STATES = ("starting", "serving", "swapping", "degraded", "down", "stopping")
WORKER_STATES = ("starting", "ready", "draining", "lingering", "killed")


class StatusCollector:
    """Gives a registry the metrics of one status."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Every metric, in the order of docs/admin.md."""
        status = self._status
        now = status["time"]
        build = InfoMetricFamily(
            "sidecar_build", "The version that runs", value={"version": status["version"]}
        )
        yield build
        yield _gauge(
            "sidecar_start_time_seconds",
            "When sidecar started, in seconds since the epoch",
            now - status["age"],
        )
        yield _gauge(
            "sidecar_ready", "1 if requests should be sent here (/readyz)", status["ready"]
        )
        yield _gauges(
            "sidecar_state",
            "The state sidecar is in has 1",
            "state",
            {each: each == status["state"] for each in STATES},
        )
        yield _gauge(
            "sidecar_generation", "Number of the generation that serves", status["generation"]
        )
        yield _gauge(
            "sidecar_generations", "Generations that have not gone", len(status["generations"])
        )
        workers = [
            (generation, worker)
            for generation in status["generations"]
            for worker in generation["workers"]
        ]
        states = {
            each: sum(worker["state"] == each for _, worker in workers) for each in WORKER_STATES
        }
        yield _gauges("sidecar_workers", "Workers by state", "state", states)
        yield _gauge("sidecar_workers_wanted", "Workers a generation is to have", status["workers"])

        swaps = CounterMetricFamily(
            "sidecar_swaps", "Swaps by trigger and outcome", labels=["trigger", "outcome"]
        )
        for each in status["swaps"]:
            swaps.add_metric([each["trigger"], each["outcome"]], each["count"])
        yield swaps
        yield _durations(status["swap_seconds"])
        last, failure = status["last_swap"], status["last_failure"]
        yield _gauge(
            "sidecar_last_swap_timestamp_seconds",
            "When a generation last began to serve",
            last and last["at"],
        )
        yield _gauge(
            "sidecar_last_failure_timestamp_seconds",
            "When a swap last failed",
            failure and failure["at"],
        )
        yield _gauge(
            "sidecar_consecutive_failures",
            "Swaps that failed since a generation last began to serve",
            status["failing"],
        )
        yield _gauge(
            "sidecar_backoff_seconds",
            "Pause that is left until what failed is tried again",
            _backoff(status),
        )
        dues = GaugeMetricFamily(
            "sidecar_next_swap_timestamp_seconds",
            "When the next swap is due, by trigger",
            labels=["trigger"],
        )
        for trigger, left in _due_swaps(status).items():
            dues.add_metric([trigger], now + left)
        yield dues

        yield _counter("sidecar_worker_starts", "Workers started", status["starts"])
        yield _counter(
            "sidecar_worker_restarts",
            "Workers started in place of one that had died",
            status["restarts"],
        )
        yield _counter(
            "sidecar_worker_deaths", "Workers that served and ended unasked", status["deaths"]
        )
        yield _counter(
            "sidecar_worker_kills",
            "Workers killed because they had not left in time",
            status["kills"],
        )
        places: dict[tuple[str, str], list[float]] = {}
        for generation, worker in workers:
            if worker["memory"] is not None:
                # Processes left by a worker that died may have the same slot as its successor.
                taken = places.setdefault(
                    (str(generation["generation"]), str(worker["slot"])), [0.0, 0.0]
                )
                taken[0] += worker["memory"]
                taken[1] += worker["cpu"]
        place = ["generation", "slot"]
        memory = GaugeMetricFamily(
            "sidecar_worker_memory_bytes",
            "Resident memory of a worker and all below it",
            labels=place,
        )
        cpu = CounterMetricFamily(
            "sidecar_worker_cpu_seconds", "CPU time of a worker and all below it", labels=place
        )
        for labels, taken in places.items():
            memory.add_metric(labels, taken[0])
            cpu.add_metric(labels, taken[1])
        yield memory
        yield cpu
        helpers = CounterMetricFamily(
            "sidecar_helper_restarts",
            "Helpers that ended and were started again",
            labels=["helper"],
        )
        for name, count in status["helpers"].items():
            helpers.add_metric([name.removeprefix("the ")], count)
        yield helpers
        yield _gauge(
            "sidecar_settings_hash", "Changes when the settings do", int(status["settings"], 16)
        )


def _gauge(name: str, text: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(name, text)
    if value is not None:
        family.add_metric([], value)
    return family


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _durations(status: Mapping[str, Any]) -> Metric:
    total, buckets = 0, []
    for bound, count in zip([*map(str, status["bounds"]), "+Inf"], status["counts"], strict=True):
        total += count
        buckets.append((bound, total))
    return HistogramMetricFamily(
        "sidecar_swap_duration_seconds",
        "From a swap's begin until it serves",
        buckets,
        status["sum"],
    )


def _backoff(status: Mapping[str, Any]) -> float:
    """Seconds until what failed is tried again: a swap, or workers that have died."""
    pauses = [each["in"] for each in status["respawns"]]
    if status["next_swap"] and (status["failing"] or status["next_swap"]["trigger"] == "crash"):
        pauses.append(status["next_swap"]["in"])
    return max(pauses, default=0.0)


def _due_swaps(status: Mapping[str, Any]) -> dict[str, float]:
    due = {} if status["next_restart_in"] is None else {"interval": status["next_restart_in"]}
    return {
        **due,
        **(
            {status["next_swap"]["trigger"]: status["next_swap"]["in"]}
            if status["next_swap"]
            else {}
        ),
    }


def exposition(status: Mapping[str, Any], accept: str) -> tuple[bytes, str]:
    """The metrics in the format that the client accepts, and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(status))
    encode, kind = choose_encoder(accept)
    return encode(registry), kind
