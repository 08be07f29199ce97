"""Packs by operation: every step of a life, told with names and places."""

from __future__ import annotations

from typing import Any

import pytest

from p2pmed.errors import ConfigError, InvalidTransaction

GTIN = "9506000134352"
PACK = {"gtin": GTIN, "lot": "L1", "expiry": "2090-03-31"}


async def _taken_in(ask: Any, node: Any, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await ask(node, "drugs.commission", **{**PACK, "count": 3, **more})
    return answer


async def test_a_pack_goes_from_maker_to_patient_and_is_traced(
    opened: Any, ask: Any, carry: Any
) -> None:
    """Commissioned, shipped, received, dispensed: four steps with who, whither and how sure."""
    maker = await opened("Good Pharma", "manufacturer")
    clinic = await opened("Mu clinic")
    await carry(maker, clinic)
    assert (await _taken_in(ask, maker, prefix="A"))["packs"] == 3
    shipped = await ask(maker, "drugs.ship", to="mu clinic", gtin=GTIN, serials=["A0001", "A0002"])
    await carry(maker, clinic)
    coming = (await ask(clinic, "drugs.stock"))["coming"]
    assert [(row["shipment"], row["packs"], row["from"]["name"]) for row in coming] == [
        (shipped["shipment"], 2, "Good Pharma")
    ]
    received = await ask(clinic, "drugs.receive", shipment=shipped["shipment"][:8])
    assert (received["verdict"], received["packs"]) == ("applied", 2)
    patient = (await ask(clinic, "patient.register", family="Wang"))["patient"]
    codes = {"gtin": GTIN, "serial": "A0001"}
    given = await ask(clinic, "drugs.dispense", **codes, patient=patient)
    assert given["verdict"] == "applied"
    assert await clinic.found_mesh()
    await clinic.receipt(bytes.fromhex(given["id"])).final(timeout=10)
    traced = await ask(clinic, "drugs.trace", **codes)
    steps = [(step["what"], step["by"]["name"], step["level"]) for step in traced["steps"]]
    assert steps == [
        ("commissioned", "Good Pharma", "final"),
        ("shipped", "Good Pharma", "final"),
        ("received", "Mu clinic", "final"),
        ("dispensed", "Mu clinic", "final"),
    ]
    assert traced["steps"][1]["to"] == {
        "device": clinic.key.hex(),
        "name": "Mu clinic",
        "place": "shan/mu",
    }
    assert traced["steps"][3]["patient"] == patient
    back = await ask(clinic, "drugs.trace", **codes, backwards=True)
    assert back["steps"] == traced["steps"][::-1]
    stock = await ask(clinic, "drugs.stock")
    assert [(row["lot"], row["serials"]) for row in stock["lots"]] == [("L1", ["A0002"])]
    assert not stock["coming"]
    again = await ask(clinic, "drugs.dispense", **codes, patient=patient)
    assert (again["verdict"], again["contradicts"]) == ("unit_dispensed", given["id"])
    assert again["meaning"] == "This pack was handed out before."


async def test_a_recall_reaches_every_holder_and_stops_the_packs(
    opened: Any, ask: Any, carry: Any
) -> None:
    """Where the lot is, by owner; a pack of it verifies no more and is refused at the counter."""
    clinic, county = await opened("Mu clinic"), await opened("County", "county")
    await carry(clinic, county)
    await _taken_in(ask, clinic, serials=["A", "B", "C"], count=0)
    patient = (await ask(clinic, "patient.register", family="Wang"))["patient"]
    await ask(clinic, "drugs.dispense", gtin=GTIN, serial="A", patient=patient)
    shipped = await ask(clinic, "drugs.ship", to="County", gtin=GTIN, serials=["B"])
    code = {"gtin": GTIN, "serial": "C", "lot": "L1", "expiry": "2090-03-31"}
    assert (await ask(clinic, "drugs.verify", **code))["verified"]
    await carry(clinic, county)
    await county.found_mesh()  # what is final stands before the recall, whatever the keys are
    await county.receipt(bytes.fromhex(shipped["id"])).final(timeout=10)
    recalled = await ask(county, "drugs.recall", gtin=GTIN, lot="L1", reason="contamination")
    assert recalled["verdict"] == "applied"
    reach = recalled["reach"]
    assert [
        (row["held"], row["in_transit"], [s for s, _ in row["dispensed"]]) for row in reach
    ] == [(["C"], ["B"], ["A"])]
    await carry(clinic, county)
    stopped = await ask(clinic, "drugs.verify", **code)
    assert (stopped["verified"], stopped["status"]) == (False, "recalled")
    assert (await ask(clinic, "drugs.stock"))["lots"][0]["recalled"]
    refused = await ask(clinic, "drugs.dispense", gtin=GTIN, serial="C", patient=patient)
    assert refused["verdict"] == "lot_recalled"
    of_lot = await ask(clinic, "drugs.trace", gtin=GTIN, lot="L1")
    assert of_lot["recalled"]
    assert of_lot["reach"] == (await ask(county, "drugs.trace", gtin=GTIN, lot="L1"))["reach"]


async def test_a_pack_never_seen_is_unknown_here_and_not_false(opened: Any, ask: Any) -> None:
    """While a village is cut off, the commission may be on its way."""
    node = await opened()
    code = {"gtin": GTIN, "serial": "X", "lot": "L1", "expiry": "2090-03-31"}
    found = await ask(node, "drugs.verify", **code)
    assert (found["verified"], found["status"], found["reason"]) == (
        False,
        "unknown_here",
        "GTIN_not_found",
    )
    traced = await ask(node, "drugs.trace", gtin=GTIN, serial="X")
    assert (traced["known"], traced["steps"]) == (False, [])


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("drugs.commission", {**PACK, "gtin": "123", "count": 1}, "gtin: not 14 digits"),
    ("drugs.commission", PACK, "serials"),
    ("drugs.commission", {**PACK, "serials": ["a b"]}, "serials"),
    ("drugs.commission", {**PACK, "serials": ["A", "A"]}, "one stands twice"),
    ("drugs.commission", {**PACK, "expiry": "soon", "count": 1}, "expiry: not a date"),
    ("drugs.commission", {**PACK, "lot": "é", "count": 1}, "lot"),
    ("drugs.ship", {"gtin": GTIN, "serials": ["A"], "to": "nobody"}, "no member is called"),
    ("drugs.ship", {"gtin": GTIN, "to": "Mu clinic"}, "at least one pack"),
    ("drugs.receive", {"shipment": "abcd"}, "names 0 shipments"),
    ("drugs.recall", {"gtin": GTIN, "lot": "L1", "reason": "two words"}, "reason"),
    ("drugs.trace", {"gtin": GTIN}, "which pack"),
]


async def test_a_wrong_code_is_named(opened: Any, ask: Any) -> None:
    """Nothing is written; the field is named."""
    node = await opened()
    before = node.status()["entries"]
    for operation, values, sentence in WRONG:
        with pytest.raises((ConfigError, InvalidTransaction), match=sentence):
            await ask(node, operation, **values)
    assert node.status()["entries"] == before
