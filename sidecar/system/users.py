"""Users and groups: who they are, and whom the workers run as (`--user`, `--group`)."""

from __future__ import annotations

import os

from sidecar.base.errors import StartError
from sidecar.base.record import Record
from sidecar.system import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pwd
    from collections.abc import Mapping

_NO_SHELLS = ("", "nologin", "false", "true")


class Credentials(Record):
    """Whom the workers run as. `login`: the variables that say who that is (HOME, USER, LOGNAME,
    SHELL), None for one that is to be unset.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    login: Mapping[str, str | None] = {}


def credentials(user: str, group: str) -> Credentials | None:
    """Whom `--user` (USER or USER:GROUP) and `--group` mean: names or numbers; a number needs no
    entry in passwd. Raises StartError.
    """
    user, colon, its_group = user.partition(":")
    if colon and (group or not its_group):
        raise StartError(f"--user {user}:{its_group}: say USER:GROUP, or USER and --group GROUP")
    group = group or its_group
    if not user and not group:
        return None
    uid, gid, name = os.getuid(), os.getgid(), ""
    login: dict[str, str | None] = {}
    if user:
        # As Docker has it for a number without an entry: a home that is there, and no name.
        login = {"HOME": "/", "USER": None, "LOGNAME": None, "SHELL": None}
        try:
            entry = user_entry(user)
            uid, gid, name = entry.pw_uid, entry.pw_gid, entry.pw_name
            # As systemd has it: what is no shell is not called one.
            shell = None if os.path.basename(entry.pw_shell) in _NO_SHELLS else entry.pw_shell
            login = {"HOME": entry.pw_dir or "/", "USER": name, "LOGNAME": name, "SHELL": shell}
        except KeyError:
            if not _digits(user):
                raise StartError(
                    f"--user {user}: there is no such user; say a name from /etc/passwd or a number"
                ) from None
            uid = gid = int(user)
    if group:
        try:
            gid = group_id(group)
        except KeyError:
            raise StartError(
                f"--group {group}: there is no such group; say a name from /etc/group or a number"
            ) from None
    if (uid, gid) == (os.getuid(), os.getgid()):
        return None
    if not _may_become_others():
        raise StartError(
            f"--user {user or uid}: uid {os.geteuid()} may not start workers as another user; that needs CAP_SETUID and CAP_SETGID"
        )
    return Credentials(uid, gid, tuple(os.getgrouplist(name, gid)) if name else (gid,), login)


def user_id(name: str) -> int:
    """The uid of a user given by name or number; a number need not be known. Raises KeyError."""
    return int(name) if _digits(name) else user_entry(name).pw_uid


def group_id(name: str) -> int:
    """The gid of a group given by name or number; a number need not be known. Raises KeyError."""
    if _digits(name):
        return int(name)
    import grp  # noqa: PLC0415  (only who names a group pays for it)

    return grp.getgrnam(name).gr_gid


def user_entry(name: str) -> pwd.struct_passwd:
    """What the system knows of a user given by name or number. Raises KeyError."""
    import pwd  # noqa: PLC0415  (only who names a user pays for it)

    return pwd.getpwuid(int(name)) if _digits(name) else pwd.getpwnam(name)


def _digits(text: str) -> bool:
    """Whether it is a number: isdigit() alone takes a superscript for one, which int() does not."""
    return text.isascii() and text.isdigit()


def _may_become_others() -> bool:
    """Whether this process has CAP_SETGID and CAP_SETUID, bits 6 and 7 of the effective set
    (capabilities(7)); root often lacks them.
    """
    try:
        effective = int(procfs.status("self", "CapEff"), 16)
    except (OSError, ValueError):
        return os.geteuid() == 0
    return effective >> 6 & 3 == 3
