"""Wait until a program spoils a listener: calls shutdown() on it, or removes its path.

Nothing else ends the wait, neither a connection nor another file in the same directory:

    shutdown()      An epoll set has the sockets and waits for a hang-up only. Without EPOLLIN a
                    connection does not wake sidecar. The set is edge-triggered, so a socket that
                    cannot be repaired does not wake it again and again.
    a removed path  inotify(7) watches the socket's file itself: its number of names changes
                    (IN_ATTRIB) when one of them is removed or replaced, and a move is reported, too.
                    The directory is watched only for its own removal.
"""

from __future__ import annotations

import errno
import os
import select

from sidecar.system import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# inotify(7), <sys/inotify.h>.
_ATTRIB, _DELETE_SELF, _MOVE_SELF = 0x004, 0x400, 0x800
_ONLY_DIRECTORY, _NO_LINK = 0x0100_0000, 0x0200_0000


class ListenerWatch:
    """Readable when one of the listeners has been spoiled. Make a new one for other listeners."""

    def __init__(self, listeners: Iterable[tuple[int, str]]) -> None:
        """Watch these: descriptors of sockets with their paths, "" for none.

        Raises OSError if a descriptor cannot be watched. If a path cannot be watched, `problem` says
        why; otherwise it is "".
        """
        self.problem = ""
        self._inotify = -1
        self._epoll = select.epoll()
        try:
            paths = []
            for fd, path in listeners:
                self._epoll.register(fd, select.EPOLLRDHUP | select.EPOLLET)  # EPOLLHUP as always
                if path:
                    paths.append(path)
            if paths:
                self._watch(paths)
        except BaseException:
            self.close()
            raise

    def _watch(self, paths: Iterable[str]) -> None:
        library = libc.load()
        self._inotify = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._inotify < 0:
            error = libc.last_error()
            limit = "; see fs.inotify.max_user_instances" if error.errno == errno.EMFILE else ""
            self.problem = f"{error.strerror}{limit}"
            return
        self._epoll.register(self._inotify, select.EPOLLIN)
        for path in paths:
            for place, mask in (
                (path, _ATTRIB | _MOVE_SELF | _DELETE_SELF | _NO_LINK),
                (os.path.dirname(path) or ".", _MOVE_SELF | _DELETE_SELF | _ONLY_DIRECTORY),
            ):
                if library.inotify_add_watch(self._inotify, os.fsencode(place), mask) < 0:
                    # What has been removed already is repaired before anybody waits.
                    error = libc.last_error()
                    if error.errno != errno.ENOENT:
                        self.problem = f"{place}: {error.strerror}"

    def fileno(self) -> int:
        """For select: readable when a listener has been spoiled since `take`."""
        return self._epoll.fileno()

    def take(self) -> None:
        """Forget what has happened so far."""
        try:
            while self._inotify >= 0 and os.read(self._inotify, 4096):
                pass
        except BlockingIOError:
            pass
        self._epoll.poll(0)

    def close(self) -> None:
        """Watch nothing any more."""
        self._epoll.close()
        if self._inotify >= 0:
            os.close(self._inotify)
            self._inotify = -1
