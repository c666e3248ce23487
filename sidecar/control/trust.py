"""Whom a command believes that it finds at a control socket. In a directory like /tmp anybody can
listen at a usual name, and say "ready", or take what is asked.

By itself and without imports, because a probe has no time for more.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Socket(Protocol):
        def getsockopt(self, level: int, option: int, buffer: int, /) -> bytes: ...


# linux/socket.h
SOL_SOCKET, SO_PEERCRED = 1, 17


def listener(sock: Socket) -> int:
    """The uid of whoever listens at the other end, as the kernel has it from then."""
    credentials = sock.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder)


def trusted(uid: int, path: str, named: bool) -> bool:
    """Whether we believe this user at this path; `named`: somebody said the path, it was not found.

    Root and ourselves. Root may ask everybody's sidecar, so it needs a reason: the process that the
    name says, sidecar-PID.sock, is that user's. Of a path that was named and says no process, PID
    1, or the directory, where nobody else can put anything into it.
    """
    own = os.geteuid()
    if uid in (0, own):
        return True
    if own != 0:
        return False
    pid = os.path.basename(path).removeprefix("sidecar-").removesuffix(".sock")
    if pid.isdecimal():
        return uid == _owner(int(pid))
    return named and (uid == _owner(1) or _only_of(uid, os.path.dirname(path)))


def _owner(pid: int) -> int:
    """The effective uid of a process, -1 if it is not there."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Uid:"):
                    return int(line.split()[2])
    except OSError:
        pass
    return -1


def _only_of(uid: int, directory: str) -> bool:
    try:
        found = os.stat(directory or ".")
    except OSError:
        return False
    return found.st_uid == uid and not found.st_mode & 0o022
