"""The seam between order and meaning: what a state machine sees, and what it answers.

The ledger calls a ``StateMachine`` it does not know. It hands over entries in the decided
order, each with a ``View`` of the state so far; the machine writes through the view and
answers with a ``Verdict``. A refused entry has written nothing and blocks none behind it.

Layers: the durable state, one layer per executed but not yet final block, and one overlay
for what is provisional. A layer reads through to the one below.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from p2pmed.ledger.transaction import Entry

__all__ = ["APPLIED", "BlockContext", "Layer", "Readable", "StateMachine", "Verdict", "View"]

APPLIED: Final = "applied"
UNSORTED_MAX: Final = 512
"""Written keys that a scan walks one by one before it sorts them in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Applied, or refused with a named reason; the same on every node."""

    code: str
    """``applied``, or the name of the rejection."""
    other: bytes = b""
    """The id of the transaction that this one contradicts, if one does."""

    @property
    def applied(self) -> bool:
        """Whether the entry took effect."""
        return self.code == APPLIED


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockContext:
    """Where and when an entry is applied."""

    network: bytes
    ledger: bytes
    """Empty on a node that has no ledger yet."""
    height: int
    time_ms: int
    """Block time; on the overlay the best estimate of it, which may only restrict."""
    provisional: bool
    """On the overlay of what is not yet final."""


class Readable(Protocol):
    """The state below a layer."""

    def get(self, key: bytes) -> bytes | None:
        """The value under ``key``."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All rows whose key begins with ``prefix``, in key order."""


class View(Readable, Protocol):
    """The state a machine may read and write while it applies one entry."""

    def put(self, key: bytes, value: bytes) -> None:
        """Set a row."""

    def delete(self, key: bytes) -> None:
        """Remove a row; nothing happens if there is none."""


class StateMachine(Protocol):
    """What gives the sequence its meaning; deterministic, without clock or dice."""

    @property
    def rules_hash(self) -> bytes:
        """Names the exact rules (32 bytes); validators with other rules do not vote."""

    def apply(self, entry: Entry, view: View, context: BlockContext) -> Verdict:
        """Apply one entry. Refused: nothing was written. Never raises on an entry's account."""


class Layer:
    """Writes over a ``Readable``, which stays as it is; also a ``View``."""

    def __init__(self, below: Readable) -> None:
        self.below = below
        self.writes: dict[bytes, bytes | None] = {}
        self._sorted: list[bytes] = []
        """The oldest keys of ``writes``, in order; a dict keeps its order, so the rest is newer."""
        self._sorted_of = self.writes

    def get(self, key: bytes) -> bytes | None:
        """The newest value: this layer's, else what lies below."""
        try:
            return self.writes[key]
        except KeyError:
            return self.below.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a row in this layer."""
        self.writes[key] = value

    def delete(self, key: bytes) -> None:
        """Hide a row in this layer."""
        self.writes[key] = None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Merge of this layer and what lies below, in key order."""
        rows = dict(self.below.scan(prefix))
        for key in self._keys(prefix):
            value = self.writes[key]
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        yield from sorted(rows.items())

    def _keys(self, prefix: bytes) -> Iterator[bytes]:
        """Written keys that begin with ``prefix``: an overlay of a long import has many."""
        if self._sorted_of is not self.writes:
            self._sorted, self._sorted_of = [], self.writes
        newer = len(self.writes) - len(self._sorted)
        if newer > UNSORTED_MAX:
            self._sorted += islice(reversed(self.writes), newer)
            self._sorted.sort()
            newer = 0
        for place in range(bisect_left(self._sorted, prefix), len(self._sorted)):
            if not self._sorted[place].startswith(prefix):
                break
            yield self._sorted[place]
        for key in islice(reversed(self.writes), newer):
            if key.startswith(prefix):
                yield key

    def absorb(self, above: Layer) -> None:
        """Take over the writes of the layer above, which is then spent."""
        self.writes.update(above.writes)
