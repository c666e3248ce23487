"""The metrics are what happened, well-formed and documented."""

from __future__ import annotations

import os
import re
import signal

import pytest

from tests.support import ROOT, until
from tests.system.admin.asking import check, sample


def test_the_metrics_are_what_happened_and_well_formed(start, tmp_path):
    """Swaps by trigger and outcome, restarts, the histogram's sums; HELP and TYPE for each, names
    by the rules, nothing twice.
    """
    (tmp_path / "env").mkdir()
    run, admin = start("--envdir", str(tmp_path / "env"), "--workers", "2", "--min-uptime", "0s")
    run.wait("serving")
    run.wait("worker_ready", count=2)
    run.swap(2)
    (tmp_path / "env" / "DIE").write_text("3")
    run.signal("HUP")
    run.wait("swap_failed")
    (tmp_path / "env" / "DIE").unlink()
    run.signal("HUP")
    number = run.wait("serving", count=3)["generation"]
    run.alone(number)
    until(lambda: admin.json("/status")[1]["state"] == "serving", "two workers")
    victim = run.workers()[0]
    os.kill(victim, signal.SIGKILL)
    run.wait("worker_died", pid=victim)
    until(lambda: admin.json("/status")[1]["restarts"] == 1, "the restart")
    until(lambda: admin.json("/status")[1]["state"] == "serving", "two workers again")

    def used(slot: int) -> float:
        name = "sidecar_worker_cpu_seconds_total"
        return sample(admin.metrics(), name, generation=str(number), slot=str(slot))

    # The kernel counts in hundredths of a second: who has worked less shows nothing yet.
    until(lambda: run.get() and used(0) > 0 and used(1) > 0, "some work of each worker")
    samples = admin.metrics()
    assert sample(samples, "sidecar_swaps_total", trigger="start", outcome="served") == 1
    assert sample(samples, "sidecar_swaps_total", trigger="signal", outcome="served") == 2
    failed = len(run.seen("swap_failed"))
    assert sample(samples, "sidecar_swaps_total", trigger="signal", outcome="failed") == failed
    assert sample(samples, "sidecar_generation") == number
    assert (
        sample(samples, "sidecar_workers", state="ready")
        == sample(samples, "sidecar_workers_wanted")
        == 2
    )
    assert (
        sample(samples, "sidecar_worker_deaths_total")
        == sample(samples, "sidecar_worker_restarts_total")
        == 1
    )
    assert sample(samples, "sidecar_worker_starts_total") == len(run.seen("worker_started"))
    assert (
        sample(samples, "sidecar_state", state="serving") == sample(samples, "sidecar_ready") == 1
    )
    assert sum(value for (name, _), value in samples.items() if name == "sidecar_state") == 1
    for slot in "01":
        assert (
            sample(samples, "sidecar_worker_memory_bytes", generation=str(number), slot=slot)
            > 1 << 20
        )
        assert (
            sample(samples, "sidecar_worker_cpu_seconds_total", generation=str(number), slot=slot)
            > 0
        )
    buckets = sorted(
        (float(dict(labels)["le"]), value)
        for (name, labels), value in samples.items()
        if name.endswith("_bucket")
    )
    counts = [value for _, value in buckets]
    assert counts == sorted(counts)
    assert (
        buckets[-1]
        == (float("inf"), sample(samples, "sidecar_swap_duration_seconds_count"))
        == (float("inf"), 3)
    )
    took = sum(each["took"] for each in run.seen("serving"))
    assert sample(samples, "sidecar_swap_duration_seconds_sum") == pytest.approx(took, rel=1e-3)
    check(admin.get("/metrics")[2])
    assert admin.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")[2].endswith(
        "# EOF\n"
    )
    run.stop()


def test_every_metric_is_documented(start):
    run, admin = start("--enable-auto-restart")
    run.wait("serving")
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)", admin.get("/metrics")[2], re.MULTILINE))
    page = (ROOT / "docs" / "admin.md").read_text()
    assert dict(re.findall(r"^\| `(sidecar_\w+)` \| (\w+) \|", page, re.MULTILINE)) == families
    run.stop()


def test_without_the_library_all_but_the_metrics_is_there(start, tmp_path):
    """It is said, once, and what to do about it."""
    (tmp_path / "prometheus_client.py").write_text("raise ImportError(name='prometheus_client')\n")
    run, admin = start(env={"PYTHONPATH": f"{ROOT}:{tmp_path}"})
    run.wait("serving")
    # sidecar's own place comes first, then this path, then where the library is installed
    status, _, body = admin.get("/metrics")
    assert status == 501
    assert "prometheus-client" in body
    assert admin.get("/metrics")[0] == 501
    assert admin.json("/readyz")[0] == 200
    assert "prometheus-client" in run.wait("notice")["text"]
    assert len(run.seen("notice")) == 1
    run.stop()
