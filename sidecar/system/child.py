"""What a child does between fork and exec.

PID 1 has one thread, so the child may run Python between the two. What it has to do there
(LISTEN_PID is its own pid; descriptors at fixed numbers; another user) is more than posix_spawn
offers. All signals are blocked across the fork, so none of sidecar's handlers ever runs in the
child; and the child leaves by exec or by `os._exit`, so none of sidecar's clean-up does either.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import signal

from sidecar.base.record import Record
from sidecar.system import libc
from sidecar.system.exec_error import exec_error_text, not_found_text, run_error_text
from sidecar.system.worker_environment import with_own_pid

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    from sidecar.system.users import Credentials

# The exit statuses by which a shell says: found but not executable, and not found.
EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND = 126, 127

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38  # linux/prctl.h
_LINUX_CAPABILITY_VERSION_3 = 0x20080522  # capget(2)

# A longer report of a failure is cut off.
_MAX_REPORT_BYTES = 4000


class StartDirectory(Record):
    """The directory that sidecar was started in: its path, "" if it has none. `via_symlink`: the
    path leads through a symlink, which may lead elsewhere one day.
    """

    path: str = ""
    via_symlink: bool = False


class Launch(Record):
    """All that a process is started with.

    - `handoff`: pairs of sidecar's descriptor and the process's. The process gets no other from 3 up.
    - `directory`: where it runs. It is entered as the process's user, and may be relative to
      `start_directory`.
    - `as_sidecar_user`: it is a part of sidecar and runs as sidecar's user, not as the workers'.
    - `is_worker`: its environment names its own pid, by which all that it starts is known.
    - `task`: instead of a program, this is called, and what it returns is written to descriptor 1
      in the format of `marshal`. For work that may block.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    handoff: Sequence[tuple[int, int]] = ()
    directory: str = ""
    umask: int | None = None
    as_sidecar_user: bool = False
    is_worker: bool = False
    start_directory: StartDirectory = StartDirectory()
    task: Callable[[], Any] | None = None


def start_directory(environ: Mapping[str, str]) -> StartDirectory:
    """The directory that this process is in: by the path in PWD, as shells keep it, if that names
    this directory, otherwise by its own path.
    """
    try:
        here, physical = os.stat("."), os.getcwd()
    except OSError:
        return StartDirectory()
    logical = environ.get("PWD", "")
    try:
        if logical.startswith("/") and os.path.samestat(os.stat(logical), here):
            return StartDirectory(logical, logical != physical)
    except OSError:
        pass
    return StartDirectory(physical)


class ChildSetup:
    """What every child is given. Make it before the first fork: unless it is PID 1, sidecar then
    asks to adopt the orphans of its children.

    A child's signals are set back to `mask` and `dispositions`. Workers run as `credentials` (None:
    as sidecar's user).
    """

    def __init__(
        self,
        mask: set[int],
        dispositions: Mapping[int, signal.Handlers],
        credentials: Credentials | None,
        no_new_privs: bool,
    ) -> None:
        self._mask = mask
        self._dispositions = dispositions
        self._credentials = credentials
        self._on_terminal = os.isatty(0)
        self._no_new_privs = no_new_privs
        self._is_subreaper = os.getpid() != 1
        self._libc: ctypes.CDLL | None = None
        #: What the child is doing, for the report if that fails.
        self._step = "start"
        if self._is_subreaper or credentials is not None or no_new_privs:
            self._libc = libc.load()
        if self._libc is not None and self._is_subreaper:
            self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def exec_program(self, launch: Launch, report_fd: int, parent_pid: int) -> NoReturn:
        """In the child: become the program. Never returns.

        If that fails, a sentence on the cause is written to `report_fd`, and the child ends with
        EXIT_NOT_EXECUTABLE or EXIT_NOT_FOUND.
        """
        status = EXIT_NOT_EXECUTABLE
        running = False
        try:
            signal.set_wakeup_fd(-1)
            # Out of the way of the numbers that the listeners are about to take.
            highest = max((target for _, target in launch.handoff), default=2)
            report_fd = fcntl.fcntl(report_fd, fcntl.F_DUPFD_CLOEXEC, highest + 1)
            self._leave_session()
            self._pass_descriptors(launch)
            self._enter_start_directory(launch)
            if not launch.as_sidecar_user:
                self._become_user()
            self._limit_privileges(launch)
            self._die_with(parent_pid)
            if launch.directory:
                self._step = f"enter {launch.directory}"
                os.chdir(launch.directory)
            environment = with_own_pid(launch.environment, os.getpid(), launch.is_worker)
            self._step = f"run {launch.argv[0]}"
            self._reset_signals()
            if launch.task is not None:
                self._do_task(launch.task, report_fd)
                os._exit(0)
            running = True
            _execute(launch.argv, environment)
            status = EXIT_NOT_FOUND
            self._report(report_fd, not_found_text(launch.argv[0], environment))
        except OSError as error:
            if running:
                why = run_error_text(error, launch.argv[0], launch.environment)
                if error.errno in (errno.ENOENT, errno.ENOTDIR):
                    status = EXIT_NOT_FOUND
            else:
                why = exec_error_text(error)
            self._report(report_fd, why)
        except BaseException as error:  # this process must never return into sidecar's loop
            self._report(report_fd, type(error).__name__)
        finally:
            os._exit(status)

    def _report(self, report_fd: int, why: str) -> None:
        text = f"cannot {self._step}: {why}"
        os.write(report_fd, text.encode("utf-8", "backslashreplace")[:_MAX_REPORT_BYTES])

    def _leave_session(self) -> None:
        self._step = "set up its process group"
        # A session of its own has no controlling terminal, and so cannot put input into ours
        # (TIOCSTI).
        os.setsid()
        if self._on_terminal:
            # Only one process could read it, and sidecar reads its keys from it.
            os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)

    def _pass_descriptors(self, launch: Launch) -> None:
        self._step = "pass the listeners on"
        for own, target in launch.handoff:
            os.dup2(own, target)
            os.set_inheritable(target, True)  # dup2 does that, unless both are the same
        if launch.umask is not None:
            os.umask(launch.umask)

    def _enter_start_directory(self, launch: Launch) -> None:
        if not launch.start_directory.path:
            return
        self._step = f"enter {launch.start_directory.path}"
        try:
            os.chdir(launch.start_directory.path)
        except OSError:
            # If the directory was removed or renamed, the child is still in it. If it was reached by
            # a link that leads nowhere now, the child would be in the old release: better none.
            if launch.start_directory.via_symlink:
                raise

    def _become_user(self) -> None:
        if self._credentials is None:
            return
        user = self._credentials
        self._step = f"become user {user.uid}, group {user.gid}"
        os.setgroups(user.groups)
        os.setgid(user.gid)
        os.setuid(user.uid)
        self._step = "give up its inheritable capabilities"
        _clear_inheritable_capabilities(self._libc)

    def _limit_privileges(self, launch: Launch) -> None:
        if self._libc is None or not self._no_new_privs or launch.as_sidecar_user:
            return
        self._step = "give up the way to new privileges (--no-new-privs)"
        if self._libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise libc.last_error()

    def _die_with(self, parent_pid: int) -> None:
        """If sidecar is killed outright, its children are sent SIGTERM. (Where it is PID 1 the
        kernel kills them.)
        """
        if self._libc is None or not self._is_subreaper:
            return
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent_pid:
            os._exit(0)

    def _reset_signals(self) -> None:
        for number, disposition in self._dispositions.items():
            signal.signal(number, disposition)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _do_task(self, task: Callable[[], Any], report_fd: int) -> None:
        """Do a task that may hang for ever; so it holds no socket and no pipe of sidecar's."""
        self._step = "do its task"
        os.closerange(3, report_fd)
        os.closerange(report_fd + 1, os.sysconf("SC_OPEN_MAX"))
        left = memoryview(marshal.dumps(task()))
        while left:
            left = left[os.write(1, left) :]


def _execute(argv: tuple[str, ...], environment: Mapping[str, str]) -> None:
    """Replace this process by the program, which is looked for in the environment's own PATH.
    Returns if it is not found; raises OSError if it cannot be run.
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


def _clear_inheritable_capabilities(library: ctypes.CDLL | None) -> None:
    """Clear this process's inheritable capabilities, and with them the ambient ones. By these a
    program would have what its user has not (capabilities(7)); some container engines set them.
    Raises OSError.
    """
    if library is None:
        return
    import ctypes  # noqa: PLC0415  (loaded by libc.load)

    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    # Twice, the low and the high 32 bits: effective, permitted, inheritable.
    sets = (ctypes.c_uint32 * 6)()
    if library.capget(header, sets):
        raise libc.last_error()
    sets[2] = sets[5] = 0
    if library.capset(header, sets):
        raise libc.last_error()
