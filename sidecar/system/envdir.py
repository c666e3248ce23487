"""Reads an envdir: a directory in which each file is a variable, with the value as its content.

The format is that of daemontools' envdir (https://cr.yp.to/daemontools/envdir.html), which
Server::Starter's ENVDIR, runit's chpst and s6 follow too. The first line counts, without blanks and
tabs at its end; NUL stands for a newline; a file of 0 bytes removes the variable. With `whole`, the
whole file counts, without one final newline: for certificates and multi-line secrets.

A reading is complete and of one moment. Kubernetes replaces a ConfigMap or Secret by renaming one
symlink, `..data` (kubernetes pkg/volume/util/atomic_writer.go), and then deletes the directory that
the symlink named before; people do the same with a symlink of their own. So the directory is opened
once, everything is read through that descriptor, and the reading counts only if the name still leads
to the same directory afterwards. Deletion starts after the rename, so what was read is then
complete. Otherwise the directory is read again.

Roads not taken:

- The names that a pod sees beside `..data`. Kubernetes makes and removes those symlinks one by one,
  before the rename in old versions and after it in current ones, so such a reading can mix two
  versions.
- A pause between attempts: where this runs in PID 1, it must not wait.

No text that is made here contains a value, and neither does the repr of Reading.
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

# The longest "NAME=value" with its final NUL that execve takes (linux/binfmts.h, MAX_ARG_STRLEN):
# 128 KiB where a page has 4 KiB. With a longer one it fails with E2BIG, which names no variable.
MAX_VARIABLE_BYTES = 32 * os.sysconf("SC_PAGE_SIZE")

# How often a directory is read because it changed meanwhile. Kubernetes changes one about once a
# minute.
MAX_ATTEMPTS = 20

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# What open says of a name that leads to nothing: the file has been removed, or its symlink leads
# nowhere.
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Reading(Record):
    """The content of the directories: variables by name (None: the variable is to be removed), and
    remarks, sentences for the log.
    """

    variables: dict[str, str | None]
    remarks: list[str]

    def __repr__(self) -> str:
        return f"Reading(variables={sorted(self.variables)!r}, remarks={self.remarks!r})"


def read(directories: Sequence[str], whole: bool = False, lenient: bool = False) -> Reading:
    """The variables of some directories (the values of `--envdir`). Where two directories have the
    same variable, the later one wins.

    `lenient` is Server::Starter's way: a missing directory counts as empty, an empty file is ignored,
    and no blank is cut off.

    Names that start with a dot, directories and symlinks that lead nowhere are skipped without a
    remark; everything else that is no regular file with one. Raises EnvdirError for a directory or
    file that cannot be read, and for a value that no environment can have.
    """
    variables: dict[str, str | None] = {}
    remarks: list[str] = []
    for directory in directories:
        if lenient and not os.path.isdir(directory):
            continue
        place, upper, prefix = (directory, False, "") if lenient else envdir_parts(directory)
        reading = _snapshot(place, whole, lenient, len(os.fsencode(prefix)))
        remarks += reading.remarks
        seen: dict[str, str] = {}
        for name, value in reading.variables.items():
            variable = variable_name(name, upper, prefix)
            if variable in seen:
                remarks.append(
                    f"{_printable_path(place)}: {seen[variable]} and {name} are both {variable}; the latter counts"
                )
            seen[variable] = name
            variables[variable] = value
    return Reading(variables, remarks)


def variable_name(name: str, upper: bool, prefix: str) -> str:
    """The variable that a file stands for: `prefix` and its name, with `upper` in the usual spelling
    of variables (`db-password` is DB_PASSWORD).
    """
    return prefix + (name.upper().replace("-", "_").replace(".", "_") if upper else name)


def apply(environ: Mapping[str, str], reading: Reading) -> dict[str, str]:
    """A new environment: `environ`, changed as the reading says.

    A file that has been deleted is not in the reading, so its variable is what it is in `environ`.
    An empty file removes the variable.
    """
    result = dict(environ)
    for name, value in reading.variables.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = value
    return result


def _snapshot(directory: str, whole: bool, lenient: bool, before: int) -> Reading:
    """One directory as it was at one moment. A file that comes and goes all the time counts as
    missing. `before` is the length of the prefix in bytes.
    """
    reason: object = "it is replaced faster than it can be read"
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            fd = os.open(_data_directory(directory), _DIRECTORY)
            try:
                reading, complete = _read_files(directory, fd, whole, lenient, before)
                same = os.path.samestat(os.fstat(fd), os.stat(_data_directory(directory)))
            finally:
                os.close(fd)
        except (OSError, ValueError) as error:
            # A missing directory stays missing, but what `..data` named may have been deleted just
            # before it was opened. So this is tried again, too.
            reason = getattr(error, "strerror", None) or error
        else:
            if same and (complete or attempt == MAX_ATTEMPTS):
                return reading
    raise EnvdirError(f"the envdir {_printable_path(directory)} cannot be read: {reason}")


def _data_directory(directory: str) -> str:
    """The directory that has the files: the symlink `..data` in a Kubernetes volume."""
    data = os.path.join(directory, "..data")
    return data if os.path.islink(data) else directory


def _read_files(
    directory: str, fd: int, whole: bool, lenient: bool, before: int
) -> tuple[Reading, bool]:
    """The reading of the directory open as `fd`, and whether every file that was listed still
    existed when it was opened.

    Raises EnvdirError for a file, OSError if the directory cannot be listed.
    """
    variables: dict[str, str | None] = {}
    remarks: list[str] = []
    complete = True
    for name in sorted(os.listdir(fd)):
        if name.startswith("."):
            continue
        if "=" in name:
            start = _printable_path(
                os.path.join(directory, name.partition("=")[0] + "=")
            )  # what follows may well be a value
            remarks.append(
                f"a file whose name starts with {start} is skipped: the name of a variable holds no '='"
            )
            continue
        where = _printable_path(os.path.join(directory, name))
        longest = MAX_VARIABLE_BYTES - before - len(os.fsencode(name)) - len("=\0")
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

    The kind of file is looked at before it is opened, because opening some devices has an effect (a
    watchdog starts to count), and again after, because the file may have been replaced in between.
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
    """The value in a file's content, None if it is empty; may add a remark. `content` is cut off at
    `longest` + 2 bytes.

    Raises EnvdirError for a value that is too long or, with `whole`, has a NUL.
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
        # As with daemontools these are part of the value, and hardly anybody means that.
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
    """Whether the name exists and is a symlink."""
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _printable_path(path: str) -> str:
    """A path for a text: as it is if it is printable, otherwise quoted with escapes."""
    return path if path.isprintable() else ascii(path)
