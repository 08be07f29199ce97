"""Whose word counts about a patient's keys: who may hand them on, and who may make new ones.

Rule of this file: a key that a stranger wraps to a clinic is a key that the stranger knows. If
it counted, the clinic's next record would be sealed for the stranger; and if anybody could end
grants, one member could close every record of a network. So leave is given by who has leave,
or by the patient's (or a delegate's) signature; and new epochs are begun by who *manages* the
patient's consent: a reader named in the registration, a delegate, or the patient's own key.
Implements ``docs/protocols/records.md``, clauses 21.2, 23 and 24.2.

What stands on a grant of another device's log names it among its ``refs`` (``node/care``), so
that every order which holds both puts the grant first.
"""

from __future__ import annotations

from typing import Any, Final

from p2pmed.identity.sealing import box_id
from p2pmed.ledger.state import Readable
from p2pmed.medical.patients import GRANTS, REGISTRATION_PURPOSE, GrantRow, patient_keys
from p2pmed.medical.privacy.delegation import DELEGATION_PURPOSE, delegation_holds
from p2pmed.medical.privacy.facilities import facility_of
from p2pmed.medical.registry import Act, Member
from p2pmed.medical.roles import OVERSEERS

__all__ = ["MANAGING", "is_grantee", "is_manager", "is_reader", "may_close", "own_grants"]

MANAGING: Final = frozenset({REGISTRATION_PURPOSE, DELEGATION_PURPOSE})
"""Purposes of grants that come with the right to make new keys."""


def is_grantee(view: Readable, who: Member, row: GrantRow) -> bool:
    """Whether ``row`` is a grant to the device ``who``, or to its facility."""
    if row.grantee == box_id(who.box_key):
        return True
    return bool(who.place) and facility_of(view, row.grantee) == who.place


def own_grants(view: Readable, patient: bytes, who: Member) -> list[GrantRow]:
    """Every grant of ``patient`` to the device ``who`` or its facility, ended ones too."""
    return [row for _, row in GRANTS.scan(view, patient) if is_grantee(view, who, row)]


def is_reader(act: Act[Any], view: Readable) -> bool:
    """Whether the author has leave of the subject's, of any kind, that has not been ended."""
    return _stands(act, view, None)


def is_manager(act: Act[Any], view: Readable) -> bool:
    """Whether the author manages the subject's consent, by a leave that has not been ended."""
    return _stands(act, view, MANAGING)


def may_close(act: Act[Any], view: Readable, place: str) -> bool:
    """Whether the author may end what was opened at ``place`` about the subject: else anybody
    could shut a record while somebody lies unconscious.
    """
    who = act.member
    at_home = bool(who.place) and who.place == place
    return at_home or not OVERSEERS.isdisjoint(who.roles) or is_manager(act, view)


def _stands(act: Act[Any], view: Readable, purposes: frozenset[str] | None) -> bool:
    patient = act.entry.envelope.subject
    rows = own_grants(view, patient, act.member)
    if not rows:
        # Who made the patient's key, and was never given a leave that could end.
        makers = {row.author for row in patient_keys(view, patient)}
        return act.entry.author in makers
    return any(
        not row.revoked
        and (purposes is None or row.purpose in purposes)
        and delegation_holds(view, patient, row.under, None)
        for row in rows
    )
