"""The life of packs: one owner at a time, at most one dispense, and every refusal shown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pmed.errors import InvalidTransaction
from p2pmed.medical.discrepancies import open_discrepancies
from p2pmed.medical.drug_queries import UnitStatus, pedigree, stock, unit_status
from p2pmed.medical.drug_rows import Pack
from p2pmed.medical.drugs import UNITS_MAX, Commission, Dispense, Recall, Receive, Ship
from p2pmed.medical.qualifications import QualificationIssue

GTIN = "09506000134352"
WANG = bytes(16)


@pytest.fixture
def h(hamlet: Any) -> Any:
    """A maker, a pharmacy, two clinics and a county."""
    hamlet.join("maker", "manufacturer")
    hamlet.join("other-maker", "manufacturer")
    hamlet.join("pharmacy", "pharmacy")
    hamlet.join("clinic", "clinic")
    hamlet.join("county", "county", place="county")
    hamlet.join("insurer", "insurer")
    hamlet.today = hamlet.time_ms // hamlet.DAY_MS
    return hamlet


def commission(h: Any, *serials: str, who: str = "maker", **fields: Any) -> Any:
    body = Commission(
        gtin=GTIN, lot="L1", expiry=h.today + 10, serials=serials, maker=h.key("maker")
    )
    return h.write(who, msgspec.structs.replace(body, **fields) if fields else body)


def ship(h: Any, who: str, to: str, *serials: str) -> Any:
    units = tuple(Pack(gtin=GTIN, serial=serial) for serial in serials)
    return h.write(who, Ship(units=units, to=h.key(to)))


def deliver(h: Any, who: str, to: str, *serials: str) -> Any:
    sent = ship(h, who, to, *serials)
    assert sent.code == "applied"
    got = h.write(to, Receive(shipment=sent.id))
    assert got.code == "applied"
    return sent, got


def dispense(h: Any, who: str, serial: str, **fields: Any) -> Any:
    return h.write(who, Dispense(gtin=GTIN, serial=serial), **{"subject": WANG, **fields})


def test_the_whole_way_of_a_pack(h: Any) -> None:
    """From maker to patient: each step applies, and the pedigree tells them in order."""
    made = commission(h, "A", "B")
    sent, got = deliver(h, "maker", "pharmacy", "A")
    assert [unit.serial for unit, _ in stock(h.view, h.key("maker"))] == ["B"]
    assert stock(h.view, h.key("pharmacy")) == ((Pack(gtin=GTIN, serial="A"), "L1"),)
    given = dispense(h, "pharmacy", "A")
    assert given.code == "applied"
    assert pedigree(h.view, GTIN, "A") == (made.id, sent.id, got.id, given.id)
    assert pedigree(h.view, GTIN, "B") == (made.id,)
    assert stock(h.view, h.key("pharmacy")) == ()


def test_a_second_dispense_is_refused_and_kept_as_a_discrepancy(h: Any) -> None:
    """Whoever hands out a pack again contradicts who did first; both are named."""
    commission(h, "A")
    deliver(h, "maker", "pharmacy", "A")
    first = dispense(h, "pharmacy", "A")
    again = dispense(h, "pharmacy", "A", subject=bytes([1] * 16))
    elsewhere = dispense(h, "clinic", "A")
    assert (again.code, again.other) == ("unit_dispensed", first.id)
    assert (elsewhere.code, elsewhere.other) == ("unit_dispensed", first.id)
    found = {(d.first, d.second, d.reason) for d in open_discrepancies(h.view)}
    assert found == {
        (first.id, again.id, "unit_dispensed"),
        (first.id, elsewhere.id, "unit_dispensed"),
    }


def test_a_dispense_of_somebody_elses_pack_is_a_discrepancy(h: Any) -> None:
    """A pack scanned where the ledger says it is not: refused, kept, and the holder's stands."""
    commission(h, "A")
    _, got = deliver(h, "maker", "pharmacy", "A")
    strange = dispense(h, "clinic", "A")
    assert (strange.code, strange.other) == ("unit_not_held", got.id)
    assert [d.second for d in open_discrepancies(h.view)] == [strange.id]
    assert dispense(h, "pharmacy", "A").code == "applied"


def test_a_pack_is_commissioned_once(h: Any) -> None:
    """The same serial again is a discrepancy, and nothing of that commission is taken."""
    first = commission(h, "A", "B")
    again = commission(h, "C", "B")
    assert (again.code, again.other) == ("unit_exists", first.id)
    assert len(open_discrepancies(h.view)) == 1
    assert unit_status(h.view, GTIN, "C", h.time_ms) is UnitStatus.UNKNOWN_HERE


@pytest.mark.parametrize("change", [{"expiry": 5_000}, {"maker": bytes(32)}])
def test_a_lot_has_one_maker_and_one_expiry(h: Any, change: dict[str, Any]) -> None:
    """A commission that tells a known lot otherwise is refused."""
    commission(h, "A")
    assert commission(h, "B", **change).code == "reference_mismatch"


def test_ship_refusals(h: Any) -> None:
    """Only the holder ships, only what it has, only to a known other."""
    commission(h, "A", "B", "C")
    assert ship(h, "maker", "nobody", "A").code == "member_unknown"
    assert ship(h, "maker", "clinic", "A", "Z").code == "unit_unknown"
    assert ship(h, "pharmacy", "clinic", "A").code == "unit_not_held"
    assert ship(h, "maker", "maker", "A").code == "reference_mismatch"
    assert ship(h, "maker", "clinic", "A").code == "applied"
    assert ship(h, "maker", "pharmacy", "A", "B").code == "unit_in_transit"
    deliver(h, "maker", "pharmacy", "B")
    dispense(h, "pharmacy", "B")
    assert ship(h, "pharmacy", "clinic", "B").code == "unit_dispensed"
    assert ship(h, "maker", "clinic", "B", "C").code == "unit_dispensed"


def test_receive_refusals(h: Any) -> None:
    """Only the addressee receives, once, what was sent."""
    commission(h, "A")
    sent = ship(h, "maker", "pharmacy", "A")
    assert h.write("pharmacy", Receive(shipment=bytes(32))).code == "shipment_unknown"
    assert h.write("clinic", Receive(shipment=sent.id)).code == "shipment_not_for_us"
    assert h.write("pharmacy", Receive(shipment=sent.id)).code == "applied"
    assert h.write("pharmacy", Receive(shipment=sent.id)).code == "shipment_received"


def test_dispense_refusals_in_order_of_rank(h: Any) -> None:
    """Each condition alone refuses a dispense by its own name."""
    commission(h, "A", "B", who="pharmacy")
    assert dispense(h, "pharmacy", "A", subject=b"").code == "patient_unknown"
    assert dispense(h, "pharmacy", "Z").code == "unit_unknown"
    assert dispense(h, "insurer", "A").code == "role_missing"
    ship(h, "pharmacy", "clinic", "B")
    assert dispense(h, "pharmacy", "B").code == "unit_in_transit"
    assert dispense(h, "pharmacy", "Z", actor=bytes(32)).code == "unit_unknown"  # no register
    h.write(
        "county",
        QualificationIssue(
            holder=h.key("pharmacy"),
            role="pharmacy",
            scope=("dispense",),
            facility="",
            valid_from=0,
            valid_until=2**50,
        ),
    )
    assert dispense(h, "pharmacy", "Z").code == "unit_unknown"  # the device holds it itself
    assert dispense(h, "pharmacy", "Z", actor=bytes(32)).code == "qualification_missing"


def test_expiry_is_judged_by_block_time_to_the_end_of_the_day(h: Any) -> None:
    """On its expiry day a pack may still be handed out; a millisecond later not."""
    commission(h, "A", "B", who="pharmacy")
    h.time_ms = (h.today + 11) * h.DAY_MS - 1
    assert dispense(h, "pharmacy", "A").code == "applied"
    h.time_ms += 1
    assert dispense(h, "pharmacy", "B").code == "lot_expired"


def test_an_actor_needs_the_scope_dispense(h: Any) -> None:
    """With a live qualification for it, a person's dispense is applied."""
    commission(h, "A", who="pharmacy")
    h.write(
        "county",
        QualificationIssue(
            holder=bytes([7] * 32),
            role="pharmacist",
            scope=("dispense",),
            facility="",
            valid_from=0,
            valid_until=2**50,
        ),
    )
    assert dispense(h, "pharmacy", "A", actor=bytes([7] * 32)).code == "applied"


def recall(h: Any, who: str) -> Any:
    return h.write(who, Recall(gtin=GTIN, lot="L1", reason="quality"))


def test_a_recall_stops_dispensing_and_not_the_way_back(h: Any) -> None:
    """Nothing of a recalled lot is dispensed, wherever it is; it may be sent back."""
    commission(h, "A")
    deliver(h, "maker", "pharmacy", "A")
    assert recall(h, "maker").code == "applied"
    assert dispense(h, "pharmacy", "A").code == "lot_recalled"
    assert ship(h, "pharmacy", "maker", "A").code == "applied"
    assert recall(h, "maker").code == "lot_already_recalled"
    assert recall(h, "county").code == "lot_already_recalled"


def test_only_the_maker_or_an_overseer_recalls(h: Any) -> None:
    """A competitor cannot stop a lot that is not its own."""
    commission(h, "A")
    assert recall(h, "other-maker").code == "not_the_party"
    assert recall(h, "clinic").code == "role_missing"
    assert recall(h, "county").code == "applied"


def test_a_recall_may_come_before_the_lot(h: Any) -> None:
    """An overseer's holds from the start; a stranger's recall falls when the maker is known."""
    assert recall(h, "other-maker").code == "applied"
    commission(h, "A", who="pharmacy")
    assert dispense(h, "pharmacy", "A").code == "applied"
    assert recall(h, "county").code == "applied"
    commission(h, "B", who="pharmacy")
    assert dispense(h, "pharmacy", "B").code == "lot_recalled"


def test_a_recall_acts_in_every_ledger(h: Any) -> None:
    """A recall written for another ledger is executed here; a dispense is only carried."""
    commission(h, "A", who="pharmacy")
    assert dispense(h, "pharmacy", "A", ledger=bytes([9] * 32)).code == "carried"
    body = Recall(gtin=GTIN, lot="L1", reason="quality")
    assert h.write("county", body, ledger=bytes([9] * 32)).code == "applied"
    assert dispense(h, "pharmacy", "A").code == "lot_recalled"


def test_the_stock_of_a_lost_device_is_shipped_on_by_its_supervisor(h: Any) -> None:
    """A live holder's packs are its own; a revoked holder's are moved by the county."""
    from p2pmed.identity.revocation import EVERY_SERIAL, Revocation, RevocationReason

    commission(h, "A", who="pharmacy")
    assert ship(h, "county", "clinic", "A").code == "unit_not_held"
    end = Revocation(
        subject=h.key("pharmacy"),
        serial=EVERY_SERIAL,
        reason=RevocationReason.KEY_COMPROMISED,
        text="",
    )
    assert h.write("county", end).code == "applied"
    assert ship(h, "clinic", "maker", "A").code == "unit_not_held"
    sent = ship(h, "county", "clinic", "A")
    assert sent.code == "applied"
    assert h.write("clinic", Receive(shipment=sent.id)).code == "applied"
    assert dispense(h, "clinic", "A").code == "applied"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pack(gtin="09506000134353", serial="A"),
        lambda: Dispense(gtin="0950600013435", serial="A"),
        lambda: Dispense(gtin=GTIN, serial="A", prescription=b"short"),
        lambda: Commission(gtin=GTIN, lot="L", expiry=1, serials=("A", "A"), maker=bytes(32)),
        lambda: Ship(units=(Pack(gtin=GTIN, serial="A"),) * 2, to=bytes(32)),
        lambda: Recall(gtin="x", lot="L", reason="r"),
    ],
)
def test_a_wrong_field_is_named_when_the_body_is_made(make: Any) -> None:
    """Check digits, doubled packs and half ids are refused before anything is signed."""
    with pytest.raises(InvalidTransaction, match=r"gtin|serials|units|prescription"):
        make()


@pytest.mark.parametrize(
    "body",
    [
        ["09506000134353", "A", b""],
        [GTIN, "A" * 21, b""],
        [GTIN, "A B", b""],
        [GTIN, "", b""],
        [GTIN, "A", b"12"],
        [GTIN, "A"],
        [GTIN, "A", b"", 1],
    ],
)
def test_what_a_stranger_spells_wrong_is_malformed(h: Any, body: list[Any]) -> None:
    """The same rules hold for bytes that somebody else made; no field may be left out."""
    assert h.write("pharmacy", body, "drug.dispense", subject=WANG).code == "malformed"


def test_five_hundred_packs_fit_one_entry(h: Any) -> None:
    """The most packs that a commission or shipment may name still make a valid entry."""
    serials = tuple(f"{n:020d}" for n in range(UNITS_MAX))
    assert commission(h, *serials).code == "applied"
    assert ship(h, "maker", "clinic", *serials).code == "applied"


# --- against a model -----------------------------------------------------------------------

PEOPLE = ("maker", "pharmacy", "clinic")
SERIALS = ("A", "B", "C")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("commission", "ship", "receive", "dispense", "recall")),
        st.sampled_from(PEOPLE),
        st.sampled_from(PEOPLE),
        st.lists(st.sampled_from(SERIALS), min_size=1, max_size=2, unique=True),
    ),
    max_size=25,
)


class Model:
    """What must be true of packs, in a few dictionaries."""

    def __init__(self) -> None:
        self.owner: dict[str, str] = {}
        self.moving: dict[str, int] = {}
        self.gone: set[str] = set()
        self.shipments: list[tuple[str, list[str], bytes, bool]] = []
        self.recalled = False

    def commission(self, who: str, serials: list[str]) -> bool:
        if any(serial in self.owner for serial in serials):
            return False
        self.owner.update(dict.fromkeys(serials, who))
        return True

    def ship(self, who: str, to: str, serials: list[str], entry_id: bytes) -> bool:
        free = all(
            self.owner.get(s) == who and s not in self.moving and s not in self.gone
            for s in serials
        )
        if not free or who == to:
            return False
        self.moving.update(dict.fromkeys(serials, len(self.shipments)))
        self.shipments.append((to, serials, entry_id, False))
        return True

    def receive(self, who: str, number: int) -> bool:
        to, serials, entry_id, done = self.shipments[number]
        if to != who or done:
            return False
        self.shipments[number] = (to, serials, entry_id, True)
        for serial in serials:
            self.owner[serial] = who
            del self.moving[serial]
        return True

    def dispense(self, who: str, serial: str) -> bool:
        held = self.owner.get(serial) == who and serial not in self.moving
        if not held or serial in self.gone or self.recalled:
            return False
        self.gone.add(serial)
        return True


def _step(h: Any, model: Model, step: tuple[str, str, str, list[str]]) -> tuple[bool, bool]:
    """One operation on both; what each said."""
    what, who, to, serials = step
    if what == "commission":
        return commission(h, *serials, who=who).code == "applied", model.commission(who, serials)
    if what == "ship":
        done = ship(h, who, to, *serials)
        return done.code == "applied", model.ship(who, to, serials, done.id)
    if what == "receive" and model.shipments:
        number = len(serials[0]) % len(model.shipments)
        done = h.write(who, Receive(shipment=model.shipments[number][2]))
        return done.code == "applied", model.receive(who, number)
    if what == "dispense":
        code = dispense(h, who, serials[0]).code
        return code == "applied", model.dispense(who, serials[0])
    if what == "recall" and len(serials) == 2 and not model.recalled:
        model.recalled = recall(h, "county").code == "applied"
    return True, True


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_packs_are_conserved(new_hamlet: Any, steps: list[Any]) -> None:
    """Whatever people do in whatever order: one owner at a time, no pack dispensed twice, stock
    adds up, and a second machine that applies the same sequence writes the same bytes.
    """
    h = new_hamlet()
    h.today = h.time_ms // h.DAY_MS
    h.join("maker", "manufacturer", "pharmacy")
    h.join("pharmacy", "pharmacy")
    h.join("clinic", "clinic")
    h.join("county", "county")
    model = Model()
    for step in steps:
        said, expected = _step(h, model, step)
        assert said == expected
    held = {unit.serial: person for person in PEOPLE for unit, _ in stock(h.view, h.key(person))}
    assert held == {s: who for s, who in model.owner.items() if s not in model.gone}
    for serial in SERIALS:
        status = unit_status(h.view, GTIN, serial, h.time_ms)
        assert (status is UnitStatus.DISPENSED) == (serial in model.gone)
    assert h.replay()[1] == h.rows()
