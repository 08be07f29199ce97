"""What is asked of the drug tables: pedigree, stock, the reach of a recall, and "is it genuine?".

Rule: pure reads; the same state gives the same answer. A pack that this ledger never saw is
*unknown here*, never *false*: while a village is cut off, the commission may be on its way.

``verify_unit`` answers with the reason codes of GS1's Lightweight Verification Messaging 1.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from p2pmed.ledger.state import Readable
from p2pmed.medical.drug_rows import (
    LOT_UNITS,
    LOTS,
    PEDIGREE,
    STOCK,
    UNITS,
    Pack,
    UnitRow,
    UnitState,
    lot_key,
    unit_key,
)
from p2pmed.medical.fields import DAY_MS

__all__ = [
    "LotReach",
    "UnitAnswer",
    "UnitStatus",
    "VerifyReason",
    "holders_of_lot",
    "pedigree",
    "stock",
    "unit_status",
    "verify_unit",
]


class VerifyReason(StrEnum):
    """Why a pack does not verify; GS1 Lightweight Verification Messaging 1.0, spelled exactly."""

    NO_MATCH_SERIAL = "No_match_GTIN_Serial"
    NO_MATCH_LOT = "No_match_GTIN_Serial_Lot"
    NO_MATCH_EXPIRY = "No_match_GTIN_Serial_Expiry"
    NO_MATCH_LOT_EXPIRY = "No_match_GTIN_Serial_Lot_Expiry"
    GTIN_NOT_FOUND = "GTIN_not_found"
    NO_REASON = "No_reason_provided"
    """The codes match, but the pack must not be used; ``UnitAnswer.status`` says why."""


class UnitStatus(StrEnum):
    """A pack's standing, for people."""

    UNKNOWN_HERE = "unknown_here"
    HELD = "held"
    IN_TRANSIT = "in_transit"
    DISPENSED = "dispensed"
    EXPIRED = "expired"
    RECALLED = "recalled"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitAnswer:
    """Whether a pack is what it says, and where this ledger last knew it."""

    verified: bool
    reason: VerifyReason | None
    status: UnitStatus
    holder: bytes = b""
    """Device key of the last known owner; empty if unknown here."""
    last: bytes = b""
    """The transaction that last moved it."""
    by_maker: bool = False
    """Whether the manufacturer itself vouches for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LotReach:
    """What became of a lot at one owner: the serials, in order."""

    holder: bytes
    held: tuple[str, ...]
    in_transit: tuple[str, ...]
    dispensed: tuple[tuple[str, bytes], ...]
    """Serial and the ``drug.dispense`` transaction, whose subject is the patient."""


def pedigree(view: Readable, gtin: str, serial: str) -> tuple[bytes, ...]:
    """The transactions of a pack's life, in order; empty if it is unknown here."""
    rows = PEDIGREE.scan(view, unit_key(gtin, serial), b"\x00")
    return tuple(row.id for _, row in rows)


def unit_status(view: Readable, gtin: str, serial: str, time_ms: int) -> UnitStatus:
    """A pack's standing at ``time_ms``; what is done outweighs what is due."""
    row = UNITS.get(view, unit_key(gtin, serial))
    return UnitStatus.UNKNOWN_HERE if row is None else _status(view, gtin, row, time_ms)


def _status(view: Readable, gtin: str, row: UnitRow, time_ms: int) -> UnitStatus:
    if row.state is UnitState.DISPENSED:
        return UnitStatus.DISPENSED
    lot = LOTS.get(view, lot_key(gtin, row.lot))
    if lot is not None and lot.recalled:
        return UnitStatus.RECALLED
    if time_ms >= (row.expiry + 1) * DAY_MS:
        return UnitStatus.EXPIRED
    return UnitStatus.IN_TRANSIT if row.state is UnitState.IN_TRANSIT else UnitStatus.HELD


def stock(view: Readable, holder: bytes) -> tuple[tuple[Pack, str], ...]:
    """Packs that ``holder`` owns and their lots; those in transit are still the sender's."""
    return tuple(
        (Pack(gtin=key[:14].decode("ascii"), serial=key[14:].decode("ascii")), row.lot)
        for key, row in STOCK.scan(view, holder)
    )


def holders_of_lot(view: Readable, gtin: str, lot: str) -> tuple[LotReach, ...]:
    """The reach of a recall: every owner that has or had the last word on a pack of the lot."""
    found: dict[bytes, dict[UnitState, list[tuple[str, bytes]]]] = {}
    for rest, _ in LOT_UNITS.scan(view, lot_key(gtin, lot), b"\x00"):
        serial = rest.decode("ascii")
        row = UNITS.get(view, unit_key(gtin, serial))
        assert row is not None  # written together
        states = found.setdefault(row.holder, {state: [] for state in UnitState})
        states[row.state].append((serial, row.last))
    return tuple(
        LotReach(
            holder=holder,
            held=tuple(serial for serial, _ in states[UnitState.HELD]),
            in_transit=tuple(serial for serial, _ in states[UnitState.IN_TRANSIT]),
            dispensed=tuple(states[UnitState.DISPENSED]),
        )
        for holder, states in sorted(found.items())
    )


_MISMATCH = {
    (True, False): VerifyReason.NO_MATCH_LOT,
    (False, True): VerifyReason.NO_MATCH_EXPIRY,
    (True, True): VerifyReason.NO_MATCH_LOT_EXPIRY,
}


def verify_unit(
    view: Readable,
    gtin: str,
    serial: str,
    lot: str,
    expiry: int,
    *,
    time_ms: int,
) -> UnitAnswer:
    """Whether the four codes on a pack (``expiry`` in days since 1970) are those commissioned,
    and the pack may be used at ``time_ms``.
    """
    row = UNITS.get(view, unit_key(gtin, serial))
    if row is None:
        known = next(iter(LOTS.scan(view, gtin.encode("ascii"))), None) is not None
        reason = VerifyReason.NO_MATCH_SERIAL if known else VerifyReason.GTIN_NOT_FOUND
        return UnitAnswer(verified=False, reason=reason, status=UnitStatus.UNKNOWN_HERE)
    status = _status(view, gtin, row, time_ms)
    reason_or_none = _MISMATCH.get((row.lot != lot, row.expiry != expiry))
    if reason_or_none is None and status not in (UnitStatus.HELD, UnitStatus.IN_TRANSIT):
        reason_or_none = VerifyReason.NO_REASON
    return UnitAnswer(
        verified=reason_or_none is None,
        reason=reason_or_none,
        status=status,
        holder=row.holder,
        last=row.last,
        by_maker=row.by_maker,
    )
