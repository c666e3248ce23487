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
    """Whom the workers run as. `login_variables` say who that is (HOME, USER, LOGNAME, SHELL); a
    value of None means that the variable is unset.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    login_variables: Mapping[str, str | None] = {}


def credentials(user: str, group: str) -> Credentials | None:
    """The user and groups that `--user` (USER or USER:GROUP) and `--group` mean, by name or number;
    None if that is sidecar's own. A number needs no entry in /etc/passwd. Raises StartError.
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
        # For a number without an entry, as Docker does it: a home that exists, and no name.
        login = {"HOME": "/", "USER": None, "LOGNAME": None, "SHELL": None}
        try:
            entry = user_entry(user)
            uid, gid, name = entry.pw_uid, entry.pw_gid, entry.pw_name
            # As systemd does it: nologin and the like are not given as a shell.
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
    """The uid of a user given by name or number. A number need not be known. Raises KeyError."""
    return int(name) if _digits(name) else user_entry(name).pw_uid


def group_id(name: str) -> int:
    """The gid of a group given by name or number. A number need not be known. Raises KeyError."""
    if _digits(name):
        return int(name)
    import grp  # noqa: PLC0415  (only who names a group pays for it)

    return grp.getgrnam(name).gr_gid


def user_entry(name: str) -> pwd.struct_passwd:
    """What the system knows of a user given by name or number. Raises KeyError."""
    import pwd  # noqa: PLC0415  (only who names a user pays for it)

    return pwd.getpwuid(int(name)) if _digits(name) else pwd.getpwnam(name)


def _digits(text: str) -> bool:
    """Whether a text is a number. isdigit() alone also accepts superscripts, which int() does not."""
    return text.isascii() and text.isdigit()


def _may_become_others() -> bool:
    """Whether this process has CAP_SETGID and CAP_SETUID, bits 6 and 7 of the effective set
    (capabilities(7)). In containers root often lacks them.
    """
    try:
        effective = int(procfs.status_field("self", "CapEff"), 16)
    except (OSError, ValueError):
        return os.geteuid() == 0
    return effective >> 6 & 3 == 3
