"""Where the effects of a step are put in order: disk before wire.

Rule: what a message *promises* (a vote, an own candidacy, an append answered) leaves only
after everything staged before it is durable. What promises nothing leaves at once, even
before the flush of the same step: entries to followers, questions, certificates.

The order within a step: free messages, decided blocks and answers, then the one ``Store``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from p2pmed.consensus.interface import (
    Behind,
    Broadcast,
    ConsensusEffect,
    Decide,
    ReadAt,
    ReadFailed,
    Record,
    SendTo,
    Store,
)

__all__ = ["Desk", "Flush"]


@dataclass(slots=True)
class Flush:
    """A ``Store`` on its way to the disk, and what waits for it."""

    token: int
    index: int = 0
    """The last log entry in it; 0 if none."""
    term: int = 0
    """Of that entry."""
    ballot: bool = False
    """Whether it carries a term and vote."""
    answer: int | None = None
    """The index to tell the leader of ``answer_term``, once durable."""
    answer_term: int = 0
    sends: list[SendTo | Broadcast] = field(default_factory=list)


class Desk:
    """Collects one step's effects; remembers what waits for the disk across steps."""

    def __init__(self) -> None:
        self._next = Flush(token=1)
        self._rows: dict[bytes, bytes | None] = {}
        self._sends: list[SendTo | Broadcast] = []
        self._decided: list[Decide | Behind | ReadAt | ReadFailed] = []
        self._flushing: deque[Flush] = deque()

    @property
    def dirty(self) -> bool:
        """Whether this step will end in a ``Store``."""
        return bool(self._rows)

    @property
    def ballot_waits(self) -> bool:
        """Whether a term or vote is not yet durable."""
        return self._next.ballot or any(flush.ballot for flush in self._flushing)

    def stage(self, key: bytes, value: bytes | None) -> None:
        """Put a row into this step's ``Store``."""
        self._rows[key] = value

    def stage_ballot(self, key: bytes, value: bytes) -> None:
        """Put term and vote into this step's ``Store``."""
        self._rows[key] = value
        self._next.ballot = True

    def stage_entry(self, key: bytes, raw: bytes, index: int, term: int) -> None:
        """Put a log entry into this step's ``Store``."""
        self._rows[key] = raw
        self._next.index, self._next.term = index, term

    def send(self, seat: int, message: bytes) -> None:
        """A message that promises nothing."""
        self._sends.append(SendTo(seat=seat, message=message))

    def broadcast(self, message: bytes) -> None:
        """A message to all others that promises nothing."""
        self._sends.append(Broadcast(message=message))

    def promise(self, effect: SendTo | Broadcast) -> None:
        """A message that must not leave before all that was staged so far is durable."""
        if self._rows:
            self._next.sends.append(effect)
        elif self._flushing:
            self._flushing[-1].sends.append(effect)
        else:
            self._sends.append(effect)

    def answer_when_durable(self, match: int, term: int) -> None:
        """Tell the leader of ``term`` about ``match`` when this step's entries are durable."""
        self._next.answer, self._next.answer_term = match, term

    def decide(self, effect: Decide) -> None:
        """A block is final."""
        self._decided.append(effect)

    def behind(self, effect: Behind) -> None:
        """Blocks must be learned elsewhere."""
        self._decided.append(effect)

    def answer(self, effect: ReadAt | ReadFailed) -> None:
        """A reader's question is settled."""
        self._decided.append(effect)

    def persisted(self, token: int) -> list[Flush]:
        """The flushes that ``token`` proves durable: its own and all before it, once."""
        done: list[Flush] = []
        while self._flushing and self._flushing[0].token <= token:
            flush = self._flushing.popleft()
            self._sends.extend(flush.sends)
            done.append(flush)
        return done

    def close(self) -> list[ConsensusEffect]:
        """End the step: its effects, in order."""
        effects: list[ConsensusEffect] = [*self._sends, *self._decided]
        self._sends.clear()
        self._decided.clear()
        if self._rows:
            records = tuple(Record(key=key, value=value) for key, value in self._rows.items())
            effects.append(Store(token=self._next.token, records=records))
            self._flushing.append(self._next)
            self._next = Flush(token=self._next.token + 1)
            self._rows = {}
        return effects
