"""What was last reported, kept in a memfd of PID 1: a watcher that is started again finds what
changed while there was none.

There are two copies, written alternately, each with length and checksum: whenever the writer dies,
the other one is whole. A change is reported first and saved afterwards: if the watcher dies in
between, the change is reported twice, and never not at all. The second copy starts at an offset that
the first never reaches; the hole between them takes no memory.
"""

from __future__ import annotations

import os
import struct
import zlib

_HEADER = struct.Struct("<8sQQI")
_MAGIC = b"sidecar1"
_COPY_OFFSET = 1 << 32
MAX_BYTES = 128 << 20
_PIECE_BYTES = 1 << 24


class SavedState:
    """One content, saved in the file descriptor `fd`; with None nothing is saved."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._number = 0

    def load(self) -> tuple[bytes | None, bool]:
        """The newest whole content, None if there is none; and whether anything had been saved."""
        if self._fd is None:
            return None, False
        best: tuple[int, bytes] | None = None
        try:
            used = os.fstat(self._fd).st_size > 0
            for copy in (0, 1):
                found = self._load_copy(copy)
                if found is not None and (best is None or found[0] > best[0]):
                    best = found
        except (OSError, MemoryError):
            return None, True
        if best is None:
            return None, used
        self._number = best[0]
        return best[1], True

    def _load_copy(self, copy: int) -> tuple[int, bytes] | None:
        assert self._fd is not None
        header = os.pread(self._fd, _HEADER.size, copy * _COPY_OFFSET)
        if len(header) < _HEADER.size:
            return None
        magic, number, length, check = _HEADER.unpack(header)
        if magic != _MAGIC or length > MAX_BYTES or number % 2 != copy:
            return None
        pieces, at = [], copy * _COPY_OFFSET + _HEADER.size
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

    def save(self, content: bytes) -> None:
        """Save this instead of what was saved before.

        If it is too long, or cannot be written, nothing can be loaded: the next watcher then reports
        that it does not know what has changed.
        """
        if self._fd is None:
            return
        number = self._number + 1
        at = number % 2 * _COPY_OFFSET
        try:
            os.pwrite(self._fd, bytes(_HEADER.size), at)
            if len(content) > MAX_BYTES:
                os.pwrite(self._fd, bytes(_HEADER.size), (number + 1) % 2 * _COPY_OFFSET)
                return
            view, where = memoryview(content), at + _HEADER.size
            while view:
                written = os.pwrite(self._fd, view[:_PIECE_BYTES], where)
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
    """A checksum of the content and of its header, so that half a header is not accepted either."""
    return zlib.crc32(content, zlib.crc32(b"%d %d" % (number, len(content))))
