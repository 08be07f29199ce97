"""Links of duplicate patients: reversible, mergeable, and a person is what holds together."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from p2pmed.ledger.state import BlockContext, Layer
from p2pmed.medical.patients import PATIENTS, PatientRow
from p2pmed.medical.privacy import links
from p2pmed.medical.privacy.links import (
    GROUP_MAX,
    PatientLink,
    PatientUnlink,
    links_of,
    person_of,
)
from p2pmed.medical.registry import Act, Member
from p2pmed.medical.rejections import Rejection

AUTHOR = b"a" * 32
KINDS = {kind.name: kind for kind in links.KINDS}


class Nothing:
    def get(self, key: bytes) -> bytes | None:
        return None

    def scan(self, prefix: bytes) -> Any:
        return iter(())


def patient(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.fixture
def view() -> Layer:
    """Forty patients that one device registered."""
    layer = Layer(Nothing())
    for number in range(40):
        fields = {name: getattr(_Row, name) for name in PatientRow.__struct_fields__}
        PATIENTS.put(layer, PatientRow(**fields), patient(number))
    return layer


class _Row:
    author = AUTHOR
    entry = b"e" * 32
    patient_key = b"k" * 32
    catchment = ""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class _Envelope:
    def __init__(self, subject: bytes, refs: tuple[bytes, ...]) -> None:
        self.subject, self.refs = subject, refs


class _Entry:
    def __init__(self, entry_id: bytes, author: bytes, envelope: _Envelope) -> None:
        self.id, self.author, self.envelope = entry_id, author, envelope


def put(
    view: Layer,
    body: Any,
    subject: bytes,
    number: int,
    refs: tuple[bytes, ...] = (),
    author: bytes = AUTHOR,
) -> Any:
    """The verdict (``None``: applied) of transaction ``number``."""
    kind = KINDS["patient.link" if isinstance(body, PatientLink) else "patient.unlink"]
    entry = _Entry(number.to_bytes(32, "big"), author, _Envelope(subject, refs))
    member = Member(
        name="",
        roles=(),
        place="",
        box_key=bytes(32),
        issuer=bytes(32),
        serial=bytes(16),
        not_after=2**50,
    )
    context = BlockContext(network=bytes(32), ledger=b"", height=1, time_ms=1, provisional=False)
    act: Act[Any] = Act(body=body, entry=entry, member=member, context=context)  # type: ignore[arg-type]
    no = kind.check(act, view)
    if no is None:
        kind.apply(act, view)
    return no


def link(view: Layer, one: int, other: int, number: int) -> Any:
    body = PatientLink(other=patient(other), reason="same-card", score=90)
    return put(view, body, patient(one), number)


def unlink(view: Layer, subject: int, which: int, number: int) -> Any:
    named = which.to_bytes(32, "big")
    body = PatientUnlink(link=named, reason="mistake")
    return put(view, body, patient(subject), number, (named,))


def test_a_person_is_all_that_links_hold_together(view: Layer) -> None:
    """Links are followed through others, from either end; strangers stay apart."""
    assert person_of(view, patient(1)) == (patient(1),)
    for number, (one, other) in enumerate([(1, 2), (3, 2), (4, 3), (8, 9)]):
        assert link(view, one, other, number) is None
    for known in (1, 2, 3, 4):
        assert person_of(view, patient(known)) == tuple(map(patient, (1, 2, 3, 4)))
    assert person_of(view, patient(9)) == (patient(8), patient(9))


def test_taking_back_a_link_takes_apart_what_only_it_held(view: Layer) -> None:
    """A ring of links survives the loss of one; a chain does not. The evidence stays."""
    for number, (one, other) in enumerate([(1, 2), (2, 3), (3, 1), (3, 4)]):
        link(view, one, other, number)
    assert unlink(view, 1, 0, 10) is None
    assert person_of(view, patient(1)) == tuple(map(patient, (1, 2, 3, 4)))
    assert unlink(view, 4, 3, 11) is None
    assert person_of(view, patient(4)) == (patient(4),)
    rows = {found.id: found for found in links_of(view, patient(3))}
    undone = rows[(3).to_bytes(32, "big")]
    assert not undone.in_force
    assert undone.row.undone_by == (11).to_bytes(32, "big")
    assert link(view, 3, 4, 12) is None  # and it can be linked again
    assert patient(4) in person_of(view, patient(1))


def test_the_state_does_not_depend_on_the_order_of_what_may_come_in_any(view: Layer) -> None:
    """Two unlinks of one link and another link between: one state, whatever the order."""
    link(view, 1, 2, 0)
    states = []
    for order in permutations((5, 6, 7)):
        layer = Layer(view)
        for number in order:
            if number == 7:
                assert link(layer, 1, 2, 7) is None
            else:
                assert unlink(layer, 1, 0, number) is None
        states.append(sorted(layer.writes.items(), key=lambda item: item[0]))
    assert all(state == states[0] for state in states)


def test_what_is_refused(view: Layer) -> None:
    """Nobody unknown, nobody with himself, no registration that is not followed from."""
    assert link(view, 1, 1, 0) is Rejection.MALFORMED
    assert link(view, 1, 99, 0) is Rejection.PATIENT_UNKNOWN
    body = PatientLink(other=patient(2), reason="same-card", score=0)
    stranger = b"s" * 32
    assert put(view, body, patient(1), 0, (), stranger) is Rejection.REFERENCE_MISSING
    assert put(view, body, patient(1), 0, (b"e" * 32,), stranger) is None
    assert unlink(view, 1, 77, 5) is Rejection.REFERENCE_MISSING
    assert unlink(view, 7, 0, 5) is Rejection.REFERENCE_MISMATCH


def test_a_group_is_bounded(view: Layer) -> None:
    """A flood of links does not make a person of everybody."""
    for number in range(39):
        link(view, number, number + 1, number)
    assert len(person_of(view, patient(0))) == GROUP_MAX
