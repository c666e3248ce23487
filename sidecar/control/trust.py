"""Whether a command may trust the process that listens at a control socket. In a directory like
/tmp any user can listen at the usual name, and say "ready", or take the requests.

A module of its own and without imports, because a probe has no time for more.
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


def peer_uid(sock: Socket) -> int:
    """The user of the listening process, as the kernel noted it when it began to listen."""
    credentials = sock.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder)


def is_trusted(uid: int, path: str, named: bool) -> bool:
    """Whether this user may be trusted at this path; `named`: the user gave the path, it was not
    found.

    Root and our own user are. Root may ask everybody's sidecar, so it needs a reason to trust
    another user: the process in the name, sidecar-PID.sock, is that user's. For a path that was
    named and has no pid in it: PID 1 is that user's, or the directory, and nobody else can put
    anything into it.
    """
    own = os.geteuid()
    if uid in (0, own):
        return True
    if own != 0:
        return False
    pid = os.path.basename(path).removeprefix("sidecar-").removesuffix(".sock")
    if pid.isdecimal():
        return uid == _owner(int(pid))
    return named and (uid == _owner(1) or _is_private_to(uid, os.path.dirname(path)))


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


def _is_private_to(uid: int, directory: str) -> bool:
    try:
        found = os.stat(directory or ".")
    except OSError:
        return False
    return found.st_uid == uid and not found.st_mode & 0o022
