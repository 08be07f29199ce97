"""Cutting proofs out of what a node keeps: for an expert, and for evidence.

``Prover`` reads the disk's blocks and logs and makes the self-contained forms of
``ledger/light.py`` and ``medical/proof.py``: light blocks, handovers, Merkle places. What it makes
is checked by who gets it; a piece that is not here is named in a ``LocalProtocolError``.

Verdicts of a ledger that is only carried are not known here. A block of it is proven if its
verdict root is that of all applied, which is the common case, and for a county's anchor the only
one that is of use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from p2pmed.consensus.interface import header_digest
from p2pmed.errors import LocalProtocolError
from p2pmed.ledger.block import verdict_leaf
from p2pmed.ledger.epochs import Epochs
from p2pmed.ledger.light import LightBlock, Placed, handovers_to, lighten
from p2pmed.ledger.merkle import merkle_proof, merkle_root
from p2pmed.ledger.state import APPLIED, Verdict
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.county import ANCHOR, Anchor
from p2pmed.medical.membership import LogOpen
from p2pmed.medical.proof import Anchored, Opened, Ordered, RecordProof
from p2pmed.wire import codec

if TYPE_CHECKING:
    from p2pmed.node.node import Node

__all__ = ["Prover", "prove"]

BLOCKS_A_SLICE: Final = 32
"""County blocks looked through before other tasks get their turn."""


@dataclass(frozen=True, slots=True)
class _Block:
    entries: list[Entry]
    verdicts: list[Verdict]
    light: LightBlock


class Prover:
    """Proofs of what one node holds."""

    def __init__(self, node: Node) -> None:
        self._node = node
        replica = node.replica
        self._chains = replica.chains
        self._villages = replica.villages
        self._logs = replica.logs

    def ordered(self, ledger: bytes, height: int, entry: Entry) -> Ordered:
        """That ``ledger`` ordered ``entry`` at ``height``. Raises ``LocalProtocolError``."""
        founding = self._chains.founding(ledger)
        if founding is None:
            raise LocalProtocolError("the ledger's founding is not here")
        block = self._block(ledger, height)
        ids = [each.id for each in block.entries]
        if entry.id not in ids:
            raise LocalProtocolError("another branch of a forked log was ordered")
        return Ordered(
            founding=founding,
            handovers=handovers_to(
                block.light.header.epoch,
                Epochs(self._node.world.disk, founding.genesis.epoch()),
                lambda at: self._chains.block_at(ledger, at),
            ),
            block=block.light,
            placed=_place(block, ids.index(entry.id)),
            entry=entry.raw,
            chain=self._chain_of(entry),
        )

    async def anchored(self, ledger: bytes, height: int) -> Anchored | None:
        """The anchor by which a county took in block ``height``; ``None`` if none is known."""
        for county, watch in self._node.replica.watches.items():
            if county == ledger:
                continue
            for at in range(1, watch.height + 1):
                if at % BLOCKS_A_SLICE == 0:
                    await asyncio.sleep(0)
                for block in self._villages.blocks(county, at - 1, at):
                    for entry in block.entries:
                        anchor = self._covers(entry, ledger, height)
                        if anchor is not None:
                            return self._vouched(county, at, entry, ledger, height, anchor)
        return None

    def _covers(self, entry: Entry, ledger: bytes, height: int) -> Anchor | None:
        if entry.kind != ANCHOR:
            return None
        anchor = self._node.body(entry)
        if not isinstance(anchor, Anchor) or anchor.ledger != ledger:
            return None
        if not anchor.start < height <= anchor.height:
            return None
        top = self._chains.block_at(ledger, anchor.height)
        known = top is not None and header_digest(top.block.header) == anchor.head
        return anchor if known else None

    def _vouched(
        self, county: bytes, at: int, entry: Entry, ledger: bytes, height: int, anchor: Anchor
    ) -> Anchored | None:
        headers = []
        for between in range(height + 1, anchor.height + 1):
            stored = self._chains.block_at(ledger, between)
            assert stored is not None  # the one on top is here, and chains have no holes
            headers.append(stored.block.header)
        try:
            ordered = self.ordered(county, at, entry)
        except LocalProtocolError:
            return None
        return Anchored(headers=tuple(headers), anchor=ordered)

    def _block(self, ledger: bytes, height: int) -> _Block:
        light = lighten(lambda at: self._chains.block_at(ledger, at), height)
        found = next(self._villages.blocks(ledger, height - 1, height), None)
        if light is None or found is None:
            raise LocalProtocolError(
                f"block {height} is not here with all that it orders and what proves it",
                hint="wait until the node has caught up",
            )
        verdicts = self._verdicts(ledger, found.entries)
        leaves = _leaves(found.entries, verdicts)
        if merkle_root(leaves) != light.summary.verdicts:
            raise LocalProtocolError(
                f"the verdicts of block {height} are not known here",
                hint="ask a member of that ledger for the proof",
            )
        return _Block(found.entries, verdicts, light)

    def _verdicts(self, ledger: bytes, entries: Sequence[Entry]) -> list[Verdict]:
        home = self._node.replica.home
        if home is None or home.ledger != ledger:
            return [Verdict(code=APPLIED)] * len(entries)
        found = [home.chain.verdict_of(entry) for entry in entries]
        return [verdict or Verdict(code=APPLIED) for verdict in found]

    def _chain_of(self, entry: Entry) -> tuple[bytes, ...]:
        opening = self._logs.entry(entry.lane, 0)
        body = None if opening is None else self._node.body(opening)
        if not isinstance(body, LogOpen):
            raise LocalProtocolError("the author's credentials are not here")
        return body.chain


async def prove(node: Node, entry: Entry, *, reveal: bool = False) -> bytes:
    """The proof file of a transaction that is final in the home ledger.

    ``reveal`` adds its content in clear, for who holds the patient's keys. Raises
    ``LocalProtocolError`` if it is not final, not sealed or not readable here, or a piece of the
    proof is not here. Cancelling leaves nothing behind.
    """
    place = node.final_place(entry)
    if place is None:
        raise LocalProtocolError(
            "the transaction is not final in a ledger of this node",
            hint="a proof is of what was ordered; see `p2pmed show`",
        )
    prover = Prover(node)
    opened = None
    if reveal:
        async with node.reads.announced([entry]):
            body = node.patients.read(entry)
        if body is None:
            raise LocalProtocolError(
                "this device cannot open that transaction's content",
                hint="leave --open out, or ask who holds the patient's keys",
            )
        opened = Opened(salt=body.salt, resource=body.resource)
    proof = RecordProof(
        format="p2pmed/1 proof",
        manifest=node.replica.identity.manifest_raw,
        record=prover.ordered(place.ledger, place.height, entry),
        anchored=await prover.anchored(place.ledger, place.height),
        opened=opened,
    )
    return codec.encode(proof)


def _leaves(entries: Sequence[Entry], verdicts: Sequence[Verdict]) -> list[bytes]:
    return [verdict_leaf(e.id, v) for e, v in zip(entries, verdicts, strict=True)]


def _place(block: _Block, index: int) -> Placed:
    verdict = block.verdicts[index]
    return Placed(
        index=index,
        path=tuple(merkle_proof([entry.id for entry in block.entries], index)),
        code=verdict.code,
        other=verdict.other,
        verdict_path=tuple(merkle_proof(_leaves(block.entries, block.verdicts), index)),
    )
