"""Packs of drugs: taken in, moved, handed out, recalled, checked and traced.

Whether a transaction counted is its verdict: an operation that wrote one returns it, refused or
not, because what a scanner saw is kept either way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from p2pmed.errors import ConfigError
from p2pmed.ledger.state import Readable
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.drug_queries import holders_of_lot, pedigree, stock, verify_unit
from p2pmed.medical.drug_rows import LOTS, SHIPMENTS, UNITS, LotRow, Pack, lot_key, unit_key
from p2pmed.medical.drugs import UNITS_MAX, Commission, Dispense, Recall, Receive, Ship
from p2pmed.medical.membership import incarnations
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.lookup import (
    built,
    calendar_day,
    day_text,
    describe_device,
    find_device,
    find_one,
    find_patient,
    gtin_of,
    now_ms,
    submitted,
)

__all__ = ["OPERATIONS"]

STEPS: Final = {
    "drug.commission": "commissioned",
    "drug.ship": "shipped",
    "drug.receive": "received",
    "drug.dispense": "dispensed",
}


async def commission(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Packs exist, and this device has them: ``serials``, or ``count`` after a ``prefix``."""
    maker = arguments.text("maker", None)
    serials = _serials(arguments)
    body = built(
        lambda: Commission(
            gtin=gtin_of(arguments.text("gtin")),
            lot=arguments.text("lot"),
            expiry=calendar_day(arguments.text("expiry"), "expiry"),
            serials=serials,
            maker=find_device(node, maker) if maker is not None else node.key,
        )
    )
    answer = await submitted(node, arguments, body)
    return {**answer, "gtin": body.gtin, "lot": body.lot, "packs": len(serials)}


def _serials(arguments: Arguments) -> tuple[str, ...]:
    given = arguments.texts("serials", count_max=UNITS_MAX)
    count = arguments.number("count", 0, high=UNITS_MAX)
    if bool(given) == bool(count):
        raise ConfigError("serials: give them, or how many to number")
    prefix = arguments.text("prefix", "", limit=16)
    return tuple(given) or tuple(f"{prefix}{number:04d}" for number in range(1, count + 1))


async def ship(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Packs leave for another member."""
    gtin = gtin_of(arguments.text("gtin"))
    serials = arguments.texts("serials", count_max=UNITS_MAX)
    if not serials:
        raise ConfigError("serials: at least one pack is needed")
    to = find_device(node, arguments.text("to"))
    body = built(lambda: Ship(units=tuple(Pack(gtin=gtin, serial=s) for s in serials), to=to))
    state = node.state()
    # Whatever the order: the addressee is known, and the packs are here, before they leave.
    opened = [row.opened_by for row in incarnations(state, to).values()]
    answer = await submitted(node, arguments, body, refs=[*_lasts(state, gtin, serials), *opened])
    return {"shipment": answer["id"], **answer, "packs": len(serials)}


def _lasts(state: Readable, gtin: str, serials: Iterable[str]) -> list[bytes]:
    """The transactions that last moved these packs."""
    rows = [UNITS.get(state, unit_key(gtin, serial)) for serial in serials]
    return [row.last for row in rows if row is not None]


async def receive(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """A shipment has come."""
    state = node.state()
    coming = [key for key, row in SHIPMENTS.scan(state)]
    hint = "see `p2pmed drugs stock`"
    shipment = find_one(coming, arguments.text("shipment"), "shipment", hint)
    answer = await submitted(node, arguments, Receive(shipment=shipment), refs=[shipment])
    row = SHIPMENTS.get(state, shipment)
    return {**answer, "packs": len(row.units) if row else 0}


async def dispense(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """One pack is handed to a patient."""
    patient = find_patient(node, arguments.text("patient"))
    gtin, serial = gtin_of(arguments.text("gtin")), arguments.text("serial")
    body = built(
        lambda: Dispense(gtin=gtin, serial=serial, prescription=arguments.key("prescription", b""))
    )
    refs = [*node.patients.refs(patient), *_lasts(node.state(), gtin, [serial])]
    return await submitted(node, arguments, body, patient=patient, refs=refs)


async def recall(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Nothing of a lot may be dispensed any more; whom it reaches, as known here."""
    gtin, lot = gtin_of(arguments.text("gtin")), arguments.text("lot")
    body = built(lambda: Recall(gtin=gtin, lot=lot, reason=arguments.text("reason")))
    answer = await submitted(node, arguments, body)
    return {**answer, "reach": _reach(node.state(), gtin, lot)}


async def verify(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Whether a pack is what its four codes say, and may be used."""
    state = node.state()
    gtin, serial = gtin_of(arguments.text("gtin")), arguments.text("serial")
    found = verify_unit(
        state,
        gtin,
        serial,
        arguments.text("lot"),
        calendar_day(arguments.text("expiry"), "expiry"),
        time_ms=now_ms(node),
    )
    return {
        "verified": found.verified,
        "status": found.status.value,
        "reason": found.reason.value if found.reason else None,
        "holder": describe_device(state, found.holder) if found.holder else None,
        "by_maker": found.by_maker,
        "last": found.last.hex() or None,
    }


async def stock_of(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """What a device has, by product and lot; and the shipments on their way to it."""
    holder_text = arguments.text("holder", None)
    holder = find_device(node, holder_text) if holder_text is not None else node.key
    state = node.state()
    lots: dict[tuple[str, str], list[str]] = {}
    for pack, lot in stock(state, holder):
        lots.setdefault((pack.gtin, lot), []).append(pack.serial)
    rows = [
        {
            "gtin": gtin,
            "lot": lot,
            "packs": len(serials),
            "serials": serials,
            **_lot(state, gtin, lot),
        }
        for (gtin, lot), serials in lots.items()
    ]
    coming = [
        {"shipment": key.hex(), "packs": len(row.units), "from": describe_device(state, row.sender)}
        for key, row in SHIPMENTS.scan(state)
        if row.to == holder and not row.received
    ]
    return {"holder": describe_device(state, holder), "lots": rows, "coming": coming}


def _lot(state: Readable, gtin: str, lot: str) -> dict[str, Any]:
    row: LotRow | None = LOTS.get(state, lot_key(gtin, lot))
    known = row is not None and bool(row.maker)
    return {
        "expiry": day_text(row.expiry) if row is not None and known else None,
        "recalled": row is not None and row.recalled,
    }


async def trace(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """A pack's life, step by step, or with ``lot`` where every pack of a lot is now."""
    state = node.state()
    gtin = gtin_of(arguments.text("gtin"))
    lot, serial = arguments.text("lot", None), arguments.text("serial", None)
    if lot is not None:
        return {
            "gtin": gtin,
            "lot": lot,
            **_lot(state, gtin, lot),
            "reach": _reach(state, gtin, lot),
        }
    if serial is None:
        raise ConfigError("serial: which pack?", hint="give its serial, or --lot for a whole lot")
    steps = [_step(node, state, step) for step in pedigree(state, gtin, serial)]
    row = UNITS.get(state, unit_key(gtin, serial))
    if arguments.flag("backwards"):
        steps.reverse()
    return {
        "gtin": gtin,
        "serial": serial,
        "known": row is not None,
        "lot": row.lot if row else None,
        **_lot(state, gtin, row.lot if row else ""),
        "steps": steps,
    }


def _step(node: Node, state: Readable, step: bytes) -> dict[str, Any]:
    """One transaction of a pedigree, for people."""
    entry: Entry | None = node.find(step)
    if entry is None:
        return {"id": step.hex(), "what": "unknown here", "by": None, "wall": None, "level": None}
    body = node.body(entry)
    told: dict[str, Any] = {}
    match body:
        case Commission(maker=maker):
            told = {"maker": describe_device(state, maker)}
        case Ship(to=to):
            told = {"to": describe_device(state, to)}
        case Dispense():
            told = {"patient": entry.envelope.subject.hex()}
    return {
        "id": step.hex(),
        "what": STEPS.get(entry.kind, entry.kind),
        "by": describe_device(state, entry.author),
        "wall": entry.envelope.wall,
        "level": node.receipt(step).level,
        **told,
    }


def _reach(state: Readable, gtin: str, lot: str) -> list[dict[str, Any]]:
    """Every owner of a pack of the lot."""
    return [
        {
            "holder": describe_device(state, reach.holder),
            "held": list(reach.held),
            "in_transit": list(reach.in_transit),
            "dispensed": [[serial, by.hex()] for serial, by in reach.dispensed],
        }
        for reach in holders_of_lot(state, gtin, lot)
    ]


OPERATIONS: Final[Mapping[str, Operation]] = {
    "drugs.commission": commission,
    "drugs.ship": ship,
    "drugs.receive": receive,
    "drugs.dispense": dispense,
    "drugs.recall": recall,
    "drugs.verify": verify,
    "drugs.stock": stock_of,
    "drugs.trace": trace,
}
