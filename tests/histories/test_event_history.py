"""What is remembered, reported and answered: history, report and commands, over a supervisor in
virtual time.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.control import commands
from sidecar.control.status_page import short_duration, status_page
from sidecar.core import facts, orders, status
from sidecar.core.history import BUCKETS_S, MAX_EVENTS, MAX_GENERATIONS, EventHistory
from sidecar.settings.table import START_SERVER, Settings
from tests.histories.history import History


class Desk(History):
    """A history whose events are remembered and can be followed: what host.ControlDesk offers to commands."""

    def __init__(self, settings: Settings | None = None, **more: Any) -> None:
        super().__init__(settings or Settings(), **more)
        self.history = EventHistory()
        self.waiting: list[commands.Answer] = []
        self.told: list[dict[str, Any]] = []
        self._noted = 0

    def play(self, table: str) -> Desk:
        super().play(table)
        return self

    def row(self, *row: Any) -> None:
        super().row(*row)
        self.note()

    def note(self) -> None:
        """Tell the history, and whoever waits, what was said since."""
        for said in self.said[self._noted :]:
            record = self.history.record(said.event, said.fields, self.now)
            for each in [each for each in self.waiting if not each.done]:
                self.told += each.on_event(record)
        self._noted = len(self.said)

    def ask(self, command: str, **request: Any) -> list[dict[str, Any]]:
        """What is answered at once; what follows is in `told`."""
        answer = commands.answer({"command": command, **request}, self)
        self.waiting.append(answer)
        return answer.replies

    def _perform(self, order: orders.Order) -> str:
        if isinstance(order, orders.ForgetGeneration):  # the host says it
            self.said.append(orders.LogEvent("generation_ended", {"generation": order.generation}))
        return super()._perform(order)

    # the desk

    def status(self) -> dict[str, Any]:
        return {**status.status(self.supervisor, self.now), **self.history.summary()}

    def readiness_reasons(self) -> list[str]:
        return status.readiness(self.supervisor)

    def recent_events(self) -> list[dict[str, Any]]:
        return list(self.history.events)

    def newest_generation(self) -> int:
        return self.supervisor.number

    def observe(self, fact: facts.Fact) -> None:
        self._observe(fact)

    def reload(self, trigger: str) -> bool:
        self._observe(facts.SwapTriggered(trigger))
        return False

    #: Workers without a handler for any signal.
    deaf: tuple[int, ...] = ()

    def signal(self, name: str) -> tuple[list[int], list[int]]:
        ready = [worker.pid for worker in self.supervisor.worker_table.ready()]
        able = [pid for pid in ready if pid not in self.deaf]
        self._observe(facts.SignalForwardRequested(name, tuple(able)))
        return able, [pid for pid in ready if pid in self.deaf]

    def stopping(self) -> bool:
        return self.supervisor.stop_state.signals_received > 0


SERVING = """
    0    start     | prepare 1, spawn 1/0=101
    0.5  ready 101 | !serving
"""


def last(told: list[dict[str, Any]]) -> tuple[int, str]:
    """How an answer ended: status and cause; nothing follows the end."""
    ends = [each for each in told if "done" in each]
    assert ends == told[-1:], told
    return ends[0]["done"], ends[0].get("cause", "")


# --- the history


def test_the_lives_of_generations_are_remembered_with_how_they_ended():
    desk = Desk().play(f"""{SERVING}
        10   hup        | prepare 2, spawn 2/0=201
        11   ready 201  | retire 101 TERM, !serving
        12   exit 101 0 | close 1
        20   watch      | prepare 3, spawn 3/0=301
        21   watch      | retire 301 TERM
        21.5 exit 301 0 | prepare 4, close 3, spawn 4/0=401
        22   exit 401 1 | close 4, !swap_failed
    """)
    lives = {life["generation"]: life for life in desk.history.summary()["timeline"]}
    assert {number: life["outcome"] for number, life in lives.items()} == {
        1: "served",
        2: "serving",
        3: "superseded",
        4: "failed",
    }
    assert (lives[1]["begun"], lives[1]["serving"], lives[1]["outdated"], lives[1]["gone"]) == (
        0,
        0.5,
        11,
        12,
    )
    assert (lives[2]["serving"], lives[2]["outdated"], lives[2]["gone"]) == (11, None, None)
    assert lives[3]["serving"] is None
    assert "exited with status 1" in lives[4]["cause"]
    told = desk.history.summary()
    assert told["last_swap"]["generation"] == 2
    assert told["last_failure"]["generation"] == 4
    counts = {(each["trigger"], each["outcome"]): each["count"] for each in told["swaps"]}
    assert counts == {
        ("start", "served"): 1,
        ("HUP", "served"): 1,
        ("watch", "superseded"): 1,
        ("watch", "failed"): 1,
    }
    assert sum(told["swap_seconds"]["counts"]) == 2
    assert told["swap_seconds"]["sum"] == 1.5


def test_durations_are_counted_in_the_bucket_that_holds_them():
    history = EventHistory()
    for number, took in enumerate((0.1, 0.11, 300.0, 301.0), start=1):
        history.record(
            "swap_started", {"generation": number, "trigger": "signal", "changed": []}, 0.0
        )
        history.record("serving", {"generation": number, "trigger": "signal", "took": took}, took)
    counts = history.summary()["swap_seconds"]["counts"]
    assert len(counts) == len(BUCKETS_S) + 1
    assert (counts[0], counts[1], counts[-2], counts[-1]) == (1, 1, 1, 1)


def test_deaths_and_kills_are_counted():
    desk = Desk(Settings(drain_timeout=5.0)).play(f"""{SERVING}
        20   killed 101 SEGV | prepare 2, spawn 2/0=201, !worker_died
        21   ready 201       | close 1, !serving
        30   hup             | prepare 3, spawn 3/0=301
        31   ready 301       | retire 201 TERM
        36   -               | kill 201, !worker_killed
        37   killed 201 KILL | close 2, !worker_exited
    """)
    assert (desk.history.deaths, desk.history.kills) == (1, 1)


def test_all_that_is_remembered_is_bounded():
    history = EventHistory()
    for number in range(1, 2 * MAX_EVENTS):
        history.record(
            "swap_started",
            {"generation": number, "trigger": "signal", "changed": []},
            float(number),
        )
    assert len(history.events) == MAX_EVENTS
    assert len(history.timeline) == MAX_GENERATIONS
    assert history.events[-1]["number"] == history.number == 2 * MAX_EVENTS - 1


def test_what_a_check_wrote_is_not_remembered():
    history = EventHistory()
    record = history.record("check_output", {"generation": 1, "output": "the password is 123"}, 0.0)
    assert "123" not in json.dumps([record, list(history.events), history.summary()])


def test_a_report_that_was_given_does_not_change_afterwards():
    desk = Desk().play(SERVING)
    told = desk.history.summary()
    before = json.dumps(told)
    told["last_swap"]["ago"] = 1.0
    assert json.dumps(desk.history.summary()) == before


# --- status, health


def test_the_states_of_a_run_and_whether_it_is_ready():
    desk = Desk(Settings(workers=2, lame_duck=10.0, min_uptime=10.0))
    said = []

    def now() -> None:
        status = desk.ask("status")[0]
        assert json.loads(json.dumps(status, allow_nan=False)) == status
        assert desk.ask("health")[0] == {
            "ready": status["ready"],
            "done": 0 if status["ready"] else 1,
        } | ({"cause": "; ".join(status["reasons"])} if status["reasons"] else {})
        assert desk.ask("health", live=True)[0]["done"] == 0
        said.append(status["state"])

    for row in """
        0    start               | prepare 1, spawn 1/0=101, spawn 1/1=102
        1    ready 101           | !serving
        1.2  ready 102           |
        2    hup                 | prepare 2, spawn 2/0=201, spawn 2/1=202
        3    ready 201           |
        3.5  ready 202           | retire 101 TERM, retire 102 TERM
        4    exit 101 0; exit 102 0 | close 1
        4.5  exit 201 1          |
        4.75 -                   | spawn 2/0=203
        5.6  ready 203           |
        6    term                | !stopping
        16   -                   | retire 202 TERM, retire 203 TERM
    """.strip().splitlines():
        desk.play(row)
        now()
    assert said == [
        "starting", "serving", "serving", "swapping", "swapping", "serving", "serving", "degraded", "degraded", "serving",
        "stopping", "stopping",
    ]  # fmt: skip
    assert desk.ask("status")[0]["reasons"] == ["stopping", "no worker is ready"]


def test_more_workers_than_before_are_not_fewer_than_wanted():
    """It serves while they start; a worker that was lost, also one of the new ones, degrades it."""
    desk = Desk(Settings(workers=1)).play("""
        0    start                  | prepare 1, spawn 1/0=101
        1    ready 101              | !serving
        20   ttin; ttin             | spawn 1/1=102, spawn 1/2=103
    """)
    states = [desk.ask("status")[0]["state"]]
    for row in ("21 ready 102 |", "22 exit 103 1 |", "22.25 - | spawn 1/2=104", "31 ready 104 |"):
        desk.play(row)
        states.append(desk.ask("status")[0]["state"])
    assert states == ["serving", "serving", "degraded", "degraded", "serving"]


def test_the_page_tells_what_there_is_to_know():
    desk = Desk(Settings(workers=2)).play("""
        0    start                  | prepare 1, spawn 1/0=101, spawn 1/1=102
        1    ready 101; ready 102   | !serving
        20   hup                    | prepare 2, spawn 2/0=201, spawn 2/1=202
        21   exit 201 3             | retire 202 TERM, !swap_failed
    """)
    status = {
        **desk.status(),
        "version": "1",
        "pid": 1,
        "age": 7200.0,
        "listeners": ["127.0.0.1:80"],
        "problems": ["sidecar.yml:3: no"],
    }
    for generation in status["generations"]:
        for worker in generation["workers"]:
            worker["memory"] = 10 << 20
    status["generations"][0]["workers"][0]["outlived"] = [131, 132]
    status["last_swap"]["ago"], status["last_failure"]["ago"] = 20.0, 0.0
    text = "\n".join(status_page(status))
    for word in ("pid 1, up 2h: serving", "listening on 127.0.0.1:80", "10 MiB", "last swap", "last failure", "status 3", "killed in",
                 "next swap", "sidecar.yml:3: no", "worker 0 (pid 101) has left processes behind: 131, 132"):  # fmt: skip
        assert word in text
    assert "failures" not in text  # in a row, if there are several
    assert "failures      3 in a row" in "\n".join(status_page({**status, "failing": 3}))
    header = next(line for line in text.splitlines() if line.startswith("GENERATION")).split("  ")
    assert len({*filter(None, header)}) == len([*filter(None, header)]) == 8
    assert max(map(len, text.splitlines())) < 120


def test_spans_read_as_people_say_them():
    assert [short_duration(each) for each in (0, 119, 120, 7199, 7200, 172799, 172800)] == [
        "0s",
        "119s",
        "2m",
        "120m",
        "2h",
        "48h",
        "2d",
    ]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("gunicorn -w 2 app:app", "gunicorn"),
        ("/opt/venv/bin/uvicorn app:app", "uvicorn"),
        ("python3.12 -m uvicorn app:app", "uvicorn"),
        ("python3 -X utf8 -u /srv/serve.py --port 1", "serve.py"),
        ("python3 -c code", "python3"),
        ("/usr/bin/node --inspect server.js", "server.js"),
        ("java -cp a.jar -jar b.jar", "b.jar"),
        ("node", "node"),
    ],
)
def test_a_program_has_the_name_that_people_call_it(command: str, name: str):
    assert status.program(command.split()) == name


# --- reload


def test_a_reload_is_waited_for_until_the_generation_it_asked_for_serves():
    desk = Desk().play(SERVING)
    assert desk.ask("reload", wait=True) == []
    desk.play("""
        10   -          | prepare 2, spawn 2/0=201
        11   ready 201  | retire 101 TERM
    """)
    assert [each["event"] for each in desk.told[:-1]] == [
        "swap_started",
        "worker_started",
        "worker_ready",
        "retiring",
        "serving",
    ]
    assert desk.told[-1] == {"generation": 2, "done": 0}


def test_a_reload_that_fails_says_why():
    desk = Desk().play(SERVING)
    desk.ask("reload", wait=True)
    desk.play("""
        10   -          | prepare 2, spawn 2/0=201
        11   exit 201 1 | close 2
    """)
    assert last(desk.told) == (1, "exited with status 1 before it was ready")


def test_a_reload_during_a_swap_waits_for_the_next_one():
    """What begins before it was asked for has the old code."""
    desk = Desk().play(f"""{SERVING}
        10   hup        | prepare 2, spawn 2/0=201
    """)
    desk.ask("reload", wait=True)
    desk.ask("reload", wait=True)
    desk.play("""
        11   ready 201  | retire 101 TERM, prepare 3, spawn 3/0=301
        11.1 exit 101 0 | close 1
        12   ready 301  | retire 201 TERM
    """)
    assert [each for each in desk.told if "done" in each] == 2 * [{"generation": 3, "done": 0}]


def test_a_reload_during_a_swap_that_fails_is_not_told_that_it_has_failed():
    desk = Desk().play(f"""{SERVING}
        10   hup        | prepare 2, spawn 2/0=201
    """)
    desk.ask("reload", wait=True)
    desk.play("""
        11   exit 201 1 | prepare 3, close 2, spawn 3/0=301
        12   ready 301  | retire 101 TERM
    """)
    assert last(desk.told) == (0, "")


def test_a_reload_that_a_saved_file_supersedes_ends_with_what_superseded_it():
    desk = Desk().play(SERVING)
    desk.ask("reload", wait=True)
    desk.play("""
        10   -          | prepare 2, spawn 2/0=201
        10.5 watch      | retire 201 TERM
        10.6 exit 201 0 | prepare 3, close 2, spawn 3/0=301
        11   ready 301  | retire 101 TERM
    """)
    assert desk.told[-1] == {"generation": 3, "done": 0}
    assert "swap_superseded" in [each.get("event") for each in desk.told]


def test_a_reload_merges_into_a_retry_that_waits_and_does_not_wait_for_its_turn():
    desk = Desk(Settings(entry_point=START_SERVER)).play(f"""{SERVING}
        10   hup        | prepare 2, spawn 2/0=201
        11   exit 201 1 | close 2, !retry_scheduled
    """)
    assert desk.status()["next_swap"]["in"] > 0
    desk.ask("reload", wait=True)
    desk.play("""
        11   -          | prepare 3, spawn 3/0=301
        12   ready 301  | retire 101 TERM
    """)
    assert last(desk.told) == (0, "")


@pytest.mark.parametrize("stop", ["term", "int"])
def test_a_reload_that_the_stop_overtakes_ends(stop):
    desk = Desk(Settings(lame_duck=3600.0)).play(SERVING)
    desk.ask("reload", wait=True)
    desk.row(10.0, stop, "!stopping" if stop == "term" else "retire 101 TERM", "the stop")
    assert last(desk.told) == (1, commands.STOPPING_CAUSE)


@pytest.mark.parametrize("wait", [True, False])
def test_a_reload_while_stopping_is_refused_at_once(wait):
    desk = Desk(Settings(lame_duck=3600.0)).play(SERVING)
    desk.observe(facts.StopRequested("TERM"))
    assert last(desk.ask("reload", wait=wait)) == (1, commands.STOPPING_CAUSE)
    assert desk.supervisor.pending_swap is None


def test_a_reload_ends_when_sidecar_gives_up():
    """--max-failures: no "stopping" is said then."""
    desk = Desk(Settings(max_failures=1)).play("""
        0    start      | prepare 1, spawn 1/0=101
    """)
    desk.ask("reload", wait=True)
    desk.play("""
        1    exit 101 3 | close 1, exit 3
    """)
    status, cause = last(desk.told)
    assert status == 1
    assert "status 3" in cause


# --- the others


def test_a_stop_that_is_waited_for_tells_all_until_the_end():
    desk = Desk().play(SERVING)
    assert desk.ask("stop", wait=True) == []
    desk.play("""
        10   -          | retire 101 TERM
        11   exit 101 0 | close 1, exit 0
    """)
    assert [desk.told[0]["event"], desk.told[-2]["event"]] == ["stopping", "stopped"]
    assert last(desk.told) == (0, "")


def test_scale_to_and_by():
    desk = Desk(Settings(workers=2))
    desk.now = 1.0
    for request, size in (
        ({"to": 5}, 5),
        ({"by": 1}, 6),
        ({"by": -2}, 4),
        ({"by": -3}, 1),
        ({"to": 1}, 1),
    ):
        assert desk.ask("scale", **request) == [{"workers": size, "done": 0}]
        assert desk.supervisor.size == size
    for request in ({"by": -1}, {"by": -100}, {"to": 0}):
        assert last(desk.ask("scale", **request))[0] == commands.USAGE_ERROR
        assert desk.supervisor.size == 1


def test_a_slip_of_the_finger_is_no_fork_bomb():
    desk = Desk()
    assert last(desk.ask("scale", to=commands.MAX_WORKERS + 1))[0] == commands.USAGE_ERROR
    desk.ask("scale", to=commands.MAX_WORKERS)
    assert last(desk.ask("scale", by=1))[0] == commands.USAGE_ERROR
    assert desk.supervisor.size == commands.MAX_WORKERS


def test_nothing_is_scaled_while_stopping():
    desk = Desk(Settings(lame_duck=3600.0)).play(SERVING)
    desk.observe(facts.StopRequested("TERM"))
    assert last(desk.ask("scale", by=1)) == (1, commands.STOPPING_CAUSE)


def test_a_signal_is_passed_to_the_ready_and_said_to_whom():
    desk = Desk(Settings(workers=2)).play("""
        0    start     | prepare 1, spawn 1/0=101, spawn 1/1=102
    """)
    assert desk.ask("signal", signal="usr1")[0]["done"] == 1
    desk.play("""
        0    -         |
        1    ready 101 | !serving
    """)
    assert desk.ask("signal", signal="SIGUSR1") == [{"pids": [101], "deaf": [], "done": 0}]
    desk.play("""
        1    -         | pass 101 USR1
        2    ready 102 |
    """)
    desk.deaf = (102,)
    (reply,) = desk.ask("signal", signal="USR1")
    assert reply == {"pids": [101], "deaf": [102], "done": 0}
    assert commands.Signal().lines(reply, lambda _: "") == [
        "passed to 101; not to 102, without a handler for it"
    ]
    desk.play("""
        2    -         | pass 101 USR1
    """)
    desk.deaf = (101, 102)
    assert desk.ask("signal", signal="USR1") == [
        {
            "pids": [],
            "deaf": [101, 102],
            "done": 1,
            "cause": "not sent: no handler for SIGUSR1 in 101, 102",
        }
    ]
    desk.play("""
        2    -         |
    """)


def test_events_are_the_past_or_the_past_and_the_future():
    desk = Desk().play(SERVING)
    assert [each["event"] for each in desk.ask("events")[:-1]] == [each.event for each in desk.said]
    assert desk.ask("events")[-1] == {"done": 0}
    assert [each["event"] for each in desk.ask("events", follow=True)] == [
        each.event for each in desk.said
    ]
    desk.play("""
        10   hup       | prepare 2, spawn 2/0=201
    """)
    assert [each["event"] for each in desk.told] == ["swap_started", "worker_started"]


# --- what makes no sense


@pytest.mark.parametrize(
    "request_", [None, 1, "status", [], {}, {"command": None}, {"command": 1}, {"command": ["status"]}, {"command": "restart"},
                 {"command": "x" * 4000}, {"command": "\ud800"}]
)  # fmt: skip
def test_a_request_that_is_none_is_told_what_one_is(request_):
    desk = Desk()
    before = (
        desk.supervisor.size,
        desk.supervisor.pending_swap,
        desk.supervisor.stop_state.signals_received,
    )
    status, cause = last(commands.answer(request_, desk).replies)
    assert status == commands.USAGE_ERROR
    assert "command" in cause
    assert len(cause) < 200
    assert (
        desk.supervisor.size,
        desk.supervisor.pending_swap,
        desk.supervisor.stop_state.signals_received,
    ) == before


@pytest.mark.parametrize(
    ("command", "request_"),
    [
        *(("reload", {"wait": value}) for value in (1, "yes", None, [], {})),
        *(("stop", {"wait": value}) for value in (1, "yes", None)),
        *(("events", {"follow": value}) for value in (0, "false")),
        *(("health", {"live": value}) for value in (0, "true")),
        *(("scale", request) for request in (
            {}, {"to": 0}, {"to": -1}, {"to": True}, {"to": 1.5}, {"to": "3"}, {"to": None}, {"by": 0}, {"by": False}, {"by": float("inf")},
            {"to": 1, "by": 1}, {"to": 10**30}, {"by": 10**30},
        )),
        *(("signal", {"signal": value}) for value in (None, 10, "", "KILL", "SIGSTOP", "NO", "USR1 ")),
        ("signal", {}),
    ],
)  # fmt: skip
def test_a_request_of_a_wrong_kind_does_nothing_and_says_what_is_wrong(command, request_):
    desk = Desk().play(SERVING)
    before = (
        desk.supervisor.size,
        desk.supervisor.pending_swap,
        desk.supervisor.stop_state.signals_received,
    )
    status, cause = last(desk.ask(command, **request_))
    assert status == commands.USAGE_ERROR
    assert cause
    assert (
        desk.supervisor.size,
        desk.supervisor.pending_swap,
        desk.supervisor.stop_state.signals_received,
    ) == before
    assert desk.supervisor.reconcile(desk.now) == []


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_words_a_command_does_not_know_are_named(name):
    with pytest.raises(ValueError, match=r"--nonsense|say "):
        commands.COMMANDS[name].request(["--nonsense"])


@pytest.mark.parametrize(
    "word", ["", "x", "+", "-", "+-3", "--3", "3.0", "1e3", "²", "٣", "1234567", " 3", "3 "]
)
def test_a_number_of_workers_is_a_number(word):
    with pytest.raises(ValueError, match="say how many"):
        commands.COMMANDS["scale"].request([word])


def test_words_become_requests():
    asked = {
        ("status",): {}, ("reload",): {"wait": False}, ("reload", "--wait"): {"wait": True}, ("stop", "--wait"): {"wait": True},
        ("scale", "3"): {"to": 3}, ("scale", "+2"): {"by": 2}, ("scale", "-2"): {"by": -2}, ("events", "-f"): {"follow": True},
        ("events", "--follow"): {"follow": True}, ("signal", "sigusr1"): {"signal": "USR1"}, ("health",): {"live": False},
        ("health", "--ready"): {"live": False}, ("health", "--live"): {"live": True},
    }  # fmt: skip
    assert {words: commands.COMMANDS[words[0]].request(words[1:]) for words in asked} == asked
