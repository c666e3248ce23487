"""What a child does between fork and exec.

PID 1 has one thread, so the child may run Python between the two; what it has to do there
(LISTEN_PID is its own pid; descriptors at fixed numbers; another user) is more than posix_spawn
offers. All signals are blocked across the fork, so that none of sidecar's handlers ever runs in the
child; the child leaves by exec or by `os._exit`, so none of sidecar's clean-up does either.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import signal

from sidecar.base.record import Record
from sidecar.system.worker_environment import with_own_pid

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    from sidecar.system.users import Credentials

# What a shell calls it: found but not to be run, and not found.
NOT_RUNNABLE, NOT_FOUND = 126, 127

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38

# _LINUX_CAPABILITY_VERSION_3 (capget(2)).
_CAPABILITIES = 0x20080522


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


class ChildSetup:
    """What every child is given: `mask` and `dispositions` are what its signals are set back to,
    `credentials` whom a worker runs as (None: as sidecar). Made before the first fork: other than as
    PID 1, sidecar asks to adopt the orphans of its children.
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
        self._terminal = os.isatty(0)
        self._no_new_privs = no_new_privs
        self._subreaper = os.getpid() != 1
        self._libc: ctypes.CDLL | None = None
        if self._subreaper or credentials is not None or no_new_privs:
            self._libc = _libc()
        if self._libc is not None and self._subreaper:
            self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def become(self, launch: Launch, report: int, parent: int) -> NoReturn:
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
            environment = with_own_pid(launch.environment, os.getpid(), launch.worker)
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
            why = reason(error)
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


def reason(error: OSError) -> str:
    """Why a program could not be started, in words."""
    if error.errno == errno.ENOEXEC:
        return "not a program (a script needs a #! line)"
    if error.errno == errno.E2BIG:
        return "its arguments and environment are too large together"
    return (error.strerror or str(error)).lower()


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
