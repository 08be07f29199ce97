"""The tables of the medical state: which prefix belongs to whom, and how a row is spelled.

Rule: every key of the state begins with one two-byte ASCII prefix from ``PREFIXES``; a prefix
is never reused for another meaning. Keys beginning with a zero byte are the ledger's own.
A value is the deterministic CBOR of a Wire struct, so equal states have equal bytes.

A row is read back strictly: a row that does not decode was not written by us, and the node
stops (``StorageError``) rather than judge by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Generic, TypeVar

from p2pmed.errors import DecodeError, StorageError
from p2pmed.ledger.state import Readable, View
from p2pmed.wire import codec
from p2pmed.wire.codec import Wire

__all__ = ["PREFIXES", "RESERVED", "Table"]

RowT = TypeVar("RowT", bound=Wire)

RESERVED: Final = b"\x00"
"""First byte of the ledger's own keys; no table begins with it."""

PREFIXES: Final[Mapping[str, bytes]] = {
    "member": b"mb",  # device key (32)
    "revocation": b"cr",  # device key (32) + revoking device (32) + serial (16)
    "incarnation": b"in",  # device key (32) + incarnation (16)
    "patient": b"pt",  # pseudonym (16)
    "record": b"rc",  # id of the add or amend transaction (32)
    "amendment": b"rv",  # record (32) + amendment (32)
    "grant": b"gr",  # pseudonym (16) + grant (32)
    "epoch": b"ep",  # pseudonym (16)
    "epoch_keys": b"ek",  # pseudonym (16) + id of what hands out keys of an epoch (32)
    "delegation": b"dg",  # pseudonym (16) + delegation (32)
    "access_request": b"aq",  # pseudonym (16) + request (32)
    "reseal": b"rs",  # record (32) + reseal (32)
    "patient_key": b"pk",  # pseudonym (16) + generation (1) + entry (32)
    "card": b"cd",  # card id (16)
    "patient_card": b"pa",  # pseudonym (16) + card id (16)
    "card_number": b"cn",  # fallback number (4) + card id (16)
    "card_request": b"cq",  # pseudonym (16) + request (32)
    "card_release": b"cx",  # request (32) + point (1)
    "dispute": b"di",  # pseudonym (16) + id of the dispute (32)
    "facility_key": b"fk",  # digest of the place (32) + epoch (4) + entry (32)
    "facility_box": b"fb",  # box id of a facility's key (16)
    "facility_policy": b"fp",  # digest of the place (32)
    "emergency_key": b"mk",  # digest of the place (32) + epoch (4) + entry (32)
    "emergency_box": b"mx",  # box id of an emergency key (16)
    "emergency": b"em",  # pseudonym (16) + opening (32)
    "unit": b"un",  # GTIN (14) + serial
    "pedigree": b"pd",  # GTIN (14) + serial + 00 + number (4)
    "lot": b"lt",  # GTIN (14) + lot
    "lot_unit": b"lu",  # GTIN (14) + lot + 00 + serial
    "shipment": b"sh",  # id of the ship transaction (32)
    "stock": b"st",  # holder (32) + GTIN (14) + serial
    "qualification": b"ql",  # holder (32): all that this person holds
    "qualification_holder": b"qh",  # id of the issue transaction (32)
    "qualification_register": b"qr",  # nothing: one row, from the first qualification on
    "unqualified": b"uq",  # id of an act that was recorded and flagged (32)
    "referral": b"rl",  # pseudonym (16) + id of the send transaction (32)
    "result": b"rt",  # referral (32) + id of the return transaction (32)
    "consult": b"co",  # pseudonym (16) + id of the request transaction (32)
    "consult_reply": b"cy",  # consultation (32) + id of the reply transaction (32)
    "surgery": b"sg",  # id of the plan transaction (32)
    "surgery_count": b"sc",  # surgery (32) + device key (32)
    "case": b"ca",  # id of the open transaction (32)
    "product": b"pr",  # id of the publish transaction (32)
    "product_name": b"pn",  # insurer (32) + version (4) + code
    "policy": b"po",  # id of the issue transaction (32)
    "cover": b"cv",  # product (32) + pseudonym (16)
    "claim": b"cl",  # id of the submit transaction (32)
    "claimed": b"ce",  # encounter (32) + policy (32)
    "discrepancy": b"dc",  # discrepancy id (32)
    "seat": b"se",  # device (32)
    "vote_key": b"vk",  # device (32) + public vote key (32)
    "ballot": b"ba",  # epoch (8) + device (32)
    "anchor": b"an",  # ledger (32)
    "evidence": b"ev",  # device or ledger (32) + place of the case (32)
    "scope": b"ix",  # index scope (16)
    "link": b"lk",  # id of the link transaction (32)
    "linked": b"ld",  # pseudonym (16) + other pseudonym (16) + id of the link transaction (32)
}


ROWS_RECENT_MAX: Final = 64


class Table(Generic[RowT]):
    """Rows of one type under one prefix."""

    __slots__ = ("_recent", "prefix", "row")

    def __init__(self, name: str, row: type[RowT]) -> None:
        self.prefix = PREFIXES[name]
        self.row = row
        self._recent: dict[bytes, RowT] = {}
        """Rows by their bytes: the patient, lot or policy that many entries in a row ask for."""

    def key(self, *parts: bytes) -> bytes:
        """The state key of a row."""
        return b"".join((self.prefix, *parts))

    def get(self, view: Readable, *parts: bytes) -> RowT | None:
        """The row, or ``None``. Raises ``StorageError`` if it is rotten."""
        raw = view.get(self.key(*parts))
        return None if raw is None else self.read(raw)

    def put(self, view: View, row: RowT, *parts: bytes) -> None:
        """Write the row."""
        view.put(self.key(*parts), codec.encode(row))

    def delete(self, view: View, *parts: bytes) -> None:
        """Remove the row."""
        view.delete(self.key(*parts))

    def scan(self, view: Readable, *parts: bytes) -> Iterator[tuple[bytes, RowT]]:
        """What follows ``parts`` in the key, and the row, in key order."""
        prefix = self.key(*parts)
        for key, raw in view.scan(prefix):
            yield key[len(prefix) :], self.read(raw)

    def read(self, raw: bytes) -> RowT:
        """A row from its bytes. Raises ``StorageError`` if it is rotten."""
        row = self._recent.get(raw)
        if row is not None:
            return row
        try:
            row = codec.decode(raw, self.row)
        except DecodeError as error:
            raise StorageError(f"a rotten {self.row.__name__} in the state: {error}") from None
        if len(self._recent) >= ROWS_RECENT_MAX:
            self._recent.clear()
        self._recent[raw] = row
        return row
