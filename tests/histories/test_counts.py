"""What is remembered: told like the log, asked like status."""

from __future__ import annotations

from sidecar.core.history import BUCKETS_S, MAX_GENERATIONS, EventHistory


def begin(history: EventHistory, number: int, now: float, trigger: str = "signal") -> None:
    history.record("swap_started", {"generation": number, "trigger": trigger, "changed": []}, now)


def serve(history: EventHistory, number: int, now: float, took: float = 0.2) -> None:
    history.record(
        "serving",
        {"generation": number, "trigger": "signal", "took": took, "changed": [], "pids": []},
        now,
    )


def fail(history: EventHistory, number: int, now: float) -> None:
    begin(history, number, now)
    fields = {
        "generation": number,
        "trigger": "signal",
        "cause": "exited with status 1",
        "lasted": 0.1,
        "still": [1],
        "output": "a secret",
    }
    history.record("swap_failed", fields, now + 0.1)
    history.record("generation_ended", {"generation": number}, now + 0.2)


def test_the_generation_that_serves_is_remembered_however_many_fail_after_it():
    history = EventHistory()
    begin(history, 1, 0.0)
    serve(history, 1, 1.0)
    for number in range(2, 3 * MAX_GENERATIONS):
        fail(history, number, float(number))
    lives = {life["generation"]: life for life in history.summary()["timeline"]}
    assert lives[1]["outcome"] == "serving"
    assert len(lives) == MAX_GENERATIONS
    assert max(lives) == 3 * MAX_GENERATIONS - 1
    assert history.summary()["failing"] == 3 * MAX_GENERATIONS - 2
    serve(history, 3 * MAX_GENERATIONS - 1, 1000.0)
    assert history.summary()["failing"] == 0
    assert "secret" not in repr(list(history.events))


def test_a_restart_is_a_worker_in_the_place_of_one_that_died():
    history = EventHistory()
    start = {"generation": 1, "slot": 0, "pid": 10}
    history.record("worker_started", start, 0.0)
    history.record("worker_started", {**start, "slot": 1}, 0.0)
    history.record("worker_died", {**start, "role": "current"}, 1.0)
    history.record("worker_started", start, 2.0)
    # One of a generation that never served fails its swap: no death, and what follows is no
    # restart.
    history.record("worker_died", {**start, "generation": 2, "role": "new"}, 3.0)
    history.record("worker_started", {**start, "generation": 2}, 4.0)
    told = history.summary()
    assert (told["starts"], told["deaths"], told["restarts"]) == (4, 1, 1)


def test_every_duration_is_in_one_bucket():
    history = EventHistory()
    for number, took in enumerate([0.0, *BUCKETS_S, BUCKETS_S[-1] + 1], 1):
        begin(history, number, 0.0)
        serve(history, number, 0.0, took)
    told = history.summary()["swap_seconds"]
    assert told["counts"] == [2] + [1] * len(BUCKETS_S)
    assert told["sum"] == sum(BUCKETS_S) + BUCKETS_S[-1] + 1
