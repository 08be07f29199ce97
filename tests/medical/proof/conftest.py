"""Lets the tests of this folder import their own helpers and the ledger's: no packages here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[2] / "ledger")]
