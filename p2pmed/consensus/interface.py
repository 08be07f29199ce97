"""What both engines take, give and ask: the seam between deciding and everything else.

An engine orders blocks whose content it cannot read. It is a core (``p2pmed/engine.py``):
``step(event, now) -> effects`` and one deadline. What it must remember it asks to be
persisted as ``Record`` rows in a namespace of its own; what it signs it signs through a
``Signer``; what a block means it asks the ``Application``, synchronously and purely.

Order of promises, both engines:

* a vote (or a Raft term, vote or log entry) is durable before it is sent or counted;
* ``Decide`` is given once per height, in order, with a certificate that a stranger can check;
* the driver stores a decided block, its certificate and the state after it in the same commit
  as whatever else is staged; only then is anybody told ``final``.

Catching up is not the engine's business: ``sync/chains.py`` fetches certified blocks from
anybody and hands them in as ``Certified``; the engine moves its floor. ``Behind`` asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Annotated, Final, Protocol, TypeAlias

import msgspec

from p2pmed.engine import DeadlineReached, Instant, Persisted
from p2pmed.quorum.certificate import Certificate
from p2pmed.wire import codec
from p2pmed.wire.codec import Bytes32, Count, Wire
from p2pmed.wire.hashing import hash_bytes

__all__ = [
    "Application",
    "Behind",
    "Block",
    "Broadcast",
    "Certified",
    "Check",
    "ConsensusEffect",
    "ConsensusEngine",
    "ConsensusEvent",
    "Content",
    "Decide",
    "Evidence",
    "Header",
    "Heard",
    "Leave",
    "Read",
    "ReadAt",
    "ReadFailed",
    "Receive",
    "Record",
    "Recovered",
    "Resumed",
    "SendTo",
    "Signer",
    "Store",
    "Work",
    "header_digest",
]


HEADERS_KEPT: Final = 512
"""Headers whose digest is remembered: what lives between two decisions, and more."""


class Header(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What votes are about. Epoch and view are inside the digest *and* in the certificate."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    ledger: Bytes32
    epoch: Count
    view: Count
    """BFT: the view. Raft: the term."""
    height: Count
    """Genesis is 0; the first block is 1."""
    parent: Bytes32
    """Digest of the parent's header; of the genesis for height 1: the ledger id."""
    parent_view: Count
    proposer: Annotated[int, msgspec.Meta(ge=0, le=255)]
    """Seat of the proposer."""
    content: Bytes32
    """Hash of the content; the application computes and checks it."""


@lru_cache(HEADERS_KEPT)
def header_digest(header: Header) -> bytes:
    """BLAKE2b-256 of the header's encoding: the block's name, asked for many times."""
    return hash_bytes(codec.encode(header))


class Block(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A header and the bytes it commits to."""

    header: Header
    content: bytes


@dataclass(frozen=True, slots=True)
class Content:
    """What the application wants ordered next."""

    hash: bytes
    data: bytes


class Check(Enum):
    """What the application says of a proposed block."""

    VALID = "valid"
    MISSING = "missing"
    """Bodies, or the parent, are not here yet; a ``Work`` event follows when that changes."""
    INVALID = "invalid"


class Application(Protocol):
    """What orders mean; implemented by ``ledger/chain.py``. Pure, synchronous, repeatable."""

    def build(self, parent: bytes, view: int) -> Content | None:
        """The content of a block on ``parent`` (a digest); ``None`` if nothing is to be ordered.

        ``parent`` was checked ``VALID`` or decided before.
        """

    def check(self, block: Block) -> Check:
        """Whether ``block`` may follow its parent; executes it on the parent's state."""

    def pending(self) -> bool:
        """Whether anything waits to be ordered."""


class Signer(Protocol):
    """The validator's epoch key."""

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""


# --- events in ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Receive:
    """A message from the validator in seat ``sender``, as its channel proved."""

    sender: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """The validator in seat ``sender`` is alive: any authenticated frame came from it."""

    sender: int


@dataclass(frozen=True, slots=True)
class Work:
    """There may be something to order, or what a check missed may have come."""


@dataclass(frozen=True, slots=True)
class Certified:
    """A block decided elsewhere, with its certificate checked, next above the last decided.

    The receiver has stored and applied it; the engine only moves on. The certificate is the
    block's own or, for one that was decided through a descendant, that descendant's.
    """

    header: Header
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Read:
    """Up to which height must be applied, so that what is read then is linearizable?

    Answered once, by ``ReadAt`` or ``ReadFailed``, within a bound of the engine's own.
    """

    token: int
    """The caller's own; echoed by the answer, and never reused while it is out."""


@dataclass(frozen=True, slots=True)
class Leave:
    """This node is about to stop: whoever leads lets somebody else lead before."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """People give their word that no other copy of this home votes: it need not hold back."""


ConsensusEvent: TypeAlias = (
    Receive | Heard | Work | Certified | Read | Leave | Resumed | Persisted | DeadlineReached
)


# --- effects out -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """A row in the engine's own namespace; ``None`` deletes it."""

    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Store:
    """Stage ``records``, make them durable, then answer ``Persisted(token)``."""

    token: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class SendTo:
    """To one validator."""

    seat: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Broadcast:
    """To every other validator."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Decide:
    """``block`` is final: the next height. Ancestors come first, each with what proves it.

    An ancestor finalised only through its descendant carries ``certificate=None``: its proof
    is the descendant's certificate and the hash chain.
    """

    block: Block
    certificate: Certificate | None
    passed: tuple[Certificate, ...] = ()
    """Of the views between the parent and this block: that they were nullified. If one of them
    turns out to have been final elsewhere, this names who lied."""


@dataclass(frozen=True, slots=True)
class Behind:
    """Somebody proved or claims a higher floor: ask ``seat`` (or anybody) for blocks."""

    height: int
    """What they claim; a hint, never a fact."""
    seat: int | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two signed statements of one validator that cannot both be honest."""

    seat: int
    kind: str
    """``equivocation`` or ``nullify_and_finalize``."""
    first: bytes
    second: bytes


@dataclass(frozen=True, slots=True)
class ReadAt:
    """Whatever anybody called final before ``Read`` came is at or below ``height``.

    A quorum stood behind it after ``Read`` came. The block itself may not be
    decided here yet; who reads waits until it is applied.
    """

    token: int
    height: int


@dataclass(frozen=True, slots=True)
class ReadFailed:
    """No quorum stood behind an answer in time. It may be asked again, with another token."""

    token: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """An engine made ``amnesic`` has learnt what it must not sign, and votes again above that.

    It comes in one step with the ``Store`` that keeps the bound: what the driver remembers of
    the loss is deleted in that very commit, neither before nor after.
    """


ConsensusEffect: TypeAlias = (
    Store | SendTo | Broadcast | Decide | Behind | Evidence | ReadAt | ReadFailed | Recovered
)


class ConsensusEngine(Protocol):
    """BFT or Raft.

    Made from the epoch, the own seat, the ``Signer``, the ``Application``, an ``Rng``, the
    rows that were durable at start, and the last decided header with its certificate.
    """

    @property
    def deadline(self) -> Instant | None:
        """When to step with ``DeadlineReached``."""

    def step(self, event: ConsensusEvent, now: Instant) -> Sequence[ConsensusEffect]:
        """Take one event."""

    def status(self) -> Mapping[str, int | str]:
        """View or term, floor, leader seat: for people, never for decisions."""
