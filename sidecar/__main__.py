"""`python -m sidecar`: the same as the command."""

import sys

from sidecar.cli.main import main

sys.exit(main())
