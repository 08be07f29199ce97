"""What members of a Raft mesh say to each other, byte for byte (``docs/protocols/raft.md``).

Every message is a CBOR array whose first item is its tag and whose second is ``mesh``: 16
bytes that stand for ledger and epoch, so that a message of another ledger or epoch is
refused whole. The sender is never in a message: its channel proves its seat.

Log entries travel as the very bytes that are stored, encoded once in their life.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from p2pmed.limits import BATCH_ENTRIES_MAX
from p2pmed.quorum.certificate import Certificate, Epoch
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Bytes16, Bytes32, Bytes64, Count, OptionalId, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "Append",
    "Appended",
    "AskPreVote",
    "AskRead",
    "AskVote",
    "Attest",
    "Attestation",
    "CertificateKnown",
    "Confirm",
    "Confirmed",
    "Floor",
    "HigherTerm",
    "Message",
    "Mismatch",
    "PreVote",
    "ReadIndex",
    "TimeoutNow",
    "Vote",
    "decode",
    "encode",
    "mesh_tag",
]


class AskPreVote(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """Would you vote for me? Promises nothing, costs nothing (Raft thesis, section 9.6)."""

    mesh: Bytes16
    term: Count
    """The term the asker would campaign in: one above its own."""
    last_index: Count
    last_term: Count


class PreVote(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """Answer to ``AskPreVote``."""

    mesh: Bytes16
    term: Count
    """If granted, the term that was asked for; if not, the answerer's own."""
    granted: bool


class AskVote(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """Vote for me in ``term`` (Raft, sections 5.2 and 5.4.1)."""

    mesh: Bytes16
    term: Count
    last_index: Count
    last_term: Count
    forced: bool
    """The leader itself asked for this election: followers need not be loyal to it."""


class Vote(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """Answer to ``AskVote``; a granted one is durable at its sender."""

    mesh: Bytes16
    term: Count
    granted: bool


class Append(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    """Entries after ``(prev_index, prev_term)``; without entries, a heartbeat (Raft, 5.3)."""

    mesh: Bytes16
    term: Count
    prev_index: Count
    prev_term: Count
    commit: Count
    decided: Count
    """Height of the leader's last decided block."""
    idle: bool
    """The next heartbeat comes after ``IDLE_HEARTBEAT_MS``."""
    entries: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=BATCH_ENTRIES_MAX)]
    """Encoded ``Entry`` each, indexes from ``prev_index + 1``."""


class Attestation(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A FINALIZE vote for the block at ``height``; proves itself."""

    height: Count
    digest: Bytes32
    signature: Bytes64


Attestations: TypeAlias = Annotated[tuple[Attestation, ...], msgspec.Meta(max_length=64)]


class Appended(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=6):
    """My log equals yours up to ``match``, and that is durable."""

    mesh: Bytes16
    term: Count
    match: Count
    heartbeat: bool
    """Answers an ``Append`` without entries: what is missing may be said again."""
    decided: Count
    """Height of the sender's last decided block."""
    attests: Attestations


class Mismatch(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=7):
    """I have no such ``prev``; try at or below ``(hint_index, hint_term)`` (Raft, 5.3)."""

    mesh: Bytes16
    term: Count
    prev_index: Count
    """Of the ``Append`` that is refused."""
    hint_index: Count
    hint_term: Count


class Attest(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=8):
    """Attestations that no ``Appended`` could carry. Has no term: it proves itself."""

    mesh: Bytes16
    attests: Attestations


class CertificateKnown(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=9):
    """The block at ``height`` is final. Has no term: it proves itself."""

    mesh: Bytes16
    height: Count
    certificate: Certificate


class TimeoutNow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=10):
    """From the leader: campaign at once (Raft thesis, section 3.10)."""

    mesh: Bytes16
    term: Count


class Floor(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=11):
    """My log begins above this decided block; learn it elsewhere (in place of Raft, 7)."""

    mesh: Bytes16
    term: Count
    index: Count
    index_term: Count
    height: Count
    digest: OptionalId
    """Empty as long as nothing but empty entries was dropped: no block to name yet."""
    decided: Count


class HigherTerm(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=12):
    """Answer to a leader of a past term (Raft, 5.1)."""

    mesh: Bytes16
    term: Count


class Confirm(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=13):
    """Do you know of a term above mine? (Raft, section 8; thesis, 6.4)"""

    mesh: Bytes16
    term: Count
    round: Count


class Confirmed(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=14):
    """As this round began to reach me, I did not."""

    mesh: Bytes16
    term: Count
    round: Count


class AskRead(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=15):
    """From a follower: up to which height must its readers have applied?"""

    mesh: Bytes16
    term: Count
    number: Count
    """The asker's own."""


class ReadIndex(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=16):
    """Answer to ``AskRead``: a quorum confirmed this leader after it came."""

    mesh: Bytes16
    term: Count
    number: Count
    height: Count


Termed: TypeAlias = (
    AskPreVote
    | PreVote
    | AskVote
    | Vote
    | Append
    | Appended
    | Mismatch
    | TimeoutNow
    | Floor
    | HigherTerm
    | Confirm
    | Confirmed
    | AskRead
    | ReadIndex
)
Message: TypeAlias = Termed | Attest | CertificateKnown

_MESSAGES: Final = codec.Tagged[Message](Message)


def mesh_tag(epoch: Epoch) -> bytes:
    """16 bytes that stand for the ledger and the epoch's number."""
    return digest("p2pmed raft mesh", epoch.ledger + epoch.number.to_bytes(8, "big"))[:16]


def encode(message: Message) -> bytes:
    """The bytes of ``message``, whose Struct bounds all that it holds."""
    return cbor.encode_trusted(codec.plain(message))


def decode(raw: bytes) -> Message:
    """The message that ``raw`` spells. Raises ``DecodeError``."""
    return _MESSAGES.decode(raw)
