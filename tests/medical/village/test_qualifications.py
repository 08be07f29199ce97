"""What a person may do, when, and who may take it away."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from p2pmed.errors import InvalidTransaction
from p2pmed.medical.qualifications import (
    HELD_MAX,
    QualificationIssue,
    QualificationRevoke,
    QualificationSuspend,
    qualifications,
    qualified,
)

NURSE = bytes([7] * 32)


@pytest.fixture
def h(hamlet: Any) -> Any:
    hamlet.join("hospital", "hospital", place="county/hospital")
    hamlet.join("county", "county", place="county")
    hamlet.join("next-county", "county", place="next")
    hamlet.join("clinic", "clinic")
    return hamlet


def issue(h: Any, who: str = "hospital", **fields: Any) -> Any:
    body = QualificationIssue(
        holder=NURSE,
        role="nurse",
        scope=("dispense", "encounter"),
        facility="county/west",
        valid_from=100,
        valid_until=200,
    )
    return h.write(who, msgspec.structs.replace(body, **fields))


def reason(h: Any, time_ms: int, scope: str = "dispense") -> str | None:
    no = qualified(h.view, NURSE, scope, time_ms)
    return None if no is None else no.value


def test_a_qualification_holds_in_its_scope_and_time(h: Any) -> None:
    """From ``valid_from`` until before ``valid_until``, for its acts and no others."""
    issue(h, holder=bytes([8] * 32))
    assert reason(h, 150) == "qualification_missing"
    issue(h)
    assert [reason(h, t) for t in (99, 100, 199, 200)] == [
        "qualification_expired",
        None,
        None,
        "qualification_expired",
    ]
    assert reason(h, 150, "surgery") == "qualification_out_of_scope"
    issue(h, scope=("any",))
    assert reason(h, 150, "surgery") is None


def test_without_a_register_nobody_is_refused(h: Any) -> None:
    """A ledger that never ordered a qualification asks for none; from the first on it asks."""
    assert reason(h, 150) is None
    issue(h, holder=bytes([8] * 32))
    assert reason(h, 150) == "qualification_missing"


def test_a_qualification_holds_in_its_place(h: Any) -> None:
    """For its facility and what lies in it; the empty place is everywhere."""
    issue(h, valid_until=300)
    places = ("county/west", "county/west/ward", "county/east", "county")
    found = [qualified(h.view, NURSE, "dispense", 150, place=place) for place in places]
    assert found == [None, None, "qualification_elsewhere", "qualification_elsewhere"]
    issue(h, facility="")
    assert qualified(h.view, NURSE, "dispense", 150, place="county/east") is None


def test_suspension_ends_by_itself_or_is_lifted(h: Any) -> None:
    """While it lasts the act is refused by that name; a moment in the past lifts it."""
    given = issue(h)
    suspend = QualificationSuspend(qualification=given.id, until=150, reason="inquiry")
    assert h.write("county", suspend).code == "applied"
    assert (reason(h, 149), reason(h, 150)) == ("qualification_suspended", None)
    lift = QualificationSuspend(qualification=given.id, until=0, reason="cleared")
    assert h.write("hospital", lift).code == "applied"
    assert reason(h, 149) is None


def test_revocation_is_for_good(h: Any) -> None:
    """Nothing brings it back, and it cannot be revoked twice."""
    given = issue(h)
    revoke = QualificationRevoke(qualification=given.id, reason="fraud")
    assert h.write("hospital", revoke).code == "applied"
    assert reason(h, 150) == "qualification_missing"
    assert h.write("hospital", revoke).code == "qualification_revoked"
    lift = QualificationSuspend(qualification=given.id, until=0, reason="x")
    assert h.write("hospital", lift).code == "qualification_revoked"


def test_the_best_of_several_counts(h: Any) -> None:
    """A suspended one does not spoil a live one."""
    first = issue(h)
    issue(h, who="county")
    suspend = QualificationSuspend(qualification=first.id, until=2**50, reason="x")
    h.write("hospital", suspend)
    assert reason(h, 150) is None


def test_who_may_issue_and_take_away(h: Any) -> None:
    """A clinic issues none; another county takes none; an unknown one is named so."""
    assert issue(h, who="clinic").code == "role_missing"
    given = issue(h)
    revoke = QualificationRevoke(qualification=given.id, reason="x")
    assert h.write("next-county", revoke).code == "issuer_not_above"
    unknown = QualificationRevoke(qualification=bytes(32), reason="x")
    assert h.write("county", unknown).code == "qualification_unknown"


def test_a_person_holds_a_bounded_number(h: Any) -> None:
    """The row is full at its limit; dead qualifications make room."""
    given = [issue(h, valid_until=2**50) for _ in range(HELD_MAX)]
    assert given[-1].code == "applied"
    assert issue(h, valid_until=2**50).code == "qualification_full"
    h.write("county", QualificationRevoke(qualification=given[0].id, reason="x"))
    assert issue(h, valid_until=2**50).code == "applied"
    assert len(qualifications(h.view, NURSE)) == HELD_MAX


def test_a_period_that_ends_before_it_begins_is_named() -> None:
    """The field is told when the body is made."""
    with pytest.raises(InvalidTransaction, match="valid_until"):
        QualificationIssue(
            holder=NURSE, role="x", scope=("a",), facility="", valid_from=1, valid_until=1
        )
