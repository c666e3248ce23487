"""Why a program could not be executed, in words. execve(2) has one number for many causes."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# So much of a program's file is looked at: Linux reads no longer #! line (BINPRM_BUF_SIZE).
_HEAD_BYTES = 256


def exec_error_text(error: OSError) -> str:
    """What an error of execve(2) or of a step before it says."""
    if error.errno == errno.ENOEXEC:
        return "not a program (a script needs a #! line)"
    if error.errno == errno.E2BIG:
        return "its arguments and environment are too large together"
    return (error.strerror or str(error)).lower()


def run_error_text(error: OSError, program: str, environment: Mapping[str, str]) -> str:
    """The same with a look at the program's file: ENOENT and ENOEXEC have causes that the file
    shows.
    """
    if error.errno == errno.ENOENT:
        return not_found_text(program, environment)
    if error.errno == errno.ENOEXEC and _head(program).startswith(_BYTE_ORDER_MARK + b"#!"):
        return "not a program: it begins with a byte order mark (BOM); save it without one"
    return exec_error_text(error)


def not_found_text(program: str, environment: Mapping[str, str]) -> str:
    """What ENOENT means: the program may be there, and what is to run it not."""
    directories = [""] if "/" in program else environment.get("PATH", os.defpath).split(os.pathsep)
    for path in [os.path.join(directory, program) for directory in directories]:
        head = _head(path)
        if not head:
            continue
        if not head.startswith(b"#!"):
            return "it is there, but the loader that it was built for is not (another libc?)"
        interpreter = os.fsdecode(head[2:].split(b"\n")[0].strip(b" \t").split(b" ")[0])
        if interpreter.endswith("\r"):
            return f"its interpreter {interpreter!r} does not exist: save it with Unix line ends (it has CRLF)"
        return f"its interpreter {interpreter!r} does not exist"
    return "not found"


def _head(path: str) -> bytes:
    """The first bytes of a file; none if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(fd, _HEAD_BYTES)
        finally:
            os.close(fd)
    except OSError:
        return b""
