"""`status` as Prometheus has it. PID 1 keeps every count: a new process says what the one before
would have said.
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


class Told:
    """What a registry collects: one answer of PID 1's."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        self.status = status

    def collect(self) -> Iterator[Metric]:
        """Every metric, in the order of docs/admin.md."""
        told = self.status
        now = told["time"]
        build = InfoMetricFamily(
            "sidecar_build", "The version that runs", value={"version": told["version"]}
        )
        yield build
        yield _gauge(
            "sidecar_start_time_seconds",
            "When sidecar started, in seconds since the epoch",
            now - told["age"],
        )
        yield _gauge("sidecar_ready", "1 if requests should be sent here (/readyz)", told["ready"])
        yield _by(
            "sidecar_state",
            "The state sidecar is in has 1",
            "state",
            {each: each == told["state"] for each in STATES},
        )
        yield _gauge(
            "sidecar_generation", "Number of the generation that serves", told["generation"]
        )
        yield _gauge(
            "sidecar_generations", "Generations that have not gone", len(told["generations"])
        )
        workers = [
            (generation, worker)
            for generation in told["generations"]
            for worker in generation["workers"]
        ]
        states = {
            each: sum(worker["state"] == each for _, worker in workers) for each in WORKER_STATES
        }
        yield _by("sidecar_workers", "Workers by state", "state", states)
        yield _gauge("sidecar_workers_wanted", "Workers a generation is to have", told["workers"])

        swaps = CounterMetricFamily(
            "sidecar_swaps", "Swaps by trigger and outcome", labels=["trigger", "outcome"]
        )
        for each in told["swaps"]:
            swaps.add_metric([each["trigger"], each["outcome"]], each["count"])
        yield swaps
        yield _durations(told["swap_seconds"])
        last, failure = told["last_swap"], told["last_failure"]
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
            told["failing"],
        )
        yield _gauge(
            "sidecar_backoff_seconds",
            "Pause that is left until what failed is tried again",
            _backoff(told),
        )
        dues = GaugeMetricFamily(
            "sidecar_next_swap_timestamp_seconds",
            "When the next swap is due, by trigger",
            labels=["trigger"],
        )
        for trigger, left in _next(told).items():
            dues.add_metric([trigger], now + left)
        yield dues

        yield _counter("sidecar_worker_starts", "Workers started", told["starts"])
        yield _counter(
            "sidecar_worker_restarts",
            "Workers started in place of one that had died",
            told["restarts"],
        )
        yield _counter(
            "sidecar_worker_deaths", "Workers that served and ended unasked", told["deaths"]
        )
        yield _counter(
            "sidecar_worker_kills",
            "Workers killed because they had not left in time",
            told["kills"],
        )
        places: dict[tuple[str, str], list[float]] = {}
        for generation, worker in workers:
            if worker["memory"] is not None:
                # What is left of one that died may share its place with the next.
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
        for name, count in told["helpers"].items():
            helpers.add_metric([name.removeprefix("the ")], count)
        yield helpers
        yield _gauge(
            "sidecar_settings_hash", "Changes when the settings do", int(told["settings"], 16)
        )


def _gauge(name: str, text: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(name, text)
    if value is not None:
        family.add_metric([], value)
    return family


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _durations(told: Mapping[str, Any]) -> Metric:
    total, buckets = 0, []
    for bound, count in zip([*map(str, told["bounds"]), "+Inf"], told["counts"], strict=True):
        total += count
        buckets.append((bound, total))
    return HistogramMetricFamily(
        "sidecar_swap_duration_seconds", "From a swap's begin until it serves", buckets, told["sum"]
    )


def _backoff(told: Mapping[str, Any]) -> float:
    """How long what failed is left alone: the next swap after a failure, or the slots that have
    lost their worker.
    """
    pauses = [each["in"] for each in told["respawns"]]
    if told["next_swap"] and (told["failing"] or told["next_swap"]["trigger"] == "crash"):
        pauses.append(told["next_swap"]["in"])
    return max(pauses, default=0.0)


def _next(told: Mapping[str, Any]) -> dict[str, float]:
    due = {} if told["next_restart_in"] is None else {"interval": told["next_restart_in"]}
    return {
        **due,
        **({told["next_swap"]["trigger"]: told["next_swap"]["in"]} if told["next_swap"] else {}),
    }


def exposition(status: Mapping[str, Any], accept: str) -> tuple[bytes, str]:
    """The metrics in the format that the client accepts, and its name."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Told(status))
    encode, kind = choose_encoder(accept)
    return encode(registry), kind
