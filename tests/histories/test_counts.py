"""What is remembered: told like the log, asked like status."""

from __future__ import annotations

from sidecar.core.history import BUCKETS, LIVES, Chronicle


def begin(chronicle: Chronicle, number: int, now: float, trigger: str = "signal") -> None:
    chronicle.note("swap_started", {"generation": number, "trigger": trigger, "changed": []}, now)


def serve(chronicle: Chronicle, number: int, now: float, took: float = 0.2) -> None:
    chronicle.note(
        "serving",
        {"generation": number, "trigger": "signal", "took": took, "changed": [], "pids": []},
        now,
    )


def fail(chronicle: Chronicle, number: int, now: float) -> None:
    begin(chronicle, number, now)
    fields = {
        "generation": number,
        "trigger": "signal",
        "cause": "exited with status 1",
        "lasted": 0.1,
        "still": [1],
        "output": "a secret",
    }
    chronicle.note("swap_failed", fields, now + 0.1)
    chronicle.note("generation_ended", {"generation": number}, now + 0.2)


def test_the_generation_that_serves_is_remembered_however_many_fail_after_it():
    chronicle = Chronicle()
    begin(chronicle, 1, 0.0)
    serve(chronicle, 1, 1.0)
    for number in range(2, 3 * LIVES):
        fail(chronicle, number, float(number))
    lives = {life["generation"]: life for life in chronicle.report()["timeline"]}
    assert lives[1]["outcome"] == "serving"
    assert len(lives) == LIVES
    assert max(lives) == 3 * LIVES - 1
    assert chronicle.report()["failing"] == 3 * LIVES - 2
    serve(chronicle, 3 * LIVES - 1, 1000.0)
    assert chronicle.report()["failing"] == 0
    assert "secret" not in repr(list(chronicle.events))


def test_a_restart_is_a_worker_in_the_place_of_one_that_died():
    chronicle = Chronicle()
    start = {"generation": 1, "slot": 0, "pid": 10}
    chronicle.note("worker_started", start, 0.0)
    chronicle.note("worker_started", {**start, "slot": 1}, 0.0)
    chronicle.note("worker_died", {**start, "role": "current"}, 1.0)
    chronicle.note("worker_started", start, 2.0)
    # One of a generation that never served fails its swap: no death, and what follows is no
    # restart.
    chronicle.note("worker_died", {**start, "generation": 2, "role": "new"}, 3.0)
    chronicle.note("worker_started", {**start, "generation": 2}, 4.0)
    told = chronicle.report()
    assert (told["starts"], told["deaths"], told["restarts"]) == (4, 1, 1)


def test_every_duration_is_in_one_bucket():
    chronicle = Chronicle()
    for number, took in enumerate([0.0, *BUCKETS, BUCKETS[-1] + 1], 1):
        begin(chronicle, number, 0.0)
        serve(chronicle, number, 0.0, took)
    told = chronicle.report()["swap_seconds"]
    assert told["counts"] == [2] + [1] * len(BUCKETS)
    assert told["sum"] == sum(BUCKETS) + BUCKETS[-1] + 1
