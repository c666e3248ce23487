"""The container's termination message: what Kubernetes shows of a container that has ended.

Source: https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""

from __future__ import annotations

import os

from sidecar.base.printable import printable

TERMINATION_LOG = "/dev/termination-log"
TERMINATION_LOG_MOST = 4096  # bytes


def leave_a_reason(reason: str) -> None:
    """Tell Kubernetes why sidecar ends by itself: it shows this file's content as the container's
    termination message.
    """
    try:
        # Neither made nor truncated: where the file is missing nobody reads it.
        fd = os.open(TERMINATION_LOG, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        return
    try:
        said = printable(reason, "\n\t") + "\n"
        os.write(fd, said.encode("utf-8", "backslashreplace")[:TERMINATION_LOG_MOST])
    except OSError:
        pass
    finally:
        os.close(fd)
