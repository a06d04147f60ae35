"""``python -m wildcat.cli``: the command line."""

import sys

from wildcat.cli import main

sys.exit(main())
