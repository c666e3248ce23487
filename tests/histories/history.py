"""A history: facts in, orders out, in virtual time. No process, no sleep.

    play(Settings(workers=2), '''
        0    start      | prepare 1, spawn 1/0=101, spawn 1/1=102
        1    ready 101  | !serving
        1.5  exit 101 1 | !worker_died
        1.5  -          | spawn 1/0=103
    ''')

A row is a moment, the facts of that moment (separated by `;`) and, after `|`, every order that
follows (separated by `,`), in order. `!event` asks that this line was said too; what is said
otherwise is not looked at. `-` is no fact: only time has passed. A row stands for one wake-up of
the host: between two rows nothing may happen, so a row too few fails as surely as a wrong one.

Facts::

    start                           nothing but the beginning
    hup, command, key, listener     a swap is triggered
    watch, envdir                   likewise, and the code or environment has changed
    configured workers=3 …          the settings were read anew
    term, int, ttin, ttou, usr1     a signal came
    prepared 2, unprepared 2        the answer to prepare, where History(prepare="later")
    prepared 2 1                    the same, and there is room for one worker more
    executed 101                    its process runs its program, where History(execute="later")
    ready 101, forbidden 101        the worker takes connections; the system does not let us see
    takes 101 4                     so many of its processes take connections (slow start)
    big 101                         it holds more memory than it may
    exit 101 1, killed 101 SEGV     its leader ended, the group with it
    absent 101                      its program is not there
    exit 101 143 TERM               its leader ended with 128 and the number of that signal
    exit 101 1 +, killed 101 TERM + its leader ended, process 1010 of its group lives on
    exit 101 0 + stray              the same, but it has left the group
    empty 101                       the last of them is gone
    refuse 2                        the next two spawns fail
    pace on 100 5                   the environment says: restart every 100 s, old workers stay 5 s more

Spawns are answered at once; the processes of generation 3 are called 301, 302, … in the order they
are started.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from sidecar.core import facts, orders
from sidecar.core.supervisor import Supervisor
from sidecar.settings.table import TABLE, Settings

SIGNAL_NUMBERS = {"HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "SEGV": 11, "TERM": 15}


class History:
    """A supervisor, the facts it is told and the orders it gives."""

    def __init__(
        self,
        settings: Settings,
        *,
        readiness: str = "accept",
        prepare: str = "at once",
        execute: str = "at once",
        chance: float = 0.0,
    ) -> None:
        self.supervisor = Supervisor(settings, 0.0, lambda: chance)
        self.readiness = readiness
        self.prepare = prepare
        self.execute = execute
        self.now = 0.0
        self.refusals = 0
        self.started: Counter[int] = Counter()
        self.said: list[orders.LogEvent] = []
        self.spawns: list[orders.Spawn] = []
        #: A defect was planted: one may be said.
        self.defective = False

    def play(self, table: str) -> History:
        """Live through the rows of a table."""
        for line in table.strip().splitlines():
            if line.strip():
                moment_and_facts, _, expected = line.partition("|")
                moment, _, facts = moment_and_facts.strip().partition(" ")
                self.row(float(moment), facts.strip(), expected.strip(), line.strip())
        return self

    def row(self, moment: float, facts: str, expected: str, line: str) -> None:
        """One row: see the top of this file."""
        self._nothing_until(moment, line)
        self.now = moment
        for text in facts.split(";"):
            self._fact(text.strip())
        said_before = len(self.said)
        given = self._settle()
        wanted = [each.strip() for each in expected.split(",") if each.strip()]
        assert given == [each for each in wanted if not each.startswith("!")], f"in the row: {line}"
        said = {each.event for each in self.said[said_before:]}
        assert {each[1:] for each in wanted if each.startswith("!")} <= said, (
            f"said {sorted(said)} in the row: {line}"
        )

    def what_was_said(self, event: str) -> list[dict[str, Any]]:
        """The fields of each line `event` said so far."""
        return [each.fields for each in self.said if each.event == event]

    def _nothing_until(self, moment: float, line: str) -> None:
        while self.supervisor.deadline < moment:
            before = self.supervisor.deadline
            self.now = before
            given = self._settle()
            assert given == [], f"at {before:g} already, before the row: {line}"
            assert self.supervisor.deadline > before, f"the deadline stays at {before:g}"

    def _settle(self) -> list[str]:
        """Reconcile and perform until nothing more is ordered; the orders as text."""
        told: list[str] = []
        for _ in range(50):
            given = self.supervisor.reconcile(self.now)
            if not given:
                return told
            for order in given:
                text = self._perform(order)
                if text:
                    told.append(text)
        raise AssertionError(f"at {self.now:g} reconcile never ends: {told[-10:]}")

    def _perform(self, order: orders.Order) -> str:
        match order:
            case orders.LogEvent():
                assert order.event != "internal_error" or self.defective, order
                self.said.append(order)
                return ""
            case orders.Prepare():
                if self.prepare == "at once":
                    self._observe(facts.GenerationPrepared(order.generation))
                like = f" like {order.settings_from}" if order.settings_from else ""
                return f"prepare {order.generation}{like}"
            case orders.Spawn():
                self.spawns.append(order)
                place = f"spawn {order.generation}/{order.slot}"
                if self.refusals:
                    self.refusals -= 1
                    self._observe(
                        facts.SpawnFailed(
                            order.generation, order.slot, "no process could be made: EAGAIN"
                        )
                    )
                    return f"{place} refused"
                self.started[order.generation] += 1
                pid = order.generation * 100 + self.started[order.generation]
                self._observe(
                    facts.WorkerStarted(order.generation, order.slot, pid, self.readiness)
                )
                if self.execute == "at once":
                    self._observe(facts.ProgramExecuted(pid))
                return f"{place}={pid}"
            case orders.Retire():
                return f"retire {order.pid} {order.signal}"
            case orders.RetireGroup():
                return f"retire-group {order.pid} {order.signal}"
            case orders.Kill():
                return f"kill {order.pid}"
            case orders.ForwardSignal():
                return f"pass {order.pid} {order.signal}"
            case orders.ForgetGeneration():
                return f"close {order.generation}"
            case orders.Exit():
                return f"exit {order.status}"
        raise AssertionError(f"an order nobody knows: {order}")

    def _observe(self, fact: facts.Fact) -> None:
        self.supervisor.observe(fact, self.now)

    def _fact(self, text: str) -> None:
        match text.split():
            case ["start"] | ["-"]:
                pass
            case ["hup" | "command" | "key" | "listener" as trigger]:
                self._observe(facts.SwapTriggered("HUP" if trigger == "hup" else trigger))
            case ["watch" | "envdir" as trigger]:
                self._observe(facts.SwapTriggered(trigger, supersedes=True))
            case ["configured", *words]:
                pairs = dict(word.split("=") for word in words)
                values = {name: TABLE[name].kind(text) for name, text in pairs.items()}
                self._observe(facts.SettingsChanged(self.supervisor.settings.replace(**values)))
            case ["term"]:
                self._observe(facts.StopRequested("TERM"))
            case ["int"]:
                self._observe(facts.StopRequested("INT", lame_duck=False))
            case ["ttin"]:
                self._observe(facts.SizeChanged(1, "TTIN"))
            case ["ttou"]:
                self._observe(facts.SizeChanged(-1, "TTOU"))
            case ["usr1"]:
                everybody = tuple(each.pid for each in self.supervisor.worker_table.workers())
                self._observe(facts.SignalForwardRequested("USR1", everybody))
            case ["prepared", generation, room]:
                self._observe(facts.GenerationPrepared(int(generation), int(room), "the limit"))
            case ["prepared", generation]:
                self._observe(facts.GenerationPrepared(int(generation)))
            case ["unprepared", generation]:
                self._observe(
                    facts.PreparationFailed(int(generation), "the check exited with status 3")
                )
            case ["executed", pid]:
                self._observe(facts.ProgramExecuted(int(pid)))
            case ["ready", pid]:
                self._observe(facts.WorkerReady(int(pid)))
            case ["takes", pid, takers]:
                self._observe(facts.AcceptingCountChanged(int(pid), int(takers)))
            case ["big", pid]:
                self._observe(facts.MemoryLimitExceeded(int(pid), 2**30))
            case ["forbidden", pid]:
                self._observe(facts.ReadinessProbeUnavailable(int(pid), "EPERM"))
            case ["absent", pid]:
                self._observe(facts.WorkerExited(int(pid), 127, note="cannot run it: not found"))
            case ["exit", pid, code]:
                self._observe(facts.WorkerExited(int(pid), int(code)))
            case ["exit", pid, code, "+"]:
                self._observe(
                    facts.WorkerExited(
                        int(pid), int(code), group_empty=False, remaining=(int(pid) * 10,)
                    )
                )
            case ["exit", pid, code, name] if name in SIGNAL_NUMBERS:
                self._observe(facts.WorkerExited(int(pid), int(code), reported_signal=name))
            case ["exit", pid, code, name, "+"]:
                self._observe(
                    facts.WorkerExited(
                        int(pid),
                        int(code),
                        group_empty=False,
                        remaining=(int(pid) * 10,),
                        reported_signal=name,
                    )
                )
            case ["exit", pid, code, "+", "stray"]:
                strays = (int(pid) * 10,)
                self._observe(
                    facts.WorkerExited(
                        int(pid), int(code), group_empty=False, remaining=strays, strays=strays
                    )
                )
            case ["killed", pid, name, "+"]:
                self._observe(
                    facts.WorkerExited(
                        int(pid),
                        SIGNAL_NUMBERS[name],
                        name,
                        group_empty=False,
                        remaining=(int(pid) * 10,),
                    )
                )
            case ["killed", pid, name]:
                self._observe(facts.WorkerExited(int(pid), SIGNAL_NUMBERS[name], name))
            case ["empty", pid]:
                self._observe(facts.GroupEmptied(int(pid)))
            case ["pace", switch, interval, delay]:
                self._observe(facts.TimingChanged(switch == "on", float(interval), float(delay)))
            case ["refuse", times]:
                self.refusals = int(times)
            case _:
                raise AssertionError(f"a fact nobody knows: {text!r}")


def play(
    settings: Settings,
    table: str,
    *,
    readiness: str = "accept",
    prepare: str = "at once",
    execute: str = "at once",
    chance: float = 0.0,
) -> History:
    """Live through a table from the very beginning."""
    return History(
        settings, readiness=readiness, prepare=prepare, execute=execute, chance=chance
    ).play(table)
