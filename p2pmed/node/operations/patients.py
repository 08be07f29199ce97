"""Patients: register, list, read in order, add to, share and stop sharing.

Answers hold what this device's keys open: they are for who asked, and for nobody's log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from p2pmed.errors import ConfigError
from p2pmed.limits import RECORD_BYTES_MAX
from p2pmed.medical.keyring import Category
from p2pmed.medical.membership import member
from p2pmed.medical.patients import patient_row
from p2pmed.medical.privacy.facilities import current_facility_key
from p2pmed.medical.typed import Demographics, PatientName
from p2pmed.node.fhir.describe import describe_person, describe_resource, is_directory
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.general import wait_final
from p2pmed.node.operations.lookup import (
    describe_device,
    find_device,
    find_patient,
    moment_ms,
    outcome,
)

__all__ = ["OPERATIONS", "box_key", "demographics_of", "moment_text"]

FACILITY: Final = "place:"
"""Before the name of a place: the facility, not a device."""

ROWS_MAX: Final = 100_000
LISTED_AT_ONCE: Final = 64
"""Names opened before other tasks get their turn."""
CATEGORIES_MAX: Final = len(Category)


async def register(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Register a patient: ``fhir`` (a Patient as JSON text), or names and birth date."""
    raw = arguments.text("fhir", None, limit=RECORD_BYTES_MAX)
    demographics: Any = raw.encode() if raw is not None else demographics_of(node, arguments)
    readers = [box_key(node, text) for text in arguments.texts("readers", count_max=16)]
    pseudonym, receipt = await node.patients.register(
        demographics, catchment=arguments.text("catchment", "", limit=256), readers=readers
    )
    await wait_final(receipt, arguments)
    return {"patient": pseudonym.hex(), **outcome(receipt)}


def demographics_of(node: Node, arguments: Arguments) -> Demographics:
    """Names, birth date and gender as they were typed. Raises ``ConfigError`` without a name."""
    family, given = arguments.text("family", ""), arguments.texts("given", count_max=8)
    if not family and not given:
        raise ConfigError(
            "a patient needs a name", hint="give --family and --given, or a FHIR Patient file"
        )
    return Demographics(
        patient=node.patients.new_pseudonym(),
        names=(PatientName(family=family, given=tuple(given)),),
        gender=arguments.text("gender", "unknown"),
        birth_date=arguments.text("birth_date", ""),
    )


def box_key(node: Node, text: str) -> bytes:
    """The encryption key of a member's device, or (``place:shan/mu``) of a facility."""
    if text.startswith(FACILITY):
        found = current_facility_key(node.state(), text.removeprefix(FACILITY))
        if found is None:
            raise ConfigError(
                "that facility has no key of its own yet",
                hint="its staff make one with `p2pmed patient facility`",
            )
        return found
    known = member(node.state(), find_device(node, text))
    assert known is not None  # it was found among the members
    return known.box_key


async def list_all(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Every patient known here; names of those whom this device may read."""
    await node.catch_up()
    rows: list[dict[str, Any]] = []
    known = node.patients.known()
    for at in range(0, len(known), LISTED_AT_ONCE):
        some = known[at : at + LISTED_AT_ONCE]
        async with node.reads.announced(node.reads.registrations(some)):
            rows += _listed(node, some)
        await asyncio.sleep(0)
    return {"patients": rows}


def _listed(node: Node, patients: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    state = node.state()
    for pseudonym in patients:
        registered = patient_row(state, pseudonym)
        entry = node.find(registered.entry) if registered else None
        opened = node.patients.open(entry) if entry else None
        if opened and is_directory(opened[1]):
            continue
        yield {
            "patient": pseudonym.hex(),
            "readable": opened is not None,
            **describe_person(opened[1] if opened else b"{}"),
            "catchment": registered.catchment if registered else "",
        }


async def timeline(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """A patient's records by the date on which they happened."""
    pseudonym = await _patient(node, arguments)
    as_of = arguments.text("as_of", None)
    moment = moment_ms(as_of, "as_of", end_of_day=True) if as_of is not None else None
    wanted = arguments.text("type", "")
    items = await node.timelines.of(pseudonym, as_of_ms=moment, person=True)
    state = node.state()
    rows = [
        {
            "id": item.id.hex(),
            "date": moment_text(
                item.occurred_ms if item.occurred_ms is not None else item.recorded_ms
            ),
            "recorded": moment_text(item.recorded_ms),
            "type": item.kind or "closed",
            "text": describe_resource(item.resource) if item.resource is not None else "",
            "level": node.receipt(item.id).level,
            "retracted": item.retracted,
            "superseded": item.superseded,
            "marks": [mark.value for mark in item.marks],
            "rivals": [rival.hex() for rival in item.rivals],
            "disputes": [name.hex() for name in item.disputes],
            "refusal": item.refusal,
            "patient": item.patient.hex(),
            "author": describe_device(state, item.author)["name"],
        }
        for item in items
        if not wanted or item.kind == wanted
    ]
    rows.sort(key=lambda row: str(row["date"]))  # stable: equal dates stay in causal order
    limit = arguments.number("limit", ROWS_MAX, low=1, high=ROWS_MAX)
    shown = rows[-limit:]
    closed = sum(item.resource is None for item in items)
    return {"patient": pseudonym.hex(), "records": shown, "of": len(rows), "closed": closed}


async def add(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Add one FHIR resource (``fhir``, JSON text) to a patient's record."""
    pseudonym = await _patient(node, arguments)
    raw = arguments.text("fhir", limit=RECORD_BYTES_MAX).encode()
    receipt = await node.patients.add(raw, patient=pseudonym)
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def _patient(node: Node, arguments: Arguments) -> bytes:
    await node.catch_up()
    return find_patient(node, arguments.text("patient"))


def moment_text(moment_ms: int) -> str:
    """ISO 8601 in UTC; a moment outside the calendar is shown as its number."""
    try:
        return datetime.fromtimestamp(moment_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return f"{moment_ms} ms"


OPERATIONS: Final[Mapping[str, Operation]] = {
    "patient.register": register,
    "patient.list": list_all,
    "patient.timeline": timeline,
    "patient.add": add,
}
