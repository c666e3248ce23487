"""Open a file for writing, or remove one, in a directory that somebody else may write to.

Sidecar often is root, and writes a log and a pid file to directories that may belong to the user of
its workers. A link there could make root write to any file; a pipe could make PID 1 wait in open(2)
for ever. So in a directory that others may write to, sidecar refuses what somebody else may have put
there: symbolic links that are not root's or its own, files with more than one name, and files of a
third user.
"""

from __future__ import annotations

import errno
import os
import stat

# As many symbolic links as the kernel follows (path_resolution(7)).
MAX_SYMLINKS = 40


def open_for_writing(path: str, flags: int, mode: int, special: bool = False) -> int:
    """A descriptor, close-on-exec, of the file at `path`, which is made with `mode` if it is
    missing. Raises OSError.

    `special`: a pipe or a device is accepted, too, and opening a pipe blocks until somebody reads
    it. Otherwise only a regular file is accepted, and nothing blocks.
    """
    flags |= os.O_CLOEXEC | os.O_NOCTTY | (0 if special else os.O_NONBLOCK)
    for _ in range(MAX_SYMLINKS):
        directory = os.path.dirname(path) or "."
        if _only_ours(os.stat(directory)):
            return _checked(os.open(path, flags | os.O_CREAT, mode), path, special)
        try:
            look = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
        try:
            found = os.fstat(look)
            if stat.S_ISLNK(found.st_mode) and found.st_uid in (0, os.geteuid()):
                path = os.path.join(directory, os.readlink("", dir_fd=look))
                continue
            _refuse_foreign(found, os.stat(directory).st_uid, path)
            return _checked(os.open(f"/proc/self/fd/{look}", flags), path, special)
        finally:
            os.close(look)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def unlink_same(path: str, file: tuple[int, int]) -> None:
    """Remove `path` if it names this file (device, inode). Raises OSError.

    The file is looked at and removed within one opened directory: whoever may replace a directory of
    the path must not choose where something is removed.
    """
    directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        name = os.path.basename(path)
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if (found.st_dev, found.st_ino) == file:
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(directory)


def refuse_special(path: str, follow: bool) -> None:
    """Raise OSError if something other than a regular file is at the path. It is not opened, because
    opening a device may have an effect.
    """
    try:
        mode = os.stat(path, follow_symlinks=follow).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path)


def identity(fd: int) -> tuple[int, int]:
    """Device and inode of an open file."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def write_all(fd: int, text: bytes) -> None:
    """Write all of the text to the start of a file. Raises OSError."""
    done = 0
    while done < len(text):
        done += os.pwrite(fd, text[done:], done)


def remove(path: str) -> None:
    """Remove a file if it exists. Raises OSError."""
    try:
        os.unlink(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def _only_ours(directory: os.stat_result) -> bool:
    """Whether only root and sidecar's user may put something into a directory."""
    return directory.st_uid in (0, os.geteuid()) and not directory.st_mode & 0o022


def _refuse_foreign(found: os.stat_result, owner: int, path: str) -> None:
    """Raise OSError for a file that somebody else may have put there to mislead sidecar. `owner` is
    the directory's owner, whose regular files are accepted.
    """
    ours = (0, os.geteuid())
    regular = stat.S_ISREG(found.st_mode)
    if stat.S_ISLNK(found.st_mode):
        problem = "it is a symbolic link"
    elif regular and found.st_nlink > 1:
        problem = "it is a hard link: the file has other names"
    elif found.st_uid not in ((*ours, owner) if regular else ours):
        problem = "it is not a file of ours"
    else:
        return
    raise OSError(
        errno.EPERM,
        f"{problem}, made by uid {found.st_uid} in a directory that not only uid {os.geteuid()} may write to",
        path,
    )


def _checked(fd: int, path: str, special: bool) -> int:
    """The descriptor, if its file is of an accepted kind. Otherwise closes it and raises OSError."""
    if special or stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "it is not a regular file", path)
