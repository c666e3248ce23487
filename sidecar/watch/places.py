"""Where a path leads, link by link; and the file systems on which inotify is silent."""

from __future__ import annotations

import os
import stat

from sidecar.system.procfs import descendants, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LINKS = 40  # as many as the kernel follows

# Somebody else changes files there (another machine, the host of a virtual one), and the kernel
# here does not learn of it. fakeowner and osxfs are Docker Desktop's. fmt: off
SILENT = frozenset(
    {
        "9p",
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "virtiofs",
        "vboxsf",
        "vmhgfs",
        "prl_fs",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "gfs2",
        "ocfs2",
        "fakeowner",
        "osxfs",
        "drvfs",
        "wslfs",
    }
)
# fmt: on


# No files of anybody's: what the kernel shows of itself, also without end (/proc/PID/root), and
# devices. fmt: off
PSEUDO = frozenset(
    {
        "autofs",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "fusectl",
        "hugetlbfs",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "smackfs",
        "sysfs",
        "tracefs",
    }
)
# fmt: on


def writer(path: str) -> int:
    """A process below sidecar (our parent) that has the file open for writing, 0 if none is seen
    to.
    """
    try:
        wanted = os.stat(path)
    except OSError:
        return 0
    for pid in descendants(os.getppid()):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                found = os.stat(f"/proc/{pid}/fd/{fd}")
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    info = read(f"/proc/{pid}/fdinfo/{fd}")
                    flags = int(info.partition("flags:")[2].split()[0], 8)
                    if flags & os.O_ACCMODE != os.O_RDONLY:
                        return pid
        except (OSError, IndexError):
            continue
    return 0


def trail(path: str) -> list[tuple[str, str]]:
    """The names that decide where an absolute path leads: (directory, name), the directory free of
    symlinks.

    Each symlink on the way is one, and the last name. Where the way ends early, the missing name is
    the last.
    """
    pairs: list[tuple[str, str]] = []
    at, names, links = "/", [each for each in reversed(path.split("/")) if each], 0
    while names:
        name = names.pop()
        if name == ".":
            continue
        if name == "..":
            at = os.path.dirname(at)
            continue
        there = os.path.join(at, name)
        try:
            mode = os.lstat(there).st_mode
        except OSError:
            return [*pairs, (at, name)]
        if stat.S_ISLNK(mode):
            pairs.append((at, name))
            links += 1
            try:
                target = os.readlink(there)
            except OSError:
                return pairs
            if links > LINKS:
                return pairs
            names += [each for each in reversed(target.split("/")) if each]
            at = "/" if target.startswith("/") else at
        else:
            if not names:
                pairs.append((at, name))
            at = there
    return pairs


def mounts() -> list[tuple[str, str]]:
    """(mount point, type), the later ones cover the earlier ones; nothing where /proc does not say."""
    result = []
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                point = before.split(" ")[4]
                for code, char in (
                    ("\\040", " "),
                    ("\\011", "\t"),
                    ("\\012", "\n"),
                    ("\\134", "\\"),
                ):
                    point = point.replace(code, char)
                result.append((point, after.split(" ")[0]))
    except (OSError, IndexError):
        pass
    return result


def silent(kind: str) -> bool:
    """Whether inotify misses changes on a file system of this type."""
    return kind in SILENT or kind == "fuse" or kind.startswith("fuse.")


def fileless(point: str, kind: str) -> bool:
    """Whether a mounted file system has no files of anybody's. In a container /dev is a tmpfs."""
    return kind in PSEUDO or point == "/dev"


def holder(path: str, among: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """The mount, among these, that holds a path without symlinks; ("", "") if it is not known."""
    found = ("", "")
    for point, kind in among:
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found[0]):
            found = (point, kind)
    return found


def blind(root: str) -> list[tuple[str, str]]:
    """The mounts, of those that hold the root or lie inside it, on which inotify is silent: (mount
    point, type).
    """
    real, there = os.path.realpath(root), mounts()
    inside = {point: kind for point, kind in there if point.startswith(real.rstrip("/") + "/")}
    around = [holder(real, there), *sorted(inside.items())]
    return [(point, kind) for point, kind in around if silent(kind)]
