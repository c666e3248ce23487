"""Is the simulation any good? Each test plants a fault in the core on purpose and wants to see a
promise broken by it.

A fault is planted in the source: a line that is there exactly once is replaced. When the core
changes and the line is no more, the test says so; then plant the fault anew. The table in
tests/README.md is the list below.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.model import IllegalMove

from .world import Broken, schedule

# Within how many schedules a fault has to be found.
ENOUGH = 2500


def loosely(code: str) -> re.Pattern[str]:
    """What finds this code however the formatter has broken its lines."""
    tokens = [re.escape(token) for token in re.findall(r"\w+|\S", code)]
    before = code[: len(code) - len(code.lstrip())]
    after = code[len(code.rstrip()) :]
    return re.compile(re.escape(before) + r"\s*,?\s*".join(tokens) + re.escape(after))


class Fault:
    """What is planted, where, and the promises that may be broken by it first."""

    def __init__(
        self,
        what: str,
        promises: str,
        *changes: tuple[str, str],
        module: str = "supervisor",
        first: int = 0,
    ) -> None:
        self.what = what
        self.promises = promises.split(" or ")
        self.changes = changes
        self.module = module
        # where to begin to look: a few faults show in one of some thousand schedules only
        self.first = first

    def plant(self) -> Callable[..., Any]:
        """The supervisor with the fault in it."""
        spoiled = {
            self.module: self.changes,
            "supervisor": self.changes if self.module == "supervisor" else (),
        }
        modules = {}
        before = {name: sys.modules[f"sidecar.core.{name}"] for name in spoiled}
        try:
            for (
                name,
                changes,
            ) in spoiled.items():  # the supervisor is last, and imports what is spoiled
                path = Path(import_module(f"sidecar.core.{name}").__file__ or "")
                source = path.read_text()
                for old, new in changes:
                    places = list(loosely(old).finditer(source))
                    assert len(places) == 1, (
                        f"{old!r} is in {path} {len(places)} times: plant this fault anew"
                    )
                    source = source[: places[0].start()] + new + source[places[0].end() :]
                modules[name] = sys.modules[f"sidecar.core.{name}"] = types.ModuleType(
                    f"sidecar.core.{name}"
                )
                exec(compile(source, f"{path} with a fault", "exec"), modules[name].__dict__)
        finally:
            for name, module in before.items():
                sys.modules[f"sidecar.core.{name}"] = module
        supervisor: Callable[..., Any] = modules["supervisor"].Supervisor
        return supervisor

    def caught(self) -> tuple[str, int, str]:
        """The promise that was broken, in which schedule, and how."""
        make = self.plant()
        for seed in range(self.first, self.first + ENOUGH):
            try:
                schedule(seed, make)
            except Broken as broken:
                return broken.promise, seed, broken.how
            except IllegalMove as broken:
                return "Legal moves", seed, str(broken)
        return "none", ENOUGH, ""


RETIRED = "                self._retire([worker], now)\n"
LOST = "                self._lost(worker.generation, worker.slot, Failure(cause, 1), now, lived=0.0)\n"

FAULTS = [
    Fault(
        "the old workers are retired when the new ones are spawned, not when they are ready",
        "Continuity",
        ("any(worker.state == STARTING for worker in mine) or not mine", "not mine"),
        (
            "max(self._grown_at(worker, coming) for worker in mine)",
            "max(worker.started_at for worker in mine)",
        ),
    ),
    Fault(
        "the old workers are retired without waiting for the slots that are not filled",
        "Continuity or No bad generation takes over",
        ("or (waiting and not self._surge(coming))", "or False"),
        (
            "        if not waiting:\n            self._serve(coming, now)",
            "        self._serve(coming, now)",
        ),
    ),
    Fault(
        "kill_old_delay is ignored",
        "Continuity or No bad generation takes over",
        (" + self.settings.kill_old_delay, now)", ", now)"),
    ),
    Fault(
        "a failed generation's workers that took over in a rolling swap are retired with the rest",
        "Continuity",
        ("[worker for worker in generation.workers if not worker.took_over]", "generation.workers"),
    ),
    Fault(
        "TTOU takes the last ready worker",
        "Continuity",
        ("            surplus.remove(ready[0])\n", "            pass\n"),
    ),
    Fault(
        "TTOU trusts a coming worker that may still fail",
        "Continuity or No bad generation takes over",
        (" if coming is None or worker.generation != coming.number or worker.took_over]", "]"),
    ),
    Fault(
        "the stop has no lame duck",
        "Continuity or Drain ends",
        ("self.settings.lame_duck if ending.lame_duck and self.roster.ready() else 0.0", "0.0"),
    ),
    Fault(
        "a worker of the coming generation that dies is forgotten",
        "No bad generation takes over",
        ("self._failure = self._failure or failure", "pass"),
    ),
    Fault(
        "a failed generation is promoted as long as it has one ready worker",
        "No bad generation takes over",
        (
            "        if self._serves_alone(coming):\n            # Nothing",
            "        if any(worker.state == READY for worker in coming.workers):\n            # Nothing",
        ),
    ),
    Fault(
        "a worker that is never ready is waited for",
        "No bad generation takes over or Recovery",
        (
            "elif self._reached(worker.started_at + self.settings.start_timeout, now):",
            "elif False:",
        ),
    ),
    Fault(
        "the interval counts from the fork",
        "No bad generation takes over or Orderly",
        (
            "if self._reached(worker.executed_at + self.settings.interval, now):",
            "if self._reached(worker.started_at + self.settings.interval, now):",
        ),
        (
            'if worker.readiness == "interval" and worker.executed_at is not None:',
            'if worker.readiness == "interval":',
        ),
    ),
    Fault(
        "a failed generation's workers are left running",
        "No bad generation takes over or Orderly or Latest wins",
        (
            "        self._retire([worker for worker in generation.workers if not worker.took_over], now)\n",
            "",
        ),
    ),
    Fault(
        "old workers that are being started again stay when a new generation serves",
        "No bad generation takes over",
        ("        self._retire(late, now)\n", ""),
    ),
    Fault(
        "no backoff",
        "No spin or Recycling",
        ("self.not_before = now + pause * (1 - chance / 2)", "self.not_before = now"),
        module="backoff",
    ),
    Fault(
        "the backoff does not grow",
        "No spin",
        ("FIRST_PAUSE * 2.0 ** min(self.failures, 30)", "FIRST_PAUSE"),
        module="backoff",
    ),
    Fault(
        "the pauses never begin anew after a generation that has held out",
        "No spin",
        ("            self._attempts.held_out(current.serving_at, now)\n", "            pass\n"),
    ),
    Fault(
        "the pauses never begin anew after a long life",
        "No spin",
        (
            "            self.failures = 0\n            self.not_before = now",
            "            self.not_before = now",
        ),
        module="backoff",
    ),
    Fault(
        "a pause may be nothing (--max-backoff 0)",
        "No spin",
        ("max(longest, FIRST_PAUSE)", "longest"),
        module="backoff",
    ),
    Fault(
        "a slot is respawned without a pause",
        "No spin",
        (
            "if slot not in held and self._reached(self._pace(slot).not_before, now):",
            "if slot not in held:",
        ),
    ),
    Fault(
        "an idle supervisor wakes up every second",
        "No spin",
        (
            '        self._next = float("inf")\n        if self.exited',
            "        self._next = now + 1\n        if self.exited",
        ),
    ),
    Fault(
        "the automatic restart comes too early",
        "No spin",
        ("self.due_at = now + interval * (1 + chance / 10)", "self.due_at = now + interval / 2"),
        module="backoff",
    ),
    Fault(
        "a swap that was asked for is tried again while something serves",
        "No spin",
        ("failed.trigger in UNASKED or", "True or"),
    ),
    Fault(
        "an automatic restart that failed is tried again at once",
        "No spin",
        (
            '        if self._interval.due_at <= now or coming.trigger == "interval":\n            self._wind(now)\n',
            "",
        ),
    ),
    Fault(
        "a deadline is a second late",
        "Drain ends or Stop always ends or No spin or No bad generation takes over",
        ("self._next = min(self._next, moment)", "self._next = min(self._next, moment + 1.0)"),
    ),
    Fault(
        "a deadline is forgotten when another is nearer already",
        "Drain ends or Stop always ends or No spin or Recovery",
        ("self._next = min(self._next, moment)", "self._next = moment"),
    ),
    Fault(
        "the kill deadline is forgotten",
        "Drain ends or Stop always ends or Recovery",
        (
            "            worker.retired_by = signal\n            worker.kill_at = now + self._grace(worker)\n",
            "            worker.retired_by = signal\n",
        ),
    ),
    Fault(
        "who never served is given the whole drain time",
        "Drain ends",
        ("else min(drain, STILLBORN_GRACE)", "else drain"),
    ),
    Fault(
        "who was not ready, but can have had connections, is killed as if it had none",
        "Drain ends",
        (
            "return drain if worker.may_have_connections else",
            "return drain if worker.ready_at is not None else",
        ),
    ),
    Fault(
        "the next attempt waits for all the drain time of what was given up",
        "Latest wins",
        ("return min(worker.kill_at, asked_at + STILLBORN_GRACE)", "return worker.kill_at"),
    ),
    Fault(
        "a lingering group is taken for gone",
        "Orderly",
        ("if worker.state != KILLED and not fact.alone:", "if False:"),
        ("        elif fact.alone:\n", "        else:\n"),
    ),
    Fault(
        "a group whose leader died unasked lingers for ever",
        "Drain ends or Stop always ends or Recovery",
        ("                worker.kill_at = now + self._grace(worker)\n", ""),
    ),
    Fault(
        "what outlives its leader is not asked to leave",
        "Drain ends",
        (
            "                self._orders.append(orders.RetireGroup(worker.pid, signal))\n",
            "                pass\n",
        ),
    ),
    Fault(
        "what a leader has told to leave is asked again",
        "Orderly",
        (
            "worker.left_asked = asked and fact.code == 0 and not fact.signal",
            "worker.left_asked = False",
        ),
    ),
    Fault(
        "what has left its group is not asked to leave where its leader left by itself",
        "Drain ends",
        ("and not fact.signal and not fact.strays", "and not fact.signal"),
    ),
    Fault(
        "the second TERM is swallowed in the lame-duck time",
        "Stop always ends",
        ("and not over and ending.asked > ending.heeded:", "and False:"),
    ),
    Fault(
        "the same TERM twice at once is two",
        "Drain ends",
        ("now < ending.asked_at + ECHO", "False"),
    ),
    Fault(
        "a TERM while draining is swallowed",
        "Stop always ends or Drain ends",
        ('if ending.phase == "leaving" and ending.asked > ending.heeded:', "if False:"),
    ),
    Fault(
        "a crashed slot is filled although everything leaves",
        "Stop always ends or Orderly",
        (
            '        if self.ending.phase != "leaving":\n            self._step(self._widen',
            "        if True:\n            self._step(self._widen",
        ),
        (
            "                if generation.state != OUTDATED:\n                    generation.move(OUTDATED)\n",
            "                pass\n",
        ),
    ),
    Fault(
        "a generation is begun although a stop was asked for",
        "Stop always ends",
        ("        if self.ending.phase:\n            return\n", ""),
    ),
    Fault(
        "what cannot be killed is waited for for ever",
        "Stop always ends",
        ("if not left or self._reached(ending.until, now):", "if not left:"),
    ),
    Fault(
        "the exit does not wait for what is being killed",
        "Stop always ends",
        ("KILL_GRACE = 3.0", "KILL_GRACE = 0.0"),
    ),
    Fault(
        "a generation that is superseded goes on",
        "Latest wins",
        ("(not wish.supersedes or any(", "(True or any("),
    ),
    Fault(
        "a worker that has taken over and was then one too many still protects its generation from being superseded",
        "Latest wins",
        ("any(worker.serving and worker.took_over for", "any(worker.took_over for"),
        first=5000,
    ),
    Fault(
        "a worker that is not ready in time counts as serving when its loss is paced",
        "No spin or Max failures",
        (
            RETIRED + LOST,
            LOST + RETIRED,
        ),
    ),
    Fault(
        "a generation is given up for any trigger",
        "Latest wins",
        ("(not wish.supersedes or any(", "(any("),
    ),
    Fault(
        "a watch after a HUP in the same swap is a HUP",
        "Latest wins",
        ("supersedes=earlier.supersedes or wish.supersedes", "supersedes=earlier.supersedes"),
    ),
    Fault(
        "a changed envdir does not wait for its splay to end but for twice that",
        "Latest wins or Recycling",
        ("self.settings.env_splay *", "2 * self.settings.env_splay *"),
        first=4500,
    ),
    Fault(
        "a saved file waits for an envdir's splay",
        "Latest wins",
        ("if earlier.not_before <= wish.not_before else wish", "if earlier else wish"),
    ),
    Fault(
        "what has changed is forgotten when a swap fails",
        "Latest wins",
        ("self._unserved = merged(self._unserved, wish.changed)", "self._unserved = wish.changed"),
    ),
    Fault(
        "of two triggers only the later says what has changed",
        "Latest wins",
        ("changed=merged(earlier.changed, wish.changed)", "changed=wish.changed"),
    ),
    Fault(
        "a trigger during a swap is lost",
        "Latest wins or Recovery or Recycling",
        (
            "        splay = self",
            "        if self.roster.coming is not None and not fact.supersedes:\n            return\n        splay = self",
        ),
    ),
    Fault(
        "a next generation does not wait for the one that was given up",
        "Latest wins",
        (
            "if any(not self._reached(self._out_of_the_way_at(worker), now) for worker in self.roster.stillborn()):",
            "if False:",
        ),
    ),
    Fault(
        "what failed is not tried again though nothing serves",
        "Recovery or No spin",
        ("return not serves or failed.trigger", "return failed.trigger"),
    ),
    Fault(
        "a swap for a broken listener that failed is not tried again",
        "Recovery",
        ('UNASKED = ("start", "crash", "listener")', 'UNASKED = ("start", "crash")'),
    ),
    Fault(
        "a crashed slot is not filled",
        "Recovery or No spin",
        (
            "current is not None and self.roster.serving() and (coming is None",
            "False and (coming is None",
        ),
    ),
    Fault(
        "nothing follows when the last worker has died",
        "No spin or Recovery",
        ('self._want(Wish("crash", again, like=like))', "self is None"),
    ),
    Fault(
        "a swap makes room although one more would fit",
        "Continuity",
        ("coming.room == 0)", "coming.room in (0, 1))"),
    ),
    Fault(
        "what makes room is not waited for",
        "Overlap",
        ("if coming.alone and self._crowd(now, coming):", "if False:"),
    ),
    Fault(
        "more are started than there is room for",
        "Max surge",
        ("coming.room or coming.room >= self.size:", "coming.room or True:"),
    ),
    Fault(
        "max_surge is one too many",
        "Max surge",
        ("max(0, self.size + surge", "max(0, self.size + 1 + surge"),
    ),
    Fault(
        "a rolling swap waits for what cannot be killed",
        "Recovery",
        (
            "worker.state != KILLED or not self._reached(worker.kill_at + KILL_GRACE, now) for",
            "1 for",
        ),
    ),
    Fault(
        "it gives up one failure too late",
        "Max failures",
        (
            "most <= self._outages.failures",
            "most < self._outages.failures",
        ),
    ),
    Fault(
        "it gives up although something serves",
        "Max failures or Continuity",
        ("        if not still and not taken:\n", "        if True:\n"),
        ("return enough and not left and", "return enough and"),
    ),
    Fault(
        "it never gives up once something has served",
        "Max failures",
        (
            "        if not still and not taken:\n",
            "        if not still and not taken and not self.ever_ready:\n",
        ),
    ),
    Fault(
        "who takes over and dies soon, again and again, is not given up",
        "Max failures",
        ("                self._serves_nothing(failure, now, now - current.serving_at)\n", ""),
    ),
    Fault(
        "failures from before a generation that has held out are still counted",
        "Max failures",
        ("            self._outages.held_out(before.serving_at, now)\n", ""),
    ),
    Fault(
        "a stop retires with the signal of a swap",
        "Orderly",
        (
            'self._stop_signal(own) if self.ending.phase == "leaving" else own.signal_on_hup',
            "own.signal_on_hup",
        ),
    ),
    Fault(
        "old workers are asked to leave with the signal of the settings read last",
        "Orderly",
        ("own = self.roster.generations[worker.generation].settings", "own = self.settings"),
    ),
    Fault(
        "settings read during a stop change its bound",
        "Stop always ends or Drain ends or Orderly or Continuity",
        ("            return  # the bound of a stop stays what it was\n", "            pass\n"),
    ),
    Fault(
        "the workers that the settings ask for now are not heeded",
        "Orderly",
        ('            self._resize(after.workers, "")\n', "            pass\n"),
    ),
    Fault(
        "settings that say nothing of the workers undo TTIN",
        "Orderly or Continuity",
        ("        if after.workers != before.workers:  # else", "        if True:  # else"),
    ),
    Fault(
        "a worker is signalled twice",
        "Orderly",
        (
            "            self._orders.append(orders.Retire(worker.pid, signal))\n",
            "            self._orders += [orders.Retire(worker.pid, signal)] * 2\n",
        ),
    ),
    Fault(
        "a worker that drains is asked again by the stop",
        "Orderly or Legal moves",
        ("            if worker.state not in (STARTING, READY):\n                continue\n", ""),
    ),
    Fault(
        "a worker is killed without being asked first",
        "Orderly or No bad generation takes over",
        ("            self._orders.append(orders.Retire(worker.pid, signal))\n", ""),
    ),
    Fault(
        "a generation is never closed",
        "Orderly",
        ("            self._orders.append(orders.Close(generation.number))\n", ""),
    ),
    Fault(
        "a signal is passed to workers that are still starting",
        "Orderly",
        (
            "for worker in self.roster.ready()\n                if worker.pid in to",
            "for worker in self.roster.workers() if worker.pid in to",
        ),
    ),
    Fault(
        "after a slow start that failed the old program stays smaller",
        "Slow start",
        (
            "fewer = max(0, min(takers, old.had - 1))",
            "fewer = max(old.fewer, min(takers, old.had - 1))",
        ),
    ),
    Fault(
        "a slow start takes the old program's last process",
        "Slow start",
        ("min(takers, old.had - 1)", "min(takers, old.had)"),
    ),
    Fault(
        "a slow start asks for a process before there is another for it",
        "Slow start",
        (
            "successor.takers if successor is not None and",
            "successor.takers + 1 if successor is not None and",
        ),
    ),
    Fault(
        "the signals of a slow start follow each other at once",
        "Slow start",
        (" or not self._reached(old.resized_at + APART, now)", ""),
    ),
    Fault(
        "a slow start is over with the first process",
        "Slow start",
        ("enough = worker.most >= had or", "enough = worker.most >= 0 or"),
    ),
    Fault(
        "a slow start waits for a smaller program for ever",
        "Recovery",
        ("(0.0 if enough else self.settings.start_timeout)", '(0.0 if enough else float("inf"))'),
    ),
    Fault(
        "a worker that is too big leaves before its successor is ready",
        "Continuity",
        (
            "if other.ready_at is not None and self._reached(other.ready_at + delay, now):",
            "if True:",
        ),
    ),
    Fault(
        "all workers that are too big are replaced at once",
        "Recycling or Max surge or Continuity",
        ("if going or soon or current is None", "if soon or current is None"),
        (
            "if worker.slot < self.size and self._reached(again, now):",
            "if worker.slot < self.size and worker not in [old for old, _ in going] and self._reached(again, now):",
        ),
    ),
    Fault(
        "workers that are too big are replaced during a swap",
        "Recycling or Orderly or Max surge",
        ("if going or soon or current is None", "if going or current is None"),
    ),
    Fault(
        "a program that is always too big is recycled without a pause",
        "Recycling",
        (
            "again = max(self._pace(worker.slot).not_before, self._thinning(worker.slot).not_before)",
            "again = self._pace(worker.slot).not_before",
        ),
    ),
    Fault(
        "a worker that is too big stays beside its successor",
        "Recycling",
        ("                self._swap_out(worker, other, now)\n", "                pass\n"),
    ),
    Fault(
        "a worker is recycled while a swap is due",
        "Recycling",
        (
            "self.roster.coming is not None or (wish is not None and wish.not_before <= now)",
            "self.roster.coming is not None",
        ),
    ),
    Fault(
        "a worker is told how many its generation was begun with",
        "Orderly",
        (
            "orders.Spawn(generation.number, slot, self.size, generation.trigger)",
            "orders.Spawn(generation.number, slot, generation.settings.workers, generation.trigger)",
        ),
    ),
    Fault(
        "only ready workers are replaced in their slot",
        "Max surge or Continuity or No bad generation takes over",
        (
            "            for worker in self.serving()\n            if worker.slot == slot and",
            "            for worker in self.ready()\n            if worker.slot == slot and",
        ),
        module="roster",
    ),
    Fault(
        "a crashed slot stays empty while a check runs",
        "No spin",
        ("and (coming is None or coming.state == PREPARING)", "and coming is None"),
    ),
    Fault(
        "the oldest changes are told, not the latest",
        "Latest wins",
        ("        -MOST_CHANGED:\n", "        :MOST_CHANGED\n"),
    ),
    Fault(
        "a swap that was wanted is still wanted in a stop",
        "Stop always ends",
        (
            "            ending.heeded = 1\n            self._wish = None\n",
            "            ending.heeded = 1\n",
        ),
    ),
    Fault(
        "a swap may be wished for in a stop",
        "Stop always ends",
        ("        if self.ending.asked:\n            return  # nothing new is begun\n", ""),
    ),
    Fault(
        "what time alone made ready and what died soon is begun anew with what there is now",
        "Way back",
        ("wanted = died.like if held_out else died.by_time", "wanted = died.like and held_out"),
    ),
    Fault(
        "what was seen to be ready goes back, too",
        "Way back",
        ("wanted = died.like if held_out else died.by_time", "wanted = died.like or not held_out"),
    ),
    Fault(
        "it goes back again and again",
        "Way back",
        ("        if died.like and not held_out:\n            self._good = None\n", ""),
    ),
    Fault(
        "what was refused is begun when what serves has died",
        "Way back",
        ("        if kept_on := self._kept_on():\n            return kept_on, 0\n", ""),
    ),
    Fault(
        "what was refused is tried again when nothing serves",
        "Way back",
        (
            "        like = self._kept_on()\n        if like and",
            "        like = 0\n        if like and",
        ),
    ),
    Fault(
        "what was refused is out for ever, also when it serves by now",
        "Way back",
        ("        if not generation.like:\n            self._refused = 0\n", ""),
    ),
    Fault(
        "a swap that was asked for goes back",
        "Way back",
        ("like=wish.like if wish.like == earlier.like else 0", "like=wish.like or earlier.like"),
    ),
    Fault(
        "it goes back to what has not held out",
        "Way back",
        ("until - worker.ready_at >= least", "until >= worker.ready_at"),
    ),
    Fault(
        "orders go on after Exit",
        "Orderly",
        (
            "        self._step(self._bury, now)\n        self._step(self._exit, now)\n",
            "        self._step(self._exit, now)\n        self._step(self._bury, now)\n",
        ),
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_planted_fault_is_caught(fault: Fault) -> None:
    promise, seed, how = fault.caught()
    assert promise in fault.promises, f"caught by {promise} in schedule {seed}: {how}"


def test_readme_lists_the_planted_faults_and_no_others() -> None:
    table = (
        (Path(__file__).parent.parent / "README.md").read_text().partition("## Planted faults")[2]
    )
    rows = [
        line.split(" | ")[0].removeprefix("| ")
        for line in table.splitlines()
        if line.startswith("| ")
    ]
    assert [row for row in rows if row not in ("planted", "---")] == [
        fault.what for fault in FAULTS
    ]


if __name__ == "__main__":
    for each in FAULTS:
        print(each.what, *each.caught(), sep=" | ")
