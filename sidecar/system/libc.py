"""The C library, for what the module `os` does not have. Loading it takes PID 1 some milliseconds,
so only those load it who need it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes


def load() -> ctypes.CDLL:
    """The C library. Its functions keep errno for `last_error`."""
    import ctypes  # noqa: PLC0415

    return ctypes.CDLL(None, use_errno=True)


def last_error() -> OSError:
    """The error of the last call into the C library."""
    import ctypes  # noqa: PLC0415

    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
