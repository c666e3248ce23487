"""The entry of the helper process: `python -I -m sidecar.watch`.

Its configuration is in the variable SIDECAR_WATCHER, not in its arguments, which everybody on the
machine can read. It is one JSON object, made by PID 1:

    watch, ignore, only            lists: directories and files; patterns of .gitignore's kind; what counts, everything if empty
    own                            list: files that sidecar writes itself, which never count
    settings                       the settings file, "" if there is none
    settle                         seconds; null: 50 ms for up to three paths, 200 ms for more
    mode                           "auto", "inotify" or "poll"
    env, env_whole, env_lenient    the envdirs, and how sidecar.system.envdir reads them
    env_poll                       seconds between two readings of the envdirs, whatever inotify says
    since                          wall-clock seconds: a file that was changed later counts as changed when first seen
    memory                         the number of an inherited memfd (saved_state.py)

Standard output is a pipe to PID 1; each line is a JSON object shorter than 4000 bytes, told at
once:

    {"event": "watching", "roots": […], "directories": N, "mode": "inotify" or "poll", "why": "" or a sentence}
    {"event": "changed", "paths": [up to 20], "count": N, "settings": true if the settings file is among them}
                                                               one for each burst; no path: it is not known what
    {"event": "env", "names": […], "error": "" or a sentence}  the environment that would be read is another one
    {"event": "notice", "text": "a sentence for the log"}

Standard input is a pipe that nobody writes to: its end is the end of sidecar, and ours. If sidecar
is killed, so are we.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import sys

from sidecar.watch.watcher import Watcher, put_off_alarm

VARIABLE = "SIDECAR_WATCHER"

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Watch until standard input ends; the exit status."""
    try:
        config = json.loads(os.environ[VARIABLE])
        if not isinstance(config, dict):
            raise ValueError("it is no JSON object")
        watcher = Watcher(config)
    except (KeyError, ValueError) as error:
        print(
            f"sidecar.watch is started by sidecar, with its configuration in {VARIABLE}, which is wrong: {error}",
            file=sys.stderr,
        )
        return 2
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGHUP,
    ):  # a terminal sends them to everybody: sidecar says when it ends
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    faulthandler.register(signal.SIGALRM, chain=True)
    put_off_alarm()
    try:
        watcher.run()
    except BrokenPipeError:
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
