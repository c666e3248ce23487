"""The server of web.py as one that is deployed: it reads /srv/code/release.json when it starts, and
answers what it found there.

    {"version": "v2", "broken": [NAME …], "waiting": [NAME …]}

In the container that is called NAME by its variable, it exits at once if it is broken there, or
waits for the file /srv/code/go.
"""

from __future__ import annotations

import json
import os
import sys
import time

import web

release = json.load(open("/srv/code/release.json"))
name = os.environ["NAME"]
who = web.who


def answer() -> dict[str, object]:
    return {
        **who(),
        "name": name,
        "version": release["version"],
        "secret": os.environ.get("TOKEN", ""),
    }


if name in release.get("broken", ()):
    sys.exit("it is broken here")
while name in release.get("waiting", ()) and not os.path.exists("/srv/code/go"):
    time.sleep(0.02)
web.PATHS["/"] = answer
web.main()
