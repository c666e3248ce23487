"""File descriptors of this process: which are passed on to its children, and at which numbers."""

from __future__ import annotations

import os

# So many descriptors are tried where /proc does not show which are open. Whoever started sidecar
# left the lowest ones open, if any.
MAX_TRIED = 1024

# Descriptors 0, 1 and 2 are everybody's.
_FIRST_OWN = 3


def set_cloexec_on_inherited() -> None:
    """Keep every descriptor that sidecar was started with, except 0, 1 and 2, from its children.
    (Python makes sidecar's own ones close-on-exec by itself: PEP 446.)

    If 0, 1 or 2 is closed it is opened on /dev/null, so that no listener gets that number.
    """
    fd = os.open(os.devnull, os.O_RDWR)
    while fd < _FIRST_OWN:
        os.set_inheritable(fd, True)
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # no /proc, or it may not be read
        numbers = list(range(min(os.sysconf("SC_OPEN_MAX"), MAX_TRIED)))
    for number in numbers:
        if number >= _FIRST_OWN:
            try:
                os.set_inheritable(number, False)
            except OSError:  # not open, or closed meanwhile: one of them listed the directory
                pass
