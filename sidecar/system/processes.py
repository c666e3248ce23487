"""The child processes: start one in a group of its own, signal it, reap everything.

Starting is fork, what child.py does, exec. The text that says why an exec failed comes back through
a pipe that closes itself on exec. It is read when the child is reaped, so PID 1 never waits for a
child whose chdir hangs on a dead file server.

This class is the only one that calls wait(2): two would steal each other's statuses.
"""

from __future__ import annotations

import os
import signal
from collections import deque

from sidecar.base.record import Descriptor, Record
from sidecar.system import procfs
from sidecar.system.child import ChildSetup
from sidecar.system.exec_error import exec_error_text
from sidecar.system.orphans import Orphans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from sidecar.system.child import Launch
    from sidecar.system.users import Credentials

# The least bytes that a pipe passes on as one (PIPE_BUF): a report is never longer.
_MAX_REPORT_BYTES = 4096

# A program that was ended by signal N often exits with this plus N: a shell does, and a JVM.
_EXITED_BY_SIGNAL = 128


class Ended(Record):
    """A child that was reaped. `code` is its exit status or, when `signal` names what killed it,
    that signal's number.

    - `start_error`: why it never ran its program, "" if it did.
    - `group_empty`: no process of it is left. Otherwise `left_pids` are those that were found, and
      `strays` those of them that are not in its process group.
    - `core_dumped`: the kernel wrote a core file.
    - `reported_signal`: the signal that an exit status above 128 stands for.
    """

    pid: int
    code: int
    signal: str
    start_error: str
    group_empty: bool
    core_dumped: bool = False
    left_pids: tuple[int, ...] = ()
    reported_signal: str = ""
    strays: tuple[int, ...] = ()


class ChildProcesses:
    """The processes that sidecar has started, and their orphans.

    Their signals are set back to `mask` and `dispositions`. Workers run as `credentials` (None: as
    sidecar's user).
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
        self._all_signals = signal.valid_signals()
        #: By pid: the pipe on which a child that has not executed its program yet reports.
        self._report_fds: dict[int, int] = {}
        #: By pid of everything that was started and not reaped: why it could not run its program.
        self._start_errors: dict[int, str] = {}
        #: Leaders that were reaped while others of their group live on.
        self._groups_without_leader: set[int] = set()
        self._orphans = Orphans()
        self._abandoned: set[int] = set()
        #: Children that were reaped and not looked at yet: pid and wait status.
        self._reaped: deque[tuple[int, int]] = deque()
        #: What `collect` has found, until it is taken from here: children that have ended, and
        #: process groups (by their leader's pid) that have become empty.
        self.ended: deque[Ended] = deque()
        self.emptied: deque[int] = deque()
        #: Called with a report's descriptor before it is closed.
        self.before_report_close: Callable[[int], None] = lambda _: None

    def export_state(self) -> dict[str, Any]:
        """What is known of the processes, for a later version of sidecar: they stay its children."""
        return {
            "report_fds": {pid: Descriptor(fd) for pid, fd in self._report_fds.items()},
            "start_errors": self._start_errors,
            "groups_without_leader": self._groups_without_leader,
            "orphans": self._orphans.export_state(),
            "abandoned": self._abandoned,
        }

    def import_state(self, state: dict[str, Any]) -> None:
        """Take over what an earlier version has exported."""
        self._report_fds, self._start_errors = state["report_fds"], state["start_errors"]
        self._groups_without_leader = state["groups_without_leader"]
        self._abandoned = state["abandoned"]
        self._orphans.import_state(state["orphans"])

    def start(self, launch: Launch) -> int:
        """Start a process, leader of its own group. Returns its pid; raises OSError if there can be
        no process.

        A program that cannot be executed is no error here: the process then ends with
        EXIT_NOT_EXECUTABLE or EXIT_NOT_FOUND, and `Ended.start_error` says why.
        """
        report, child_report = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        parent = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._all_signals)
        try:
            pid = os.fork()
            if pid == 0:
                self._setup.exec_program(launch, child_report, parent)
        except OSError:
            os.close(report)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(child_report)
        self._report_fds[pid] = report
        self._start_errors[pid] = ""
        if launch.is_worker:
            self._orphans.add_leader(pid)
        return pid

    def has_executed(self, pid: int) -> bool:
        """Whether the process runs its program by now, or has failed to. Until then it is a copy of
        sidecar.
        """
        report = self._report_fds.get(pid)
        if report is None:
            return True
        try:
            text = os.read(report, _MAX_REPORT_BYTES).decode("utf-8", "replace")
            self._start_errors[pid] = text
        except BlockingIOError:
            return False
        except OSError as error:
            self._start_errors[pid] = f"what it said could not be read: {exec_error_text(error)}"
        self._close_report(pid)
        return True

    def exec_report_fd(self, pid: int) -> int:
        """A descriptor that becomes readable when `has_executed` turns true; -1 if it is true."""
        return self._report_fds.get(pid, -1)

    def runs_its_program(self, pid: int) -> bool:
        """Whether the process has become its program: it is no copy of sidecar, and it is not about
        to end because its program cannot be executed.
        """
        return self.has_executed(pid) and not self._start_errors.get(pid)

    def _close_report(self, pid: int) -> None:
        self.before_report_close(self._report_fds[pid])
        os.close(self._report_fds.pop(pid))

    def collect(self) -> None:
        """Reap every child that has ended since the last call. The results wait in `ended` and
        `emptied`.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._reaped.append((pid, status))
            self._orphans.reaped(pid)
        orphans: Mapping[int, list[int]] = {}
        leader_ended = self._orphans.has_leader_among(pid for pid, _ in self._reaped)
        if self._groups_without_leader or leader_ended:
            orphans = self.orphans()
        for leader in self._orphans.killed_among(orphans):
            # Its group was killed, and these were started in that very moment.
            self._signal_outside_group(leader, signal.SIGKILL)
        emptied = [
            pid
            for pid in self._groups_without_leader
            if pid not in orphans and not _group_exists(pid)
        ]
        self._groups_without_leader.difference_update(emptied)
        self.emptied.extend(emptied)
        self._orphans.forget_leaders(emptied)
        while self._reaped:
            each = self._reaped.popleft()
            try:
                self._add_ended(self._read_report_and_end(*each, orphans))
            except Exception:
                # What is known of its end even so: whoever waits for it must not wait in vain.
                self._add_ended(self._end(*each, "", orphans))
                raise

    def _add_ended(self, ended: Ended) -> None:
        if ended.group_empty:
            self._orphans.forget_leaders([ended.pid])
        else:
            self._groups_without_leader.add(ended.pid)
        self.ended.append(ended)

    def orphans(self) -> dict[int, list[int]]:
        """The orphans of workers, by the worker's leader: processes that have outlived their own
        parent and are sidecar's children now, in the leader's group or not.
        """
        return self._orphans.by_leader(self._start_errors)

    def unowned_orphans(self) -> list[int]:
        """The orphans that belong to no worker, as far as can be seen."""
        return self._orphans.unowned(self._start_errors)

    def reap(self) -> tuple[list[Ended], list[int]]:
        """Every child that has ended since the last call, and every process group (by its leader's
        pid) that has become empty meanwhile.
        """
        self.collect()
        ended, emptied = list(self.ended), list(self.emptied)
        self.ended.clear()
        self.emptied.clear()
        return ended, emptied

    def children(self) -> set[int]:
        """Every process that was started and has not been reaped."""
        return set(self._start_errors)

    def group_outlives_leader(self, pid: int) -> bool:
        """Whether the leader `pid` has ended and others of its group have not, as far as is known."""
        return pid in self._groups_without_leader

    def _read_report_and_end(
        self, pid: int, status: int, orphans: Mapping[int, list[int]]
    ) -> Ended:
        if pid in self._start_errors:  # otherwise it is an orphan
            self.has_executed(pid)
        return self._end(pid, status, self._start_errors.get(pid, ""), orphans)

    def _end(
        self, pid: int, status: int, start_error: str, orphans: Mapping[int, list[int]]
    ) -> Ended:
        """Forget a child that has been reaped. Returns how it ended."""
        code = os.waitstatus_to_exitcode(status)
        started_here = self._start_errors.pop(pid, None) is not None
        if pid in self._report_fds:  # another process holds the other end, so it is open and empty
            self._close_report(pid)
        group_empty = not started_here or (pid not in orphans and not _group_exists(pid))
        group = [] if group_empty else procfs.group_members(pid)
        strays = [] if group_empty else [each for each in orphans.get(pid, ()) if each not in group]
        return Ended(
            pid,
            abs(code),
            _signal_name(-code) if code < 0 else "",
            start_error,
            group_empty,
            core_dumped=os.WCOREDUMP(status),
            left_pids=(*group, *strays),
            reported_signal=(
                _signal_name(code - _EXITED_BY_SIGNAL) if code > _EXITED_BY_SIGNAL else ""
            ),
            strays=tuple(strays),
        )

    def was_stopped(self, pid: int) -> bool:
        """Whether a child has been stopped (SIGSTOP) since this was last asked."""
        try:
            return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG) is not None
        except ChildProcessError:
            return False

    def abandon(self, pid: int) -> None:
        """Kill a helper for whose answer nobody waits any more; nothing is logged when it ends.

        One that may not be killed is left alone.
        """
        self._abandoned.add(pid)
        try:
            self.kill(pid)
        except OSError:
            pass

    def abandoned(self) -> set[int]:
        """The processes that were abandoned and have not ended yet."""
        return set(self._abandoned)

    def was_abandoned(self, pid: int) -> bool:
        """Whether a process that was reaped had been abandoned. Ask once: it is forgotten then."""
        known = pid in self._abandoned
        self._abandoned.discard(pid)
        return known

    def signal(self, pid: int, name: str) -> None:
        """Send a signal (HUP, TERM …) to one process, if it still exists. Raises OSError if that is
        not allowed.
        """
        self._send(os.kill, pid, signal.Signals[f"SIG{name}"])

    def retire(self, pid: int, name: str) -> None:
        """Send a signal to a worker's leader, after which it is expected to end. Raises OSError if
        that is not allowed.
        """
        self._orphans.before_retire(pid)
        self.signal(pid, name)

    def retire_group(self, pid: int, name: str) -> None:
        """Send a signal to all that has outlived the leader `pid`. Raises OSError if that is not
        allowed.
        """
        number = signal.Signals[f"SIG{name}"]
        try:
            self._send(os.killpg, pid, number)
        finally:
            self._signal_outside_group(pid, number)

    def kill(self, pid: int) -> None:
        """SIGKILL the group that `pid` leads or led, and all else that has outlived it. Raises
        OSError if that is not allowed.
        """
        self._orphans.before_kill(pid)
        try:
            if not self._send(os.killpg, pid, signal.SIGKILL):
                # It is between its fork and its setsid, and has no group of its own yet.
                self._send(os.kill, pid, signal.SIGKILL)
        finally:
            self._signal_outside_group(pid, signal.SIGKILL)

    def _signal_outside_group(self, leader: int, number: int) -> None:
        self._orphans.signal_outside_group(leader, number, self._send)

    def _send(self, send: Callable[[int, int], None], target: int, number: int) -> bool:
        """Send a signal, as the workers' user where root may not (without CAP_KILL). Returns whether
        the target exists; raises OSError.
        """
        try:
            try:
                send(target, number)
            except PermissionError:
                if self._credentials is None:
                    raise
                # kill(2) looks at the effective uid. The real one stays root's, so the workers may
                # not signal sidecar meanwhile.
                before = os.geteuid()
                os.seteuid(self._credentials.uid)
                try:
                    send(target, number)
                finally:
                    os.seteuid(before)
        except ProcessLookupError:
            return False
        return True

    def kill_leftovers(self, spared: int = 0) -> bool:
        """SIGKILL every process below sidecar, except `spared` and what is below that. Returns
        whether there was any. Never raises: where /proc cannot be read it goes by what it knows.

        (Where sidecar is PID 1, the kernel does this when it exits.)
        """
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        except OSError:
            pass
        groups = {*self._start_errors, *self._groups_without_leader} - {spared}
        for group in groups:
            try:
                self.kill(group)
            except OSError:
                pass
        orphans = self._orphans.pids()
        _kill_each(orphans)
        try:
            keep = {spared, *procfs.descendants(spared)} if spared else set()
            left = [pid for pid in procfs.descendants(os.getpid()) if pid not in keep]
        except OSError:
            return bool(groups or orphans)
        _kill_each(left)
        return bool(left)


def _kill_each(pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass


def _signal_name(number: int) -> str:
    """A signal's name without SIG, or its number if it has no name."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
