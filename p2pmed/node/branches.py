"""Fetching what a block orders of a forked log, where another branch is read here.

An author who signs two entries for one place can give each validator another one. Some branch
may be ordered by a quorum; whoever reads the other must be able to follow, or one liar with
nothing but an enrolled device stops validators for good.

A branch is fetched backwards by id: each entry names the one before it, up to where both logs
agree. So no peer can give anything but what the block means, and nothing is kept that no block
names. Two messages: ``BranchAsk`` names the last entry; ``BranchEntries`` answers with it and
those before it, newest first.

Failure table: a peer that does not answer in ``ASK_MS`` or has nothing is passed over; when all
have been asked ``ROUNDS_MAX`` times the wish is dropped (a leader invented it), and comes back
with the next block that names it; a signature that does not hold drops the wish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from p2pmed.engine import Instant, earliest
from p2pmed.errors import DecodeError
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.transaction import Entry, LaneKey, open_entry
from p2pmed.limits import BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, ENTRY_BYTES_MAX
from p2pmed.quorum.certificate import Verify
from p2pmed.wire.codec import Bytes16, Bytes32, Count, Wire

__all__ = ["BranchAsk", "BranchEntries", "Branches"]

ASK_MS: Final = 2_000
"""Patience with one peer."""
ANSWER_MS: Final = 100
"""Between two answers to one peer: an answer costs up to a batch."""
ROUNDS_MAX: Final = 3

Wish = tuple[LaneKey, int, bytes]
"""Log, seq and id of an entry."""


class BranchAsk(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=41):
    """Entries of this log, please, from the one with this id downwards."""

    author: Bytes32
    incarnation: Bytes16
    seq: Count
    id: Bytes32


class BranchEntries(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=42):
    """Newest first, beginning with the one that was asked for; empty if it is not here."""

    entries: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=ENTRY_BYTES_MAX)], ...],
        msgspec.Meta(max_length=BATCH_ENTRIES_MAX),
    ]


@dataclass(slots=True)
class _Search:
    wish: Wish
    asked: int = 0
    """How many times somebody was asked."""
    peer: bytes = b""
    until: Instant | None = None


class Branches:
    """One search at a time; what to look for is in ``Logs.wanted``."""

    def __init__(self, logs: Logs, network: bytes, verify: Verify) -> None:
        self._logs = logs
        self._network = network
        self._verify = verify
        self._search: _Search | None = None
        self._answered: dict[bytes, Instant] = {}

    @property
    def deadline(self) -> Instant | None:
        """When a silent peer is passed over."""
        return earliest(self._search.until if self._search else None)

    def turn(self, peers: Sequence[bytes], now: Instant) -> tuple[bytes, BranchAsk] | None:
        """Whom to ask for what now, if anybody for anything."""
        search = self._search or self._next()
        if search is None:
            return None
        self._search = search
        if search.until is not None and now < search.until and search.peer in peers:
            return None
        if not peers or search.asked >= ROUNDS_MAX * len(peers):
            self._drop(search.wish)
            return None
        search.peer = peers[search.asked % len(peers)]
        search.asked += 1
        search.until = Instant(now + ASK_MS)
        lane, seq, entry_id = search.wish
        ask = BranchAsk(author=lane.author, incarnation=lane.incarnation, seq=seq, id=entry_id)
        return search.peer, ask

    def _next(self) -> _Search | None:
        for wish in list(self._logs.wanted):
            if not self._logs.stands(*wish):
                return _Search(wish)
            del self._logs.wanted[wish]
        return None

    def answer(self, peer: bytes, ask: BranchAsk, now: Instant) -> BranchEntries | None:
        """What is here of it; ``None`` if the peer was answered just now."""
        if now < self._answered.get(peer, now):
            return None
        self._answered[peer] = Instant(now + ANSWER_MS)
        lane = LaneKey(ask.author, ask.incarnation)
        start = max(0, ask.seq + 1 - BATCH_ENTRIES_MAX)
        found: list[bytes] = []
        size = 0
        for entry in reversed(self._logs.upper_branch(lane, start, ask.seq, ask.id)):
            size += len(entry.raw)
            if found and size > BATCH_BYTES_MAX:
                break
            found.append(entry.raw)
        return BranchEntries(entries=tuple(found))

    def gone(self, peer: bytes) -> None:
        """No channel to this peer any more."""
        self._answered.pop(peer, None)

    def take(self, peer: bytes, message: BranchEntries) -> list[Entry]:
        """Entries of an answer that are what was asked for, to be kept beside their log.

        The search goes on below them, until what is read here is met.
        """
        search = self._search
        if search is None or peer != search.peer:
            return []
        lane, seq, entry_id = search.wish
        found: list[Entry] = []
        for raw in message.entries:
            if self._logs.stands(lane, seq, entry_id):
                break
            entry = self._open(raw, (lane, seq, entry_id))
            if entry is None:
                break
            found.append(entry)
            seq, entry_id = seq - 1, entry.envelope.prev
        search.until = None  # whatever came, somebody may be asked now
        if found:
            self._drop(search.wish)
            if seq >= 0 and not self._logs.stands(lane, seq, entry_id):
                self._logs.wanted[lane, seq, entry_id] = None
                self._search = _Search((lane, seq, entry_id), search.asked - 1, peer)
        return found

    def _open(self, raw: bytes, wish: Wish) -> Entry | None:
        """The entry, if it is the one wished for and its author signed it."""
        try:
            entry = open_entry(raw, network=self._network)
        except DecodeError:
            return None
        if (entry.lane, entry.seq, entry.id) != wish:
            return None
        genuine = self._verify(entry.author, entry.signature, entry.to_be_signed)
        return entry if genuine else None

    def _drop(self, wish: Wish) -> None:
        self._logs.wanted.pop(wish, None)
        self._search = None
