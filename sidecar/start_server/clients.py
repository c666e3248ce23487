"""`--restart` and `--stop`: short-lived clients of a running start_server. They go by its pid file,
its status file and signals.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time

from sidecar.start_server.options import Refused

# How often --restart looks at the status file. It lives only as long as it waits.
POLL_INTERVAL_S = 0.02


def _open_pid_file(path: str) -> tuple[int, int]:
    """The descriptor of a pid file, and the pid in it. Raises Refused."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"failed to open file:{path}:{error.strerror}", error.errno or 255) from None
    text = os.read(fd, 32).strip()
    if not text.isdigit() or int(text) < 1:
        raise Refused(f"no process id in file:{path}")
    return fd, int(text)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError as error:
        name = signal.Signals(number).name
        raise Refused(
            f"failed to send {name} to the server process:{error.strerror}", error.errno or 255
        ) from None


def _is_unlocked(fd: int) -> bool:
    """Whether nobody holds the pid file. The lock is shared, so that two who ask do not see each
    other.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


def stop(pid_file: str) -> None:
    """Send TERM to the start_server of the pid file, and return when it has exited: the kernel
    drops its lock then. Raises Refused.
    """
    fd, pid = _open_pid_file(pid_file)
    print(
        f"stop_server (pid:{os.getpid()}) stopping now (pid:{pid})...", file=sys.stderr, flush=True
    )
    if _is_unlocked(fd):
        # Its process has exited: by now the number may be anybody's.
        raise Refused("failed to send SIGTERM to the server process:No such process", 3)
    _send(pid, signal.SIGTERM)
    fcntl.flock(fd, fcntl.LOCK_SH)
    os.close(fd)


def _generations(status_file: str) -> list[int]:
    """The generations in the status file, oldest first. Raises Refused."""
    try:
        with open(status_file, encoding="ascii", errors="replace") as file:
            numbers = {line.partition(":")[0] for line in file if ":" in line}
    except OSError as error:
        raise Refused(
            f"failed to open file:{status_file}:{error.strerror}", error.errno or 255
        ) from None
    return sorted(int(number) for number in numbers if number.isdigit())


def _failure(status_file: str) -> tuple[int, str]:
    """The generation that failed last (0: none) and why: the running start_server writes it beside
    the status file.
    """
    try:
        with open(f"{status_file}.failed", encoding="utf-8", errors="replace") as file:
            number, _, cause = file.readline().strip().partition(" ")
        return int(number), cause
    except (OSError, ValueError):
        return 0, ""


def restart(pid_file: str, status_file: str, timeout: float) -> None:
    """Send HUP, and return when one generation is left that is newer than before. Raises Refused
    after `timeout` seconds, or once none is to be expected.
    """
    fd, pid = _open_pid_file(pid_file)
    if _is_unlocked(fd):
        # Its process has exited: by now the number may be anybody's.
        raise Refused("failed to send SIGHUP to the server process:No such process", 3)
    # Empty while none is up: whichever comes then is newer.
    before = max(_generations(status_file), default=0)
    newest = max(before, _failure(status_file)[0])
    _send(pid, signal.SIGHUP)
    end = time.monotonic() + timeout
    while True:
        try:
            now = _generations(status_file)
        except Refused:
            now = []
        if len(now) == 1 and now[0] > before:
            return
        failed, cause = _failure(status_file)
        if failed > newest:
            serving = f"generation {now[-1]} serves on" if now else "none serves"
            raise Refused(f"generation {failed} failed: {cause}; {serving}", 1)
        if _is_unlocked(fd):
            raise Refused(f"the server process {pid} has gone", 1)
        if time.monotonic() > end:
            there = ", ".join(map(str, now)) or "none"
            raise Refused(f"not over within {timeout:g} secs; generations there: {there}", 1)
        time.sleep(POLL_INTERVAL_S)
