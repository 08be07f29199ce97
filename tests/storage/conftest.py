"""Lets the tests of this folder import its two programs, ``commit_script`` and ``power_cut``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
