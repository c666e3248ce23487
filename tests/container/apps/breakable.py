"""web.py, unless the variable BROKEN is set: then it ends at once."""

import os

import web

if "BROKEN" in os.environ:
    raise SystemExit(9)
web.main()
