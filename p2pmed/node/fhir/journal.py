"""What an import has done, so that doing it again, or going on after a power cut, adds nothing.

Rule: rows of ``Space.LOCAL`` that only this device can make sense of. A key is the keyed hash of
a question (this document? this person?), with a key derived from the device's signing seed; so a
copied disk tells nobody which documents were taken in, nor confirms a guess. A value holds
pseudonyms and transaction ids, which stand in clear in the logs anyway.

========================  ===================================================================
row                       means
========================  ===================================================================
``fhir.d`` hash           the document is complete; the value is its file record
``fhir.p`` hash number    resources of a document that are written: ids, in the order of writing
``fhir.w`` hash           the person is registered; the value is the pseudonym
``fhir.r`` hash           a reference leads to this pseudonym; empty: to several, so to none
``fhir.o``                the pseudonym of this node's own directory
========================  ===================================================================

Each row is staged in the commit of the transactions it speaks of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

from p2pmed.identity import sealing
from p2pmed.world import Disk, Space

__all__ = ["Journal", "Row", "journal_key"]

Row = tuple[bytes, bytes | None]
"""Key and value in ``Space.LOCAL``; ``None`` deletes."""

PREFIX: Final = b"fhir."
ID_BYTES: Final = 32
PARTS_MAX: Final = 65_536
"""Submissions of one document: one for each of the most resources that it can have."""
_INFO: Final = b"p2pmed/1 fhir journal"


def journal_key(signing_seed: bytes) -> bytes:
    """The secret (32 bytes) of this device's journal."""
    return sealing.derive(signing_seed, salt=b"", info=_INFO)[:32]


class Journal:
    """Reads the rows, and spells new ones; writes nothing itself."""

    def __init__(self, disk: Disk, key: bytes) -> None:
        self._disk = disk
        self._key = key

    def __repr__(self) -> str:
        return "<Journal>"

    def _hash(self, kind: bytes, *parts: bytes) -> bytes:
        """The row key of a question; parts are length-prefixed, so that none runs into another."""
        asked = blake2b(key=self._key, digest_size=ID_BYTES, person=kind)
        for part in parts:
            asked.update(len(part).to_bytes(8, "big"))
            asked.update(part)
        return PREFIX + kind + asked.digest()

    # --- documents ------------------------------------------------------------------------

    def document(self, content: bytes) -> bytes:
        """What names a document in this journal: its contents, not its file name."""
        return self._hash(b"d", content)

    def is_complete(self, document: bytes) -> bool:
        """Whether all of the document is written."""
        return self._disk.get(Space.LOCAL, document) is not None

    def written(self, document: bytes) -> list[list[bytes]]:
        """Ids of the resources written by each submission of an unfinished document."""
        start = self._part(document, 0)
        rows = self._disk.scan(Space.LOCAL, start, start[:-2] + b"\xff\xff\xff", limit=PARTS_MAX)
        return [
            [value[at : at + ID_BYTES] for at in range(0, len(value), ID_BYTES)]
            for _, value in rows
        ]

    def part(self, document: bytes, number: int, ids: Sequence[bytes]) -> Row:
        """Submission ``number`` of the document wrote these resources."""
        return self._part(document, number), b"".join(ids)

    def complete(self, document: bytes, parts: int, file_record: bytes) -> list[Row]:
        """The document is complete; the rows of its ``parts`` submissions are not needed."""
        rows: list[Row] = [(document, file_record)]
        rows += [(self._part(document, number), None) for number in range(parts)]
        return rows

    @staticmethod
    def _part(document: bytes, number: int) -> bytes:
        return PREFIX + b"p" + document[len(PREFIX) + 1 :] + number.to_bytes(2, "big")

    # --- people ---------------------------------------------------------------------------

    def person(self, identity: Iterable[bytes]) -> bytes:
        """What names a person in this journal: whatever tells this person from others."""
        return self._hash(b"w", *identity)

    def pseudonym(self, person: bytes) -> bytes | None:
        """The pseudonym under which the person is registered, or ``None``."""
        return self._disk.get(Space.LOCAL, person)

    def referred(self, reference: str) -> bytes | None:
        """The pseudonym a reference leads to; empty if several, ``None`` if none is known."""
        return self._disk.get(Space.LOCAL, self._hash(b"r", reference.encode()))

    def registered(self, person: bytes, pseudonym: bytes, references: Iterable[str]) -> list[Row]:
        """The person is registered, and is meant by ``references``."""
        rows: list[Row] = [(person, pseudonym)]
        for reference in references:
            known = self.referred(reference)
            meant = pseudonym if known in (None, pseudonym) else b""
            rows.append((self._hash(b"r", reference.encode()), meant))
        return rows

    # --- this node's directory ----------------------------------------------------------------

    def directory(self) -> bytes | None:
        """The pseudonym under which what is about no patient is kept, or ``None``."""
        return self._disk.get(Space.LOCAL, PREFIX + b"o")

    def opened_directory(self, pseudonym: bytes) -> Row:
        """The directory is registered."""
        return PREFIX + b"o", pseudonym
