"""What can happen to gossip, what it can ask for, and the store it reads: closed sets.

Order that the driver owes: ``Grew`` comes only after the flush; effects are carried out in
the order given. ``Ingest`` hands bytes whose spelling, link and signature nobody has checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from p2pmed.engine import DeadlineReached
from p2pmed.gossip.messages import GossipMessage, Ping
from p2pmed.ledger.transaction import LaneKey

__all__ = [
    "Bad",
    "DropPeer",
    "Gap",
    "GossipEffect",
    "GossipEvent",
    "Grew",
    "Holds",
    "Ingest",
    "LogStore",
    "PeerDown",
    "PeerStatus",
    "PeerUp",
    "PeerView",
    "Received",
    "SendMessage",
    "SendRefused",
]


class LogStore(Protocol):
    """The durable author logs; implemented by ``storage``. Reads only."""

    def frontier(self) -> Sequence[tuple[LaneKey, int]]:
        """Every lane with its next durable seq, sorted by lane bytes."""

    def next_seq(self, lane: LaneKey) -> int:
        """The next durable seq of ``lane``; 0 if it is unknown."""

    def read(self, lane: LaneKey, start: int, end: int, *, bytes_max: int) -> list[bytes]:
        """Entries from ``start``, below ``end``, until ``bytes_max`` bytes would be passed.

        At least one if there is any, even if it is larger than ``bytes_max``.
        """


# --- events in ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeerUp:
    """An authenticated channel to device ``peer`` (32 bytes) is open."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class PeerDown:
    """The channel to ``peer`` is gone."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """A well-formed message came from ``peer``, as its channel proved."""

    peer: bytes
    message: GossipMessage


@dataclass(frozen=True, slots=True, repr=False)
class Grew:
    """``entries`` just became durable here, so that ``lanes`` now end where they say.

    ``source`` is the peer that sent them, or ``None``: written here, or from a stick.
    """

    lanes: tuple[tuple[LaneKey, int], ...]
    entries: tuple[tuple[LaneKey, int, bytes], ...]
    source: bytes | None


@dataclass(frozen=True, slots=True)
class Gap:
    """``peer`` sent entry ``got_seq`` of ``lane`` where ``have_next`` was due; it was not kept."""

    lane: LaneKey
    have_next: int
    got_seq: int
    peer: bytes


@dataclass(frozen=True, slots=True)
class SendRefused:
    """The queue to ``peer`` was full; the message is gone."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class Bad:
    """Ingest found what no honest peer sends: a false signature, a wrong spelling."""

    peer: bytes
    reason: str


GossipEvent: TypeAlias = (
    PeerUp | PeerDown | Received | Grew | Gap | SendRefused | Bad | DeadlineReached
)


# --- effects out -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Queue ``message`` for ``peer``; ``control`` travels in the lane that overtakes bulk.

    The same message object may be sent to many peers: encode it once.
    """

    peer: bytes
    message: GossipMessage
    control: bool


@dataclass(frozen=True, slots=True, repr=False)
class Ingest:
    """Check and store what is new in ``entries``; then ``Grew``, ``Gap`` or ``Bad`` comes."""

    peer: bytes
    entries: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class DropPeer:
    """Close the channel to ``peer``; a ``PeerDown`` may follow and need not."""

    peer: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Holds:
    """``peer`` said that its disk holds all of ``lane`` below ``next_seq``, which we hold too."""

    peer: bytes
    lane: LaneKey
    next_seq: int


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """What ``peer`` says of itself: clocks, health, ledger heads."""

    peer: bytes
    ping: Ping


GossipEffect: TypeAlias = SendMessage | Ingest | DropPeer | Holds | PeerStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerView:
    """One peer, for people; never for decisions."""

    peer: bytes
    rtt_ms: int | None
    heard_ms_ago: int
    health: int
    suspect: bool
    behind: bool
    """Its queue overflowed: pushes pause until it speaks again."""
    in_step: bool
    """Its last ping's digest was exactly what we believe it holds, and that is what we hold."""
