"""What is durable: rows per view above the floor, and how they are read back (R11).

Rules:

* A vote's row, the block it is about and every certificate known by then are staged in one
  ``Store``; the vote leaves, and counts, only after the flush.
* A certificate alone never costs a flush: it waits for the next vote. Lost in a crash, it
  is made again from votes, which are durable.
* Rows of decided views are deleted with a later ``Store``, never before the decided block
  was staged.

Keys: ``kind (1) | view (8, big-endian) | rest``, see ``docs/protocols/bft.md``, clause 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from p2pmed.consensus.bft.messages import Message, Vote, decode_message, encode_message
from p2pmed.consensus.interface import Block, Record
from p2pmed.errors import DecodeError, StorageError
from p2pmed.limits import FRAME_BYTES_MAX
from p2pmed.quorum.certificate import Certificate
from p2pmed.wire import codec

__all__ = ["Journal", "Recovered"]

_VOTE: Final = b"v"
_CERTIFICATE: Final = b"c"
_BLOCK: Final = b"b"
_ABSTAIN: Final = b"a"
_KINDS: Final = (_VOTE, _CERTIFICATE, _BLOCK, _ABSTAIN)
_VIEW_BYTES: Final = 8
_HEAD_BYTES: Final = 1 + _VIEW_BYTES


@dataclass(slots=True)
class Recovered:
    """What the rows above the floor said, in the order of their keys."""

    votes: list[Vote] = field(default_factory=list)
    certificates: list[Certificate] = field(default_factory=list)
    blocks: list[tuple[bytes, Block]] = field(default_factory=list)
    abstain_until: int = 0
    """The view up to which an earlier life may have voted without our knowing (R12)."""


def _key(kind: bytes, view: int, rest: bytes) -> bytes:
    return kind + view.to_bytes(_VIEW_BYTES, "big") + rest


class Journal:
    """Rows written and rows waiting to be written."""

    def __init__(self) -> None:
        self._written: dict[int, dict[bytes, None]] = {}
        self._waiting: dict[bytes, bytes | None] = {}
        self._urgent = False

    @property
    def urgent(self) -> bool:
        """Whether a vote waits for its flush."""
        return self._urgent

    def vote(self, vote: Vote) -> None:
        """Our own vote: the next ``take`` must be flushed before it is sent or counted."""
        self._put(_key(_VOTE, vote.view, bytes([vote.kind])), vote.view, encode_message(vote))
        self._urgent = True

    def certificate(self, certificate: Certificate) -> None:
        """A checked certificate of an undecided view; written with the next vote."""
        view, kind = certificate.view, bytes([certificate.kind])
        self._put(_key(_CERTIFICATE, view, kind), view, codec.encode(certificate))

    def block(self, digest: bytes, block: Block) -> None:
        """A block that we vote for."""
        view = block.header.view
        self._put(_key(_BLOCK, view, digest), view, codec.encode(block))

    def abstain(self, view: int) -> None:
        """R12: this home forgot votes; it says nothing in views up to ``view``."""
        self._put(_key(_ABSTAIN, view, b""), view, b"")
        self._urgent = True

    def vote_again(self) -> None:
        """People gave their word: no bound is left, after a restart neither."""
        for view in list(self._written):
            for key in [key for key in self._written[view] if key[:1] == _ABSTAIN]:
                del self._written[view][key]
                self._waiting[key] = None
                self._urgent = True

    def forget(self, floor: int) -> None:
        """Views up to ``floor`` are decided: their rows go with the next ``take``."""
        for view in [view for view in self._written if view <= floor]:
            for key in self._written.pop(view):
                self._waiting[key] = None
        for key in [key for key, value in self._waiting.items() if value is not None]:
            if int.from_bytes(key[1:_HEAD_BYTES], "big") <= floor:
                del self._waiting[key]

    def take(self) -> tuple[Record, ...]:
        """All that waits, to be staged now."""
        records = tuple(Record(key, value) for key, value in self._waiting.items())
        for record in records:
            if record.value is not None:
                view = int.from_bytes(record.key[1:_HEAD_BYTES], "big")
                self._written.setdefault(view, {})[record.key] = None
        self._waiting.clear()
        self._urgent = False
        return records

    def recover(self, records: Mapping[bytes, bytes], floor: int) -> Recovered:
        """Read **all** rows back, not only the last (ava-labs/Simplex#328).

        Raises ``StorageError`` if a row cannot be read: a vote that we may have forgotten is
        a vote that we might contradict.
        """
        recovered = Recovered()
        for key in sorted(records):
            if len(key) < _HEAD_BYTES or key[:1] not in _KINDS:
                raise StorageError("a consensus row under an unknown key")
            view = int.from_bytes(key[1:_HEAD_BYTES], "big")
            self._written.setdefault(view, {})[key] = None
            if view > floor:
                self._read(key, records[key], recovered)
        self.forget(floor)
        return recovered

    def _read(self, key: bytes, value: bytes, into: Recovered) -> None:
        try:
            match key[:1]:
                case b"v":
                    into.votes.append(_own_vote(decode_message(value)))
                case b"c":
                    into.certificates.append(codec.decode(value, Certificate))
                case b"a":
                    into.abstain_until = int.from_bytes(key[1:_HEAD_BYTES], "big")
                case _:
                    block = codec.decode(value, Block, limit=FRAME_BYTES_MAX)
                    into.blocks.append((key[_HEAD_BYTES:], block))
        except DecodeError as error:
            raise StorageError(
                "a consensus row cannot be read",
                hint="treat this disk as lost: rejoin with a new incarnation",
            ) from error

    def _put(self, key: bytes, view: int, value: bytes) -> None:
        if key not in self._written.get(view, ()):
            self._waiting[key] = value


def _own_vote(message: Message) -> Vote:
    if not isinstance(message, Vote):
        raise DecodeError("a row of votes that holds something else")
    return message
