"""The sources that the loop waits on: descriptors, each with what reads it. One whose reading raised
is left out for a pause, for it stays readable and would end every wait at once.
"""

from __future__ import annotations

import selectors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import HasFileno

    # What reads a source, called with the time.
    OnReadable = Callable[[float], None]

# The system waits for no more than 24 days at a time: one wait is at most this long.
MAX_WAIT_S = 20 * 86400.0


class Sources:
    """All of them. Times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        # Those that are left out, by descriptor: the source, what reads it, and until when.
        self._paused: dict[int, tuple[HasFileno | int, OnReadable, float]] = {}

    def listen_to(self, source: HasFileno | int, on_readable: OnReadable) -> None:
        """Have it read in each turn in which there is something to read."""
        self.stop_listening(source)
        self._selector.register(source, selectors.EVENT_READ, on_readable)

    def stop_listening(self, source: HasFileno | int) -> None:
        """Nothing is to be read from it any more; it need not have been listened to."""
        fd = source if isinstance(source, int) else source.fileno()
        if fd >= 0:
            self._paused.pop(fd, None)
            if fd in self._selector.get_map():
                self._selector.unregister(fd)

    def listens_to(self, source: HasFileno) -> bool:
        """Whether it is listened to at this moment."""
        return source.fileno() >= 0 and source.fileno() in self._selector.get_map()

    def only(self, source: HasFileno) -> None:
        """Listen to nothing else any more."""
        for key in list(self._selector.get_map().values()):
            if key.fileobj is not source:
                self._selector.unregister(key.fileobj)

    def wait(self, timeout: float) -> list[selectors.SelectorKey]:
        """Wait for something to read, at most `timeout` seconds, which may be infinite: the sources
        that can be read. Raises OSError.
        """
        limit = None if timeout == float("inf") else min(max(0.0, timeout), MAX_WAIT_S)
        return [key for key, _ in self._selector.select(limit)]

    def has(self, key: selectors.SelectorKey) -> bool:
        """Whether it is listened to still: reading another source may have closed it."""
        return self._selector.get_map().get(key.fd) == key

    def pause(self, key: selectors.SelectorKey, until: float) -> None:
        """Leave a source out until that moment."""
        self.stop_listening(key.fileobj)
        self._paused[key.fd] = (key.fileobj, key.data, until)

    def deadline(self) -> float:
        """When the first one that is left out is listened to again."""
        return min((until for _, _, until in self._paused.values()), default=float("inf"))

    def on_deadline(self, now: float) -> None:
        """Listen again to those whose pause is over."""
        for fd, (source, on_readable, until) in list(self._paused.items()):
            if until <= now:
                del self._paused[fd]
                self.listen_to(source, on_readable)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._selector.close()
