"""Open a file for writing, or remove one, where somebody else may have had a hand in what is there.

Sidecar often is root, and writes a log and a pid file to directories that may belong to the user of
its workers. A link there would have root write to any file; a pipe would have PID 1 wait in open(2)
for ever. So in a directory that others may write to, only a file counts that nobody else can have
chosen: no symbolic link but root's or our own, no second name of a file, nothing of a third user.
"""

from __future__ import annotations

import errno
import os
import stat

# As many symbolic links as the kernel follows (path_resolution(7)).
MOST_LINKS = 40


def open_for_writing(path: str, flags: int, mode: int, special: bool = False) -> int:
    """A descriptor, close-on-exec, of the file at `path`, which is made with `mode` if it is
    missing.

    `special`: a pipe or device will do, and a pipe is waited for until somebody reads it; otherwise
    only a regular file will, and nothing is waited for. Raises OSError.
    """
    flags |= os.O_CLOEXEC | os.O_NOCTTY | (0 if special else os.O_NONBLOCK)
    for _ in range(MOST_LINKS):
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
    """Remove `path` if what it names is this file (device, inode). Raises OSError.

    Looked at and removed within one opened directory: whoever may replace a directory on the way
    must not choose where something is removed.
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
    """Raise OSError if something other than a regular file is there. Looked at, not opened: opening
    a device may do something.
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
    """Write all of the text at the start of a file. Raises OSError."""
    done = 0
    while done < len(text):
        done += os.pwrite(fd, text[done:], done)


def remove(path: str) -> None:
    """Remove a file that may be gone already. Raises OSError."""
    try:
        os.unlink(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def _only_ours(directory: os.stat_result) -> bool:
    """Whether nobody but root and ourselves can put something there."""
    return directory.st_uid in (0, os.geteuid()) and not directory.st_mode & 0o022


def _refuse_foreign(found: os.stat_result, owner: int, path: str) -> None:
    """Raise OSError for what somebody may have put there to mislead us: `owner` is whose directory
    it is, so a regular file of that user is what it seems to be.
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
    if special or stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "it is not a regular file", path)
