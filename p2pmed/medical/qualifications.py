"""What a practitioner may do: issued, suspended and revoked, and asked at the time of the act.

Rule: an act signed on a person's word (``Envelope.actor``) is checked against the
qualifications of that person at block time, where the act is ordered; which acts ask for which
scope is a table of ``care/competence.py``.
A ledger that has never ordered a qualification has no register to ask, and refuses nobody.
A person holds at most ``HELD_MAX`` live qualifications, in one row: an act costs two reads.

Scopes are codes (``dispense``, ``encounter``, ``prescribe``); ``*`` would be no code, so the
widest scope is named ``any``.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from p2pmed.identity.credentials import covers
from p2pmed.ledger.state import Readable, View
from p2pmed.medical.fields import Code, FieldFault
from p2pmed.medical.membership import may_withdraw
from p2pmed.medical.registry import Act, Checked, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.roles import OVERSEERS, Role, roles
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes32, Text, TimeMs, Wire

__all__ = [
    "ANY_SCOPE",
    "KINDS",
    "Qualification",
    "QualificationIssue",
    "QualificationRevoke",
    "QualificationSuspend",
    "is_registered",
    "qualifications",
    "qualified",
]

ANY_SCOPE: Final = "any"
HELD_MAX: Final = 32
SCOPES_MAX: Final = 32

Scopes = Annotated[tuple[Code, ...], msgspec.Meta(min_length=1, max_length=SCOPES_MAX)]


class QualificationIssue(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``qual.issue``: this person may do these acts, at this facility, in this period."""

    holder: Bytes32
    """The person's key, as ``Envelope.actor`` names it."""
    role: Code
    scope: Scopes
    facility: Text
    """A place; empty: anywhere."""
    valid_from: TimeMs
    valid_until: TimeMs
    """The first moment at which it no longer holds."""

    def __post_init__(self) -> None:
        if self.valid_from >= self.valid_until:
            raise FieldFault("valid_until: not after valid_from")


class QualificationSuspend(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``qual.suspend``: not valid before ``until``; a moment in the past lifts a suspension."""

    qualification: Bytes32
    until: TimeMs
    reason: Code


class QualificationRevoke(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``qual.revoke``: never valid again."""

    qualification: Bytes32
    reason: Code


class Qualification(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One qualification as it stands."""

    id: Bytes32
    role: Code
    scope: Scopes
    facility: Text
    valid_from: TimeMs
    valid_until: TimeMs
    issuer: Bytes32
    issuer_place: Text
    suspended_until: TimeMs
    revoked: bool


class _Held(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    items: Annotated[tuple[Qualification, ...], msgspec.Meta(max_length=HELD_MAX)]


class _Holder(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    key: Bytes32


class _Register(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    first: Bytes32
    """The first qualification that this ledger ordered."""


_HELD: Final = Table("qualification", _Held)
_HOLDERS: Final = Table("qualification_holder", _Holder)
_REGISTER: Final = Table("qualification_register", _Register)

_LONG_AGO: Final = -(2**53)


def qualifications(view: Readable, holder: bytes) -> tuple[Qualification, ...]:
    """What a person holds, in the order of issue; dead ones may have been dropped."""
    row = _HELD.get(view, holder)
    return row.items if row else ()


def is_registered(view: Readable) -> bool:
    """Whether this ledger has ever ordered a qualification: from then on, acts are asked."""
    return _REGISTER.get(view) is not None


def qualified(
    view: Readable, actor: bytes, scope: str, time_ms: int, *, place: str | None = None
) -> Rejection | None:
    """Why ``actor`` may not do an act of ``scope`` at ``time_ms``; ``None`` if it may.

    With ``place``, only qualifications for a facility that covers it count. Of several the best
    counts; of several reasons the nearest to validity.
    """
    if not is_registered(view):
        return None
    best = 0
    for item in qualifications(view, actor):
        rank = _standing(item, scope, time_ms, place)
        if rank == len(_NEARER):
            return None
        best = max(best, rank)
    return _NEARER[best]


_NEARER: Final = (
    Rejection.QUALIFICATION_MISSING,
    Rejection.QUALIFICATION_OUT_OF_SCOPE,
    Rejection.QUALIFICATION_ELSEWHERE,
    Rejection.QUALIFICATION_EXPIRED,
    Rejection.QUALIFICATION_SUSPENDED,
)
"""From farthest to nearest to validity."""


def _standing(item: Qualification, scope: str, time_ms: int, place: str | None) -> int:
    """How near one qualification is to validity: a place in ``_NEARER``, or beyond it."""
    if item.revoked:
        return 0
    if scope not in item.scope and ANY_SCOPE not in item.scope:
        return 1
    if place is not None and not covers(item.facility, place):
        return 2
    if not item.valid_from <= time_ms < item.valid_until:
        return 3
    return 4 if time_ms < item.suspended_until else 5


def _live(items: tuple[Qualification, ...], time_ms: int) -> tuple[Qualification, ...]:
    return tuple(item for item in items if not item.revoked and time_ms < item.valid_until)


def _check_issue(act: Act[QualificationIssue], view: View) -> Checked:
    held = qualifications(view, act.body.holder)
    if len(held) >= HELD_MAX and len(_live(held, act.context.time_ms)) >= HELD_MAX:
        return Rejection.QUALIFICATION_FULL
    return None


def _apply_issue(act: Act[QualificationIssue], view: View) -> None:
    body = act.body
    held = qualifications(view, body.holder)
    if len(held) >= HELD_MAX:
        held = _live(held, act.context.time_ms)
    item = Qualification(
        id=act.entry.id,
        role=body.role,
        scope=body.scope,
        facility=body.facility,
        valid_from=body.valid_from,
        valid_until=body.valid_until,
        issuer=act.entry.author,
        issuer_place=act.member.place,
        suspended_until=_LONG_AGO,
        revoked=False,
    )
    _HELD.put(view, _Held(items=(*held, item)), body.holder)
    _HOLDERS.put(view, _Holder(key=body.holder), act.entry.id)
    if not is_registered(view):
        _REGISTER.put(view, _Register(first=act.entry.id))


def _find(view: Readable, qualification: bytes) -> tuple[bytes, Qualification] | None:
    holder = _HOLDERS.get(view, qualification)
    if holder is None:
        return None
    for item in qualifications(view, holder.key):
        if item.id == qualification:
            return holder.key, item
    return None


def _check_change(act: Act[QualificationSuspend] | Act[QualificationRevoke], view: View) -> Checked:
    found = _find(view, act.body.qualification)
    if found is None:
        return Rejection.QUALIFICATION_UNKNOWN
    item = found[1]
    if item.revoked:
        return Rejection.QUALIFICATION_REVOKED
    if not may_withdraw(act.entry.author, act.member, item.issuer, item.issuer_place):
        return Rejection.ISSUER_NOT_ABOVE
    return None


def _replace(view: View, qualification: bytes, **changes: Any) -> None:
    found = _find(view, qualification)
    assert found is not None  # the check has read it
    holder, old = found
    new = msgspec.structs.replace(old, **changes)
    items = tuple(new if item.id == old.id else item for item in qualifications(view, holder))
    _HELD.put(view, _Held(items=items), holder)


def _apply_suspend(act: Act[QualificationSuspend], view: View) -> None:
    _replace(view, act.body.qualification, suspended_until=act.body.until)


def _apply_revoke(act: Act[QualificationRevoke], view: View) -> None:
    _replace(view, act.body.qualification, revoked=True)


_ISSUERS: Final = OVERSEERS | roles(Role.HOSPITAL)
_CHANGE_RULES: Final = (
    "Refused `qualification_unknown`, `qualification_revoked`, or `issuer_not_above` unless the "
    "author issued it or supervises the issuer's place."
)

KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="qual.issue",
        body=QualificationIssue,
        check=_check_issue,
        apply=_apply_issue,
        everywhere=True,
        roles=_ISSUERS,
        rules=f"Refused `qualification_full` when the person holds {HELD_MAX} live ones.",
    ),
    Kind(
        name="qual.suspend",
        body=QualificationSuspend,
        check=_check_change,
        apply=_apply_suspend,
        everywhere=True,
        roles=_ISSUERS,
        rules=_CHANGE_RULES + " A moment in the past lifts the suspension.",
    ),
    Kind(
        name="qual.revoke",
        body=QualificationRevoke,
        check=_check_change,
        apply=_apply_revoke,
        everywhere=True,
        roles=_ISSUERS,
        rules=_CHANGE_RULES + " It is for good.",
    ),
)
