"""Sealed records as drafts of a submission, and the keys that transactions carry for a reader.

Rule: pure. A record of several parts names them by their ids, which are known when they are
signed: the draft of the record makes its body from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from p2pmed.identity.sealing import box_id
from p2pmed.medical.consent import EPOCH_PURPOSE, AccessGrant, AccessRevoke, AccessRotate
from p2pmed.medical.patients import REGISTRATION_PURPOSE, PatientRegister
from p2pmed.medical.privacy.delegation import DELEGATION_PURPOSE, AccessDelegate
from p2pmed.medical.records import RecordAdd, RecordDraft
from p2pmed.node.events import Draft

__all__ = ["part_drafts", "record_drafts", "wraps_in"]


def record_drafts(
    sealed: RecordDraft, subject: bytes, refs: tuple[bytes, ...], *, before: int = 0
) -> list[Draft]:
    """The drafts of one sealed record, with ``before`` others before them in a submission."""
    if not sealed.parts:
        return [Draft(body=sealed.added(), subject=subject, refs=refs)]
    parts = part_drafts(sealed, subject, refs)

    def body(ids: Sequence[bytes]) -> RecordAdd:
        return sealed.added(ids[before : before + len(parts)])

    return [*parts, Draft(body=body, subject=subject, refs=refs)]


def part_drafts(sealed: RecordDraft, subject: bytes, refs: tuple[bytes, ...]) -> list[Draft]:
    """The drafts of the parts that come before a record; usually none."""
    return [Draft(body=part, subject=subject, refs=refs) for part in sealed.parts]


def wraps_in(body: Any) -> list[tuple[bytes, bytes, str]]:
    """Wrapped key rings in ``body``: for whom (``box_id``), the bytes, what they are bound to."""
    match body:
        case PatientRegister(wraps=wraps):
            return [(w.grantee, w.wrapped, REGISTRATION_PURPOSE) for w in wraps]
        case AccessRevoke(wraps=wraps) | AccessRotate(wraps=wraps):
            return [(w.grantee, w.wrapped, EPOCH_PURPOSE) for w in wraps]
        case AccessGrant():
            return [(box_id(body.grantee_key), body.wrapped, body.purpose)]
        case AccessDelegate():
            return [(box_id(body.grantee_key), body.wrapped, DELEGATION_PURPOSE)]
    return []
