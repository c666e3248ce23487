"""Tells the moment, as server.py does, and becomes the program that it is given: `python -I -S
exec.py PROGRAM [ARGUMENT ...]`.

What had to be made before the program could be started, such as a pid namespace, is then not
counted as its start-up.
"""

import posix
import sys
import time

posix.write(1, b"exec %d %.6f\n" % (posix.getpid(), time.monotonic()))
posix.execv(sys.argv[1], sys.argv[1:])
