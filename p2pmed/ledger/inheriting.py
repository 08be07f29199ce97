"""A successor begins with what its predecessor left: stock, prescriptions, members, verdicts.

Rule: the first state of a ledger that follows another one is the other's state after the height
that the genesis names, row by row. The genesis names the header at that height, and that header
commits to the state's root; who does not hold exactly that state does not begin. So author logs
go on where the predecessor ordered them last, and nothing is executed twice.

What is copied: the state's rows, verdicts, and for each log up to where it is ordered, as of
height 0. Byte-exact: ``docs/protocols/genesis.md``, section 6.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from p2pmed.consensus.interface import header_digest
from p2pmed.errors import LocalProtocolError
from p2pmed.ledger import lthash
from p2pmed.ledger.block import decode_body
from p2pmed.ledger.executing import TIP_ROWS
from p2pmed.ledger.genesis import Genesis, ledger_id
from p2pmed.ledger.stored import STORED_BYTES_MAX, StoredBlock
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX
from p2pmed.wire import codec
from p2pmed.world import Disk, Space

__all__ = ["holds_estate", "inherit"]

_SUM: Final = b"state"
"""META row, before a ledger's id: the sum of its state's rows, and its executed height (8)."""
_HEIGHT_BYTES: Final = 8
_PAGE: Final = 512


def holds_estate(disk: Disk, genesis: Genesis) -> bool:
    """Whether this disk holds the predecessor's state exactly after the height that is named."""
    elder, height = genesis.predecessor, genesis.predecessor_height
    raw = disk.get(Space.META, _SUM + elder)
    executed = 0 if raw is None else int.from_bytes(raw[-_HEIGHT_BYTES:], "big")
    if height == 0:
        return executed == 0 and genesis.predecessor_digest == elder
    block = disk.get(Space.BLOCK, elder + height.to_bytes(8, "big"))
    if raw is None or block is None or executed != height:
        return False
    last = codec.decode(block, StoredBlock, limit=STORED_BYTES_MAX).block
    body = decode_body(last.content, limit=BLOCK_CONTENT_BYTES_MAX)
    root = lthash.state_root(lthash.from_bytes(raw[:-_HEIGHT_BYTES]))
    return header_digest(last.header) == genesis.predecessor_digest and root == body.summary.state


def inherit(disk: Disk, genesis: Genesis) -> None:
    """Stage the predecessor's state as the successor's first one.

    Raises ``LocalProtocolError`` if another state of the predecessor is here.
    """
    if not holds_estate(disk, genesis):
        raise LocalProtocolError(
            "this node does not hold the predecessor up to the block that the new ledger names",
            hint="stay in sight of its founders until it has caught up, and try again",
        )
    elder, heir = genesis.predecessor, ledger_id(genesis)
    for space in (Space.STATE, Space.VERDICT):
        for key, value in _rows(disk, space, elder):
            disk.stage(space, heir + key, value)
    for key, value in _rows(disk, Space.STATE, elder + TIP_ROWS):
        last = int.from_bytes(value[:8], "big") - 1
        disk.stage(Space.TIP, heir + key + last.to_bytes(8, "big"), bytes(8))
    raw = disk.get(Space.META, _SUM + elder)
    if raw is not None:
        start = raw[:-_HEIGHT_BYTES] + bytes(_HEIGHT_BYTES)
        disk.stage(Space.META, _SUM + heir, start)


def _rows(disk: Disk, space: Space, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Rows under ``prefix`` in key order, their keys without it; pages are read ahead."""
    start, end = prefix, prefix + b"\xff" * 129
    while True:
        rows = disk.scan(space, start, end, limit=_PAGE)
        for key, value in rows:
            yield key[len(prefix) :], value
        if len(rows) < _PAGE:
            return
        start = rows[-1][0] + b"\x00"
