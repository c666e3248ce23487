"""Processes: start one in a group of its own, signal it, reap everything.

Start is fork, a few system calls, exec. PID 1 has one thread, so the child may run Python between
the two; what it has to do there (LISTEN_PID is its own pid; descriptors at fixed numbers; another
user) is more than posix_spawn offers. All signals are blocked across the fork, so that none of
sidecar's handlers ever runs in the child; the child leaves by exec or by `os._exit`, so none of
sidecar's clean-up does either. Why an exec failed comes back through a pipe that closes itself on
exec, read when the child is reaped: PID 1 never waits for a child's chdir on a dead file server.

There is one owner of wait(2) in the process, `Workers.reap`: two would steal each other's statuses.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import signal
from collections import deque

from sidecar.base.errors import StartError
from sidecar.base.record import Descriptor, Record
from sidecar.system import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

# What a shell calls it: found but not to be run, and not found.
NOT_RUNNABLE, NOT_FOUND = 126, 127

# So many descriptors are looked at where /proc does not say which are open; whoever started sidecar
# has left open the lowest, if any.
MOST_DESCRIPTORS = 1024

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38

# _LINUX_CAPABILITY_VERSION_3 (capget(2)).
_CAPABILITIES = 0x20080522


class Credentials(Record):
    """Whom the workers run as. `login`: the variables that say who that is (HOME, USER, LOGNAME,
    SHELL), None for one that is to be unset.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    login: Mapping[str, str | None] = {}


class Place(Record):
    """The path of a directory, "" if it has none. `linked`: a symlink leads to it, which may lead
    elsewhere one day.
    """

    path: str = ""
    linked: bool = False


class Launch(Record):
    """All that a process is started with. `handoff` pairs sidecar's descriptor with the process's;
    it gets no other from 3 up.

    `own`: it is a part of sidecar, and runs as sidecar's user, not as the workers'. `worker`: it is
    one, and its environment names its own pid, by which all that it starts is known. It is started
    in `directory`, which is entered as its user and may be relative to `place`. `task`: instead of a
    program, what this gives is written to its output, as `marshal` has it: for work that may block.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    handoff: Sequence[tuple[int, int]] = ()
    directory: str = ""
    umask: int | None = None
    own: bool = False
    worker: bool = False
    place: Place = Place()
    task: Callable[[], Any] | None = None


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


def as_given(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what Python adds to its own at start-up: LC_CTYPE, where it finds no
    locale (PEP 538).
    """
    given = dict(environ)
    if "LC_CTYPE" in given:
        try:
            with open("/proc/self/environ", "rb") as block:
                began_with = block.read().split(b"\0")
        except OSError:
            return given
        if not any(entry.startswith(b"LC_CTYPE=") for entry in began_with):
            del given["LC_CTYPE"]
    return given


def place(environ: Mapping[str, str]) -> Place:
    """The path that sidecar was started in: PWD, as a shell has it, where that names the directory
    it is in, else that directory's own.
    """
    try:
        here, physical = os.stat("."), os.getcwd()
    except OSError:
        return Place()
    logical = environ.get("PWD", "")
    try:
        if logical.startswith("/") and os.path.samestat(os.stat(logical), here):
            return Place(logical, logical != physical)
    except OSError:
        pass
    return Place(physical)


def logged_in(environ: Mapping[str, str], user: Credentials | None) -> dict[str, str]:
    """The environment with the variables that say who the workers' user is."""
    changed = {**environ, **(user.login if user is not None else {})}
    return {name: value for name, value in changed.items() if value is not None}


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
        self._mask = mask
        self._dispositions = dispositions
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
        self._terminal = os.isatty(0)
        self._no_new_privs = no_new_privs
        self._subreaper = os.getpid() != 1
        self._libc: ctypes.CDLL | None = None
        if self._subreaper or credentials is not None or no_new_privs:
            self._libc = _libc()
        if self._libc is not None and self._subreaper:
            self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

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
                self._become(launch, child_report, parent)
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
            self._notes[pid] = f"what it said could not be read: {_reason(error)}"
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

    def _become(self, launch: Launch, report: int, parent: int) -> None:
        """In the child: turn into the program. Never returns."""
        status = NOT_RUNNABLE
        step = "start"
        try:
            signal.set_wakeup_fd(-1)
            targets = [target for _, target in launch.handoff]
            # Clear of the numbers that the listeners are about to take.
            report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, max(targets, default=2) + 1)
            step = "set up its process group"
            # A session of its own has no controlling terminal, and so cannot put input into ours
            # (TIOCSTI).
            os.setsid()
            if self._terminal:
                # Only one could read it, and sidecar's keys are read from it.
                os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
            step = "pass the listeners on"
            for own, target in launch.handoff:
                os.dup2(own, target)
                os.set_inheritable(target, True)  # dup2 does that, but not to itself
            if launch.umask is not None:
                os.umask(launch.umask)
            if launch.place.path:
                step = f"enter {launch.place.path}"
                try:
                    os.chdir(launch.place.path)
                except OSError:
                    # Of a directory that was removed or renamed we still have what it was. Of a link
                    # that leads nowhere that would be the old release: better none.
                    if launch.place.linked:
                        raise
            if self._credentials is not None and not launch.own:
                step = f"become user {self._credentials.uid}, group {self._credentials.gid}"
                os.setgroups(self._credentials.groups)
                os.setgid(self._credentials.gid)
                os.setuid(self._credentials.uid)
                step = "give up its inheritable capabilities"
                _inherit_no_capabilities(self._libc)
            if self._libc is not None:
                if self._no_new_privs and not launch.own:
                    step = "give up the way to new privileges (--no-new-privs)"
                    if self._libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
                        raise _failed()
                if self._subreaper:
                    # Should sidecar be killed outright, its workers are told. (As PID 1 the kernel
                    # sees to that.)
                    self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
                    if os.getppid() != parent:
                        os._exit(0)
            if launch.directory:
                step = f"enter {launch.directory}"
                os.chdir(launch.directory)
            environment = dict(launch.environment)
            if "LISTEN_FDS" in environment:
                environment["LISTEN_PID"] = str(os.getpid())
            if launch.worker:
                environment[procfs.MARK] = str(os.getpid())
            step = f"run {launch.argv[0]}"
            for number, disposition in self._dispositions.items():
                signal.signal(number, disposition)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            if launch.task is not None:
                step = "do its task"
                # Should it hang for ever, it must not hold sockets and pipes of ours.
                os.closerange(3, report)
                os.closerange(report + 1, os.sysconf("SC_OPEN_MAX"))
                _write(1, marshal.dumps(launch.task()))
                os._exit(0)
            status = _execute(launch.argv, environment)
            why = _why_not_found(launch.argv[0], environment)
            os.write(report, f"cannot {step}: {why}".encode("utf-8", "backslashreplace")[:4000])
        except OSError as error:
            why = _reason(error)
            if step.startswith("run") and error.errno == errno.ENOENT:
                why = _why_not_found(launch.argv[0], launch.environment)
            elif step.startswith("run") and error.errno == errno.ENOEXEC:
                why = _byte_order_mark(launch.argv[0]) or why
            os.write(report, f"cannot {step}: {why}".encode("utf-8", "backslashreplace")[:4000])
            if step.startswith("run") and error.errno in (errno.ENOENT, errno.ENOTDIR):
                status = NOT_FOUND
        except (
            BaseException
        ) as error:  # whatever it is, this process must not return into sidecar's loop
            os.write(report, f"cannot {step}: {type(error).__name__}".encode())
        finally:
            os._exit(status)

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


def _write(fd: int, data: bytes) -> None:
    """Write all of it."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _execute(argv: tuple[str, ...], environment: Mapping[str, str]) -> int:
    """Replace this process, looking argv[0] up in the environment's own PATH. Returns NOT_FOUND;
    raises OSError if it cannot be run.
    """
    program = argv[0]
    if "/" in program:
        os.execve(program, argv, environment)
    denied: OSError | None = None
    for directory in environment.get("PATH", os.defpath).split(os.pathsep):
        try:
            os.execve(os.path.join(directory, program), argv, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            denied = error
    if denied is not None:
        raise denied
    return NOT_FOUND


def _start_of(path: str) -> bytes:
    """The first bytes of a program's file, none if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(fd, 256)
        finally:
            os.close(fd)
    except OSError:
        return b""


def _byte_order_mark(path: str) -> str:
    if not _start_of(path).startswith(b"\xef\xbb\xbf#!"):
        return ""
    return "not a program: it begins with a byte order mark (BOM); save it without one"


def _why_not_found(program: str, environment: Mapping[str, str]) -> str:
    """What execve(2) means by ENOENT: the file may be there, and what is to run it not."""
    directories = [""] if "/" in program else environment.get("PATH", os.defpath).split(os.pathsep)
    for path in [os.path.join(directory, program) for directory in directories]:
        start = _start_of(path)
        if not start:
            continue
        if not start.startswith(b"#!"):
            return "it is there, but the loader that it was built for is not (another libc?)"
        interpreter = os.fsdecode(start[2:].split(b"\n")[0].strip(b" \t").split(b" ")[0])
        if interpreter.endswith("\r"):
            return f"its interpreter {interpreter!r} does not exist: save it with Unix line ends (it has CRLF)"
        return f"its interpreter {interpreter!r} does not exist"
    return "not found"


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOEXEC:
        return "not a program (a script needs a #! line)"
    if error.errno == errno.E2BIG:
        return "its arguments and environment are too large together"
    return (error.strerror or str(error)).lower()


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


def _libc() -> ctypes.CDLL:
    """The C library, for what `os` has not. Loaded before a fork, and only for who needs it: it
    costs PID 1 some milliseconds.
    """
    import ctypes  # noqa: PLC0415

    return ctypes.CDLL(None, use_errno=True)


def _failed() -> OSError:
    """The error of the last call into the C library."""
    import ctypes  # noqa: PLC0415

    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _inherit_no_capabilities(libc: ctypes.CDLL | None) -> None:
    """Clear this process's inheritable capabilities, and so the ambient ones: by them a program
    would have what its user has not (capabilities(7)). Some container engines set them. Raises
    OSError.
    """
    if libc is None:
        return
    import ctypes  # noqa: PLC0415  (loaded by _libc)

    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    # Twice, the low and the high 32: effective, permitted, inheritable.
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        raise _failed()
    sets[2] = sets[5] = 0
    if libc.capset(header, sets):
        raise _failed()


_NO_SHELLS = ("", "nologin", "false", "true")


def credentials(user: str, group: str) -> Credentials | None:
    """Whom `--user` (USER or USER:GROUP) and `--group` mean: names or numbers; a number needs no
    entry in passwd. Raises StartError.
    """
    user, colon, its_group = user.partition(":")
    if colon and (group or not its_group):
        raise StartError(f"--user {user}:{its_group}: say USER:GROUP, or USER and --group GROUP")
    group = group or its_group
    if not user and not group:
        return None
    import grp  # noqa: PLC0415  (only who asks for another user pays for them)
    import pwd  # noqa: PLC0415

    uid, gid, name = os.getuid(), os.getgid(), ""
    login: dict[str, str | None] = {}
    if user:
        # As Docker has it for a number without an entry: a home that is there, and no name.
        login = {"HOME": "/", "USER": None, "LOGNAME": None, "SHELL": None}
        try:
            entry = pwd.getpwuid(int(user)) if _digits(user) else pwd.getpwnam(user)
            uid, gid, name = entry.pw_uid, entry.pw_gid, entry.pw_name
            # As systemd has it: what is no shell is not called one.
            shell = None if os.path.basename(entry.pw_shell) in _NO_SHELLS else entry.pw_shell
            login = {"HOME": entry.pw_dir or "/", "USER": name, "LOGNAME": name, "SHELL": shell}
        except KeyError:
            if not _digits(user):
                raise StartError(
                    f"--user {user}: there is no such user; say a name from /etc/passwd or a number"
                ) from None
            uid = gid = int(user)
    if group:
        try:
            gid = int(group) if _digits(group) else grp.getgrnam(group).gr_gid
        except KeyError:
            raise StartError(
                f"--group {group}: there is no such group; say a name from /etc/group or a number"
            ) from None
    if (uid, gid) == (os.getuid(), os.getgid()):
        return None
    if not _may_become_others():
        raise StartError(
            f"--user {user or uid}: uid {os.geteuid()} may not start workers as another user; that needs CAP_SETUID and CAP_SETGID"
        )
    return Credentials(uid, gid, tuple(os.getgrouplist(name, gid)) if name else (gid,), login)


def _digits(text: str) -> bool:
    """Whether it is a number: isdigit() alone takes a superscript for one, which int() does not."""
    return text.isascii() and text.isdigit()


def _may_become_others() -> bool:
    """Whether this process has CAP_SETGID and CAP_SETUID, bits 6 and 7 of the effective set
    (capabilities(7)); root often lacks them.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            effective = next(
                int(line.split()[1], 16) for line in file if line.startswith("CapEff:")
            )
    except (OSError, StopIteration):
        return os.geteuid() == 0
    return effective >> 6 & 3 == 3
