"""The terminal that `sidecar dev` is used from: what is typed there, and whether it still exists.

Job control (credentials(7), termios(3)): a process that reads a terminal without being in its
foreground group is sent SIGTTIN. While sidecar is in the background (Ctrl-Z, then `bg`), what is
typed is for another process, and no signal tells when sidecar is in the foreground again. So the
terminal is watched edge-triggered: each new line wakes sidecar once, whoever reads it, and a line
that nobody reads does not wake it again.
"""

from __future__ import annotations

import os
import select
import signal


class Terminal:
    """Descriptor 0, which is a terminal."""

    def __init__(self) -> None:
        try:
            # Opened again, because O_NONBLOCK on descriptor 0 would hold for every process that
            # shares it.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            self._fd = os.open(os.ttyname(0), flags)
        except OSError:  # it is another user's
            self._fd = os.dup(0)
        self._edges = select.epoll()
        self._edges.register(self._fd, select.EPOLLIN | select.EPOLLET)

    def fileno(self) -> int:
        """For select: readable when something was typed, or the terminal has gone."""
        return self._edges.fileno()

    def lines(self) -> list[bytes]:
        """The lines that were typed for sidecar."""
        self._edges.poll(0)
        readable = select.poll()
        readable.register(self._fd, select.POLLIN)
        # While SIGTTIN is blocked, a read from the background fails instead of stopping sidecar.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTIN])
        typed = b""
        try:
            while os.tcgetpgrp(self._fd) == os.getpgrp() and readable.poll(0):
                part = os.read(self._fd, 4096)
                if not part:  # Ctrl-D
                    break
                typed += part
        except OSError:  # the terminal has gone, or sidecar may not read it
            pass
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return typed.splitlines()

    def close(self) -> None:
        """Watch the terminal no more."""
        self._edges.close()
        os.close(self._fd)


def has_controlling_terminal() -> bool:
    """Whether this process has a controlling terminal. When it hangs up, the kernel takes it away."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
