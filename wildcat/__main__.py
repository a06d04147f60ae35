"""``python -m wildcat``: the command line."""

import sys

from wildcat.cli import main

sys.exit(main())
