"""A looker with other rights than the tests': `ready_looker.py INODE,… [--user UID] -- COMMAND …`.

Starts the command (in its own process group, as that user), says its pid, and answers each line on
standard input with one look at it: True, False, or why looking is forbidden. At the end of input it
kills what it started.
"""

import ctypes
import os
import signal
import subprocess
import sys

from sidecar.system.accept_probe import ProbeForbidden, accepts_connections

PR_SET_CHILD_SUBREAPER = 36

if __name__ == "__main__":
    options, command = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    inodes = {int(inode) for inode in options[0].split(",")}
    user = int(options[2]) if "--user" in options else None
    ids = {"user": user, "group": user, "extra_groups": []} if user is not None else {}
    ctypes.CDLL(None).prctl(
        PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0
    )  # as sidecar does: orphans come to us
    program = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=sys.stderr, close_fds=False, process_group=0, **ids
    )
    os.write(program.stdin.fileno(), b"\n")  # a program that waits for a word may go on
    print(program.pid, flush=True)
    try:
        for _ in sys.stdin:
            try:
                print(accepts_connections(program.pid, inodes), flush=True)
            except ProbeForbidden as error:
                print(error, flush=True)
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()
