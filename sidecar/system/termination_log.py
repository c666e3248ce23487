"""The container's termination message: what Kubernetes shows of a container that has ended.

Source: https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""

from __future__ import annotations

import os

from sidecar.base.printable import printable

TERMINATION_LOG = "/dev/termination-log"
TERMINATION_LOG_MAX_BYTES = 4096


def write_termination_log(reason: str) -> None:
    """Tell Kubernetes why sidecar gives up: it shows this file's content as the container's
    termination message. Never raises.
    """
    try:
        # The file is neither made nor truncated: where it is missing nobody reads it.
        fd = os.open(TERMINATION_LOG, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        return
    try:
        said = printable(reason, "\n\t") + "\n"
        os.write(fd, said.encode("utf-8", "backslashreplace")[:TERMINATION_LOG_MAX_BYTES])
    except OSError:
        pass
    finally:
        os.close(fd)
