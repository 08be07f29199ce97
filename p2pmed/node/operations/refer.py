"""Referrals: send, list, show, accept, close, return a result, ask what exists already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from p2pmed.errors import ConfigError, Denied
from p2pmed.limits import RECORD_BYTES_MAX
from p2pmed.medical.care.exams import Warned
from p2pmed.medical.care.referrals import Urgency
from p2pmed.medical.keyring import Category
from p2pmed.node.care.referrals import Referral
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.general import wait_final
from p2pmed.node.operations.lookup import (
    describe_device,
    find_one,
    find_patient,
    moment_ms,
    outcome,
)
from p2pmed.node.operations.patients import moment_text

__all__ = ["OPERATIONS"]

LIST_MAX: Final = 128


def warned(found: Warned) -> dict[str, Any]:
    """A warning as plain values."""
    return {
        "warning": found.name,
        "code": found.code,
        "record": found.record.hex(),
        "when": moment_text(found.occurred_ms),
        "days": found.days,
        "within": found.within,
    }


async def send(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Refer ``patient`` to the place ``to``, with ``records``, ``categories`` and ``orders``."""
    await node.catch_up()
    patient = find_patient(node, arguments.text("patient"))
    here = {entry.id for entry in node.patients.entries(patient)}
    hint = "see `p2pmed patient timeline`"
    records = [
        find_one(here, text, "record", hint)
        for text in arguments.texts("records", count_max=LIST_MAX)
    ]
    try:
        categories = [Category(text) for text in arguments.texts("categories", count_max=32)]
        urgency = Urgency[arguments.text("urgency", "routine").upper()]
    except (KeyError, ValueError):
        raise ConfigError("no such category or urgency") from None
    until = arguments.text("until", None)
    sent = await node.referrals.send(
        patient,
        arguments.text("to", limit=256),
        reason=arguments.text("reason", limit=256),
        text=arguments.text("text", "", limit=65_536),
        records=records,
        categories=categories,
        orders=arguments.texts("orders", count_max=64),
        urgency=urgency,
        until_ms=moment_ms(until, "until", end_of_day=True) if until is not None else 0,
    )
    await wait_final(sent.receipt, arguments)
    told = [warned(each) for each in sent.warnings]
    return {"referral": sent.receipt.id.hex(), "warnings": told, **outcome(sent.receipt)}


def _described(node: Node, each: Referral) -> dict[str, Any]:
    row = each.row
    return {
        "referral": each.id.hex(),
        "patient": each.patient.hex(),
        "from": describe_device(node.state(), row.author),
        "to": row.to,
        "urgency": row.urgency.name.lower(),
        "accepted": bool(row.accepted),
        "closed": bool(row.closed),
        "results": len(each.results),
    }


async def list_all(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Referrals known here, open and urgent ones first; ``place``: only those to it."""
    await node.catch_up()
    found = node.referrals.all(place=arguments.text("place", None, limit=256))
    return {"referrals": [_described(node, each) for each in found]}


def _find(node: Node, arguments: Arguments) -> Referral:
    known = {each.id: each for each in node.referrals.all()}
    hint = "see `p2pmed refer list`"
    return known[find_one(known, arguments.text("referral"), "referral", hint)]


async def show(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """The letter, the records that came along, the results; announced as any reading."""
    await node.catch_up()
    found = _find(node, arguments)
    letter, records = None, []
    try:
        letter = await node.referrals.letter(found.id)
        records = await node.referrals.records(found.id)
    except Denied as denied:
        refusal = str(denied)
    else:
        refusal = ""
    results = await node.referrals.results(found.patient, found.id)
    return {
        **_described(node, found),
        "refusal": refusal,
        "reason": letter.reason if letter else None,
        "text": letter.text if letter else None,
        "categories": list(letter.categories) if letter else [],
        "orders": list(letter.orders) if letter else [],
        "records": [each.resource.decode("utf-8", "replace") for each in records],
        "returned": [each.resource.decode("utf-8", "replace") for each in results],
    }


async def accept(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Take the patient."""
    await node.catch_up()
    receipt = await node.referrals.accept(_find(node, arguments).id)
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def close(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Nothing is read by it any more."""
    await node.catch_up()
    reason = arguments.text("reason", "done", limit=32)
    receipt = await node.referrals.close(_find(node, arguments).id, reason=reason)
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def result(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Send back ``fhir``: one resource as JSON text."""
    await node.catch_up()
    raw = arguments.text("fhir", limit=RECORD_BYTES_MAX).encode()
    receipt = await node.referrals.return_result(_find(node, arguments).id, raw)
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def check(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Which of ``orders`` (LOINC) have a result that this device may open, inside its window."""
    await node.catch_up()
    patient = find_patient(node, arguments.text("patient"))
    within = arguments.number("within", None, high=36_500)
    orders = arguments.texts("orders", count_max=64)
    before = node.referrals.windows
    try:
        if within is not None:
            node.referrals.windows = dict.fromkeys(orders, within)
        found = await node.referrals.duplicates(patient, orders)
    finally:
        node.referrals.windows = before
    return {"warnings": [warned(each) for each in found]}


OPERATIONS: Final[Mapping[str, Operation]] = {
    "refer.send": send,
    "refer.list": list_all,
    "refer.show": show,
    "refer.accept": accept,
    "refer.close": close,
    "refer.result": result,
    "refer.check": check,
}
