"""What travels between validators of one epoch: six messages, an integer tag each.

Rules:

* A message speaks for the channel it came through: no message names its sender, so nobody
  can vote in another's name. What must convince a third party is signed (votes) or is a
  quorum of such signatures (certificates).
* Every tuple has a bound, and the largest message fits in one frame.

Byte-exact: ``docs/protocols/bft.md``, clauses 2 and 3.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from p2pmed.consensus.interface import Block, Header
from p2pmed.limits import FRAME_BYTES_MAX, VALIDATORS_MAX
from p2pmed.quorum.certificate import Certificate, VoteKind
from p2pmed.wire import codec
from p2pmed.wire.codec import Bytes32, Bytes64, Count, Wire

__all__ = [
    "ASK_BLOCKS_MAX",
    "CERTIFICATES_MAX",
    "CONTENT_BYTES_MAX",
    "JUSTIFICATION_MAX",
    "Ask",
    "Body",
    "Certificates",
    "Decided",
    "Message",
    "Proposal",
    "Vote",
    "decode_message",
    "encode_message",
]

JUSTIFICATION_MAX: Final = 17
"""What admits the parent, and sixteen skipped views; older gaps are asked for (R2)."""

CERTIFICATES_MAX: Final = 32
"""Certificates in one answer; the next ask continues above them."""

ASK_BLOCKS_MAX: Final = 4
"""Blocks asked for at once; each comes back in a message of its own."""

CERTIFICATE_BYTES_MAX: Final = 160 + 66 * VALIDATORS_MAX
"""Fixed fields, and two bytes of head before each signature."""

CONTENT_BYTES_MAX: Final = FRAME_BYTES_MAX - 64 * 1024
"""The longest content that can be proposed; tips of author logs are far shorter."""

assert CONTENT_BYTES_MAX + JUSTIFICATION_MAX * CERTIFICATE_BYTES_MAX + 1024 < FRAME_BYTES_MAX
assert CERTIFICATES_MAX * CERTIFICATE_BYTES_MAX + 1024 < FRAME_BYTES_MAX


class Proposal(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """The leader's block, and the certificates that allow its parent (R2).

    Not signed: it may leave before the leader's own vote is durable. Only votes bind.
    """

    block: Block
    justification: Annotated[tuple[Certificate, ...], msgspec.Meta(max_length=JUSTIFICATION_MAX)]


class Vote(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """The sender's vote; signed over ``quorum.certificate.vote_bytes``."""

    kind: Annotated[int, msgspec.Meta(ge=1, le=3)]
    view: Count
    digest: Annotated[bytes, msgspec.Meta(max_length=32)]
    """Of the header, 32 bytes; empty for ``NULLIFY``."""
    signature: Bytes64

    @property
    def well_formed(self) -> bool:
        """Whether the digest fits the kind."""
        return len(self.digest) == (0 if self.kind == VoteKind.NULLIFY else 32)


class Certificates(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """Certificates of undecided views, lowest view first."""

    certificates: Annotated[
        tuple[Certificate, ...], msgspec.Meta(min_length=1, max_length=CERTIFICATES_MAX)
    ]


class Decided(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """The sender's floor: its last decided header and the certificate that proves it (R9)."""

    header: Header
    certificate: Certificate


class Ask(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    """News, please: what the sender has not got."""

    floor: Count
    """View of the sender's last decided block; a higher floor is answered by ``Decided``."""
    start: Count
    """Certificates of this view and above are wanted."""
    blocks: Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=ASK_BLOCKS_MAX)]
    """Digests of blocks that a certificate names and the sender lacks."""


class Body(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=6):
    """A block that was asked for by digest."""

    block: Block


Message: TypeAlias = Proposal | Vote | Certificates | Decided | Ask | Body

_MESSAGES: Final = codec.Tagged[Message](Message)


def encode_message(message: Message) -> bytes:
    """The bytes of ``message``."""
    return codec.encode(message)


def decode_message(raw: bytes) -> Message:
    """The message that ``raw`` spells. Raises ``DecodeError``."""
    return _MESSAGES.decode(raw)
