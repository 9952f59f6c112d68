"""``python -m jetcamer.cli`` is ``jetcamer``."""

import sys

from jetcamer.cli import main

sys.exit(main())
