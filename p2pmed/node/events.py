"""What happens to a whole node, and what it asks of its world: two closed sets.

``NodeEvent`` goes into ``Replica.step``; ``NodeEffect`` comes out. The asyncio shell
(``node/shell.py``) and the simulator (``p2pmed.testing``) are the only two drivers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from p2pmed.engine import DeadlineReached, Persist, Persisted
from p2pmed.ledger.intake import SignatureCheck
from p2pmed.ledger.state import Verdict
from p2pmed.ledger.transaction import Entry, LaneKey
from p2pmed.sync.founding import Propose
from p2pmed.wire.codec import Wire

__all__ = [
    "Alarm",
    "AnchorsMoved",
    "CheckSignatures",
    "Command",
    "Draft",
    "DropLink",
    "EntriesStored",
    "EpochBegun",
    "Final",
    "Frame",
    "Halted",
    "ImportChain",
    "ImportEntries",
    "Leave",
    "LedgerFounded",
    "LinkDown",
    "LinkUp",
    "LocalRows",
    "NodeEffect",
    "NodeEvent",
    "Notice",
    "Notify",
    "PeerHolds",
    "ReadBarrier",
    "Reply",
    "ResumeVoting",
    "SendFrame",
    "SignaturesChecked",
    "Submit",
]

# --- events in ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LinkUp:
    """An authenticated channel to ``peer`` opened; its credential chain was checked."""

    peer: bytes
    chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The channel is gone."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """One message from a peer."""

    peer: bytes
    message: bytes


@dataclass(frozen=True, slots=True)
class SignaturesChecked:
    """Answer to ``CheckSignatures``, in its order."""

    token: int
    good: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Draft:
    """A transaction before it has a place in the own log."""

    body: Wire | Callable[[Sequence[bytes]], Wire]
    """The body, or what makes it from the ids of the drafts submitted before it."""
    subject: bytes = b""
    refs: tuple[bytes, ...] = ()
    actor: bytes = b""


LocalRows: TypeAlias = Callable[[Sequence[bytes]], Sequence[tuple[bytes, bytes | None]]]
"""From the ids of a submission, in order, to rows of ``Space.LOCAL``; ``None`` deletes one."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Write ``drafts`` to the own log, all or none; answered when they are durable."""

    request: int
    drafts: tuple[Draft, ...]
    local: LocalRows | None = None
    """What only this node notes, given the new ids: durable together with the entries."""


@dataclass(frozen=True, slots=True)
class FoundMesh:
    """The operator's word; answered when the ledger exists or cannot."""

    request: int
    propose: Propose


@dataclass(frozen=True, slots=True)
class AcceptOffer:
    """The operator's word to an offer; answered when the ledger exists or cannot."""

    request: int
    proposer: bytes


@dataclass(frozen=True, slots=True)
class FollowLedger:
    """Take a known ledger as the home ledger, without a seat."""

    request: int
    ledger: bytes


@dataclass(frozen=True, slots=True)
class ImportEntries:
    """Entries from a file; answered with how many were new once they are durable."""

    request: int
    entries: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ImportChain:
    """A founding and blocks from a file."""

    request: int
    ledger: bytes
    founding: bytes
    blocks: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ResumeVoting:
    """The operator's word that a restored home may vote again; answered when durable."""

    request: int


@dataclass(frozen=True, slots=True)
class ReadBarrier:
    """What is read from now on shall be linearizable; answered with the height reached."""

    request: int


@dataclass(frozen=True, slots=True)
class Leave:
    """This node is about to stop: if it leads its mesh, somebody else shall. No answer."""


Command: TypeAlias = (
    Submit
    | FoundMesh
    | AcceptOffer
    | FollowLedger
    | ImportEntries
    | ImportChain
    | ResumeVoting
    | ReadBarrier
)
NodeEvent: TypeAlias = (
    LinkUp | LinkDown | Frame | Persisted | SignaturesChecked | DeadlineReached | Command | Leave
)

# --- effects out ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Queue a message to ``peer``; control messages overtake."""

    peer: bytes
    message: bytes
    control: bool


@dataclass(frozen=True, slots=True)
class DropLink:
    """Close the channel: the peer broke the protocol."""

    peer: bytes
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class CheckSignatures:
    """Check these off the loop, then say ``SignaturesChecked``."""

    token: int
    checks: tuple[SignatureCheck, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Reply:
    """The answer to a command: what came of it, or why not."""

    request: int
    entries: tuple[Entry, ...] = ()
    count: int = 0
    ledger: bytes = b""
    error: Exception | None = None


# --- notices: for the embedding application -------------------------------------------------


@dataclass(frozen=True, slots=True)
class EntriesStored:
    """Entries became durable here, own ones or from ``source``."""

    entries: tuple[Entry, ...]
    source: bytes | None


@dataclass(frozen=True, slots=True)
class PeerHolds:
    """``peer`` holds the log durably below ``next_seq``."""

    peer: bytes
    lane: LaneKey
    next_seq: int


@dataclass(frozen=True, slots=True)
class Final:
    """A block of the home ledger is certified and durable here."""

    ledger: bytes
    height: int
    entries: tuple[Entry, ...]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class AnchorsMoved:
    """The county's ledger, as far as this node has it, covers more than before."""

    ledger: bytes
    height: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something people must look at; ids only."""

    kind: str
    """``discrepancy``, ``fork``, ``equivocation``, ``halted``, ``clock``, ``recall``,
    ``vote_key_lost``."""
    ids: tuple[bytes, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class LedgerFounded:
    """A ledger became the home ledger."""

    ledger: bytes
    seat: int | None


@dataclass(frozen=True, slots=True)
class EpochBegun:
    """The home ledger's seats changed: who decides from now on, and this node's seat in it."""

    ledger: bytes
    number: int
    seat: int | None


@dataclass(frozen=True, slots=True)
class Halted:
    """The home ledger stopped: a certified block is invalid, or the chain forked."""

    ledger: bytes
    reason: str


Notice: TypeAlias = (
    EntriesStored | PeerHolds | Final | AnchorsMoved | Alarm | LedgerFounded | EpochBegun | Halted
)


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell the embedding application."""

    notice: Notice


NodeEffect: TypeAlias = Persist | SendFrame | DropLink | CheckSignatures | Reply | Notify
