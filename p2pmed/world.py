"""What a node asks of the world, behind one object: clock, dice, entropy, disk and network.

The asyncio shell and the seeded simulator are the only two that implement it.
Nothing else in p2pmed reads a clock, rolls dice, opens a file or touches a socket,
so that a whole node runs in virtual time from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from p2pmed.engine import Entropy, Instant, Rng

__all__ = ["Clock", "Disk", "Network", "Space", "World"]


class Space(IntEnum):
    """The named spaces of a node's disk; each is an ordered map from bytes to bytes.

    Each space has one owner, which alone reads and writes the layout of its keys.
    """

    META = 1
    """Schema version, incarnation, home ledger, counters."""
    ENTRY = 2
    """Author-log entries: lane number (4) + seq (8) -> signed bytes."""
    ENTRY_ID = 3
    """Entry id (32) -> lane number (4) + seq (8)."""
    LANE = 4
    """Author + incarnation (48) -> lane record."""
    BLOCK = 5
    """Ledger (32) + height (8) -> block and certificate."""
    STATE = 6
    """Ledger (32) + key of the state machine -> value."""
    VERDICT = 7
    """Ledger (32) + entry id (32) -> verdict, where it is not plain ``applied``."""
    CONSENSUS = 8
    """Ledger (32) + key of the engine -> votes, terms, certificates."""
    LEDGER = 9
    """Ledger (32) -> genesis and signatures."""
    FORK = 10
    """Lane (48) + seq (8) + id (32) -> the entry that forked."""
    PEER = 11
    """Device key (32) -> remembered addresses and credential."""
    LOCAL = 12
    """What only this node knows: imports done, cursors, drafts of a genesis."""
    SUBJECT = 14
    """Patient (16) + lane number (4) + seq (8) -> nothing: what was written about whom."""
    TIP = 13
    """Ledger (32) + author log (48) + seq (8) -> height that ordered the log up to seq."""


BULKY_SPACES = frozenset({Space.ENTRY, Space.BLOCK})
"""Spaces whose values are long; a disk may lay them out otherwise."""


class Clock(Protocol):
    """Two clocks that are never mixed."""

    def now(self) -> Instant:
        """Monotonic milliseconds: for waiting."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970 as the machine believes: recorded, never trusted."""


class Disk(Protocol):
    """An ordered map per space, with writes that are visible at once and durable on sync.

    ``stage`` never blocks. The driver turns everything staged into one atomic, flushed
    commit and then reports ``Persisted`` for the tokens it covered.
    """

    def get(self, space: Space, key: bytes) -> bytes | None:
        """The value under ``key``, staged writes included, or ``None``.

        Raises ``StorageError`` if the disk fails or the row is rotten.
        """

    def scan(
        self,
        space: Space,
        start: bytes,
        end: bytes,
        *,
        limit: int,
        reverse: bool = False,
    ) -> list[tuple[bytes, bytes]]:
        """At most ``limit`` rows with ``start <= key < end`` in key order, staged included."""

    def stage(self, space: Space, key: bytes, value: bytes | None) -> None:
        """Set (or with ``None`` delete) a row: seen by reads at once, durable after a sync."""


class Network(Protocol):
    """Authenticated channels by the peer's device key; sending never waits."""

    def send(self, peer: bytes, message: bytes, *, control: bool) -> bool:
        """Queue one message; ``False`` if there is no channel or its queue is full."""

    def dial(self, address: str) -> None:
        """Try to open a channel to ``host:port``; the outcome comes as an event."""

    def drop(self, peer: bytes, reason: str) -> None:
        """Close the channel to ``peer``."""


@dataclass(frozen=True, slots=True)
class World:
    """The one injected object."""

    clock: Clock
    rng: Rng
    entropy: Entropy
    disk: Disk
    network: Network | None = None
    """``None`` where sending is an effect of the core (the whole node)."""
