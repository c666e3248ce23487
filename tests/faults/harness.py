"""One system call of sidecar fails, once or always, while it does what it is there for.

strace makes it fail (`-e inject=`), in sidecar's own process and in none of its children. A case is
one moment of a sidecar's life (MOMENTS), one system call that sidecar makes in it, one error that
the kernel gives for that call (ERRORS), and which of the calls fails. It runs like this:

    start a real sidecar, and a light load against it
    from here on the system call fails:
        do what the moment is about (a swap, a reload, an upgrade, a stop ...)
    from here on it does not:
        sidecar is ready, makes another swap, has no more descriptors than before, stops, with status 0

What did not hold comes back as sentences. A request may be lost in a stop only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.support import SERVER, Load, Sidecar, alive, free_port, marked

# What comes by itself has come by then, on a busy machine too (seconds).
PATIENCE = 30.0
# So long a fault that does not end is looked on, where nothing comes of it (seconds).
LASTING = 3.0

# One fault that passes is got over by then (seconds); the wait for an event is no part of the verdict.
SINGLE = 10.0

# The errors that Linux gives for a system call: no descriptor, no memory, no room, no permission, a
# broken disk, a policy that forbids it (seccomp, an LSM). Not write: nearly all of sidecar's go to
# pipes, which give no such errors.
ERRORS = {
    "accept4": ("EMFILE", "ENFILE", "ECONNABORTED", "ENOMEM"),
    "bind": ("EADDRINUSE", "EACCES"),
    "brk": ("ENOMEM",),
    "chmod": ("EPERM",),
    "clone": ("EAGAIN", "ENOMEM"),
    "clone3": ("ENOSYS",),
    "connect": ("ECONNREFUSED", "EACCES"),
    "dup": ("EMFILE",),
    "dup2": ("EMFILE",),
    "epoll_create1": ("EMFILE", "ENOMEM"),
    "epoll_ctl": ("ENOMEM", "ENOSPC"),
    "execve": ("ENOMEM", "EACCES", "ENOENT"),
    "fcntl": ("EMFILE",),
    "flock": ("ENOLCK",),
    "fork": ("EAGAIN", "ENOMEM"),
    "fstat": ("EIO",),
    "ftruncate": ("EIO", "ENOSPC"),
    "getdents64": ("EIO",),
    "getsockname": ("ENOBUFS",),
    "getsockopt": ("ENOBUFS",),
    "kill": ("EPERM",),
    "link": ("EPERM",),
    "listen": ("EADDRINUSE",),
    "lseek": ("EIO",),
    "lstat": ("EACCES", "EIO"),
    "memfd_create": ("EMFILE", "ENOMEM", "ENOSYS"),
    "mmap": ("ENOMEM",),
    "newfstatat": ("EACCES", "EIO"),
    "open": ("EMFILE", "EACCES", "EIO"),
    "openat": ("EMFILE", "ENFILE", "ENOENT", "EACCES", "EIO"),
    "pipe2": ("EMFILE", "ENFILE"),
    "poll": ("ENOMEM",),
    "prctl": ("EPERM",),
    "pread64": ("EIO",),
    "read": ("EIO",),
    "readlink": ("EACCES",),
    "recvfrom": ("ENOMEM", "ECONNRESET"),
    "recvmsg": ("ENOMEM",),
    "rename": ("EACCES", "EIO", "ENOSPC"),
    "sendto": ("ENOBUFS", "EPIPE", "ECONNREFUSED"),
    "setsockopt": ("ENOMEM",),
    "socket": ("EMFILE", "EACCES", "ENOBUFS"),
    "socketpair": ("EMFILE",),
    "stat": ("EACCES", "EIO"),
    "unlink": ("EACCES", "EIO"),
    "vfork": ("EAGAIN",),
}


# What the sidecars of this process have said, for whoever looks at one case.
LOGS: list[str] = []


# How a sentence begins that says what cannot be helped: between exec and the first line of sidecar's
# own there are the loader and the interpreter (docs/upgrade.md).
WINDOW = "the window of an upgrade: "


class Case(NamedTuple):
    """`when` is strace's: "3" the third call, "3+" the third and all that follow."""

    moment: str
    call: str
    error: str
    when: str

    def __str__(self) -> str:
        return f"{self.moment}: {self.call} {self.error} {self.when}"


class Life:
    """A sidecar with two workers, a settings file, a watcher, a check, a control socket, a pid file
    and a status file, and a load.
    """

    def __init__(self, where: Path, wrapper: tuple[str, ...] = ()) -> None:
        self.where = where
        (where / "code").mkdir(parents=True)
        (where / "env").mkdir()
        self.port, self.other = free_port(), free_port()
        self.configure("")
        self.run = Sidecar(
            *("--config", f"{where}/sidecar.yml", "--control", f"{where}/control"),
            *("--pid-file", f"{where}/pid", "--status-file", f"{where}/status"),
            program=(), port=False, cwd=where, wrapper=wrapper,
        )  # fmt: skip

    def configure(self, more: str, ports: str = "") -> None:
        """Write the settings file."""
        text = (
            f"command: {json.dumps(list(SERVER))}\nworkers: 2\ncheck: 'true'\nenvdir: env\n"
            f"port: [127.0.0.1:{self.port}{ports}]\ndrain-timeout: 3s\nmax-backoff: 1s\nwatch: code\n{more}"
        )
        (self.where / "new.yml").write_text(text)
        (self.where / "new.yml").rename(self.where / "sidecar.yml")

    def wait(self, what: Callable[[], object], patience: float = PATIENCE) -> bool:
        """Whether it came true, while sidecar lived."""
        end = time.monotonic() + patience
        while not what():
            if time.monotonic() > end or self.run.process.poll() is not None:
                return bool(what())
            time.sleep(0.01)
        return True

    def ask(self, command: str) -> dict:
        """The answer at the control socket; {} if there is none."""
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(PATIENCE)
                sock.connect(f"{self.where}/control")
                sock.sendall(json.dumps({"command": command}).encode() + b"\n")
                return json.loads(sock.makefile().readline() or "{}")
        except (OSError, ValueError):
            return {}

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.run.pid}/fd"))

    def at_rest(self) -> int:
        """The generation that serves, with all it has and nobody beside it but the watcher; 0 if it
        is not like that. It is asked for, because a log line may be lost where writing fails.
        """
        told = self.ask("status")
        try:
            children = Path(f"/proc/{self.run.pid}/task/{self.run.pid}/children").read_text()
        except OSError:
            return 0
        workers = [each for one in told.get("generations", ()) for each in one["workers"]]
        alone = len(told.get("generations", ())) == 1 and len(workers) == 2
        if not alone or told["state"] != "serving" or len(children.split()) != 3:
            return 0
        return int(told["generation"])


# --- the moments: what is done, and what may come of it


def swap(life: Life) -> tuple[str, ...]:
    life.run.signal("HUP")
    return "serving", "reload_rejected", "swap_failed"


def crash(life: Life) -> tuple[str, ...]:
    os.kill(life.run.workers()[0], signal.SIGKILL)
    return ("worker_ready",)


def control(life: Life) -> tuple[str, ...]:
    for command in ("status", "health", "events"):
        life.ask(command)
    return ()


def reload(life: Life) -> tuple[str, ...]:
    life.configure("watch-ignore: '*.tmp'\n", f", 127.0.0.1:{life.other}")
    life.run.signal("HUP")
    return "serving", "reload_rejected", "swap_failed"


def upgrade(life: Life) -> tuple[str, ...]:
    life.run.signal("USR2")
    return "upgraded", "upgrade_failed"


def saved(life: Life) -> tuple[str, ...]:
    (life.where / "code" / "a.py").write_text("1")
    return "serving", "swap_failed"


def stop(life: Life) -> tuple[str, ...]:
    life.run.signal("TERM")
    return ()


MOMENTS: dict[str, Callable[[Life], tuple[str, ...]]] = {
    each.__name__: each for each in (swap, crash, control, reload, saved, upgrade, stop)
}
START = "start"


class Tracer:
    """strace, attached to one process: `options` say what it is to do. Ends with `detach`."""

    def __init__(self, pid: int, *options: str) -> None:
        self._process = subprocess.Popen(
            ["strace", "-p", str(pid), *options], stderr=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stderr is not None
        said = self._process.stderr.readline().decode()
        if "attached" not in said:
            self.detach()
            raise RuntimeError(f"strace: {said}")

    def detach(self) -> None:
        self._process.terminate()
        self._process.communicate()


def why_not() -> str:
    """Why strace cannot do it here; "" if it can."""
    if shutil.which("strace") is None:
        return "needs strace"
    answer = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True)
    return "" if answer.returncode == 0 else "strace may not trace here (no ptrace)"


def counts(moment: str, where: Path) -> Counter[str]:
    """The system calls that sidecar makes in a moment."""
    trace = where / "trace"
    wrapper = ("strace", "-DDD", "-qq", "-o", str(trace)) if moment == START else ()
    life = Life(where, wrapper)
    try:
        assert life.wait(life.at_rest)
        life.wait(lambda: life.run.seen("watching"))
        if moment != START:
            tracer = Tracer(life.run.pid, "-o", str(trace))
            _do(MOMENTS[moment], life, PATIENCE)
            life.wait(life.at_rest, LASTING)
            tracer.detach()
    finally:
        life.run.clean_up()
    return Counter(re.findall(r"^([a-z_0-9]+)\(", trace.read_text(), re.MULTILINE))


def cases(moment: str, found: Counter[str]) -> list[Case]:
    """All that there are: of each call the first ones, the last and some between; and all of them."""
    listed = []
    for call, count in sorted(found.items()):
        numbers = {*range(1, 4), count // 4, count // 2, count * 3 // 4, count}
        whens = [*(str(each) for each in sorted(numbers) if 1 <= each <= count), "1+"]
        if count > 3:
            whens.append(f"{count // 2}+")
        for error in ERRORS.get(call, ()):
            listed += [Case(moment, call, error, when) for when in whens]
    return listed


def _do(action: Callable[[Life], tuple[str, ...]], life: Life, patience: float) -> None:
    """Do it, and wait until something has come of it."""
    before = len(life.run.events)
    outcomes = action(life)
    if outcomes:
        life.wait(
            lambda: any(each["event"] in outcomes for each in life.run.events[before:]), patience
        )


def play(case: Case, where: Path) -> list[str]:
    """Run a case; what did not hold, in sentences."""
    inject = ("-e", f"trace={case.call}", "-e", f"inject={case.call}:error={case.error}:when={case.when}")  # fmt: skip
    if case.moment == START:
        return _play_start(where, inject)
    life = Life(where)
    broken: list[str] = []
    try:
        if not (life.wait(life.at_rest) and life.wait(lambda: life.run.seen("watching"))):
            return [f"it did not even start\n{life.run}"]
        if case.moment == "stop":
            tracer = Tracer(life.run.pid, "-o", "/dev/null", *inject)
            life.run.signal("TERM")
            broken += _ended(life, whatever=True)
            tracer.detach()
            return broken + _said(life)
        before = life.descriptors()
        with Load(life.port, one_shot=1, kept=1, pause=0.02) as load:
            tracer = Tracer(life.run.pid, "-o", "/dev/null", *inject)
            _do(MOMENTS[case.moment], life, LASTING if case.when.endswith("+") else SINGLE)
            tracer.detach()
            broken += _goes_on(life, before)
        code = life.run.process.returncode
        if code is not None and life.run.seen("upgrading") and not life.run.seen("upgraded"):
            said = " ".join(_said(life))
            if not said or re.search(r"sidecar/(__main__|cli|takeover)\.py", said):
                return [f"{WINDOW}status {code} {said}"]
        # One whose worker was killed had no answer to get.
        if load.failures and case.moment != crash.__name__:
            broken.append(f"{len(load.failures)} requests failed: {load.failures[0]}")
        if life.run.process.poll() is None:
            life.run.signal("TERM")
            broken += _ended(life)
        return broken + _said(life)
    finally:
        life.run.clean_up()
        LOGS.append(str(life.run))


def _play_start(where: Path, inject: tuple[str, ...]) -> list[str]:
    """It starts, or says why not and leaves nothing."""
    life = Life(where, wrapper=("strace", "-DDD", "-qq", "-o", "/dev/null", *inject))
    try:
        broken: list[str] = []
        served = life.wait(lambda: life.run.seen("serving") or life.at_rest())
        if life.run.process.poll() is None:
            if not served:
                broken.append("it neither serves nor ends")
            life.run.signal("TERM")
            broken += _ended(life, whatever=True)
        elif life.run.process.returncode == 0:
            broken.append("it ended with status 0")
        return broken + _said(life)
    finally:
        life.run.clean_up()


def _goes_on(life: Life, before: int) -> list[str]:
    """The fault is over: all is as ever."""
    if life.run.process.poll() is not None:
        return [f"sidecar ended with status {life.run.process.returncode}"]
    if not life.wait(life.at_rest):
        return [f"it does not come to rest afterwards: {life.ask('health')}"]
    broken = []
    number = life.at_rest()
    life.run.signal("HUP")
    if not life.wait(lambda: life.at_rest() > number):
        broken.append("it makes no swap any more")
    if not life.wait(lambda: life.descriptors() <= before + _more(life)):
        broken.append(f"{before} descriptors became {life.descriptors()}")
    return broken


def _more(life: Life) -> int:
    """How many listeners have come with a reload."""
    return len(life.ask("status").get("listeners", [0])) - 1


def _ended(life: Life, whatever: bool = False) -> list[str]:
    """It ends in time, and leaves nobody behind."""
    run = life.run
    try:
        status = run.process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        return ["the stop does not end"]
    broken = []
    if status and not whatever:
        broken.append(f"it stopped with status {status}")
    if left := [pid for pid in marked(run.mark) if not _is_strace(pid)]:
        broken.append(f"{len(left)} processes are left")
    return broken


def _is_strace(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "strace" or not alive(pid)
    except OSError:
        return True


def _said(life: Life) -> list[str]:
    """What it must never say."""
    run = life.run
    run.process.poll()
    broken = [
        f"a defect: {each.get('error')} at {each.get('where')}"
        for each in run.seen("internal_error")[:3]
    ]
    text = "\n".join(run.output)
    # Not ours: what Python says of a pipe that gives an error which no pipe gives.
    if (
        "Traceback" in text
        and "signal wakeup fd" not in text
        and re.search(r'File ".*/sidecar/[\w/]+\.py"', text)
    ):
        broken.append(f"a traceback: {_last(text)}")
    return broken


def _last(text: str) -> str:
    """The place of sidecar's, and the error, of the last traceback."""
    places = re.findall(r'File ".*/(sidecar/[\w/]+\.py)", line (\d+)', text)
    errors = [line for line in text.splitlines() if re.match(r"[A-Za-z.]*(Error|Exception|Interrupt)", line)]  # fmt: skip
    return f"{':'.join(places[-1]) if places else '?'} {errors[-1] if errors else ''}"


if __name__ == "__main__":  # one case by hand: MOMENT CALL ERROR WHEN
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        for sentence in play(Case(*sys.argv[1:]), Path(directory) / "life") or ["all held"]:
            print(sentence)
        print(*LOGS, sep="\n")
