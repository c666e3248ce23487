"""web.py that takes HEAVY MiB of memory first, and more at /eat: until it is killed."""

from __future__ import annotations

import os

import web

ballast = [bytearray(os.urandom(1 << 20)) for _ in range(int(os.environ.get("HEAVY", "0")))]

web.PATHS["/eat"] = lambda: [ballast.append(bytearray(os.urandom(1 << 20))) for _ in range(1 << 20)]

if __name__ == "__main__":
    web.main()
