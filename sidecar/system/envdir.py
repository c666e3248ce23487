"""A directory → an environment: each file is a variable, its name the name, its content the value.

The format is that of daemontools' envdir (https://cr.yp.to/daemontools/envdir.html), which
Server::Starter's ENVDIR, runit's chpst and s6 follow too: the first line counts, blanks and tabs at
its end do not, NUL stands for a newline, and a file of 0 bytes removes the variable. `whole` takes
everything but one final newline: certificates, multi-line secrets.

A reading is all or nothing, and a picture of one moment. Kubernetes replaces a ConfigMap or Secret
by renaming one symlink, `..data` (kubernetes pkg/volume/util/atomic_writer.go), and then deletes
the directory it named before; people do the same with a symlink of their own. So the directory is
opened once, everything is read through that descriptor, and the reading counts only if the name
still leads to the same directory afterwards: deletion starts after the rename, so what was read is
then complete. Otherwise it is read again.

Not taken: the names that a pod sees beside `..data`. Kubernetes makes and removes those symlinks
one by one, before the rename in old versions and after it in current ones, so a reading by those
names can mix two versions. Nor a sleep between attempts: this runs in PID 1, which waits nowhere
but in its loop.

No text made here holds a value; Reading's repr does not either.
"""

from __future__ import annotations

import errno
import os
import stat

from sidecar.base.errors import EnvdirError
from sidecar.base.record import Record
from sidecar.settings.types import envdir_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The longest "NAME=value" with its final NUL, in bytes, that execve takes (linux/binfmts.h,
# MAX_ARG_STRLEN): 128 KiB where a page has 4 KiB. One that is longer makes it fail with E2BIG,
# which names nothing.
LONGEST = 32 * os.sysconf("SC_PAGE_SIZE")

# How often a directory is read anew because it changed meanwhile. Kubernetes changes one about once
# a minute.
TRIES = 20

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# What following a name says when there is nothing at its end: a file that has gone, or a symlink to
# nothing.
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Reading(Record):
    """What the directories said: variables by name, None for one to be removed; and remarks,
    sentences for the log.
    """

    variables: dict[str, str | None]
    remarks: list[str]

    def __repr__(self) -> str:
        return f"Reading(variables={sorted(self.variables)!r}, remarks={self.remarks!r})"


def read(directories: Sequence[str], whole: bool = False, lenient: bool = False) -> Reading:
    """The variables of some directories (`--envdir`, with its options); where two name the same
    one, the later directory wins.

    `lenient` is Server::Starter's reading: a missing directory is an empty one, an empty file says
    nothing, and no blank is cut off.

    Skipped in silence: names that start with a dot, directories, symlinks that lead nowhere. Skipped
    with a remark: anything else that is no regular file. Raises EnvdirError for a directory or file that cannot be
    read, and for a value that no environment holds.
    """
    variables: dict[str, str | None] = {}
    remarks: list[str] = []
    for directory in directories:
        if lenient and not os.path.isdir(directory):
            continue
        place, upper, prefix = (directory, False, "") if lenient else envdir_parts(directory)
        reading = _picture(place, whole, lenient, len(os.fsencode(prefix)))
        remarks += reading.remarks
        seen: dict[str, str] = {}
        for name, value in reading.variables.items():
            variable = named(name, upper, prefix)
            if variable in seen:
                remarks.append(
                    f"{_shown(place)}: {seen[variable]} and {name} are both {variable}; the latter counts"
                )
            seen[variable] = name
            variables[variable] = value
    return Reading(variables, remarks)


def named(name: str, upper: bool, prefix: str) -> str:
    """The variable of the file `name`: as it is, or as variables are mostly spelt (`db-password`:
    DB_PASSWORD), and what is put before.
    """
    return prefix + (name.upper().replace("-", "_").replace(".", "_") if upper else name)


def apply(environ: Mapping[str, str], reading: Reading) -> dict[str, str]:
    """A new environment: `environ`, which stays as it is, changed as the reading says.

    A file that has been deleted is not in the reading, so its variable is what it was in `environ`;
    an empty file removes the variable from there too.
    """
    result = dict(environ)
    for name, value in reading.variables.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = value
    return result


def _picture(directory: str, whole: bool, lenient: bool, before: int) -> Reading:
    """One directory as it was at one moment. A file that comes and goes all the time counts as
    absent.

    `before`: so many bytes will be put before each name.
    """
    reason: object = "it is replaced faster than it can be read"
    for attempt in range(1, TRIES + 1):
        try:
            fd = os.open(_place(directory), _DIRECTORY)
            try:
                reading, complete = _files(directory, fd, whole, lenient, before)
                same = os.path.samestat(os.fstat(fd), os.stat(_place(directory)))
            finally:
                os.close(fd)
        except (OSError, ValueError) as error:
            # Final for a missing directory, but what `..data` named may have been deleted just
            # before it was opened.
            reason = getattr(error, "strerror", None) or error
        else:
            if same and (complete or attempt == TRIES):
                return reading
    raise EnvdirError(f"the envdir {_shown(directory)} cannot be read: {reason}")


def _place(directory: str) -> str:
    """The path of the directory that holds the files: that of the symlink `..data` in a Kubernetes
    volume.
    """
    data = os.path.join(directory, "..data")
    return data if os.path.islink(data) else directory


def _files(
    directory: str, fd: int, whole: bool, lenient: bool, before: int
) -> tuple[Reading, bool]:
    """The reading of the directory open as `fd`, and whether every name that it listed was still
    there when opened.

    Raises EnvdirError for a file, OSError if the directory cannot be listed.
    """
    variables: dict[str, str | None] = {}
    remarks: list[str] = []
    complete = True
    for name in sorted(os.listdir(fd)):
        if name.startswith("."):
            continue
        if "=" in name:
            start = _shown(
                os.path.join(directory, name.partition("=")[0] + "=")
            )  # what follows may well be a value
            remarks.append(
                f"a file whose name starts with {start} is skipped: the name of a variable holds no '='"
            )
            continue
        where = _shown(os.path.join(directory, name))
        longest = LONGEST - before - len(os.fsencode(name)) - len("=\0")
        try:
            content = _content(fd, name, longest + 2)
        except OSError as error:
            if error.errno not in _NOWHERE:
                raise EnvdirError(f"{where} cannot be read: {error.strerror}") from None
            complete = complete and _is_link(fd, name)
            continue
        if content is None and not lenient and not _is_directory(fd, name):
            remarks.append(f"{where} is skipped: it is not a regular file")
        if content is not None and (content or not lenient):
            variables[name] = _value(where, content, longest, whole, lenient, remarks)
    return Reading(variables, remarks), complete


def _is_directory(directory: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=directory).st_mode)
    except OSError:  # it has gone
        return True


def _content(directory: int, name: str, most: int) -> bytes | None:
    """The first `most` bytes of a regular file, None for anything else. Raises OSError. Never
    blocks on a FIFO.

    Looked at before it is opened, since opening some devices does something (a watchdog starts to
    count), and after, since it may have been exchanged in between.
    """
    if not stat.S_ISREG(os.stat(name, dir_fd=directory).st_mode):
        return None
    fd = os.open(name, _FILE, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        content = b""
        while len(content) < most and (piece := os.read(fd, most - len(content))):
            content += piece
        return content
    finally:
        os.close(fd)


def _value(
    where: str, content: bytes, longest: int, whole: bool, lenient: bool, remarks: list[str]
) -> str | None:
    """What a file's content says, None if it is empty; may add a remark. `content` is cut off at
    `longest` + 2 bytes.

    Raises EnvdirError for a value that is too long, or, if `whole`, holds a NUL.
    """
    if not content:
        return None
    if whole:
        value, rest = content.removesuffix(b"\n"), b""
        if b"\0" in value:
            raise EnvdirError(f"{where} holds a NUL byte, which no environment variable can")
    else:
        value, _, rest = content.partition(b"\n")
    if not lenient:
        # As daemontools has it they are part of the value; hardly anybody means that.
        if content.startswith(b"\xef\xbb\xbf"):
            remarks.append(f"{where} begins with a byte order mark (BOM), which its value has, too")
        if value.endswith(b"\r"):
            remarks.append(
                f"{where} has Windows line ends (CRLF): its value ends with a carriage return"
            )
    if len(value) > longest:
        raise EnvdirError(
            f"{where} is too long: an environment variable of that name can have {longest} bytes"
        )
    if rest.strip() and not lenient:
        count = content.rstrip().count(b"\n") + 1
        lines = "more than one line" if len(content) > longest + 1 else f"{count} lines"
        remarks.append(
            f"{where} has {lines}, only the first counts; --envdir-format whole takes all"
        )
    return os.fsdecode(
        value if whole else (value if lenient else value.rstrip(b" \t")).replace(b"\0", b"\n")
    )


def _is_link(directory: int, name: str) -> bool:
    """Whether the name is there, as a symlink."""
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _shown(path: str) -> str:
    """A path for a text: as it is if that can be printed, else quoted with escapes (one line, and
    valid UTF-8).
    """
    return path if path.isprintable() else ascii(path)
