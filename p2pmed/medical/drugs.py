"""Packs of drugs, one by one: commissioned, shipped, received, dispensed, recalled.

Rule: a pack (GTIN and serial) has one owner at a time, and is dispensed at most once. Only its
holder ships or dispenses it, only the addressee receives it, and nobody dispenses it after its
expiry day (by block time) or a recall. Medical notes, section 1, row 5; identifiers are GS1's.

What a scanner saw is a fact even where the ledger says otherwise. A pack dispensed twice, or
dispensed where the ledger says it is not, or commissioned twice, is refused *and* opens a
discrepancy with the transaction it contradicts.

Custody (commission, ship, receive) and recalls act in every ledger that orders them, or no
pack could pass from the county's ledger into a village's. A dispense is a spending: it acts
only in the ledger it names, and at the county where that ledger's order is executed.

A holder whose key was revoked cannot move its stock. A supervisor of its place ships it on.

Rows are in ``drug_rows.py``, questions in ``drug_queries.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final

import msgspec

from p2pmed.ledger.state import Readable, View
from p2pmed.medical.drug_rows import (
    LOT_UNITS,
    LOTS,
    PEDIGREE,
    SHIPMENTS,
    STOCK,
    UNITS,
    LotMark,
    LotRow,
    Pack,
    PedigreeRow,
    ShipmentRow,
    UnitRow,
    UnitState,
    lot_key,
    unit_key,
)
from p2pmed.medical.fields import (
    DAY_MS,
    Code,
    Day,
    FieldFault,
    Gtin,
    Lot,
    Serial,
    check_gtin,
    check_optional_id,
)
from p2pmed.medical.membership import may_withdraw, member
from p2pmed.medical.qualifications import qualified
from p2pmed.medical.registry import Act, Checked, Kind, Refusal
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.roles import CARERS, OVERSEERS, Role, roles
from p2pmed.wire import codec
from p2pmed.wire.codec import Bytes32, OptionalId, Wire

__all__ = ["KINDS", "UNITS_MAX", "Commission", "Dispense", "Recall", "Receive", "Ship"]

UNITS_MAX: Final = 500
"""Packs named by one transaction: 500 longest ones are a fifth of an entry's size."""

DISPENSE_SCOPE: Final = "dispense"


class Commission(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``drug.commission``: these packs exist, and the author has them."""

    gtin: Gtin
    lot: Lot
    expiry: Day
    """The last day on which they may be dispensed."""
    serials: Annotated[tuple[Serial, ...], msgspec.Meta(min_length=1, max_length=UNITS_MAX)]
    maker: Bytes32
    """The manufacturer's key."""

    def __post_init__(self) -> None:
        check_gtin(self.gtin)
        if len(set(self.serials)) < len(self.serials):
            raise FieldFault("serials: one stands twice")


class Ship(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``drug.ship``: these packs leave for another member. The id names the shipment."""

    units: Annotated[tuple[Pack, ...], msgspec.Meta(min_length=1, max_length=UNITS_MAX)]
    to: Bytes32
    """The addressee's device key."""

    def __post_init__(self) -> None:
        if len({(unit.gtin, unit.serial) for unit in self.units}) < len(self.units):
            raise FieldFault("units: one stands twice")


class Receive(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``drug.receive``: the whole shipment has come; its packs are now the author's."""

    shipment: Bytes32


class Dispense(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``drug.dispense``: one pack handed to the patient whom the envelope names."""

    gtin: Gtin
    serial: Serial
    prescription: OptionalId = b""

    def __post_init__(self) -> None:
        check_gtin(self.gtin)
        check_optional_id("prescription", self.prescription)


class Recall(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``drug.recall``: nothing of this lot may be dispensed any more."""

    gtin: Gtin
    lot: Lot
    reason: Code

    def __post_init__(self) -> None:
        check_gtin(self.gtin)


def _append(view: View, key: bytes, number: int, entry_id: bytes) -> None:
    PEDIGREE.put(view, PedigreeRow(id=entry_id), key, b"\x00", number.to_bytes(4, "big"))


# --- commission ----------------------------------------------------------------------------


def _check_commission(act: Act[Commission], view: View) -> Checked:
    body = act.body
    lot = LOTS.get(view, lot_key(body.gtin, body.lot))
    if lot is not None and lot.maker and (lot.maker, lot.expiry) != (body.maker, body.expiry):
        return Rejection.REFERENCE_MISMATCH
    for serial in body.serials:
        known = UNITS.get(view, unit_key(body.gtin, serial))
        if known is not None:
            return Refusal(reason=Rejection.UNIT_EXISTS, other=known.commission)
    return None


def _apply_commission(act: Act[Commission], view: View) -> None:
    body, holder, entry_id = act.body, act.entry.author, act.entry.id
    named = lot_key(body.gtin, body.lot)
    lot = LOTS.get(view, named)
    if lot is None:
        lot = LotRow(maker=b"", expiry=0, recall=b"", recalled_by=b"", official=False)
    if not lot.maker:
        lot = msgspec.structs.replace(lot, maker=body.maker, expiry=body.expiry)
        LOTS.put(view, lot, named)
    row = UnitRow(
        lot=body.lot,
        expiry=body.expiry,
        maker=body.maker,
        by_maker=holder == body.maker,
        commission=entry_id,
        state=UnitState.HELD,
        holder=holder,
        last=entry_id,
        events=1,
    )
    # All rows of one commission are alike: encoded once, they cost a dictionary write each.
    unit, mark = codec.encode(row), codec.encode(LotMark(lot=body.lot))
    step = codec.encode(PedigreeRow(id=entry_id))
    for serial in body.serials:
        key = unit_key(body.gtin, serial)
        view.put(UNITS.key(key), unit)
        view.put(STOCK.key(holder, key), mark)
        view.put(LOT_UNITS.key(named, b"\x00", serial.encode("ascii")), mark)
        view.put(PEDIGREE.key(key, b"\x00", bytes(4)), step)


# --- ship and receive ----------------------------------------------------------------------


def _may_ship_for(act: Act[Ship], view: View, holder: bytes) -> bool:
    """The holder itself; for a holder whose key is revoked, a supervisor of its place."""
    if act.entry.author == holder:
        return True
    known = member(view, holder)
    if known is None or not known.revoked:
        return False
    return may_withdraw(act.entry.author, act.member, known.issuer, known.place)


def _check_ship(act: Act[Ship], view: View) -> Checked:
    rows = [UNITS.get(view, unit_key(unit.gtin, unit.serial)) for unit in act.body.units]
    if member(view, act.body.to) is None:
        return Rejection.MEMBER_UNKNOWN
    known = [row for row in rows if row is not None]
    if len(known) < len(rows):
        return Rejection.UNIT_UNKNOWN
    if any(row.state is UnitState.DISPENSED for row in known):
        return Rejection.UNIT_DISPENSED
    holders = dict.fromkeys(row.holder for row in known)
    if len(holders) > 1 or not _may_ship_for(act, view, known[0].holder):
        return Rejection.UNIT_NOT_HELD
    if any(row.state is UnitState.IN_TRANSIT for row in known):
        return Rejection.UNIT_IN_TRANSIT
    return Rejection.REFERENCE_MISMATCH if act.body.to == known[0].holder else None


def _rows(view: View, units: Iterable[Pack]) -> Iterator[tuple[bytes, UnitRow]]:
    """Keys and rows of packs that a check has seen."""
    for unit in units:
        key = unit_key(unit.gtin, unit.serial)
        row = UNITS.get(view, key)
        assert row is not None
        yield key, row


def _move(view: View, key: bytes, row: UnitRow, entry_id: bytes, **changes: Any) -> None:
    """Write the next step of a pack's life."""
    new = msgspec.structs.replace(row, last=entry_id, events=row.events + 1, **changes)
    UNITS.put(view, new, key)
    _append(view, key, row.events, entry_id)


def _apply_ship(act: Act[Ship], view: View) -> None:
    body = act.body
    sender = act.entry.author
    for key, row in _rows(view, body.units):
        sender = row.holder
        _move(view, key, row, act.entry.id, state=UnitState.IN_TRANSIT)
    shipment = ShipmentRow(sender=sender, to=body.to, units=body.units, received=b"")
    SHIPMENTS.put(view, shipment, act.entry.id)


def _check_receive(act: Act[Receive], view: View) -> Checked:
    shipment = SHIPMENTS.get(view, act.body.shipment)
    if shipment is None:
        return Rejection.SHIPMENT_UNKNOWN
    if shipment.to != act.entry.author:
        return Rejection.SHIPMENT_NOT_FOR_US
    return Rejection.SHIPMENT_RECEIVED if shipment.received else None


def _apply_receive(act: Act[Receive], view: View) -> None:
    shipment = SHIPMENTS.get(view, act.body.shipment)
    assert shipment is not None  # the check has read it
    holder = act.entry.author
    for key, row in _rows(view, shipment.units):
        STOCK.delete(view, row.holder, key)
        STOCK.put(view, LotMark(lot=row.lot), holder, key)
        _move(view, key, row, act.entry.id, state=UnitState.HELD, holder=holder)
    received = msgspec.structs.replace(shipment, received=act.entry.id)
    SHIPMENTS.put(view, received, act.body.shipment)


# --- dispense and recall -------------------------------------------------------------------


def _check_dispense(act: Act[Dispense], view: View) -> Checked:
    body, envelope, now = act.body, act.entry.envelope, act.context.time_ms
    if envelope.actor:
        unfit = qualified(view, envelope.actor, DISPENSE_SCOPE, now)
        if unfit is not None:
            return unfit
    if not envelope.subject:
        return Rejection.PATIENT_UNKNOWN
    row = UNITS.get(view, unit_key(body.gtin, body.serial))
    if row is None:
        return Rejection.UNIT_UNKNOWN
    if row.state is UnitState.DISPENSED:
        return Refusal(reason=Rejection.UNIT_DISPENSED, other=row.last)
    if row.holder != act.entry.author:
        # The pack was in somebody's hand all the same: a copy, a theft, or a forgotten receipt.
        return Refusal(reason=Rejection.UNIT_NOT_HELD, other=row.last)
    if row.state is UnitState.IN_TRANSIT:
        return Rejection.UNIT_IN_TRANSIT
    if now >= (row.expiry + 1) * DAY_MS:
        return Rejection.LOT_EXPIRED
    return Rejection.LOT_RECALLED if _recalled(view, body.gtin, row.lot) else None


def _recalled(view: Readable, gtin: str, lot: str) -> bool:
    row = LOTS.get(view, lot_key(gtin, lot))
    return row is not None and row.recalled


def _apply_dispense(act: Act[Dispense], view: View) -> None:
    for key, row in _rows(view, (Pack(gtin=act.body.gtin, serial=act.body.serial),)):
        STOCK.delete(view, row.holder, key)
        _move(view, key, row, act.entry.id, state=UnitState.DISPENSED)


def _check_recall(act: Act[Recall], view: View) -> Checked:
    row = LOTS.get(view, lot_key(act.body.gtin, act.body.lot))
    if row is None or not OVERSEERS.isdisjoint(act.member.roles):
        return Rejection.LOT_ALREADY_RECALLED if row is not None and row.recalled else None
    if row.maker and row.maker != act.entry.author:
        return Rejection.NOT_THE_PARTY
    return Rejection.LOT_ALREADY_RECALLED if row.recalled else None


def _apply_recall(act: Act[Recall], view: View) -> None:
    named = lot_key(act.body.gtin, act.body.lot)
    row = LOTS.get(view, named)
    recalled = LotRow(
        maker=row.maker if row else b"",
        expiry=row.expiry if row else 0,
        recall=act.entry.id,
        recalled_by=act.entry.author,
        official=not OVERSEERS.isdisjoint(act.member.roles),
    )
    LOTS.put(view, recalled, named)


_STOCKISTS: Final = CARERS | roles(Role.MANUFACTURER, Role.COUNTY)

KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="drug.commission",
        body=Commission,
        check=_check_commission,
        apply=_apply_commission,
        everywhere=True,
        roles=_STOCKISTS,
        rules="Refused `reference_mismatch` if the lot is known with another maker or expiry, "
        "`unit_exists` (a discrepancy) if one of the packs is in the ledger. All or nothing.",
    ),
    Kind(
        name="drug.ship",
        body=Ship,
        check=_check_ship,
        apply=_apply_ship,
        everywhere=True,
        roles=_STOCKISTS | roles(Role.AUTHORITY),
        rules="Refused `member_unknown`, `unit_unknown`, `unit_dispensed`, `unit_not_held` unless "
        "the author holds all packs or supervises a revoked holder, `unit_in_transit`, "
        "`reference_mismatch` when sent to their holder. Recalled and expired packs may travel.",
    ),
    Kind(
        name="drug.receive",
        body=Receive,
        check=_check_receive,
        apply=_apply_receive,
        everywhere=True,
        roles=_STOCKISTS,
        rules="Refused `shipment_unknown`, `shipment_not_for_us`, `shipment_received`.",
    ),
    Kind(
        name="drug.dispense",
        body=Dispense,
        check=_check_dispense,
        apply=_apply_dispense,
        roles=CARERS,
        rules="Refused for the acting person's `qualification_missing`, `qualification_suspended` "
        "or `qualification_expired` (scope `dispense`), `patient_unknown` without a subject, "
        "`unit_unknown`, `unit_dispensed` and `unit_not_held` (discrepancies), "
        "`unit_in_transit`, `lot_expired` after the expiry day by block time, `lot_recalled`.",
    ),
    Kind(
        name="drug.recall",
        body=Recall,
        check=_check_recall,
        apply=_apply_recall,
        everywhere=True,
        roles=OVERSEERS | roles(Role.MANUFACTURER),
        rules="Refused `not_the_party` when a manufacturer recalls another's lot, "
        "`lot_already_recalled`. A lot may be recalled before any pack of it is known.",
    ),
)
