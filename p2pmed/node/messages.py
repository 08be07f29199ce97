"""Everything that travels between nodes: one union, told apart by integer tags.

Tags: 1 to 19 gossip, 20 to 29 chains, 30 to 39 founding, 40 consensus, 41 and 42 branches.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from p2pmed.gossip.messages import GossipMessage
from p2pmed.node.branches import BranchAsk, BranchEntries
from p2pmed.sync.chains import ChainMessage
from p2pmed.sync.founding import FormationMessage
from p2pmed.wire import codec
from p2pmed.wire.codec import Bytes32, Count, Wire

__all__ = ["ConsensusFrame", "NodeMessage", "decode_message"]


class ConsensusFrame(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=40):
    """A message of an engine, opaque here; engines of two epochs never hear each other."""

    ledger: Bytes32
    epoch: Count
    message: bytes


NodeMessage: TypeAlias = (
    GossipMessage | ChainMessage | FormationMessage | ConsensusFrame | BranchAsk | BranchEntries
)

_MESSAGES: Final = codec.Tagged[NodeMessage](NodeMessage)


def decode_message(raw: bytes) -> NodeMessage:
    """The message that ``raw`` spells. Raises ``DecodeError``."""
    return _MESSAGES.decode(raw)
