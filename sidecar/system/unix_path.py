"""The file of a unix socket: is it stale, is it still ours, how is it removed.

bind() makes a file at the socket's path. Nothing removes it when its process ends, and bind()
refuses a path that is taken. So before sidecar binds, it removes a stale file: a socket file that
nobody listens on.

Sidecar also keeps a second name for each socket file of its own, a hard link `.NAME.sidecar` beside
it. When a program removes the path, the link puts it back. The link has no pid in its name: a crash
leaves at most one, which the next start replaces.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

from sidecar.base.errors import ListenError
from sidecar.system.safe_open import unlink_same

TYPE_CHECKING = False
if TYPE_CHECKING:
    #: What identifies a file: device and inode.
    FileId = tuple[int, int]

_KINDS = {stat.S_IFREG: "regular file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symbolic link"}


def remove_stale_socket(path: str) -> bool:
    """Remove the socket file at `path` if nobody listens on it. Returns whether a file was removed.

    Raises ListenError if anything else is at the path, because that is not sidecar's to remove;
    OSError if the path cannot be examined.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFSOCK:
        what = _KINDS.get(kind, "pipe or device")
        raise ListenError([f"a {what} is at the path; remove it, or take another path"])
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(path)
    if answer == errno.EACCES:
        raise ListenError(
            [
                f"a socket is at the path, and uid {os.geteuid()} may not connect to it to see whether it is stale; remove it"
            ]
        )
    if answer != errno.ECONNREFUSED:
        raise ListenError(["something is listening on it already"])
    unlink_same(path, (found.st_dev, found.st_ino))
    return True


def socket_file_id(path: str) -> FileId | None:
    """The device and inode of the socket file at `path`; None if there is none.

    The kernel does not give the inode to another file as long as a socket is bound to it.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


def private_link(path: str) -> str:
    """The path of the hard link that sidecar keeps to the socket file at `path`."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.sidecar")


def make_private_link(path: str) -> None:
    """Link the socket file at `path`, replacing a link from an earlier run. Never raises: without
    the link, a removed path is repaired by a new socket.
    """
    try:
        former = socket_file_id(private_link(path))
        if former:
            unlink_same(private_link(path), former)
        os.link(path, private_link(path))
    except OSError:
        pass


def remove_socket_paths(file: FileId | None, *paths: str) -> None:
    """Remove those of the paths that still name this socket file. Never raises: what stays behind
    is stale, and the next start replaces it.
    """
    for path in paths:
        try:
            if file and path:
                unlink_same(path, file)
        except OSError:
            pass  # an unwritable directory, for example
