"""What was last told, kept in a memfd of PID 1: a watcher started anew finds what changed while
there was none.

Two copies, written alternately, each with length and checksum: whenever the writer dies, the other
one is whole. Told first, kept afterwards: dying in between, a change is told twice, never not at
all. The second copy starts at an offset that the first never reaches; the hole between them takes
no memory.
"""

from __future__ import annotations

import os
import struct
import zlib

_HEADER = struct.Struct("<8sQQI")
_MAGIC = b"sidecar1"
_APART = 1 << 32
MOST = 128 << 20


class Memory:
    """One content, kept in the file descriptor `fd`; with None nothing is kept."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._number = 0

    def load(self) -> tuple[bytes | None, bool]:
        """The newest whole content, None if there is none; and whether something had been kept at
        all.
        """
        if self._fd is None:
            return None, False
        best: tuple[int, bytes] | None = None
        try:
            used = os.fstat(self._fd).st_size > 0
            for half in (0, 1):
                found = self._half(half)
                if found is not None and (best is None or found[0] > best[0]):
                    best = found
        except (OSError, MemoryError):
            return None, True
        if best is None:
            return None, used
        self._number = best[0]
        return best[1], True

    def _half(self, half: int) -> tuple[int, bytes] | None:
        assert self._fd is not None
        header = os.pread(self._fd, _HEADER.size, half * _APART)
        if len(header) < _HEADER.size:
            return None
        magic, number, length, check = _HEADER.unpack(header)
        if magic != _MAGIC or length > MOST or number % 2 != half:
            return None
        pieces, at = [], half * _APART + _HEADER.size
        end = at + length
        while at < end and (piece := os.pread(self._fd, min(end - at, 1 << 24), at)):
            pieces.append(piece)
            at += len(piece)
        content = b"".join(pieces)
        return (
            (number, content)
            if len(content) == length and _check(number, content) == check
            else None
        )

    def keep(self, content: bytes) -> None:
        """Keep this instead.

        What is too long, or cannot be written, leaves the memory unreadable: a new watcher then
        says that it does not know.
        """
        if self._fd is None:
            return
        number = self._number + 1
        at = number % 2 * _APART
        try:
            os.pwrite(self._fd, bytes(_HEADER.size), at)
            if len(content) > MOST:
                os.pwrite(self._fd, bytes(_HEADER.size), (number + 1) % 2 * _APART)
                return
            view, where = memoryview(content), at + _HEADER.size
            while view:
                written = os.pwrite(self._fd, view[: 1 << 24], where)
                view, where = view[written:], where + written
            os.pwrite(
                self._fd, _HEADER.pack(_MAGIC, number, len(content), _check(number, content)), at
            )
            self._number = number
        except OSError:
            try:
                os.ftruncate(self._fd, 1)
            except OSError:
                pass


def _check(number: int, content: bytes) -> int:
    """A checksum of the content and of what the header says of it: half a header must not pass
    either.
    """
    return zlib.crc32(content, zlib.crc32(b"%d %d" % (number, len(content))))
