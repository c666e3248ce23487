"""The errors whose text is made for users.

    SidecarError
    ├── SeveralError
    │   ├── SettingsError   wrong settings: each one, where it came from, and what would be right
    │   ├── MachineError    settings do not fit this machine (a user, a directory): every one
    │   └── ListenError     addresses cannot be listened on: every one
    ├── EnvdirError         an envdir cannot be read: the swap fails, what serves goes on
    └── StartError          sidecar itself cannot start (the pid file is held, a user is unknown …)

An error's text is for the person who can mend it: what, where, and what would be right. No text
holds a value that came from an envdir.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class SidecarError(Exception):
    """Any refusal that has a text made for its reader; `exit_status` is what the command ends with."""

    exit_status = 1


class SeveralError(SidecarError):
    """A refusal that names every problem at once, in `problems`."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class SettingsError(SeveralError):
    """Wrong settings; nothing has been bound or started."""

    exit_status = 2


class MachineError(SeveralError):
    """Settings that are right and do not fit this machine; nothing has been bound or started."""

    def __init__(self, problems: Iterable[str], exit_status: int = 1) -> None:
        super().__init__(problems)
        self.exit_status = exit_status


class ListenError(SeveralError):
    """Addresses that cannot be listened on; what had been bound before the refusal is closed again.

    `errno` is the system's number for the first of them, 0 where it was not the system that
    refused.
    """

    def __init__(self, problems: Iterable[str], errno: int = 0) -> None:
        super().__init__(problems)
        self.errno = errno


class EnvdirError(SidecarError):
    """An envdir that cannot be read as it is."""


class StartError(SidecarError):
    """Something outside the settings keeps sidecar from starting. `errno` is the system's number
    for it, 0 where there is none.
    """

    def __init__(self, text: str, errno: int = 0) -> None:
        super().__init__(text)
        self.errno = errno
