"""The terminal that `sidecar dev` is used from: what is typed there, and whether it has gone.

Job control (`man 7 tty_ioctl`, credentials(7)): who reads a terminal without being in its
foreground group is sent SIGTTIN. While sidecar is in the background (Ctrl-Z, then `bg`) what is
typed is for somebody else, and no signal tells that it is in the foreground again. So the terminal
is waited for by its edges: each new line wakes sidecar once, whoever reads it, and one that nobody
reads does not wake it again.
"""

from __future__ import annotations

import os
import select
import signal


class Terminal:
    """Descriptor 0, which is a terminal. Readable when something happened there."""

    def __init__(self) -> None:
        try:
            # Opened anew, so that not to wait holds for this descriptor alone, and not for whoever
            # shares descriptor 0.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            self._fd = os.open(os.ttyname(0), flags)
        except OSError:  # another user's
            self._fd = os.dup(0)
        self._edges = select.epoll()
        self._edges.register(self._fd, select.EPOLLIN | select.EPOLLET)

    def fileno(self) -> int:
        """Readable when something happened there."""
        return self._edges.fileno()

    def lines(self) -> list[bytes]:
        """The lines that were typed for sidecar."""
        self._edges.poll(0)
        readable = select.poll()
        readable.register(self._fd, select.POLLIN)
        # Blocked, SIGTTIN does not come, and a read from the background fails instead of stopping.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTIN])
        typed = b""
        try:
            while os.tcgetpgrp(self._fd) == os.getpgrp() and readable.poll(0):
                part = os.read(self._fd, 4096)
                if not part:  # Ctrl-D
                    break
                typed += part
        except OSError:  # it has gone, or is not ours to read
            pass
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return typed.splitlines()

    def close(self) -> None:
        """Wait for it no longer."""
        self._edges.close()
        os.close(self._fd)


def controlling() -> bool:
    """Whether this process has a controlling terminal; the kernel takes it away when it hangs up."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
