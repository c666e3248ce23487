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

from .programs import Broken
from .world import schedule

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
LOST = "                self._lose_worker(worker.generation, worker.slot, Failure(cause, 1), now, lived=0.0)\n"

FAULTS = [
    Fault(
        "the old workers are retired when the new ones are spawned, not when they are ready",
        "Continuity",
        ("any(worker.state == STARTING for worker in mine) or not mine", "not mine"),
        (
            "max(self._fully_grown_at(worker, coming) for worker in mine)",
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
        ("self.settings.lame_duck if stop.lame_duck and self.worker_table.ready() else 0.0", "0.0"),
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
            "        if self._is_only_one_ready(coming):\n            # Nothing",
            "        if any(worker.state == READY for worker in coming.workers):\n            # Nothing",
        ),
    ),
    Fault(
        "a worker that is never ready is waited for",
        "No bad generation takes over or Recovery",
        (
            "elif self._is_due(worker.started_at + self.settings.start_timeout, now):",
            "elif False:",
        ),
    ),
    Fault(
        "the interval counts from the fork",
        "No bad generation takes over or Orderly",
        (
            "if self._is_due(worker.executed_at + self.settings.interval, now):",
            "if self._is_due(worker.started_at + self.settings.interval, now):",
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
        ("self.not_before = now + pause * (1 - random_fraction / 2)", "self.not_before = now"),
        module="backoff",
    ),
    Fault(
        "the backoff does not grow",
        "No spin",
        ("FIRST_PAUSE_S * 2.0 ** min(self.failures, 30)", "FIRST_PAUSE_S"),
        module="backoff",
    ),
    Fault(
        "the pauses never begin anew after a generation that has held out",
        "No spin",
        (
            "            self._swap_backoff.record_uptime(current.serving_at, now)\n",
            "            pass\n",
        ),
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
        ("max(max_pause, FIRST_PAUSE_S)", "max_pause"),
        module="backoff",
    ),
    Fault(
        "a slot is respawned without a pause",
        "No spin",
        (
            "if slot not in held and self._is_due(self._slot_backoff(slot).not_before, now):",
            "if slot not in held:",
        ),
    ),
    Fault(
        "an idle supervisor wakes up every second",
        "No spin",
        (
            '        self._deadline = float("inf")\n        if self.exited',
            "        self._deadline = now + 1\n        if self.exited",
        ),
    ),
    Fault(
        "the automatic restart comes too early",
        "No spin",
        (
            "self.due_at = now + interval * (1 + random_fraction / 10)",
            "self.due_at = now + interval / 2",
        ),
        module="backoff",
    ),
    Fault(
        "a swap that was asked for is tried again while something serves",
        "No spin",
        ("failed.trigger in AUTOMATIC_TRIGGERS or", "True or"),
    ),
    Fault(
        "an automatic restart that failed is tried again at once",
        "No spin",
        (
            '        if self._auto_restart.due_at <= now or coming.trigger == "interval":\n            self._arm_auto_restart(now)\n',
            "",
        ),
    ),
    Fault(
        "a deadline is a second late",
        "Drain ends or Stop always ends or No spin or No bad generation takes over",
        (
            "self._deadline = min(self._deadline, moment)",
            "self._deadline = min(self._deadline, moment + 1.0)",
        ),
    ),
    Fault(
        "a deadline is forgotten when another is nearer already",
        "Drain ends or Stop always ends or No spin or Recovery",
        ("self._deadline = min(self._deadline, moment)", "self._deadline = moment"),
    ),
    Fault(
        "the kill deadline is forgotten",
        "Drain ends or Stop always ends or Recovery",
        (
            "            worker.retire_signal = signal\n            worker.kill_at = now + self._drain_time(worker)\n",
            "            worker.retire_signal = signal\n",
        ),
    ),
    Fault(
        "who never served is given the whole drain time",
        "Drain ends",
        ("else min(drain, NEVER_READY_GRACE_S)", "else drain"),
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
        ("return min(worker.kill_at, asked_at + NEVER_READY_GRACE_S)", "return worker.kill_at"),
    ),
    Fault(
        "a lingering group is taken for gone",
        "Orderly",
        ("if worker.state != KILLED and not fact.group_empty:", "if False:"),
        ("        elif fact.group_empty:\n", "        else:\n"),
    ),
    Fault(
        "a group whose leader died unasked lingers for ever",
        "Drain ends or Stop always ends or Recovery",
        ("                worker.kill_at = now + self._drain_time(worker)\n", ""),
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
            "asked and fact.code == 0 and not fact.signal and not fact.strays",
            "False",
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
        ("and not over and stop.signals_received > stop.signals_handled:", "and False:"),
    ),
    Fault(
        "the same TERM twice at once is two",
        "Drain ends",
        ("now < stop.last_signal_at + DUPLICATE_SIGNAL_S", "False"),
    ),
    Fault(
        "a TERM while draining is swallowed",
        "Stop always ends or Drain ends",
        (
            'if stop.phase == "leaving" and stop.signals_received > stop.signals_handled:',
            "if False:",
        ),
    ),
    Fault(
        "a crashed slot is filled although everything leaves",
        "Stop always ends or Orderly",
        (
            '        if self.stop_state.phase != "leaving":\n            self._step(self._open_slots',
            "        if True:\n            self._step(self._open_slots",
        ),
        (
            "                if generation.state != OUTDATED:\n                    generation.move(OUTDATED)\n",
            "                pass\n",
        ),
    ),
    Fault(
        "a generation is begun although a stop was asked for",
        "Stop always ends",
        ("        if self.stop_state.phase:\n            return\n", ""),
    ),
    Fault(
        "what cannot be killed is waited for for ever",
        "Stop always ends",
        ("if not left or self._is_due(stop.phase_ends_at, now):", "if not left:"),
    ),
    Fault(
        "the exit does not wait for what is being killed",
        "Stop always ends",
        ("KILL_GRACE_S = 3.0", "KILL_GRACE_S = 0.0"),
    ),
    Fault(
        "a generation that is superseded goes on",
        "Latest wins",
        ("(not pending.supersedes or any(", "(True or any("),
    ),
    Fault(
        "a worker that has taken over and was then one too many still protects its generation from being superseded",
        "Latest wins",
        ("any(worker.active and worker.took_over for", "any(worker.took_over for"),
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
        ("(not pending.supersedes or any(", "(any("),
    ),
    Fault(
        "a watch after a HUP in the same swap is a HUP",
        "Latest wins",
        ("supersedes=earlier.supersedes or pending.supersedes", "supersedes=earlier.supersedes"),
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
        ("if earlier.not_before <= pending.not_before else pending", "if earlier else pending"),
    ),
    Fault(
        "what has changed is forgotten when a swap fails",
        "Latest wins",
        (
            "self._changed = merge_changed(self._changed, pending.changed)",
            "self._changed = pending.changed",
        ),
    ),
    Fault(
        "of two triggers only the later says what has changed",
        "Latest wins",
        ("changed=merge_changed(earlier.changed, pending.changed)", "changed=pending.changed"),
    ),
    Fault(
        "a trigger during a swap is lost",
        "Latest wins or Recovery or Recycling",
        (
            "        splay = (",
            "        if self.worker_table.coming is not None and not fact.supersedes:\n            return\n        splay = (",
        ),
    ),
    Fault(
        "a next generation does not wait for the one that was given up",
        "Latest wins",
        (
            "if any(not self._is_due(self._waited_for_until(worker), now) for worker in self.worker_table.leaving_never_ready()):",
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
        (
            'AUTOMATIC_TRIGGERS = ("start", "crash", "listener")',
            'AUTOMATIC_TRIGGERS = ("start", "crash")',
        ),
    ),
    Fault(
        "a crashed slot is not filled",
        "Recovery or No spin",
        (
            "current is not None and self.worker_table.active() and (coming is None",
            "False and (coming is None",
        ),
    ),
    Fault(
        "nothing follows when the last worker has died",
        "No spin or Recovery",
        ('self._request_swap(PendingSwap("crash", again, settings_from=like))', "self is None"),
    ),
    Fault(
        "a swap makes room although one more would fit",
        "Continuity",
        ("coming.room == 0)", "coming.room in (0, 1))"),
    ),
    Fault(
        "what makes room is not waited for",
        "Overlap",
        ("if coming.waits_until_alone and self._live_process_count(now, coming):", "if False:"),
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
            "worker.state != KILLED or not self._is_due(worker.kill_at + KILL_GRACE_S, now) for",
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
        ("                self._record_outage(failure, now, now - current.serving_at)\n", ""),
    ),
    Fault(
        "failures from before a generation that has held out are still counted",
        "Max failures",
        ("            self._outages.record_uptime(before.serving_at, now)\n", ""),
    ),
    Fault(
        "a stop retires with the signal of a swap",
        "Orderly",
        (
            'self._stop_signal(own) if self.stop_state.phase == "leaving" else own.signal_on_hup',
            "own.signal_on_hup",
        ),
    ),
    Fault(
        "old workers are asked to leave with the signal of the settings read last",
        "Orderly",
        ("own = self.worker_table.generations[worker.generation].settings", "own = self.settings"),
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
        ("            self._orders.append(orders.ForgetGeneration(generation.number))\n", ""),
    ),
    Fault(
        "a signal is passed to workers that are still starting",
        "Orderly",
        (
            "for worker in self.worker_table.ready()\n                if worker.pid in to",
            "for worker in self.worker_table.workers() if worker.pid in to",
        ),
    ),
    Fault(
        "after a slow start that failed the old program stays smaller",
        "Slow start",
        (
            "fewer = max(0, min(takers, old.accepting_before - 1))",
            "fewer = max(old.shrunk_by, min(takers, old.accepting_before - 1))",
        ),
    ),
    Fault(
        "a slow start takes the old program's last process",
        "Slow start",
        ("min(takers, old.accepting_before - 1)", "min(takers, old.accepting_before)"),
    ),
    Fault(
        "a slow start asks for a process before there is another for it",
        "Slow start",
        (
            "successor.accepting if successor is not None and",
            "successor.accepting + 1 if successor is not None and",
        ),
    ),
    Fault(
        "the signals of a slow start follow each other at once",
        "Slow start",
        (" or not self._is_due(old.last_resized_at + RESIZE_SIGNAL_INTERVAL_S, now)", ""),
    ),
    Fault(
        "a slow start is over with the first process",
        "Slow start",
        ("enough = worker.max_accepting >= had or", "enough = worker.max_accepting >= 0 or"),
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
            "if other.ready_at is not None and self._is_due(other.ready_at + delay, now):",
            "if True:",
        ),
    ),
    Fault(
        "all workers that are too big are replaced at once",
        "Recycling or Max surge or Continuity",
        ("if going or soon or current is None", "if soon or current is None"),
        (
            "if worker.slot < self.size and self._is_due(again, now):",
            "if worker.slot < self.size and worker not in [old for old, _ in going] and self._is_due(again, now):",
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
            "again = max(self._slot_backoff(worker.slot).not_before, self._recycle_backoff(worker.slot).not_before)",
            "again = self._slot_backoff(worker.slot).not_before",
        ),
    ),
    Fault(
        "a worker that is too big stays beside its successor",
        "Recycling",
        ("                self._finish_recycling(worker, other, now)\n", "                pass\n"),
    ),
    Fault(
        "a worker is recycled while a swap is due",
        "Recycling",
        (
            "self.worker_table.coming is not None or (pending is not None and pending.not_before <= now)",
            "self.worker_table.coming is not None",
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
            "            for worker in self.active()\n            if worker.slot == slot and",
            "            for worker in self.ready()\n            if worker.slot == slot and",
        ),
        module="worker_table",
    ),
    Fault(
        "a crashed slot stays empty while a check runs",
        "No spin",
        ("and (coming is None or coming.state == PREPARING)", "and coming is None"),
    ),
    Fault(
        "the oldest changes are told, not the latest",
        "Latest wins",
        ("        -MAX_CHANGED_NAMES:\n", "        :MAX_CHANGED_NAMES\n"),
    ),
    Fault(
        "a swap that was wanted is still wanted in a stop",
        "Stop always ends",
        (
            "            stop.signals_handled = 1\n            self._pending_swap = None\n",
            "            stop.signals_handled = 1\n",
        ),
    ),
    Fault(
        "a swap may be wished for in a stop",
        "Stop always ends",
        (
            "        if self.stop_state.signals_received:\n            return  # nothing new is begun\n",
            "",
        ),
    ),
    Fault(
        "what time alone made ready and what died soon is begun anew with what there is now",
        "Way back",
        (
            "wanted = died.settings_from if held_out else died.ready_by_time",
            "wanted = died.settings_from and held_out",
        ),
    ),
    Fault(
        "what was seen to be ready goes back, too",
        "Way back",
        (
            "wanted = died.settings_from if held_out else died.ready_by_time",
            "wanted = died.settings_from or not held_out",
        ),
    ),
    Fault(
        "it goes back again and again",
        "Way back",
        (
            "        if died.settings_from and not held_out:\n            self._last_stable = None\n",
            "",
        ),
    ),
    Fault(
        "what was refused is begun when what serves has died",
        "Way back",
        ("        if kept_on := self._generation_to_keep():\n            return kept_on, 0\n", ""),
    ),
    Fault(
        "what was refused is tried again when nothing serves",
        "Way back",
        (
            "        like = self._generation_to_keep()\n        if like and",
            "        like = 0\n        if like and",
        ),
    ),
    Fault(
        "what was refused is out for ever, also when it serves by now",
        "Way back",
        ("        if not generation.settings_from:\n            self._rejected = 0\n", ""),
    ),
    Fault(
        "a swap that was asked for goes back",
        "Way back",
        (
            "settings_from=pending.settings_from if pending.settings_from == earlier.settings_from else 0",
            "settings_from=pending.settings_from or earlier.settings_from",
        ),
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
            "        self._step(self._remove_finished, now)\n        self._step(self._exit_when_empty, now)\n",
            "        self._step(self._exit_when_empty, now)\n        self._step(self._remove_finished, now)\n",
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
