"""The rows of one epoch's engine on this node.

Rule: an engine knows one epoch. Its rows stand under the ledger and the epoch's number, so that
no row of an old epoch is ever read into a new one, and are deleted in the commit that makes the
epoch's seal durable.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from p2pmed.consensus.bft.engine import BftEngine
from p2pmed.consensus.raft.engine import RaftEngine
from p2pmed.quorum.certificate import Epoch
from p2pmed.world import Disk, Space

__all__ = ["ENGINES", "Engines", "forget_rows", "row_key", "rows_of"]

Engines: TypeAlias = dict[str, type[BftEngine] | type[RaftEngine]]

ENGINES: Final[Engines] = {"bft": BftEngine, "raft": RaftEngine}
"""By the genesis' word."""
_PAGE: Final = 512


def row_key(epoch: Epoch, key: bytes) -> bytes:
    """Where a record of the engine of ``epoch`` stands in ``Space.CONSENSUS``."""
    return epoch.ledger + epoch.number.to_bytes(8, "big") + key


def rows_of(disk: Disk, epoch: Epoch) -> dict[bytes, bytes]:
    """What the engine of ``epoch`` has stored."""
    prefix = row_key(epoch, b"")
    start, rows = prefix, {}
    while True:
        page = disk.scan(Space.CONSENSUS, start, prefix + b"\xff" * 64, limit=_PAGE)
        rows.update({key[len(prefix) :]: value for key, value in page})
        if len(page) < _PAGE:
            return rows
        start = page[-1][0] + b"\x00"


def forget_rows(disk: Disk, epoch: Epoch) -> None:
    """Stage the end of the engine of ``epoch``: it is over, and signs nothing more."""
    for key in rows_of(disk, epoch):
        disk.stage(Space.CONSENSUS, row_key(epoch, key), None)
