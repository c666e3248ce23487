"""A file as it was seen: an entry, which is its stamp and, where known, a digest of its content.

The stamp is size, mtime, ctime and inode. The same stamp is the same file, since any write moves the
ctime. Another stamp means that somebody touched the file, and the digest says whether it matters:

    the size differs                    changed
    both digests are known              changed if they differ: a save of the same text, touch,
                                        cp -p and chmod do nothing
    else                                changed if mtime or inode differ: a chmod or a second link
                                        does nothing, touch counts

A digest counts only with the stamp that the file had before and after it was read. Two writes
within one tick of the kernel's clock leave the same stamp: a file whose ctime is not older than the
last reading is read again (git calls such files "racy").
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct

MAX_DIGESTED_BYTES = 1 << 20  # a larger file is not read

_STAMP = struct.Struct("<Qqqq")
_STAMP_BYTES = _STAMP.size
_RACY_NS = 20_000_000  # two ticks of the slowest kernel clock
_READ_BYTES = 1 << 17


def stamp(status: os.stat_result) -> bytes:
    """The entry of a file whose digest is not known."""
    inode = status.st_ino & 0x7FFFFFFFFFFFFFFF
    return _STAMP.pack(status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode)


def size_bytes(entry: bytes) -> int:
    return int(_STAMP.unpack_from(entry)[0])


def written_at_ns(entry: bytes) -> int:
    """The mtime."""
    return int(_STAMP.unpack_from(entry)[1])


def changed_at_ns(entry: bytes) -> int:
    """The ctime."""
    return int(_STAMP.unpack_from(entry)[2])


def has_digest(entry: bytes) -> bool:
    return len(entry) > _STAMP_BYTES


def same_stamp(one: bytes, other: bytes) -> bool:
    return one[:_STAMP_BYTES] == other[:_STAMP_BYTES]


def differs(old: bytes, new: bytes) -> bool:
    """Whether the content of a file has changed, as far as the two entries tell."""
    if old == new:
        return False
    before, after = _STAMP.unpack_from(old), _STAMP.unpack_from(new)
    if before[0] != after[0]:
        return True
    if has_digest(old) and has_digest(new):
        return old[_STAMP_BYTES:] != new[_STAMP_BYTES:]
    return (before[1], before[3]) != (after[1], after[3])


def read_entry(path: str) -> bytes | None:
    """The entry of a file with its digest.

    None if it cannot be read, is too large, is no regular file, or changes while it is read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_DIGESTED_BYTES:
            return None
        before = stamp(status)
        digest, left = hashlib.blake2b(digest_size=16), MAX_DIGESTED_BYTES + 1
        while left > 0 and (piece := os.read(fd, min(left, _READ_BYTES))):
            digest.update(piece)
            left -= len(piece)
        return before + digest.digest() if stamp(os.fstat(fd)) == before and left > 0 else None
    except OSError:
        return None
    finally:
        os.close(fd)


def updated(path: str, status: os.stat_result, old: bytes | None, old_read_ns: int) -> bytes:
    """The entry of a file that has this status now.

    `old` is the entry it had before, None if there was none; `old_read_ns` is the wall-clock time
    at which that one was made.
    """
    now = stamp(status)
    if old is None:
        return now
    racy = status.st_ctime_ns >= old_read_ns - _RACY_NS
    if same_stamp(old, now) and not (has_digest(old) and racy):
        return old
    if has_digest(old) and size_bytes(old) == status.st_size:
        entry = read_entry(path) or now
        return old if entry == old else entry
    return now
