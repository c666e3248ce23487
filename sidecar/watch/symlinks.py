"""Where a path leads, link by link."""

from __future__ import annotations

import os
import stat

MAX_LINKS = 40  # as many as the kernel follows


def deciding_names(path: str) -> list[tuple[str, str]]:
    """The names that decide where an absolute path leads: (directory, name), where no part of the
    directory is a symlink.

    Each symlink on the way is one, and the last name. If a name on the way is
    missing, it is the last.
    """
    found: list[tuple[str, str]] = []
    here, names, links = "/", [each for each in reversed(path.split("/")) if each], 0
    while names:
        name = names.pop()
        if name == ".":
            continue
        if name == "..":
            here = os.path.dirname(here)
            continue
        path_here = os.path.join(here, name)
        try:
            mode = os.lstat(path_here).st_mode
        except OSError:
            return [*found, (here, name)]
        if stat.S_ISLNK(mode):
            found.append((here, name))
            links += 1
            try:
                target = os.readlink(path_here)
            except OSError:
                return found
            if links > MAX_LINKS:
                return found
            names += [each for each in reversed(target.split("/")) if each]
            here = "/" if target.startswith("/") else here
        else:
            if not names:
                found.append((here, name))
            here = path_here
    return found
