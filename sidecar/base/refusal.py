"""Why sidecar cannot start where the system refuses something, or where its own files are damaged.

It is imported before anything whose import may fail.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


def describe_os_error(error: OSError) -> str:
    """What the system refuses, and what would help."""
    where = f" ({error.filename!r})" if error.filename is not None else ""
    more = {
        errno.EMFILE: "; raise the limit of this process: ulimit -n, or LimitNOFILE",
        errno.ENFILE: "; the whole system has none left: sysctl fs.file-max",
        errno.ENOMEM: "; the container or the system has no memory left",
    }.get(error.errno or 0, "")
    return f"cannot start: {(error.strerror or str(error)).lower()}{where}{more}"


def describe_import_error(error: Exception) -> str:
    """The same for a module that could not be imported; "" for any other error, which is an internal
    one.
    """
    if isinstance(error, OSError):
        frame = _raised_in(error)
        if frame is None or not frame.f_code.co_filename.startswith("<frozen importlib"):
            return ""
        if error.filename is None:  # it was opened, and could not be read
            error.filename = frame.f_locals.get("path")
        return describe_os_error(error)
    if isinstance(error, SyntaxError):
        what = f"{error.filename}:{error.lineno} is damaged ({error.msg})"
    elif isinstance(error, ImportError):
        what = str(error)
    else:
        return ""
    return f"cannot start: {what}; install sidecar again"


def _raised_in(error: Exception) -> FrameType | None:
    """The frame that raised the error. Python removes the frames of an import from the traceback if
    the code of the module has raised, not the import itself.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame if traceback is not None else None
