"""What is mounted where: the file systems on which inotify is silent, and those without files."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Others change files there (another machine, the host of a virtual one), and this kernel does not
# learn of it. fakeowner and osxfs are Docker Desktop's. fmt: off
SILENT_TYPES = frozenset(
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


# These have no files that anybody wrote: they show the kernel itself, also without end
# (/proc/PID/root), or devices. fmt: off
FILELESS_TYPES = frozenset(
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


def is_silent(kind: str) -> bool:
    """Whether inotify misses changes on a file system of this type."""
    return kind in SILENT_TYPES or kind == "fuse" or kind.startswith("fuse.")


def is_fileless(point: str, kind: str) -> bool:
    """Whether a mounted file system has no files that anybody wrote. In a container /dev is a tmpfs."""
    return kind in FILELESS_TYPES or point == "/dev"


def holder(path: str, among: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """The mount, among these, that holds a path without symlinks; ("", "") if it is not known."""
    found = ("", "")
    for point, kind in among:
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found[0]):
            found = (point, kind)
    return found


def silent_mounts(root: str) -> list[tuple[str, str]]:
    """The mounts, of those that hold the root or lie inside it, on which inotify is silent: (mount
    point, type).
    """
    real, there = os.path.realpath(root), mounts()
    inside = {point: kind for point, kind in there if point.startswith(real.rstrip("/") + "/")}
    around = [holder(real, there), *sorted(inside.items())]
    return [(point, kind) for point, kind in around if is_silent(kind)]
