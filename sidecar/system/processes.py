"""Processes: start one in a group of its own, signal it, reap everything.

Start is fork, what child.py does, exec. Why an exec failed comes back through a pipe that closes
itself on exec, read when the child is reaped: PID 1 never waits for a child's chdir on a dead file
server.

There is one owner of wait(2) in the process, `Workers.reap`: two would steal each other's statuses.
"""

from __future__ import annotations

import os
import signal
from collections import deque

from sidecar.base.record import Descriptor, Record
from sidecar.system import procfs
from sidecar.system.child import ChildSetup, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from sidecar.system.child import Launch
    from sidecar.system.users import Credentials


# So many descriptors are looked at where /proc does not say which are open; whoever started sidecar
# has left open the lowest, if any.
MOST_DESCRIPTORS = 1024


class Ended(Record):
    """A child that was reaped: `code` is its exit status or, when `signal` names what killed it,
    that signal's number.

    `note` says why it never ran its program; `alone` whether no process of it is left, else `left`
    has the pids that were found, and `strays` those of them that are not in its group. `reported` names the signal that an exit status of 128 and
    more stands for, as a shell or a JVM tells that it was ended by one.
    """

    pid: int
    code: int
    signal: str
    note: str
    alone: bool
    core: bool = False
    left: tuple[int, ...] = ()
    reported: str = ""
    strays: tuple[int, ...] = ()


class Workers:
    """The processes sidecar has started.

    `mask` and `dispositions` are what their signals are set back to, `credentials` whom they run as
    (None: as sidecar).
    """

    def __init__(
        self,
        mask: set[int],
        dispositions: Mapping[int, signal.Handlers],
        credentials: Credentials | None = None,
        no_new_privs: bool = False,
    ) -> None:
        self._credentials = credentials
        self._setup = ChildSetup(mask, dispositions, credentials, no_new_privs)
        self._everything = signal.valid_signals()
        self._reports: dict[int, int] = {}
        self._notes: dict[int, str] = {}
        self._leaderless: set[int] = set()
        # The workers' leaders, until nothing of the worker is left; of each that was asked to leave
        # what was below it then, with the moment each was started; those that were killed.
        self._leaders: set[int] = set()
        self._below: dict[int, dict[int, str]] = {}
        self._doomed: set[int] = set()
        # Our orphans, by whose they are. They keep their pids until they are reaped here.
        self._whose: dict[int, int] = {}
        self._abandoned: set[int] = set()
        self._unseen: deque[tuple[int, int]] = deque()
        #: What `collect` has found, until it is taken from here: children that have ended, and
        #: process groups (by their leader's pid) that have become empty.
        self.ended: deque[Ended] = deque()
        self.emptied: deque[int] = deque()
        #: Told of a report's descriptor before it is closed.
        self.closing: Callable[[int], None] = lambda _: None

    def dump(self) -> dict[str, Any]:
        """What is known of the processes, for a later version of sidecar, whose children they stay."""
        return {
            "reports": {pid: Descriptor(fd) for pid, fd in self._reports.items()},
            "notes": self._notes,
            "leaderless": self._leaderless,
            "leaders": self._leaders,
            "below": self._below,
            "doomed": self._doomed,
            "whose": self._whose,
            "abandoned": self._abandoned,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Know what an earlier version has dumped."""
        self._reports, self._notes = state["reports"], state["notes"]
        self._leaderless, self._abandoned = state["leaderless"], state["abandoned"]
        self._leaders, self._below = state.get("leaders", set()), state.get("below", {})
        self._doomed, self._whose = state.get("doomed", set()), state.get("whose", {})

    def start(self, launch: Launch) -> int:
        """Start a process, leader of its own group, and return its pid. Raises OSError if none can
        be made.

        That its program cannot be run is no error here: the process then ends with 126 or 127 and
        `Ended.note` says why.
        """
        report, child_report = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        parent = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._everything)
        try:
            pid = os.fork()
            if pid == 0:
                self._setup.become(launch, child_report, parent)
        except OSError:
            os.close(report)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(child_report)
        self._reports[pid] = report
        self._notes[pid] = ""
        if launch.worker:
            self._leaders.add(pid)
        return pid

    def executed(self, pid: int) -> bool:
        """Whether the process runs its program by now, or has failed to: until then it is a copy of
        sidecar.
        """
        report = self._reports.get(pid)
        if report is None:
            return True
        try:
            self._notes[pid] = os.read(report, 4096).decode("utf-8", "replace")
        except BlockingIOError:
            return False
        except OSError as error:
            self._notes[pid] = f"what it said could not be read: {reason(error)}"
        self._close_report(pid)
        return True

    def report(self, pid: int) -> int:
        """A descriptor that can be read as soon as `executed` says yes, -1 if it does already."""
        return self._reports.get(pid, -1)

    def runs_its_program(self, pid: int) -> bool:
        """Whether the process has become its program: it is no copy of sidecar, nor about to end
        because its program cannot be run.
        """
        return self.executed(pid) and not self._notes.get(pid)

    def _close_report(self, pid: int) -> None:
        self.closing(self._reports[pid])
        os.close(self._reports.pop(pid))

    def collect(self) -> None:
        """Reap every child that has ended since. What comes of it waits in `ended` and `emptied`."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._unseen.append((pid, status))
            self._whose.pop(pid, None)
        strays: Mapping[int, list[int]] = {}
        if self._leaderless or not self._leaders.isdisjoint(pid for pid, _ in self._unseen):
            strays = self.strays()
        for leader in self._doomed.intersection(strays):
            self._signal_outside(leader, signal.SIGKILL)  # started in the moment of the kill
        emptied = [pid for pid in self._leaderless if pid not in strays and not _exists(pid)]
        self._leaderless.difference_update(emptied)
        self.emptied.extend(emptied)
        self._forget_leaders(emptied)
        while self._unseen:
            each = self._unseen.popleft()
            try:
                self._see(self._ended(*each, strays))
            except Exception:
                # What is known of it without its note: nobody may wait for it in vain.
                self._see(self._gone(*each, "", strays))
                raise

    def _see(self, ended: Ended) -> None:
        if ended.alone:
            self._forget_leaders([ended.pid])
        else:
            self._leaderless.add(ended.pid)
        self.ended.append(ended)

    def strays(self) -> dict[int, list[int]]:
        """The orphans of workers, by the worker's leader: processes that have outlived their own
        parent and are our children now, in the leader's group or not.
        """
        try:
            for pid in procfs.adopted(self._notes):
                if pid not in self._whose and (leader := self._owner(pid)):
                    self._whose[pid] = leader
        except OSError:
            pass  # what was known of them is still known
        found: dict[int, list[int]] = {}
        for pid, leader in self._whose.items():
            found.setdefault(leader, []).append(pid)
        return found

    def unowned(self) -> list[int]:
        """The orphans that belong to no worker, as far as can be seen."""
        self.strays()
        try:
            return [pid for pid in procfs.adopted(self._notes) if pid not in self._whose]
        except OSError:
            return []

    def _owner(self, pid: int) -> int:
        for leader, below in self._below.items():
            if pid in below and below[pid] == procfs.started(pid):
                return leader
        return procfs.worker_of(pid, self._leaders)

    def _forget_leaders(self, pids: Iterable[int]) -> None:
        for pid in pids:
            self._leaders.discard(pid)
            self._doomed.discard(pid)
            self._below.pop(pid, None)

    def reap(self) -> tuple[list[Ended], list[int]]:
        """Every child that has ended since, and every process group (by its leader's pid) that has
        become empty meanwhile.
        """
        self.collect()
        ended, emptied = list(self.ended), list(self.emptied)
        self.ended.clear()
        self.emptied.clear()
        return ended, emptied

    def children(self) -> set[int]:
        """Every process that was started and has not been reaped."""
        return set(self._notes)

    def lives_on(self, pid: int) -> bool:
        """Whether the leader `pid` has gone and others of its group have not, as far as is known."""
        return pid in self._leaderless

    def abandoned(self) -> set[int]:
        """Those that were killed because nobody waits for them."""
        return set(self._abandoned)

    def _ended(self, pid: int, status: int, strays: Mapping[int, list[int]]) -> Ended:
        if pid in self._notes:  # else it is an orphan that was adopted
            self.executed(pid)
        return self._gone(pid, status, self._notes.get(pid, ""), strays)

    def _gone(self, pid: int, status: int, note: str, strays: Mapping[int, list[int]]) -> Ended:
        """Forget a child that has been reaped; how it ended."""
        code = os.waitstatus_to_exitcode(status)
        ours = self._notes.pop(pid, None) is not None
        if pid in self._reports:  # somebody else holds the other end, so it is open and empty
            self._close_report(pid)
        alone = not ours or (pid not in strays and not _exists(pid))
        group = [] if alone else procfs.members(pid)
        outside = [] if alone else [each for each in strays.get(pid, ()) if each not in group]
        return Ended(
            pid,
            abs(code),
            _name(-code) if code < 0 else "",
            note,
            alone,
            os.WCOREDUMP(status),
            (*group, *outside),
            _name(code - 128) if code > 128 else "",
            tuple(outside),
        )

    def stopped(self, pid: int) -> bool:
        """Whether a child has been stopped (SIGSTOP) since this was last asked."""
        try:
            return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG) is not None
        except ChildProcessError:
            return False

    def abandon(self, pid: int) -> None:
        """Kill a helper whose answer nobody waits for any more; it is reaped without a word.

        One that may not be killed is left alone: its end is of no interest.
        """
        self._abandoned.add(pid)
        try:
            self.kill(pid)
        except OSError:
            pass

    def forget(self, pid: int) -> bool:
        """Whether the process that was reaped had been abandoned."""
        known = pid in self._abandoned
        self._abandoned.discard(pid)
        return known

    def signal(self, pid: int, name: str) -> None:
        """Send a signal to one process. Raises OSError if that is not allowed; a process that has
        gone is none.
        """
        self._send(os.kill, pid, signal.Signals[f"SIG{name}"])

    def retire(self, pid: int, name: str) -> None:
        """Send a signal to a worker's leader, and remember what is below it. Raises OSError."""
        try:
            self._below[pid] = {each: procfs.started(each) for each in procfs.below([pid])[1:]}
        except OSError:
            pass
        self.signal(pid, name)

    def retire_group(self, pid: int, name: str) -> None:
        """Send a signal to all that has outlived the leader `pid`. Raises OSError if that is not
        allowed.
        """
        number = signal.Signals[f"SIG{name}"]
        try:
            self._send(os.killpg, pid, number)
        finally:
            self._signal_outside(pid, number)

    def kill(self, pid: int) -> None:
        """SIGKILL the group led (once led) by `pid`, and all else that has outlived it. Raises OSError
        if that is not allowed.
        """
        if pid in self._leaders:
            self._doomed.add(pid)
        try:
            if not self._send(os.killpg, pid, signal.SIGKILL):
                # Killed between its fork and its setsid.
                self._send(os.kill, pid, signal.SIGKILL)
        finally:
            self._signal_outside(pid, signal.SIGKILL)

    def _signal_outside(self, leader: int, number: int) -> None:
        """Send a signal to the worker's orphans that are not in its group, and what is below them."""
        orphans = [pid for pid, whose in self._whose.items() if whose == leader]
        try:
            found = procfs.below(orphans) if orphans else []
        except OSError:
            found = orphans
        for pid in found:
            try:
                if os.getpgid(pid) != leader:
                    self._send(os.kill, pid, number)
            except OSError:
                continue

    def _send(self, send: Callable[[int, int], None], target: int, number: int) -> bool:
        """Send, as the workers' user where root may not (without CAP_KILL); whether the target was
        there. Raises OSError.
        """
        try:
            try:
                send(target, number)
            except PermissionError:
                if self._credentials is None:
                    raise
                # kill(2) asks for the effective uid; the real one stays root's, so the workers may
                # not signal us meanwhile.
                before = os.geteuid()
                os.seteuid(self._credentials.uid)
                try:
                    send(target, number)
                finally:
                    os.seteuid(before)
        except ProcessLookupError:
            return False
        return True

    def sweep(self, spared: int = 0) -> bool:
        """SIGKILL whatever is left below sidecar, but `spared` and what is below that; whether
        anything is. Never raises: where /proc cannot be read it goes by what it knows.

        (As PID 1 the kernel does it when sidecar leaves.)
        """
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        except OSError:
            pass
        groups = {*self._notes, *self._leaderless} - {spared}
        for group in groups:
            try:
                self.kill(group)
            except OSError:
                pass
        for pid in self._whose:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        try:
            keep = {spared, *procfs.descendants(spared)} if spared else set()
            left = [pid for pid in procfs.descendants(os.getpid()) if pid not in keep]
        except OSError:
            return bool(groups or self._whose)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        return bool(left)


def seal() -> None:
    """Keep every descriptor that sidecar was started with, but 0, 1 and 2, from its children. (Its
    own are never inherited: PEP 446.)

    Where 0, 1 or 2 is closed it is opened on /dev/null, lest a listener gets that number.
    """
    fd = os.open(os.devnull, os.O_RDWR)
    while fd < 3:
        os.set_inheritable(fd, True)
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # no /proc, or it may not be read
        numbers = list(range(min(os.sysconf("SC_OPEN_MAX"), MOST_DESCRIPTORS)))
    for number in numbers:
        if number >= 3:
            try:
                os.set_inheritable(number, False)
            except OSError:  # not open, or no more: one listed the directory
                pass


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
