"""All defects that the core-level scenarios must find, by name.

A simulator that finds nothing has proved nothing. Each defect changes real protocol code for
the length of a run (``patching.py``), and is found by the oracle or by the bound on progress,
which know nothing of it. ``p2pmed sim --planted`` prints in how many seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from p2pmed.testing.core.defect import CoreDefect
from p2pmed.testing.core.planted_blocks import BLOCK_DEFECTS
from p2pmed.testing.core.planted_elections import ELECTION_DEFECTS
from p2pmed.testing.core.planted_log import LOG_DEFECTS
from p2pmed.testing.core.planted_votes import VOTE_DEFECTS

__all__ = ["BFT_DEFECTS", "DEFECTS", "RAFT_DEFECTS"]

RAFT_DEFECTS: Final[Mapping[str, CoreDefect]] = MappingProxyType(
    {**ELECTION_DEFECTS, **LOG_DEFECTS}
)
BFT_DEFECTS: Final[Mapping[str, CoreDefect]] = MappingProxyType({**VOTE_DEFECTS, **BLOCK_DEFECTS})
DEFECTS: Final[Mapping[str, CoreDefect]] = MappingProxyType({**RAFT_DEFECTS, **BFT_DEFECTS})
