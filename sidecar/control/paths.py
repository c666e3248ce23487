"""Where a control socket is looked for, and put. By itself, because a probe has no time to import
more.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "sidecar-{pid}.sock"


def places(environ: Mapping[str, str]) -> list[str]:
    """The directories, best first. The last is there under a read-only root too."""
    return [
        *filter(
            None,
            ["/run", environ.get("XDG_RUNTIME_DIR"), environ.get("TMPDIR") or "/tmp", "/dev/shm"],
        )
    ]
