"""``python -m p2pmed``."""

from __future__ import annotations

import sys

from p2pmed.cli import main

sys.exit(main())
