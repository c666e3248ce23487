"""How much memory the container may still take: the limit of its control group, and of the groups
that contain this one.

Versions 1 and 2 of cgroups are read, in any cgroup namespace: /proc/self/cgroup says in which group
sidecar is, and /proc/self/mountinfo where that can be seen. Memory counts as taken if the kernel
cannot free it by itself: files that are only cached do not count. Swap does not count as room.
"""

from __future__ import annotations

import os

# Version 1 says "no limit" by a number that no machine has.
NO_LIMIT_BYTES = 1 << 60


def free_bytes(proc: str = "/proc/self") -> tuple[int, int] | None:
    """The bytes that may still be taken, and the limit that says so, of the group where that is
    tightest; None if no limit can be seen.
    """
    try:
        tight = [
            found for directory in _groups(proc) if (found := _free_bytes(directory)) is not None
        ]
    except (OSError, ValueError, IndexError):
        return None
    return min(tight, default=None)


def _groups(proc: str) -> list[str]:
    """The directories of the memory control groups that sidecar is in, innermost first."""
    paths = {}
    for line in _read(f"{proc}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    groups = []
    for line in _read(f"{proc}/mountinfo").splitlines():
        mount, _, system = line.partition(" - ")
        root, place = (each.encode().decode("unicode_escape") for each in mount.split(" ")[3:5])
        kind, _, options = system.split(" ", 2)
        version_1 = kind == "cgroup" and "memory" in options.split(",")
        path = (
            paths.get("memory" if version_1 else "", "") if version_1 or kind == "cgroup2" else ""
        )
        if not path:
            continue
        # What is mounted may be the group itself, or one that contains it. A group outside this
        # namespace ("/..") cannot be seen from here.
        inside = (
            os.path.relpath(path, root)
            if path == root or path.startswith(root.rstrip("/") + "/")
            else "."
        )
        steps = [] if inside == "." else inside.split("/")
        groups += [os.path.join(place, *steps[:depth]) for depth in range(len(steps), -1, -1)]
    return groups


def _free_bytes(directory: str) -> tuple[int, int] | None:
    """The same for one group. Raises OSError or ValueError if its files cannot be read."""
    for limit_name, usage_name, caches in (
        ("memory.max", "memory.current", ("inactive_file", "active_file")),
        (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            ("total_inactive_file", "total_active_file"),
        ),
    ):
        try:
            text = _read(os.path.join(directory, limit_name)).strip()
        except OSError:
            continue
        if text == "max" or int(text) >= NO_LIMIT_BYTES:
            return None
        stat = dict(
            line.split(" ", 1)
            for line in _read(os.path.join(directory, "memory.stat")).splitlines()
        )
        taken = int(_read(os.path.join(directory, usage_name))) - sum(
            int(stat.get(name, 0)) for name in caches
        )
        return max(0, int(text) - max(0, taken)), int(text)
    return None


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def oom_kill_count(proc: str = "/proc/self") -> int:
    """How many processes of this control group the kernel has killed because memory ran out; 0 if
    that cannot be seen.
    """
    try:
        for directory in _groups(proc):
            for name in ("memory.events", "memory.oom_control"):
                try:
                    counts = dict(
                        line.split(" ", 1)
                        for line in _read(os.path.join(directory, name)).splitlines()
                    )
                except OSError:
                    continue
                return int(counts.get("oom_kill", 0))
    except (OSError, ValueError, IndexError):
        pass
    return 0
