"""Where a control socket is put, and looked for. A module of its own, because a probe has no time
to import more.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "sidecar-{pid}.sock"


def places(environ: Mapping[str, str]) -> list[str]:
    """The directories, best first. The last one can be written to under a read-only root, too."""
    found = ("/run", environ.get("XDG_RUNTIME_DIR"), environ.get("TMPDIR") or "/tmp", "/dev/shm")
    return [place for place in found if place]
