"""What a lying device tells nodes, engines left out: chains, entries, heights.

As ``liars.py``, of which it is a part: each lie is well-formed, and withstood with either engine,
since what is told is proven, or not believed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec

from p2pmed.consensus.interface import Block, header_digest
from p2pmed.gossip.messages import Entries, Have, Head, Mark, Ping, Push
from p2pmed.ledger.block import content_hash, decode_body
from p2pmed.ledger.stored import STORED_BYTES_MAX, StoredBlock
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX
from p2pmed.sync.chains import ChainBlocks
from p2pmed.wire import codec

__all__ = ["NODE_LIES"]

Lie = Callable[[Any, int, Any], "Sequence[Any] | None"]


def _lie_in_sync(liar: Any, target: int, message: Any) -> Sequence[Any] | None:
    """Blocks without proof, with a false one, or that are not what was decided."""
    if isinstance(message, Ping):
        heads = tuple(Head(ledger=h.ledger, height=h.height + 40) for h in message.heads)
        return [msgspec.structs.replace(message, heads=heads)]
    if not isinstance(message, ChainBlocks) or not message.blocks:
        return None
    raws = list(message.blocks)
    at = liar.dice.randrange(len(raws))
    stored = codec.decode(raws[at], StoredBlock, limit=STORED_BYTES_MAX)
    raws[at] = codec.encode(_false_block(liar, target, stored))
    return [msgspec.structs.replace(message, blocks=tuple(raws))]


def _false_block(liar: Any, target: int, stored: StoredBlock) -> StoredBlock:
    header, certificate = stored.block.header, stored.certificate
    body = decode_body(stored.block.content, limit=BLOCK_CONTENT_BYTES_MAX)
    summary = msgspec.structs.replace(body.summary, time=body.summary.time + 1)
    other = Block(
        header=msgspec.structs.replace(header, content=content_hash(summary)),
        content=codec.encode(msgspec.structs.replace(body, summary=summary)),
    )
    seats = len(liar.node.home.epoch.validators) if liar.node.home else 1
    choice = (liar.theme if liar.dice.random() < 0.5 else liar.dice.randrange(7)) % 7
    if choice == 0 or certificate is None:
        return msgspec.structs.replace(stored, block=other)
    if choice == 1:
        digest = header_digest(other.header)
        forged = msgspec.structs.replace(
            certificate, digest=digest, signers=(1 << seats) - 1,
            signatures=(certificate.signatures[0],) * seats,
        )  # fmt: skip
        return msgspec.structs.replace(stored, block=other, certificate=forged)
    if choice == 2:
        content = Block(header=header, content=other.content)
        return msgspec.structs.replace(stored, block=content)
    if choice == 3:
        fewer = msgspec.structs.replace(
            certificate,
            signers=certificate.signers & -certificate.signers,
            signatures=certificate.signatures[:1],
        )
        return msgspec.structs.replace(stored, certificate=fewer)
    if choice == 4:  # of which the next one speaks, and no certificate
        return msgspec.structs.replace(stored, block=other, certificate=None)
    if choice == 5:  # true, and proven by the next one alone
        return msgspec.structs.replace(stored, certificate=None)
    skipped = msgspec.structs.replace(header, parent=bytes([target]) * 32)
    return msgspec.structs.replace(stored, block=Block(skipped, stored.block.content))


def _forge_entries(liar: Any, _: int, message: Any) -> Sequence[Any] | None:
    """Entries of others, changed on their way; growth of logs that did not grow."""
    if isinstance(message, Have):
        lanes = tuple(
            Mark(mark.author, mark.incarnation, mark.next_seq + 5) for mark in message.lanes
        )
        return [msgspec.structs.replace(message, lanes=lanes)]
    if not isinstance(message, Push | Entries) or not message.entries:
        return None
    raws = list(message.entries)
    at = liar.dice.randrange(len(raws))
    raw = bytearray(raws[at])
    where = liar.dice.randint(max(0, len(raw) - liar.dice.choice((64, 400))), len(raw) - 1)
    raw[where] ^= 1 << liar.dice.randrange(8)
    raws[at] = bytes(raw)
    return [msgspec.structs.replace(message, entries=tuple(raws))]


NODE_LIES: Final[Mapping[str, Lie]] = MappingProxyType(
    {"lies in sync": _lie_in_sync, "forged entries": _forge_entries}
)
