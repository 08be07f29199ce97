"""The medical machine: rank of refusals, nothing written by a refusal, one answer everywhere."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from p2pmed.errors import StorageError
from p2pmed.identity.revocation import EVERY_SERIAL, Revocation, RevocationReason
from p2pmed.ledger.state import Layer
from p2pmed.medical.discrepancies import DiscrepancyReport, open_discrepancies
from p2pmed.medical.drugs import Commission, Dispense
from p2pmed.medical.machine import MedicalMachine
from p2pmed.medical.registry import Kind, Refusal, Registry
from p2pmed.medical.rejections import Rejection
from p2pmed.wire.codec import Wire

GTIN = "09506000134352"
ELSEWHERE = bytes([9] * 32)


class Note(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An embedder's own type."""

    number: int


def note_kind(check: Any, **flags: Any) -> Kind[Any]:
    def apply(act: Any, view: Any) -> None:
        view.put(b"zz" + act.entry.id, b"")

    return Kind(name="org.example.note", body=Note, check=check, apply=apply, **flags)


@pytest.fixture
def h(hamlet: Any) -> Any:
    hamlet.join("pharmacy", "pharmacy")
    return hamlet


def commission(h: Any, serial: str) -> Commission:
    return Commission(gtin=GTIN, lot="L1", expiry=10**5, serials=(serial,), maker=h.key("pharmacy"))


def test_refusals_are_told_in_the_order_of_their_rank(h: Any) -> None:
    """An entry with every fault at once names the highest; each repair uncovers the next."""
    h.enrol("stranger", "insurer", not_after=0)
    h.lanes["stranger"] = (1, bytes([1] * 32))
    right = [GTIN, "A", b""]
    write = h.write
    assert write("stranger", [1], "drug.nothing", ledger=ELSEWHERE).code == "unknown_type"
    assert write("stranger", right, "drug.dispense", kind_version=2).code == "unknown_type"
    assert write("stranger", [1], "drug.dispense", ledger=ELSEWHERE).code == "malformed"
    assert write("stranger", right, "drug.dispense", ledger=ELSEWHERE).code == "carried"
    assert write("stranger", right, "drug.dispense").code == "author_unknown"
    del h.lanes["stranger"]
    assert write("stranger", h.opening("stranger")).code == "applied"
    assert write("stranger", right, "drug.dispense").code == "author_expired"
    h.members["stranger"] = msgspec.structs.replace(h.members["stranger"], not_after=2**50)
    del h.lanes["stranger"]
    assert write("stranger", h.opening("stranger"), incarnation=b"2" * 16).code == "applied"
    assert write("stranger", right, "drug.dispense").code == "role_missing"
    gone = Revocation(
        subject=h.key("stranger"),
        serial=EVERY_SERIAL,
        reason=RevocationReason.KEY_COMPROMISED,
        text="",
    )
    assert write("stranger", gone).code == "applied"
    assert write("stranger", right, "drug.dispense").code == "author_revoked"


def test_the_rank_of_the_general_refusals_is_that_of_the_enumeration() -> None:
    """The machine's order of questions and the published rank are one."""
    order = list(Rejection)[:7]
    assert order == [
        Rejection.UNKNOWN_TYPE,
        Rejection.MALFORMED,
        Rejection.CARRIED,
        Rejection.AUTHOR_UNKNOWN,
        Rejection.AUTHOR_REVOKED,
        Rejection.AUTHOR_EXPIRED,
        Rejection.ROLE_MISSING,
    ]


def test_an_expired_author_still_records_care(new_hamlet: Any) -> None:
    """Expiry refuses what is ordered and not what is mergeable."""
    h = new_hamlet((note_kind(lambda act, view: None, ordered=False),))
    h.join("clinic", "clinic", not_after=h.time_ms)
    assert h.write("clinic", Note(number=1)).code == "applied"
    assert h.write("clinic", commission(h, "A")).code == "author_expired"
    h.time_ms -= 1
    assert h.write("clinic", commission(h, "A")).code == "applied"


def test_an_entry_without_a_ledger_is_claimed_by_the_one_that_orders_it(h: Any) -> None:
    """It is executed here; one that names another ledger is carried, and the state is unmoved."""
    assert h.write("pharmacy", commission(h, "A"), ledger=b"").code == "applied"
    before = h.rows()
    dispense = Dispense(gtin=GTIN, serial="A")
    done = h.write("pharmacy", dispense, ledger=ELSEWHERE, subject=bytes(16))
    assert done.code == "carried"
    assert h.rows() == before
    assert h.write("pharmacy", dispense, ledger=b"", subject=bytes(16)).code == "applied"


def test_a_refusal_writes_nothing_and_a_contradiction_one_row(h: Any) -> None:
    """Refused: the state is as before. Contradicted: it differs by the discrepancy alone."""
    h.write("pharmacy", commission(h, "A"))
    before = h.rows()
    assert h.write("pharmacy", Dispense(gtin=GTIN, serial="B")).code == "patient_unknown"
    assert h.rows() == before
    again = h.write("pharmacy", commission(h, "A"))
    assert again.code == "unit_exists"
    new = {key: value for key, value in h.rows().items() if key not in before}
    assert [key[:2] for key in new] == [b"dc"]
    assert {key: value for key, value in h.rows().items() if key in before} == before


def test_a_check_that_stumbles_refuses_the_entry(new_hamlet: Any) -> None:
    """An embedder's faulty check cannot stop the ledger; the disk's faults still can."""

    def divide(act: Any, view: Any) -> None:
        1 // act.body.number

    h = new_hamlet((note_kind(divide),))
    h.join("clinic", "clinic")
    assert h.write("clinic", Note(number=1)).code == "applied"
    assert h.write("clinic", Note(number=0)).code == "malformed"


def test_a_rotten_row_stops_the_node(h: Any) -> None:
    """A row that nobody wrote is the disk's fault, not the author's."""
    h.view.put(b"mb" + h.key("pharmacy"), b"\x80")
    with pytest.raises(StorageError, match="Member"):
        h.write("pharmacy", commission(h, "A"))


def test_the_answer_does_not_depend_on_the_cache_of_members(h: Any) -> None:
    """A member revoked after it was cached is revoked at once."""
    h.join("county", "county", place="county")
    assert h.write("pharmacy", commission(h, "A")).code == "applied"
    gone = Revocation(
        subject=h.key("pharmacy"),
        serial=EVERY_SERIAL,
        reason=RevocationReason.AFFILIATION_ENDED,
        text="",
    )
    h.write("county", gone)
    assert h.write("pharmacy", commission(h, "B")).code == "author_revoked"


def test_an_embedders_contradiction_is_kept_like_ours(new_hamlet: Any) -> None:
    """A ``Refusal`` of any kind opens a discrepancy."""
    kind = note_kind(lambda act, view: Refusal(reason=Rejection.CLAIM_EXISTS, other=ELSEWHERE))
    h = new_hamlet((kind,))
    h.join("clinic", "clinic")
    done = h.write("clinic", Note(number=1))
    assert (done.code, done.other) == ("claim_exists", ELSEWHERE)
    assert [(d.first, d.second) for d in open_discrepancies(h.view)] == [(ELSEWHERE, done.id)]


def test_the_rules_hash_names_the_kinds(new_hamlet: Any) -> None:
    """Another set of kinds has another hash; the same set, registered in any order, the same."""
    plain = new_hamlet()
    reversed_kinds = MedicalMachine(Registry(reversed(list(plain.registry))), lambda *_: None)
    more = new_hamlet((note_kind(lambda act, view: None),))
    assert plain.machine.rules_hash == reversed_kinds.rules_hash
    assert plain.machine.rules_hash != more.machine.rules_hash


def test_a_second_machine_writes_the_same_bytes(h: Any) -> None:
    """Same entries, same order: same verdicts and the same state, byte for byte."""
    h.join("county", "county", place="county")
    h.write("pharmacy", commission(h, "A"))
    h.write("pharmacy", Dispense(gtin=GTIN, serial="A"), subject=bytes(16))
    h.write("pharmacy", Dispense(gtin=GTIN, serial="A"), subject=bytes(16))
    h.write("county", DiscrepancyReport(first=bytes(32), second=ELSEWHERE, reason="x"))
    verdicts, rows = h.replay()
    assert rows == h.rows()
    assert [verdict.code for verdict in verdicts][-3:] == ["applied", "unit_dispensed", "applied"]


def test_an_overlay_leaves_the_state_below_as_it_is(h: Any) -> None:
    """Provisional application reads through and writes only its own layer."""
    h.write("pharmacy", commission(h, "A"))
    before = h.rows()
    overlay = Layer(h.view)
    entry = h.sign("pharmacy", Dispense(gtin=GTIN, serial="A"), subject=bytes(16))
    assert h.machine.apply(entry, overlay, h.context()).applied
    assert h.rows() == before
    assert overlay.writes
