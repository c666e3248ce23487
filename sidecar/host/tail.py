"""The last of what a process writes, read from a pipe."""

from __future__ import annotations

import os

MAX_TAIL_BYTES = 2000


class Tail:
    """The last of what a command writes, kept for whoever has to be told why it failed."""

    def __init__(self, max_bytes: int = MAX_TAIL_BYTES) -> None:
        """Keep the last `max_bytes`. Raises OSError."""
        self._max_bytes = max_bytes
        self._read, self.write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        self._data = b""

    def fileno(self) -> int:
        """Readable when there is more."""
        return self._read

    def started(self) -> None:
        """The command has been started, and has its end of the pipe."""
        os.close(self.write)
        self.write = -1

    def take(self) -> bool:
        """Read what is there. Whether there may be more to come."""
        for _ in range(64):
            try:
                part = os.read(self._read, 1 << 14)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not part:
                return False
            self._data = (self._data + part)[-self._max_bytes :]
        return True

    def close(self) -> str:
        """Read the rest and close. The text, from the beginning of a line if it had to be cut."""
        data = self.close_raw()
        cut = data.partition(b"\n")[2] if len(data) == self._max_bytes else data
        return cut.decode("utf-8", "replace").strip("\n")

    def close_raw(self) -> bytes:
        """Read the rest and close. The bytes as they were written."""
        if self._read >= 0:
            self.take()
        for fd in (self._read, self.write):
            if fd >= 0:
                os.close(fd)
        self._read = self.write = -1
        return self._data
