"""What travels between validators of one epoch: nine messages, an integer tag each.

Rules:

* A message speaks for the channel it came through: no message names its sender, so nobody
  can vote in another's name. What must convince a third party is signed (votes) or is a
  quorum of such signatures (certificates).
* Every tuple has a bound, and the largest message fits in one frame.

Byte-exact: ``docs/protocols/bft.md``, clauses 2 and 3.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final, TypeAlias

import msgspec

from p2pmed.consensus.interface import Block, Header
from p2pmed.limits import FRAME_BYTES_MAX, VALIDATORS_MAX
from p2pmed.quorum.certificate import Certificate, VoteKind
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Bytes32, Bytes64, Count, Wire

__all__ = [
    "ASK_BLOCKS_MAX",
    "CERTIFICATES_MAX",
    "CONTENT_BYTES_MAX",
    "JUSTIFICATION_MAX",
    "VOTES_MAX",
    "Ask",
    "Body",
    "Certificates",
    "Decided",
    "Hello",
    "Message",
    "Proposal",
    "Standing",
    "Vote",
    "Votes",
    "decode_message",
    "encode_message",
]

JUSTIFICATION_MAX: Final = 17
"""What admits the parent, and sixteen skipped views; older gaps are asked for (R2)."""

CERTIFICATES_MAX: Final = 32
"""Certificates in one answer; the next ask continues above them."""

ASK_BLOCKS_MAX: Final = 4
"""Blocks asked for at once; each comes back in a message of its own."""

VOTES_MAX: Final = 16
"""Votes in one message: what one flush made durable."""

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


class Votes(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=7):
    """Votes that one flush made durable, counted in one step: none waits behind another."""

    votes: Annotated[tuple[Vote, ...], msgspec.Meta(min_length=2, max_length=VOTES_MAX)]


class Hello(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=8):
    """Where do you stand? Asked before the first vote of a life, and for a read (R11 to R13)."""

    round: Count
    """Chosen by dice, so that an answer to an earlier life is not taken for one to this."""


class Standing(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=9):
    """The answer to ``Hello``. What it says counts as far as a signature or a quorum proves it."""

    round: Count
    voted: Count
    """The highest view in which the sender signed anything."""
    admits: Annotated[tuple[Certificate, ...], msgspec.Meta(max_length=1)]
    """The certificate of the highest view that it knows."""
    head: Annotated[tuple[Decided, ...], msgspec.Meta(max_length=1)]
    """The highest block that it decided or voted to finalize; certified, or finalized."""
    yours: Annotated[tuple[Vote, ...], msgspec.Meta(max_length=1)]
    """The asker's own vote of the highest view, as far as it is remembered."""


Message: TypeAlias = (
    Proposal | Vote | Certificates | Decided | Ask | Body | Votes | Hello | Standing
)

_MESSAGES: Final = codec.Tagged[Message](Message)


def encode_message(message: Message) -> bytes:
    """The bytes of ``message``, whose Struct bounds all that it holds; of a vote, spelt once.

    A vote is spelt for the disk and for the wire.
    """
    return _spell_vote(message) if type(message) is Vote else _spell(message)


def _spell(message: Message) -> bytes:
    return cbor.encode_trusted(codec.plain(message))


_spell_vote: Final = lru_cache(VOTES_MAX)(_spell)


def decode_message(raw: bytes) -> Message:
    """The message that ``raw`` spells. Raises ``DecodeError``."""
    return _MESSAGES.decode(raw)
