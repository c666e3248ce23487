"""`python -m sidecar.start_server`: the same as the command."""

import sys

from sidecar.start_server.main import main

sys.exit(main())
