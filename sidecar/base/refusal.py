"""Why sidecar cannot start, when it is the system that says no, or its own files.

Imported before anything that it may have to speak of.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


def refused(error: OSError) -> str:
    """What the system refuses, and what would help."""
    where = f" ({error.filename!r})" if error.filename is not None else ""
    more = {
        errno.EMFILE: "; raise the limit of this process: ulimit -n, or LimitNOFILE",
        errno.ENFILE: "; the whole system has none left: sysctl fs.file-max",
        errno.ENOMEM: "; the container or the system has no memory left",
    }.get(error.errno or 0, "")
    return f"cannot start: {(error.strerror or str(error)).lower()}{where}{more}"


def not_imported(error: Exception) -> str:
    """The same for a module that could not be imported; "" if the error is another one, a defect
    then.
    """
    if isinstance(error, OSError):
        frame = _raised_in(error)
        if frame is None or not frame.f_code.co_filename.startswith("<frozen importlib"):
            return ""
        if error.filename is None:  # it was opened, and could not be read
            error.filename = frame.f_locals.get("path")
        return refused(error)
    if isinstance(error, SyntaxError):
        what = f"{error.filename}:{error.lineno} is damaged ({error.msg})"
    elif isinstance(error, ImportError):
        what = str(error)
    else:
        return ""
    return f"cannot start: {what}; install sidecar again"


def _raised_in(error: Exception) -> FrameType | None:
    """Where the error was raised. Python takes the frames of an import out of the traceback where
    it was not the import itself that raised, but the code of the module.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame if traceback is not None else None
