"""Two pseudonyms that are one person: linked by somebody's signed word, and unlinked again.

Rule of this file: a link changes neither record; it says that they are read together. Both
kinds are mergeable: a link counts until an unlink names it, in whatever order they came;
unlinking twice is unlinking once. The people of a group are the connected component of the
links in force, so that taking back one wrong link takes apart what only it held together.
Implements medical notes, section 2 item 8, and ``docs/protocols/search.md``, clauses 21 to 26.

Nothing here links by itself: candidates come from ``matching.py``, and a person decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from p2pmed.ledger.state import Readable, View
from p2pmed.medical.patients import about_patient, patient_row
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes16, Bytes32, OptionalId, Wire

__all__ = [
    "GROUP_MAX",
    "KINDS",
    "Link",
    "LinkRow",
    "PatientLink",
    "PatientUnlink",
    "links_of",
    "person_of",
]

GROUP_MAX: Final = 32
"""Pseudonyms of one person that are read together; more are somebody's mistake."""
ReasonCode = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9-]{1,31}\Z")]
"""Such as ``same-card``, ``asked-the-patient``, ``moved``; words about people are sealed."""


class PatientLink(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``patient.link``: the subject and ``other`` are one person."""

    other: Bytes16
    reason: ReasonCode
    score: Annotated[int, msgspec.Meta(ge=0, le=100)]
    """What the match said, 0 if nobody asked it: so that a wrong link can be explained."""


class PatientUnlink(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``patient.unlink``: ``link`` was a mistake, or is one now."""

    link: Bytes32
    reason: ReasonCode


class LinkRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of a link: its transaction id's row."""

    one: Bytes16
    other: Bytes16
    reason: ReasonCode
    score: Annotated[int, msgspec.Meta(ge=0, le=100)]
    author: Bytes32
    undone_by: OptionalId
    """The unlink with the smallest id, or empty."""


class LinkedRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """That a link concerns a pseudonym: the key says it all."""


LINKS: Final = Table("link", LinkRow)
LINKED: Final = Table("linked", LinkedRow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link as the state has it."""

    id: bytes
    row: LinkRow

    @property
    def in_force(self) -> bool:
        """Whether nobody took it back."""
        return not self.row.undone_by


def links_of(view: Readable, patient: bytes) -> list[Link]:
    """Every link that names ``patient``, those taken back too, by the other and by id."""
    found = []
    for key, _ in LINKED.scan(view, patient):
        row = LINKS.get(view, key[16:])
        assert row is not None  # both rows are written together
        found.append(Link(id=key[16:], row=row))
    return found


def person_of(view: Readable, patient: bytes) -> tuple[bytes, ...]:
    """All pseudonyms that links in force join to ``patient``, itself included, ascending.

    At most ``GROUP_MAX``, the nearest first: what lies beyond is left out.
    """
    found = {patient: None}
    for known in (order := [patient]):
        for link in links_of(view, known):
            other = link.row.other if link.row.one == known else link.row.one
            if link.in_force and other not in found and len(found) < GROUP_MAX:
                found[other] = None
                order.append(other)
    return tuple(sorted(found))


def _check_link(act: Act[PatientLink], view: View) -> Rejection | None:
    if fault := about_patient(act, view):
        return fault
    row = patient_row(view, act.body.other)
    if row is None:
        return Rejection.PATIENT_UNKNOWN
    if row.author != act.entry.author and row.entry not in act.entry.envelope.refs:
        return Rejection.REFERENCE_MISSING
    return Rejection.MALFORMED if act.body.other == act.entry.envelope.subject else None


def _apply_link(act: Act[PatientLink], view: View) -> None:
    one, other, entry = act.entry.envelope.subject, act.body.other, act.entry
    row = LinkRow(
        one=one,
        other=other,
        reason=act.body.reason,
        score=act.body.score,
        author=entry.author,
        undone_by=b"",
    )
    LINKS.put(view, row, entry.id)
    LINKED.put(view, LinkedRow(), one, other, entry.id)
    LINKED.put(view, LinkedRow(), other, one, entry.id)


def _check_unlink(act: Act[PatientUnlink], view: View) -> Rejection | None:
    if fault := about_patient(act, view):
        return fault
    row = LINKS.get(view, act.body.link)
    if row is None or act.body.link not in act.entry.envelope.refs:
        return Rejection.REFERENCE_MISSING
    if act.entry.envelope.subject not in (row.one, row.other):
        return Rejection.REFERENCE_MISMATCH
    return None


def _apply_unlink(act: Act[PatientUnlink], view: View) -> None:
    row = LINKS.get(view, act.body.link)
    assert row is not None  # checked
    first = min(row.undone_by or act.entry.id, act.entry.id)
    LINKS.put(view, msgspec.structs.replace(row, undone_by=first), act.body.link)


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="patient.link",
        body=PatientLink,
        check=_check_link,
        apply=_apply_link,
        ordered=False,
        rules="Refused unless both patients are registered, before it in every order, and differ.",
    ),
    Kind(
        name="patient.unlink",
        body=PatientUnlink,
        check=_check_unlink,
        apply=_apply_unlink,
        ordered=False,
        rules="Refused unless it follows from a link that names the subject.",
    ),
)
