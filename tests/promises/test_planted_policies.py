"""Is the simulation of the jobs any good? Each class overrides a method of a policy and so plants a
fault in it; a promise has to be broken by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sidecar.policies.ready_command import ReadyCommandPolicy
from sidecar.policies.reload import LOOKING_UP, ReloadPolicy, Step
from sidecar.policies.restart import RestartPolicy
from sidecar.policies.upgrade import IDLE, PROVEN, WANTED, UpgradePolicy

from .host_world import host_schedule, policy_classes
from .programs import Broken

# Within how many schedules a fault has to be found.
ENOUGH = 1500


class StartedAgainAtOnce(RestartPolicy):
    """a helper that ends is started again at once, however often | Paced restarts"""

    __slots__ = ()

    def ended(self, now: float, random_fraction: float) -> float:
        super().ended(now, random_fraction)
        self.start_at = now + self.min_pause_s
        return self.min_pause_s


class NotStartedAgain(RestartPolicy):
    """a helper that ends is not started again | Paced restarts or Recovery"""

    __slots__ = ()

    def ended(self, now: float, random_fraction: float) -> float:
        super().ended(now, random_fraction)
        self.start_at = float("inf")
        return self.start_at


class GrowsForEver(RestartPolicy):
    """the pauses before a restart grow without an end | Paced restarts"""

    __slots__ = ()

    def ended(self, now: float, random_fraction: float) -> float:
        self.backoff.set_limits(self.backoff.min_uptime, 3600.0)
        return super().ended(now, random_fraction)


class CannotStartIsLongLife(RestartPolicy):
    """a helper that cannot be started counts as one that lived since the start before | Paced restarts"""

    __slots__ = ()

    def ended(self, now: float, random_fraction: float) -> float:
        self.running = True
        return super().ended(now, random_fraction)


class StartedInStop(RestartPolicy):
    """the watcher is started again in a stop | Paced restarts"""

    __slots__ = ()

    def is_wanted(self, stopping: bool) -> bool:
        return True


class NothingInStop(RestartPolicy):
    """nothing is started again in a stop | Paced restarts"""

    __slots__ = ()

    def is_wanted(self, stopping: bool) -> bool:
        return not stopping


class OutdatedIsPaced(RestartPolicy):
    """after an upgrade a helper is replaced after a pause | Paced restarts"""

    __slots__ = ()

    def taken_over(self) -> None:
        pass


class OutdatedForEver(RestartPolicy):
    """after an upgrade a helper is never paced again | Paced restarts"""

    __slots__ = ()

    def ended(self, now: float, random_fraction: float) -> float:
        outdated = self.outdated
        pause = super().ended(now, random_fraction)
        self.outdated = outdated
        return pause


class RequestLost(ReloadPolicy):
    """a reload that is asked for during a reload is lost | Latest settings"""

    __slots__ = ()

    def requested(self, trigger: str, changed: tuple[str, ...] = ()) -> None:
        if not self.under_way:
            super().requested(trigger, changed)


class AnsweredByEarlierReading(ReloadPolicy):
    """a reload that is asked for during a reload is answered by that | Latest settings"""

    __slots__ = ()

    def requested(self, trigger: str, changed: tuple[str, ...] = ()) -> None:
        super().requested(trigger, changed)
        self._again = False


class EarlierFilesForgotten(ReloadPolicy):
    """of two reloads only the later says what has changed | Latest settings"""

    __slots__ = ()

    def requested(self, trigger: str, changed: tuple[str, ...] = ()) -> None:
        self._changed = ()
        super().requested(trigger, changed)


class SaveForgotten(ReloadPolicy):
    """a HUP during a reload for a saved file is a HUP alone | Latest settings"""

    __slots__ = ()

    def requested(self, trigger: str, changed: tuple[str, ...] = ()) -> None:
        self._supersedes = False
        super().requested(trigger, changed)


class ReadsTwice(ReloadPolicy):
    """the settings are read twice for one request | Latest settings"""

    __slots__ = ()

    def requested(self, trigger: str, changed: tuple[str, ...] = ()) -> None:
        super().requested(trigger, changed)
        self._again = True

    def decide(self, now: float, *, stopping: bool) -> list[Step]:
        again, asked = self._again, self._stage == "requested"
        steps = super().decide(now, stopping=stopping)
        self._again = again and asked
        return steps


class ReaderWaitedFor(ReloadPolicy):
    """a reader that hangs is waited for | Latest settings or Recovery"""

    __slots__ = ()

    def decide(self, now: float, *, stopping: bool) -> list[Step]:
        self._until = float("inf")
        return super().decide(now, stopping=stopping)

    def deadline(self) -> float:
        return float("inf")


class LookUpGoesOn(ReloadPolicy):
    """what is looked up for old settings is waited for, and they are put in force | Latest settings"""

    __slots__ = ()

    def decide(self, now: float, *, stopping: bool) -> list[Step]:
        if self._stage == LOOKING_UP:
            self._again = False
        return super().decide(now, stopping=stopping)


class ReloadsInStop(ReloadPolicy):
    """settings are put in force in a stop | Latest settings"""

    __slots__ = ()

    def decide(self, now: float, *, stopping: bool) -> list[Step]:
        return super().decide(now, stopping=False)


class AskedAtOnce(ReadyCommandPolicy):
    """a ready command that says no is run again at once | Asked until ready"""

    __slots__ = ()

    def command_said_no(self, worker: int, now: float) -> None:
        super().command_said_no(worker, now)
        if worker in self:
            self._workers[worker].at = now


class AskedOnce(ReadyCommandPolicy):
    """a ready command that says no is not run again | Asked until ready"""

    __slots__ = ()

    def command_said_no(self, worker: int, now: float) -> None:
        super().command_said_no(worker, now)
        if worker in self:
            self._workers[worker].at = float("inf")


class AskedEverLess(ReadyCommandPolicy):
    """the pauses between ready commands grow without an end | Asked until ready"""

    __slots__ = ()

    def command_said_no(self, worker: int, now: float) -> None:
        if worker in self:
            pause = self._workers[worker].pause
            super().command_said_no(worker, now)
            self._workers[worker].pause = pause * 1.5


class TwoAtATime(ReadyCommandPolicy):
    """a ready command is run beside one that hangs | Asked until ready or No spin"""

    __slots__ = ()

    def command_started(self, worker: int) -> None:
        super().command_started(worker)
        self._workers[worker].runs = False
        self._workers[worker].at += 0.5


class AskedWhenGone(ReadyCommandPolicy):
    """a ready command is run for a worker that is ready or has gone | Asked until ready or No spin"""

    __slots__ = ()

    def worker_done(self, worker: int) -> None:
        pass


class DoubtIsTheEnd(ReadyCommandPolicy):
    """a ready command that was not believed is not run again | Asked until ready"""

    __slots__ = ()

    def command_doubted(self, worker: int, now: float) -> None:
        super().command_doubted(worker, now)
        self.worker_done(worker)


class UpgradesInSwap(UpgradePolicy):
    """an upgrade does not wait for a swap | Upgrade goes on"""

    __slots__ = ()

    def decide(self, now: float, **what: Any) -> Any:
        return super().decide(now, **{**what, "coming": 0})


class UpgradesInReload(UpgradePolicy):
    """an upgrade does not wait for settings that are being read | Upgrade goes on"""

    __slots__ = ()

    def decide(self, now: float, **what: Any) -> Any:
        return super().decide(now, **{**what, "reading": False})


class UpgradesInStop(UpgradePolicy):
    """an upgrade goes on in a stop | Upgrade goes on"""

    __slots__ = ()

    def decide(self, now: float, **what: Any) -> Any:
        return super().decide(now, **{**what, "stopping": False})


class LostInSwap(UpgradePolicy):
    """an upgrade that is asked for in a swap is lost | Upgrade goes on"""

    __slots__ = ()

    def decide(self, now: float, **what: Any) -> Any:
        step = super().decide(now, **what)
        if what["coming"] and self._stage == WANTED:
            self._stage = IDLE
        return step


class CheckWaitedFor(UpgradePolicy):
    """a check that hangs is waited for | Upgrade goes on or Recovery"""

    __slots__ = ()

    def check_started(self, now: float) -> None:
        super().check_started(now)
        self._check_until = float("inf")


class OneClock(UpgradePolicy):
    """a swap that begins during the check is waited for as long as the check has left | Upgrade goes on"""

    __slots__ = ()

    def check_started(self, now: float) -> None:
        super().check_started(now)
        self._wait_until = self._check_until


class WaitsForEver(UpgradePolicy):
    """an upgrade waits for swaps for ever | Upgrade goes on"""

    __slots__ = ()

    def requested(self, now: float, only_check: bool) -> None:
        super().requested(now, only_check)
        self._wait_until = float("inf")


class CheckIsEnough(UpgradePolicy):
    """who asks for a check alone gets an upgrade | Upgrade goes on"""

    __slots__ = ()

    def requested(self, now: float, only_check: bool) -> None:
        super().requested(now, only_check=False)


class UpgradeIsCheck(UpgradePolicy):
    """an upgrade that is asked for during a check alone is not done | Upgrade goes on"""

    __slots__ = ()

    def requested(self, now: float, only_check: bool) -> None:
        before = self._only_check and self.on_its_way
        super().requested(now, only_check)
        self._only_check |= before


class ProofIsKept(UpgradePolicy):
    """what was proven before a swap is enough after it | Upgrade goes on"""

    __slots__ = ()

    def decide(self, now: float, **what: Any) -> Any:
        before = self._stage
        step = super().decide(now, **what)
        if before == PROVEN and self._stage == WANTED:
            self._stage = PROVEN
        return step


class SecondBeginsAnew(UpgradePolicy):
    """a second upgrade begins another check beside the first | Upgrade goes on"""

    __slots__ = ()

    def requested(self, now: float, only_check: bool) -> None:
        super().requested(now, only_check)
        self._stage = WANTED


class SaysItAgain(UpgradePolicy):
    """an upgrade says in every turn that it waits | Upgrade goes on"""

    __slots__ = ()

    def decide(self, now: float, **what: Any) -> Any:
        self._said_waiting = False
        return super().decide(now, **what)


KINDS = {
    "restart": RestartPolicy,
    "reload": ReloadPolicy,
    "ready_command": ReadyCommandPolicy,
    "upgrade": UpgradePolicy,
}
FAULTS = {
    fault: job for job, kind in KINDS.items() for fault in kind.__subclasses__() if fault.__doc__
}


def caught(fault: type) -> tuple[str, int, str]:
    """The promise that was broken by it, in which schedule, and how."""
    policies = policy_classes(**{FAULTS[fault]: fault})
    for seed in range(ENOUGH):
        try:
            host_schedule(seed, policies)
        except Broken as broken:
            return broken.promise, seed, broken.how
    return "none", ENOUGH, ""


def what(fault: type) -> str:
    """What is planted, in words."""
    return (fault.__doc__ or "").split(" | ")[0]


@pytest.mark.parametrize("fault", FAULTS, ids=what)
def test_a_fault_that_is_planted_in_a_policy_is_caught(fault: type) -> None:
    promises = (fault.__doc__ or "").split(" | ")[1].split(" or ")
    promise, seed, how = caught(fault)
    assert promise in promises, f"caught by {promise} in schedule {seed}: {how}"


def test_readme_lists_the_faults_in_policies_and_no_others() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    table = readme.partition("## Faults planted in policies")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if "|" in line]
    assert [row for row in rows if row not in ("planted", "---")] == list(map(what, FAULTS))


if __name__ == "__main__":
    for each in FAULTS:
        print(f"| {what(each)} | {' | '.join(map(str, caught(each)[:2]))} |", flush=True)
