"""Questions to the drug tables, answered by the state alone."""

from __future__ import annotations

from typing import Any

import pytest

from p2pmed.medical.drug_queries import (
    UnitStatus,
    VerifyReason,
    holders_of_lot,
    pedigree,
    unit_status,
    verify_unit,
)
from p2pmed.medical.drug_rows import Pack
from p2pmed.medical.drugs import Commission, Dispense, Recall, Receive, Ship

GTIN = "09506000134352"


@pytest.fixture
def h(hamlet: Any) -> Any:
    """Four packs of one lot: kept, in transit, received, dispensed."""
    hamlet.join("maker", "manufacturer")
    hamlet.join("pharmacy", "pharmacy")
    hamlet.join("county", "county")
    hamlet.expiry = hamlet.time_ms // hamlet.DAY_MS + 5
    made = Commission(
        gtin=GTIN,
        lot="L1",
        expiry=hamlet.expiry,
        serials=("1", "2", "3", "4"),
        maker=hamlet.key("maker"),
    )
    hamlet.write("maker", made)
    to = hamlet.key("pharmacy")
    sent = hamlet.write("maker", Ship(units=tuple(pack(s) for s in "34"), to=to))
    hamlet.write("pharmacy", Receive(shipment=sent.id))
    hamlet.write("maker", Ship(units=(pack("2"),), to=to))
    hamlet.given = hamlet.write("pharmacy", Dispense(gtin=GTIN, serial="4"), subject=bytes(16))
    assert hamlet.given.code == "applied"
    return hamlet


def pack(serial: str) -> Pack:
    return Pack(gtin=GTIN, serial=serial)


def verify(h: Any, serial: str, **codes: Any) -> Any:
    asked = {"gtin": GTIN, "lot": "L1", "expiry": h.expiry, **codes}
    return verify_unit(h.view, serial=serial, time_ms=h.time_ms, **asked)


@pytest.mark.parametrize(
    ("serial", "codes", "reason"),
    [
        ("3", {}, None),
        ("2", {}, None),
        ("9", {}, "No_match_GTIN_Serial"),
        ("3", {"lot": "L2"}, "No_match_GTIN_Serial_Lot"),
        ("3", {"expiry": 1}, "No_match_GTIN_Serial_Expiry"),
        ("3", {"lot": "L2", "expiry": 1}, "No_match_GTIN_Serial_Lot_Expiry"),
        ("3", {"gtin": "10614141543219"}, "GTIN_not_found"),
        ("4", {}, "No_reason_provided"),
    ],
)
def test_verification_answers_with_the_codes_of_gs1(
    h: Any, serial: str, codes: dict[str, Any], reason: str | None
) -> None:
    """Each mismatch has exactly its GS1 code; a used pack matches but does not verify."""
    answer = verify(h, serial, **codes)
    assert answer.verified == (reason is None)
    assert (answer.reason.value if answer.reason else None) == reason


def test_the_reason_codes_are_spelled_as_gs1_spells_them() -> None:
    """Six codes and no other."""
    assert {reason.value for reason in VerifyReason} == {
        "No_match_GTIN_Serial",
        "No_match_GTIN_Serial_Lot",
        "No_match_GTIN_Serial_Expiry",
        "No_match_GTIN_Serial_Lot_Expiry",
        "GTIN_not_found",
        "No_reason_provided",
    }


def test_an_unknown_serial_is_unknown_here_and_not_fake(h: Any) -> None:
    """The answer names no verdict about the pack, only about this ledger."""
    answer = verify(h, "9")
    assert answer.status is UnitStatus.UNKNOWN_HERE
    assert answer.holder == b""


def test_an_answer_names_the_last_known_place(h: Any) -> None:
    """The owner, the last transaction, and whether the maker vouches for it."""
    answer = verify(h, "4")
    assert (answer.holder, answer.last) == (h.key("pharmacy"), h.given.id)
    assert (answer.status, answer.by_maker) == (UnitStatus.DISPENSED, True)


def test_status_by_time_and_recall(h: Any) -> None:
    """Expired after its day, recalled before that, dispensed for ever."""
    late = (h.expiry + 1) * h.DAY_MS
    assert unit_status(h.view, GTIN, "1", h.time_ms) is UnitStatus.HELD
    assert unit_status(h.view, GTIN, "2", h.time_ms) is UnitStatus.IN_TRANSIT
    assert unit_status(h.view, GTIN, "1", late) is UnitStatus.EXPIRED
    h.write("county", Recall(gtin=GTIN, lot="L1", reason="quality"))
    assert unit_status(h.view, GTIN, "1", late) is UnitStatus.RECALLED
    assert unit_status(h.view, GTIN, "4", late) is UnitStatus.DISPENSED
    assert verify(h, "1").reason is VerifyReason.NO_REASON


def test_the_reach_of_a_recall(h: Any) -> None:
    """Every pack of the lot stands exactly once, with its owner; who got one can be asked."""
    reach = {found.holder: found for found in holders_of_lot(h.view, GTIN, "L1")}
    maker, pharmacy = reach[h.key("maker")], reach[h.key("pharmacy")]
    assert (maker.held, maker.in_transit, maker.dispensed) == (("1",), ("2",), ())
    assert (pharmacy.held, pharmacy.in_transit) == (("3",), ())
    assert pharmacy.dispensed == (("4", h.given.id),)
    assert holders_of_lot(h.view, GTIN, "L") == ()


def test_a_serial_that_begins_another_has_its_own_pedigree(h: Any) -> None:
    """Keys of different length do not run into each other."""
    body = Commission(gtin=GTIN, lot="L1", expiry=h.expiry, serials=("11",), maker=h.key("maker"))
    made = h.write("maker", body)
    assert pedigree(h.view, GTIN, "11") == (made.id,)
    assert made.id not in pedigree(h.view, GTIN, "1")
